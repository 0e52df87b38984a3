/* SPDX-License-Identifier: Apache-2.0 */
/* uroce stats: the counters of a running process, read from its memfd. */
#include "cli.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define MEMFD "/memfd:uroce-counters"

/* The descriptor of the process's block, opened here too; -1 if it has none. The last one: a program that was started
 * by another one under uroce may have inherited an older block. */
static int open_block(DIR *directory)
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
		fd = openat(dirfd(directory), entry->d_name, O_RDONLY | O_CLOEXEC);
		if (fd < 0)
			continue;
		if (found >= 0)
			close(found);
		found = fd;
		highest = number;
	}
	return found;
}

static int show(const char *pid, int fd, bool json)
{
	struct counters *counters;
	struct stat st;

	if (fstat(fd, &st) < 0 || st.st_size < (off_t)sizeof(*counters))
		return fail(EXIT_FAILURE, "process %s runs another version of uroce", pid);
	counters = mmap(NULL, sizeof(*counters), PROT_READ, MAP_SHARED, fd, 0);
	if (counters == MAP_FAILED)
		return fail(EXIT_FAILURE, "the counters of process %s: %s", pid, strerror(errno));
	if (json)
		print_counters_json(stdout, counters);
	else
		print_counters(stdout, counters);
	munmap(counters, sizeof(*counters));
	if (fflush(stdout) != 0)
		return fail(EXIT_FAILURE, "standard output: %s", strerror(errno));
	return EXIT_SUCCESS;
}

static bool is_number(const char *text)
{
	size_t length = strspn(text, "0123456789");

	return length > 0 && length < 11 && !text[length];
}

int cmd_stats(int argc, char **argv)
{
	const char *pid = NULL;
	char path[64];
	bool json = false;
	DIR *directory;
	int fd;
	int ret;

	for (int i = 1; i < argc; i++) {
		if (strcmp(argv[i], "--json") == 0)
			json = true;
		else if (!pid && is_number(argv[i]))
			pid = argv[i];
		else
			return fail(EXIT_USAGE, "stats: \"%s\" is not understood; usage: uroce stats PID [--json]", argv[i]);
	}
	if (!pid)
		return fail(EXIT_USAGE, "stats: of which process? Usage: uroce stats PID [--json]");
	snprintf(path, sizeof(path), "/proc/%s/fd", pid);
	directory = opendir(path);
	if (!directory && errno == ENOENT)
		return fail(EXIT_FAILURE, "there is no process %s", pid);
	if (!directory)
		return fail(EXIT_FAILURE, "process %s: %s; its counters are for its own user", pid, strerror(errno));
	fd = open_block(directory);
	closedir(directory);
	if (fd < 0)
		return fail(EXIT_FAILURE, "process %s does not run under uroce, or has not used the device yet", pid);
	ret = show(pid, fd, json);
	close(fd);
	return ret;
}
