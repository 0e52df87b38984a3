/* SPDX-License-Identifier: Apache-2.0 */
/* uroce stats: the counters of a running process, read from its memfd. */
#include "cli.h"

#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int show(const char *pid, int fd, bool json)
{
	struct counters counters;
	bool whole = counters_read(fd, &counters);

	if (!whole && errno == EPROTO)
		return fail(EXIT_FAILURE, "process %s runs another version of uroce", pid);
	if (!whole)
		return fail(EXIT_FAILURE, "cannot read the counters of process %s: %s", pid, strerror(errno));
	if (json)
		print_counters_json(stdout, &counters);
	else
		print_counters(stdout, &counters);
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
			return fail(EXIT_USAGE, "stats: unexpected argument \"%s\"; usage: uroce stats PID [--json]", argv[i]);
	}
	if (!pid)
		return fail(EXIT_USAGE, "stats: give the id of a process; usage: uroce stats PID [--json]");
	snprintf(path, sizeof(path), "/proc/%s/fd", pid);
	directory = opendir(path);
	if (!directory && errno == ENOENT)
		return fail(EXIT_FAILURE, "there is no process %s", pid);
	if (!directory)
		return fail(EXIT_FAILURE, "cannot read process %s: %s; only its own user may read its counters", pid, strerror(errno));
	fd = counters_find(directory);
	closedir(directory);
	if (fd < 0)
		return fail(EXIT_FAILURE, "process %s does not run under uroce, or has not used the device yet", pid);
	ret = show(pid, fd, json);
	close(fd);
	return ret;
}
