/* SPDX-License-Identifier: Apache-2.0 */
#include "hw_counters.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "log.h"

/* Memory, on every Linux with glibc's shared memory. */
#define PLACE  "/dev/shm"
#define PREFIX "uroce-counters."

/* mlx5's names for the same. */
static const char *const names[HW_COUNTERS] = {"out_of_sequence", "duplicate_request"};
static const char *const folders[] = {"", "/ports", "/ports/1", "/ports/1/hw_counters"};
/* The same, each in the one before. */
static const char *const steps[] = {"ports", "1", "hw_counters"};

enum { STEPS = sizeof steps / sizeof(steps[0]) };

/* A folder of this user's; -1: it is none. Anybody may put one here, and what is in theirs may lead anywhere. */
static int open_own(int at, const char *name)
{
	int fd = openat(at, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	struct stat status;

	if (fd >= 0 && (fstat(fd, &status) != 0 || status.st_uid != geteuid())) {
		close(fd);
		fd = -1;
	}
	return fd;
}

static void remove_tree(const char *path)
{
	int fds[STEPS + 1] = {open_own(AT_FDCWD, path)}, depth = 0;

	if (fds[0] < 0)
		return;
	while (depth < STEPS && (fds[depth + 1] = open_own(fds[depth], steps[depth])) >= 0)
		depth++;
	for (int i = 0; i < HW_COUNTERS && depth == STEPS; i++)
		unlinkat(fds[STEPS], names[i], 0);
	for (; depth >= 0; depth--) {
		close(fds[depth]);
		if (depth > 0)
			unlinkat(fds[depth - 1], steps[depth - 1], AT_REMOVEDIR);
	}
	rmdir(path);
}

/* Those of processes that were killed. */
static void remove_stale(void)
{
	DIR *place = opendir(PLACE);
	struct dirent *entry;

	while (place && (entry = readdir(place))) {
		char path[HW_COUNTERS_PATH];
		if (strncmp(entry->d_name, PREFIX, sizeof PREFIX - 1) != 0)
			continue;
		long pid = strtol(entry->d_name + sizeof PREFIX - 1, NULL, 10);
		if (pid <= 0 || (kill((pid_t)pid, 0) == 0 || errno != ESRCH) ||
		    snprintf(path, sizeof path, PLACE "/%s", entry->d_name) >= (int)sizeof path)
			continue;
		remove_tree(path);
	}
	if (place)
		closedir(place);
}

static int make_file(const struct hw_counters *files, int index)
{
	char name[2 * HW_COUNTERS_PATH];
	snprintf(name, sizeof name, "%s%s/%s", files->path, folders[3], names[index]);
	int fd = open(name, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
	if (fd >= 0 && pwrite(fd, "0\n", 2, 0) != 2) {
		close(fd);
		fd = -1;
	}
	return fd;
}

static bool make_folders(const struct hw_counters *files)
{
	for (int i = 1; i <= 3; i++) {
		char name[2 * HW_COUNTERS_PATH];
		snprintf(name, sizeof name, "%s%s", files->path, folders[i]);
		if (mkdir(name, 0755) != 0)
			return false;
	}
	return true;
}

void hw_counters_open(struct hw_counters *files)
{
	bool made;

	remove_stale();
	*files = (struct hw_counters){.owner = getpid(), .fds = {-1, -1}, .next = UINT64_MAX};
	snprintf(files->path, sizeof files->path, PLACE "/" PREFIX "%ld.XXXXXX", (long)getpid());
	if (!mkdtemp(files->path)) {
		files->path[0] = '\0';
		return;
	}
	made = make_folders(files);
	for (int i = 0; i < HW_COUNTERS && made; i++) {
		files->fds[i] = make_file(files, i);
		made = files->fds[i] >= 0;
	}
	if (!made) {
		log_write(LOG_INFO, "cannot write counters to %s: %s", files->path, strerror(errno));
		hw_counters_remove(files);
		return;
	}
	files->next = 0;
}

void hw_counters_publish(struct hw_counters *files, const struct counters *counters, uint64_t now)
{
	uint64_t values[HW_COUNTERS];

	files->next = now + HW_COUNTERS_NS;
	values[0] = atomic_load_explicit(&counters->out_of_sequence, memory_order_relaxed);
	values[1] = atomic_load_explicit(&counters->duplicates, memory_order_relaxed);
	for (int i = 0; i < HW_COUNTERS; i++) {
		char text[32];
		if (values[i] == files->shown[i])
			continue;
		int length = snprintf(text, sizeof text, "%llu\n", (unsigned long long)values[i]);
		/* In one piece, and never shorter than before: a reader sees one number or the other. */
		if (pwrite(files->fds[i], text, (size_t)length, 0) == length)
			files->shown[i] = values[i];
	}
}

void hw_counters_remove(struct hw_counters *files)
{
	if (files->path[0] == '\0' || files->owner != getpid())
		return;
	remove_tree(files->path);
	files->next = UINT64_MAX;
	for (int i = 0; i < HW_COUNTERS; i++)
		if (files->fds[i] >= 0)
			close(files->fds[i]);
	files->path[0] = '\0';
}
