/* SPDX-License-Identifier: Apache-2.0 */
/* Landlock's system calls. As in linux/landlock.h, which may be older than the kernel. */
#ifndef CLI_LANDLOCK_H
#define CLI_LANDLOCK_H

#include <errno.h>
#include <stddef.h>
#include <sys/syscall.h>
#include <unistd.h>

#define LANDLOCK_CREATE_RULESET 444
#define LANDLOCK_ADD_RULE       445
#define LANDLOCK_RESTRICT_SELF  446

/* The kernel's version of Landlock; below 1: it has none. */
static inline long landlock_version(void)
{
	return syscall(LANDLOCK_CREATE_RULESET, NULL, 0, 1);
}

/* Puts the calling thread, and those that it starts, under the rules, if `ret` is 0, and closes them. Returns `ret`, or a negative errno. */
static inline int landlock_enforce(int rules, int ret)
{
	if (ret == 0 && syscall(LANDLOCK_RESTRICT_SELF, rules, 0) != 0)
		ret = -errno;
	close(rules);
	return ret;
}

#endif
