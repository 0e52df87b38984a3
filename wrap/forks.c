/* SPDX-License-Identifier: Apache-2.0 */
#include "forks.h"

#include <pthread.h>

/* In the order in which threads take the locks: one that holds the first may want the next. */
static void before_fork(void)
{
	ports_before_fork();
	queue_pairs_before_fork();
	link_before_fork();
}

static void after_fork(bool child)
{
	link_after_fork(child);
	queue_pairs_after_fork(child);
	ports_after_fork(child);
}

static void in_parent(void)
{
	after_fork(false);
}

static void in_child(void)
{
	after_fork(true);
}

__attribute__((constructor)) static void prepare_forks(void)
{
	pthread_atfork(before_fork, in_parent, in_child);
}
