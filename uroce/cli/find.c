/* SPDX-License-Identifier: Apache-2.0 */
/* The counters of other processes: blocks of shared memory among their descriptors. */
#include "cli.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define MEMFD "/memfd:uroce-counters"

/* The last one: a program that was started by another one under uroce may have inherited an older block. */
int counters_find(DIR *directory)
{
	struct dirent *entry;
	int found = -1;
	long highest = -1;

	while ((entry = readdir(directory))) {
		char target[sizeof(MEMFD)];
		ssize_t n = readlinkat(dirfd(directory), entry->d_name, target, sizeof(target));
		long number = strtol(entry->d_name, NULL, 10);
		int fd;

		if (n < (ssize_t)sizeof(MEMFD) - 1 || memcmp(target, MEMFD, sizeof(MEMFD) - 1) != 0 || number <= highest)
			continue;
		fd = openat(dirfd(directory), entry->d_name, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
		if (fd < 0)
			continue;
		if (found >= 0)
			close(found);
		found = fd;
		highest = number;
	}
	return found;
}

bool counters_read(int fd, struct counters *counters)
{
	struct stat st;

	if (fstat(fd, &st) < 0)
		return false;
	/* Larger is no better: the objects come after the counters, so another version's lie elsewhere. And what was a block when its
	 * name was read may be anything now. */
	if (!S_ISREG(st.st_mode) || st.st_size != (off_t)sizeof(*counters)) {
		errno = EPROTO;
		return false;
	}
	ssize_t n = pread(fd, (void *)counters, sizeof(*counters), 0);
	if (n >= 0 && n != (ssize_t)sizeof(*counters))
		errno = EPROTO;
	return n == (ssize_t)sizeof(*counters);
}
