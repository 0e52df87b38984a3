/* SPDX-License-Identifier: Apache-2.0 */
#include "hw_counters.h"

#include "device.h"
#include "log.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* Memory, on every Linux with glibc's shared memory. */
#define PLACE  "/dev/shm"
#define PREFIX "uroce-counters."

/* mlx5's names for the same. */
static const char *const names[HW_COUNTERS] = {"out_of_sequence", "duplicate_request"};
static const char *const folders[] = {"", "/ports", "/ports/1", "/ports/1/hw_counters"};
/* The same, each in the one before. */
static const char *const steps[] = {"ports", "1", "hw_counters"};

enum { STEPS = sizeof(steps) / sizeof(steps[0]) };

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

	while (place != NULL && (entry = readdir(place)) != NULL) {
		char path[HW_COUNTERS_PATH];
		if (strncmp(entry->d_name, PREFIX, sizeof(PREFIX) - 1) != 0)
			continue;
		long pid = strtol(entry->d_name + sizeof(PREFIX) - 1, NULL, 10);
		if (pid <= 0 || (kill((pid_t)pid, 0) == 0 || errno != ESRCH) ||
		    snprintf(path, sizeof(path), PLACE "/%s", entry->d_name) >= (int)sizeof(path))
			continue;
		remove_tree(path);
	}
	if (place != NULL)
		closedir(place);
}

static int make_file(const struct hw_counters *counters, int index)
{
	char name[2 * HW_COUNTERS_PATH];
	snprintf(name, sizeof(name), "%s%s/%s", counters->path, folders[3], names[index]);
	int fd = open(name, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
	if (fd >= 0 && pwrite(fd, "0\n", 2, 0) != 2) {
		close(fd);
		fd = -1;
	}
	return fd;
}

static bool make_folders(const struct hw_counters *counters)
{
	for (int i = 1; i <= 3; i++) {
		char name[2 * HW_COUNTERS_PATH];
		snprintf(name, sizeof(name), "%s%s", counters->path, folders[i]);
		if (mkdir(name, 0755) != 0)
			return false;
	}
	return true;
}

void hw_counters_open(struct device *device)
{
	struct hw_counters *counters = &device->hw_counters;
	bool made;

	remove_stale();
	*counters = (struct hw_counters){.owner = getpid(), .fds = {-1, -1}, .next = UINT64_MAX};
	snprintf(counters->path, sizeof(counters->path), PLACE "/" PREFIX "%ld.XXXXXX", (long)getpid());
	if (mkdtemp(counters->path) == NULL) {
		counters->path[0] = '\0';
		return;
	}
	made = make_folders(counters);
	for (int i = 0; i < HW_COUNTERS && made; i++) {
		counters->fds[i] = make_file(counters, i);
		made = counters->fds[i] >= 0;
	}
	if (!made) {
		log_write(LOG_INFO, "cannot write counters to %s: %s", counters->path, strerror(errno));
		hw_counters_remove(counters);
		return;
	}
	counters->next = 0;
}

void hw_counters_publish(struct device *device)
{
	struct hw_counters *counters = &device->hw_counters;
	uint64_t values[HW_COUNTERS];

	counters->next = device->now + HW_COUNTERS_NS;
	values[0] = atomic_load_explicit(&device->counters->out_of_sequence, memory_order_relaxed);
	values[1] = atomic_load_explicit(&device->counters->duplicates, memory_order_relaxed);
	for (int i = 0; i < HW_COUNTERS; i++) {
		char text[32];
		if (values[i] == counters->shown[i])
			continue;
		int length = snprintf(text, sizeof(text), "%llu\n", (unsigned long long)values[i]);
		/* In one piece, and never shorter than before: who reads sees one number or the other. */
		if (pwrite(counters->fds[i], text, (size_t)length, 0) == length)
			counters->shown[i] = values[i];
	}
}

void hw_counters_remove(struct hw_counters *counters)
{
	if (counters->path[0] == '\0' || counters->owner != getpid())
		return;
	remove_tree(counters->path);
	counters->next = UINT64_MAX;
	for (int i = 0; i < HW_COUNTERS; i++)
		if (counters->fds[i] >= 0)
			close(counters->fds[i]);
	counters->path[0] = '\0';
}
