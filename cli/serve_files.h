/* SPDX-License-Identifier: Apache-2.0 */
/* The service of `securdma cp` in a server: which clients have it, and a thread for each copy, since disks make a thread wait. */
#ifndef CLI_SERVE_FILES_H
#define CLI_SERVE_FILES_H

#include "services.h"
#include "settings.h"

/* The word in a client's private data, behind which the key of the checksums comes. */
#define SERVE_FILES_WORD "securdma-copy/1"

struct serve_files;

extern const struct service serve_files_service;

/* Whether the settings give anybody a folder. */
bool serve_files_wanted(const struct settings *settings);
/* Says what is wrong with them, such as a folder that is not there. Returns an exit code. */
int serve_files_check(const struct settings *settings);
/* Errors: -ENOMEM. */
int serve_files_new(const struct settings *settings, struct serve_files **out);
/* A folder of the settings that is not below one of those of the start: the sandbox lets the server write nowhere else. NULL: there is none. */
const char *serve_files_new_folder(const struct serve_files *files, const struct settings *settings);
/* Other settings for copies that begin from now on. Errors: -ENOMEM; the old ones stay. */
int serve_files_set(struct serve_files *files, const struct settings *settings);
/* After the server has stopped: waits for the threads, which end soon without their clients. */
void serve_files_free(struct serve_files **files);

#endif
