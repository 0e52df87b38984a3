/* SPDX-License-Identifier: Apache-2.0 */
/* Patterns of paths that stay out of a copy, with all that is below them. */
#ifndef FILES_EXCLUDE_H
#define FILES_EXCLUDE_H

#include "frame.h"

#include <stdbool.h>

#define FILES_EXCLUDES_MAX 256

struct files_excludes {
	char *patterns[FILES_EXCLUDES_MAX];
	size_t count;
};

/* Copies a pattern. Without '/' but at its end it is for names in any folder; with one in front, for the whole path below the target; with
 * one elsewhere, for the end of the path. With one at its end it is for folders alone. '*', '?' and [...] stand for anything but '/', "**" also
 * for that, and a backslash takes the meaning of what follows. Errors: -EINVAL: it is empty, or longer than 1024 bytes; -E2BIG: there are
 * FILES_EXCLUDES_MAX; -ENOMEM. */
int files_excludes_add(struct files_excludes *excludes, const struct files_bytes *pattern);
/* Whether one of them is for this path. NULL: there are none. */
bool files_excludes_match(const struct files_excludes *excludes, const char *path, bool is_folder);
void files_excludes_clear(struct files_excludes *excludes);

#endif
