/* SPDX-License-Identifier: Apache-2.0 */
/* What a fork needs of each file that has a lock: a child must not inherit one that another thread holds. */
#ifndef WRAP_FORKS_H
#define WRAP_FORKS_H

#include <stdbool.h>

void ports_before_fork(void);
void ports_after_fork(bool child);
void queue_pairs_before_fork(void);
void queue_pairs_after_fork(bool child);
void link_before_fork(void);
void link_after_fork(bool child);

#endif
