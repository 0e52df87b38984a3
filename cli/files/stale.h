/* SPDX-License-Identifier: Apache-2.0 */
/* Partial files that nobody goes on with. */
#ifndef FILES_STALE_H
#define FILES_STALE_H

#include "account.h"

#include <stdbool.h>

/* After how many days without a write a partial file is given up, unless a server says otherwise. */
#define FILES_PARTIAL_DAYS 7

/* Whether this name is one of a partial file. */
bool files_stale_is_partial(const char *name);
/* Removes the partial file `name` in the folder `folder` if nothing was written to it for `days`, and no copy has it open. `days` 0: never.
 * Returns whether it has gone. */
bool files_stale_remove(int folder, const char *name, unsigned days);
/* All such in one folder; the account gets their room back. */
void files_stale_sweep(int folder, unsigned days, struct files_account *account);

#endif
