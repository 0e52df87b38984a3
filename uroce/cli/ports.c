/* SPDX-License-Identifier: Apache-2.0 */
/* The ports that a process is bound to by rdma_cm: its Unix sockets of these names have them (gsi.c). */
#include "cli.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { MOST_PORTS = 65536 };

static FILE *open_file(int process, const char *name)
{
	int fd = openat(process, name, O_RDONLY | O_CLOEXEC);
	FILE *file = fd < 0 ? NULL : fdopen(fd, "r");

	if (fd >= 0 && !file)
		close(fd);
	return file;
}

/* 32 hexadecimal digits of a GID, or one of the words for all addresses. */
static bool read_where(const char *text, char out[PORT_ADDRESS])
{
	static const char *const words[] = {"any-4", "any-6", "any"};
	static const char *const names[] = {"0.0.0.0", "::", "any"};
	uint8_t gid[16];

	for (size_t i = 0; i < sizeof words / sizeof words[0]; i++) {
		size_t length = strlen(words[i]);
		if (strncmp(text, words[i], length) == 0) {
			strcpy(out, names[i]);
			return true;
		}
	}
	for (size_t i = 0; i < sizeof gid; i++)
		if (sscanf(text + 2 * i, "%2hhx", &gid[i]) != 1)
			return false;
	static const uint8_t mapped[12] = {[10] = 0xff, [11] = 0xff};
	bool v4 = memcmp(gid, mapped, sizeof mapped) == 0;
	return inet_ntop(v4 ? AF_INET : AF_INET6, v4 ? gid + sizeof mapped : gid, out, PORT_ADDRESS) != NULL;
}

static const char *name_space(uint64_t service)
{
	switch (service >> 16) {
	case 0x106:
		return "TCP";
	case 0x111:
		return "UDP";
	case 0x13f:
		return "IB";
	default:
		return "other";
	}
}

/* A line of /proc/PID/net/unix: the name is its last word, the inode the one before. */
static bool read_line(const char *line, struct port *out)
{
	static const char start[] = "@uroce-service-";
	const char *name = strstr(line, start);
	uint64_t service;

	if (!name || sscanf(line, "%*s %*s %*s %*s %*s %*s %lu", &out->inode) != 1 ||
	    sscanf(name + sizeof start - 1, "%16" SCNx64, &service) != 1 || strlen(name) < sizeof start + 17 ||
	    !read_where(name + sizeof start - 1 + 17, out->address))
		return false;
	out->space = name_space(service);
	out->number = (uint16_t)service;
	return true;
}

/* All of the process's network namespace. */
static size_t read_ports(int process, struct port **out)
{
	FILE *table = open_file(process, "net/unix");
	struct port *ports = NULL;
	size_t count = 0;
	char line[256];

	while (table && count < MOST_PORTS && fgets(line, sizeof line, table)) {
		struct port port;
		if (!read_line(line, &port))
			continue;
		struct port *grown = reallocarray(ports, count + 1, sizeof *grown);
		if (!grown)
			break;
		ports = grown;
		ports[count++] = port;
	}
	if (table)
		fclose(table);
	*out = ports;
	return count;
}

size_t ports_of(int process, DIR *fds, struct port **out)
{
	struct port *all;
	size_t count = read_ports(process, &all), own = 0;
	struct dirent *entry;

	rewinddir(fds);
	while (count > 0 && (entry = readdir(fds))) {
		char target[64];
		unsigned long inode;
		ssize_t n = readlinkat(dirfd(fds), entry->d_name, target, sizeof target - 1);
		target[n > 0 ? n : 0] = '\0';
		if (sscanf(target, "socket:[%lu]", &inode) != 1)
			continue;
		for (size_t i = own; i < count; i++) {
			if (all[i].inode != inode)
				continue;
			struct port found = all[i];
			all[i] = all[own];
			all[own++] = found;
			break;
		}
	}
	*out = all;
	return own;
}
