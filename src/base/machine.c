/* SPDX-License-Identifier: Apache-2.0 */
#include "machine.h"

#include <errno.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CAP_IPC_LOCK_BIT 14

/* The first number in a file; false when there is none: "max" is no limit. */
static bool read_number(const char *root, const char *folder, const char *name, uint64_t *out)
{
	char path[PATH_MAX], line[64], *end;
	FILE *file;
	bool found = false;

	if (snprintf(path, sizeof path, "%s%s/%s", root, folder, name) >= (int)sizeof path)
		return false;
	file = fopen(path, "re");
	if (!file)
		return false;
	if (fgets(line, sizeof line, file) && line[0] >= '0' && line[0] <= '9') {
		errno = 0;
		*out = strtoull(line, &end, 10);
		found = errno == 0;
	}
	fclose(file);
	return found;
}

static void look_at_meminfo(const char *root, struct srdma_machine *machine)
{
	char path[PATH_MAX], line[128];
	unsigned long long kib;
	FILE *file;

	snprintf(path, sizeof path, "%s/proc/meminfo", root);
	file = fopen(path, "re");
	while (file && fgets(line, sizeof line, file)) {
		if (sscanf(line, "MemTotal: %llu kB", &kib) == 1)
			machine->memory = (uint64_t)kib * 1024;
		else if (sscanf(line, "MemAvailable: %llu kB", &kib) == 1)
			machine->available = (uint64_t)kib * 1024;
	}
	if (file)
		fclose(file);
}

static void look_at_group(const char *root, const char *folder, const char *most, const char *used, struct srdma_machine *machine)
{
	uint64_t limit, now;

	if (!read_number(root, folder, most, &limit))
		return;
	if (limit < machine->memory)
		machine->memory = limit;
	/* A lower bound, because the group's usage includes page cache, which the kernel would free. */
	if (read_number(root, folder, used, &now) && (now < limit ? limit - now : 0) < machine->available)
		machine->available = now < limit ? limit - now : 0;
}

/* Looks at the group and at all groups above it, each of which may have a limit. In a container the path may be the host's: a group that
 * does not exist has no limit, and the top of the tree is the container's own group. */
static void look_at_groups(const char *root, const char *tree, char *group, const char *most, const char *used,
			   struct srdma_machine *machine)
{
	char folder[PATH_MAX];

	for (;;) {
		char *last = strrchr(group, '/');

		if (snprintf(folder, sizeof folder, "%s%s", tree, group) < (int)sizeof folder)
			look_at_group(root, folder, most, used, machine);
		if (!last)
			return;
		*last = '\0';
	}
}

/* "0::/path" of version 2, "4:memory:/path" of version 1. */
static void take_line(const char *root, char *line, struct srdma_machine *machine)
{
	char *controllers = strchr(line, ':'), *group = controllers ? strchr(controllers + 1, ':') : NULL;

	if (!group || group[1] != '/')
		return;
	*group++ = '\0';
	group[strcspn(group, "\n")] = '\0';
	if (strcmp(line, "0:") == 0)
		look_at_groups(root, "/sys/fs/cgroup", group, "memory.max", "memory.current", machine);
	else if (strcmp(controllers + 1, "memory") == 0)
		look_at_groups(root, "/sys/fs/cgroup/memory", group, "memory.limit_in_bytes", "memory.usage_in_bytes", machine);
}

bool srdma_machine_may_lock_all(void)
{
	FILE *status = fopen("/proc/self/status", "re");
	unsigned long long capabilities = 0;
	char line[256];

	while (status && fgets(line, sizeof line, status))
		if (sscanf(line, "CapEff: %llx", &capabilities) == 1)
			break;
	if (status)
		fclose(status);
	return capabilities >> CAP_IPC_LOCK_BIT & 1;
}

void srdma_machine_look(const char *root, struct srdma_machine *out)
{
	char path[PATH_MAX], line[PATH_MAX];
	FILE *file;

	*out = (struct srdma_machine){UINT64_MAX, UINT64_MAX};
	look_at_meminfo(root, out);
	snprintf(path, sizeof path, "%s/proc/self/cgroup", root);
	file = fopen(path, "re");
	while (file && fgets(line, sizeof line, file))
		take_line(root, line, out);
	if (file)
		fclose(file);
	if (out->available > out->memory)
		out->available = out->memory;
}
