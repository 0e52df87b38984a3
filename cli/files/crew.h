/* SPDX-License-Identifier: Apache-2.0 */
/* A few threads that do many small pieces of work together, and wait for disks, while their owner stays free to say that it is alive. */
#ifndef FILES_CREW_H
#define FILES_CREW_H

#include <stddef.h>

struct files_crew;

/* As many threads as there are processors, 4 at most; without any, the owner does all the work itself. Errors: -ENOMEM. */
int files_crew_new(struct files_crew **out);
void files_crew_free(struct files_crew **crew);

/* Calls work(arg, index) for each index below `count`, in any order, and returns when all have returned. Meanwhile calls `live` each second
 * until it fails. Returns 0, or its error. */
int files_crew_run(struct files_crew *crew, void (*work)(void *arg, size_t index), void *arg, size_t count, int (*live)(void *arg), void *live_arg);

#endif
