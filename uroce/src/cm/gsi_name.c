/* SPDX-License-Identifier: Apache-2.0 */
#include "gsi_name.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <unistd.h>

#define SERVICE_NAME "uroce-service-"

static socklen_t name_length(int length)
{
	return (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + (size_t)length);
}

socklen_t gsi_process_name(uint32_t id, struct sockaddr_un *out)
{
	*out = (struct sockaddr_un){.sun_family = AF_UNIX};
	return name_length(snprintf(out->sun_path + 1, sizeof out->sun_path - 1, "uroce-cm-%03" PRIx32, id >> GSI_NUMBER_BITS));
}

/* Processes that have addresses, and those of the loopback, cannot reach each other, though they share the ports. */
socklen_t gsi_service_name(const struct gsi_name *name, bool loopback, struct sockaddr_un *out)
{
	static const char *const any[] = {[GSI_ANY] = "any", [GSI_ANY_V4] = "any-4", [GSI_ANY_V6] = "any-6"};
	char where[2 * sizeof name->address + 1];

	for (size_t i = 0; name->where == GSI_ONE && i < sizeof name->address; i++)
		snprintf(where + 2 * i, 3, "%02x", name->address.raw[i]);
	*out = (struct sockaddr_un){.sun_family = AF_UNIX};
	return name_length(snprintf(out->sun_path + 1, sizeof out->sun_path - 1, SERVICE_NAME "%016" PRIx64 "-%s%s", name->service,
				    name->where == GSI_ONE ? where : any[name->where], loopback ? "-loopback" : ""));
}

int gsi_open_socket(void)
{
	return socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
}

int gsi_try_name(const struct sockaddr_un *name, socklen_t length)
{
	int fd = gsi_open_socket();
	if (fd < 0)
		return -errno;
	int error = connect(fd, (const struct sockaddr *)name, length) == 0 ? 0 : -errno;
	close(fd);
	return error;
}

/* Whether any process has this name. */
static bool is_taken(const struct gsi_name *listener, bool loopback)
{
	struct sockaddr_un name;
	socklen_t length = gsi_service_name(listener, loopback, &name);

	return gsi_try_name(&name, length) == 0;
}

/* Whether somebody listens to a service at one address: of those whose names are not known, the kernel has a list. */
static bool is_taken_somewhere(const struct gsi_name *name)
{
	char start[sizeof SERVICE_NAME + 20], line[256];
	bool taken = false;
	FILE *list = fopen("/proc/net/unix", "re");

	snprintf(start, sizeof start, "@" SERVICE_NAME "%016" PRIx64 "-", name->service);
	while (list && !taken && fgets(line, sizeof line, list)) {
		const char *found = strstr(line, start);
		/* "any" is not for here: a GID begins with a digit or a letter up to f, too. */
		const char *where = found ? found + strlen(start) : NULL;
		if (!where || strncmp(where, "any", 3) == 0)
			continue;
		bool v4 = strncmp(where, "00000000000000000000ffff", 24) == 0;
		taken = name->where == GSI_ANY || v4 == (name->where == GSI_ANY_V4);
	}
	if (list)
		fclose(list);
	return taken;
}

/* Whether somebody has a part of what a name stands for, or a name that stands for more: by whichever way he is reached. */
bool gsi_is_in_use(const struct gsi_name *name, bool own)
{
	struct gsi_name other = {.service = name->service};

	if (is_taken(name, !own))
		return true;
	for (other.where = GSI_ANY; other.where <= GSI_ANY_V6; other.where++) {
		bool overlaps = name->where == GSI_ONE ? gsi_name_covers(&other, &name->address) :
							 other.where != name->where && (name->where == GSI_ANY || other.where == GSI_ANY);
		if (overlaps && (is_taken(&other, own) || is_taken(&other, !own)))
			return true;
	}
	return name->where != GSI_ONE && is_taken_somewhere(name);
}
