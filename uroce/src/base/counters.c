/* SPDX-License-Identifier: Apache-2.0 */
/* Where the counters are: a memfd, whose descriptor stays open so that other processes find it in /proc. */
#include "counters.h"

#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define MEMFD_NAME "uroce-counters"

/* Of this process, or of the parent whose copy it is. Under the lock for opening devices. */
static struct {
	struct counters *block;
	pid_t owner; /* 0: of the command uroce, so for children too */
	int fd;
} open_now = {.fd = -1};

/* Descriptors get closed and their numbers used again, for files that counters must not be written to. */
static bool is_counters(int fd)
{
	static const char prefix[] = "/memfd:" MEMFD_NAME;
	char path[32], name[sizeof prefix];

	snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
	return readlink(path, name, sizeof name) >= (ssize_t)sizeof prefix - 1 &&
	       memcmp(name, prefix, sizeof prefix - 1) == 0;
}

static struct counters *map(int fd)
{
	void *block = mmap(NULL, sizeof(struct counters), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

	return block == MAP_FAILED ? NULL : block;
}

static struct counters *map_others(int fd)
{
	struct stat status;

	if (!is_counters(fd) || fstat(fd, &status) != 0 || status.st_size != (off_t)sizeof(struct counters))
		return NULL; /* something else, or another version's */
	return map(fd);
}

static struct counters *map_inherited(void)
{
	const char *text = getenv("UROCE_COUNTERS_FD");
	char *end;

	if (!text || *text < '0' || *text > '9')
		return NULL;
	unsigned long fd = strtoul(text, &end, 10);
	return *end == '\0' && fd <= INT32_MAX ? map_others((int)fd) : NULL;
}

/* Launchers (of MPI, or Python's subprocess) close what their children would inherit: then it is opened where uroce has it. The
 * descriptor stays open in `out`. */
static struct counters *map_named(int *out)
{
	const char *path = getenv("UROCE_COUNTERS_PATH");
	int fd = path ? open(path, O_RDWR | O_CLOEXEC) : -1;

	if (fd < 0)
		return NULL;
	struct counters *block = map_others(fd);
	if (block)
		*out = fd;
	else
		close(fd);
	return block;
}

static struct counters *map_new(int *out)
{
	int fd = memfd_create(MEMFD_NAME, MFD_CLOEXEC | MFD_ALLOW_SEALING);

	if (fd < 0)
		return NULL;
	/* A reader that cut it would end this process with SIGBUS. */
	if (ftruncate(fd, sizeof(struct counters)) != 0 || fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_SEAL) != 0)
		goto close_fd;
	struct counters *block = map(fd);
	if (!block)
		goto close_fd;
	*out = fd;
	return block;

close_fd:
	close(fd);
	return NULL;
}

struct counters *counters_open(void)
{
	static struct counters ordinary;
	pid_t self = getpid();

	if (open_now.block && (open_now.owner == 0 || open_now.owner == self))
		return open_now.block;
	/* The parent's block remains mapped: the child's copy of the parent's device still points there. */
	if (open_now.fd >= 0 && is_counters(open_now.fd))
		close(open_now.fd);
	open_now.fd = -1;

	open_now.owner = 0;
	open_now.block = map_inherited();
	if (!open_now.block)
		open_now.block = map_named(&open_now.fd);
	if (open_now.block)
		return open_now.block;
	open_now.owner = self;
	open_now.block = map_new(&open_now.fd);
	if (!open_now.block) {
		memset((void *)&ordinary, 0, sizeof ordinary);
		open_now.block = &ordinary;
	}
	return open_now.block;
}
