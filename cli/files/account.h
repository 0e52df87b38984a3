/* SPDX-License-Identifier: Apache-2.0 */
/* How much stands below a server's folder, against its quota. All copies into one folder share an account. */
#ifndef FILES_ACCOUNT_H
#define FILES_ACCOUNT_H

#include <stdint.h>
#include <sys/stat.h>

/* What any entry takes besides its content. */
#define FILES_ENTRY_COST 4096

struct files_account;

/* The account of the folder `fd`, which stays the caller's. The first copy counts what is there, removes partial files that are older than
 * `days`, and calls `live` meanwhile, whose error ends that. Thread-safe. Errors: -ENOMEM, those of `live`. */
int files_account_open(int fd, unsigned days, int (*live)(void *arg), void *arg, struct files_account **out);
void files_account_close(struct files_account **account);

/* Takes, or gives back, so many bytes. NULL as an account: there is no quota. Thread-safe. Errors: -EDQUOT. */
int files_account_take(struct files_account *account, uint64_t quota, uint64_t bytes);
void files_account_give(struct files_account *account, uint64_t bytes);

/* What an entry that is there takes. */
uint64_t files_account_cost(const struct stat *status);
/* What an entry that goes gives back: no more than a copy takes for it, whatever the size of blocks, or clients would make room by replacing
 * small files. */
uint64_t files_account_freed(const struct stat *status);

#endif
