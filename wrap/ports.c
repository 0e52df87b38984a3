/* SPDX-License-Identifier: Apache-2.0 */
#include "ports.h"

#include "forks.h"
#include "link.h"
#include "next.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#undef ibv_query_port /* a macro of the header's */

enum { GIDS = 1024 }; /* no driver has more of a port */

/* They stay until the process ends: there are few. */
struct port {
	struct port *next;
	char device[LOCAL_NAME];
	uint8_t number;
	bool kernel, read;
	uint32_t link_layer, lid, count;
	uint8_t gids[GIDS][16];
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* guards the list and what is in it; links' lock is below it */
static struct port *ports;

void ports_before_fork(void)
{
	pthread_mutex_lock(&lock);
}

void ports_after_fork(bool child)
{
	(void)child; /* a new connection is told of all ports */
	pthread_mutex_unlock(&lock);
}

/* Past libraries that show files of devices which the kernel does not know. */
static bool kernel_knows(const struct ibv_context *context)
{
	char path[128];

	if (context->cmd_fd < 0)
		return false;
	snprintf(path, sizeof path, "/sys/class/infiniband/%s", context->device->name);
	return syscall(SYS_faccessat, AT_FDCWD, path, F_OK) == 0;
}

static int query_gid(struct ibv_context *context, uint8_t number, int index, union ibv_gid *gid)
{
	__typeof__(&ibv_query_gid) query = NEXT(ibv_query_gid);

	return query && query(context, number, index, gid) == 0 ? 0 : ENODATA;
}

/* All GIDs by one call, where libibverbs has it: a call for each takes long with the 256 of some devices. */
static bool read_table(struct ibv_context *context, struct port *port)
{
	__typeof__(&_ibv_query_gid_table) query = NEXT(_ibv_query_gid_table);
	struct ibv_gid_entry *entries = query ? calloc(GIDS, sizeof *entries) : NULL;
	ssize_t count = entries ? query(context, entries, GIDS, 0, sizeof *entries) : -1;

	for (ssize_t i = 0; i < count; i++)
		if (entries[i].port_num == port->number && entries[i].gid_index < GIDS) {
			memcpy(port->gids[entries[i].gid_index], entries[i].gid.raw, 16);
			if (entries[i].gid_index >= port->count)
				port->count = entries[i].gid_index + 1;
		}
	free(entries);
	return count >= 0;
}

/* As the header's function does, which needs libibverbs at hand. */
static int query_port(struct ibv_context *context, uint8_t number, struct ibv_port_attr *attr)
{
	struct verbs_context *extended = verbs_get_ctx_op(context, query_port);
	int (*query)(struct ibv_context *, uint8_t, struct _compat_ibv_port_attr *) = NEXT(ibv_query_port);

	memset(attr, 0, sizeof *attr);
	if (extended)
		return extended->query_port(context, number, attr, sizeof *attr);
	return query ? query(context, number, (struct _compat_ibv_port_attr *)attr) : ENOSYS;
}

static int read_port(struct ibv_context *context, struct port *port)
{
	struct ibv_port_attr attr;
	union ibv_gid gid;

	if (query_port(context, port->number, &attr) != 0)
		return EINVAL;
	port->link_layer = attr.link_layer;
	port->lid = attr.lid;
	port->count = 0;
	memset(port->gids, 0, sizeof port->gids);
	if (read_table(context, port))
		return 0;
	for (int i = 0; i < attr.gid_tbl_len && i < GIDS; i++)
		if (query_gid(context, port->number, i, &gid) == 0 && (gid.global.interface_id || gid.global.subnet_prefix)) {
			memcpy(port->gids[i], gid.raw, 16);
			port->count = (uint32_t)i + 1;
		}
	return 0;
}

/* The caller has `lock`. */
static struct port *find(const char *device, uint8_t number)
{
	struct port *port = ports;

	while (port && (port->number != number || strcmp(port->device, device) != 0))
		port = port->next;
	return port;
}

static struct port *make(struct ibv_context *context, uint8_t number)
{
	struct port *port = calloc(1, sizeof *port);

	if (!port)
		return NULL;
	snprintf(port->device, sizeof port->device, "%s", context->device->name);
	port->number = number;
	port->kernel = kernel_knows(context);
	port->next = ports;
	ports = port;
	return port;
}

/* The port in packets, at least one. The caller has `lock`. */
static bool send_port(const struct port *port, bool restoring)
{
	uint32_t first = 0;

	do {
		struct local_device packet = {.port = port->number, .link_layer = port->link_layer, .lid = port->lid, .kernel = port->kernel, .first = first};

		memcpy(packet.device, port->device, sizeof packet.device);
		packet.count = port->count - first < LOCAL_GIDS ? port->count - first : LOCAL_GIDS;
		memcpy(packet.gids, port->gids[first], packet.count * sizeof packet.gids[0]);
		if (!restoring)
			link_tell(&packet, sizeof packet, LOCAL_DEVICE);
		else if (!link_send_restored(&packet, sizeof packet, LOCAL_DEVICE))
			return false;
		first += LOCAL_GIDS;
	} while (first < port->count);
	return true;
}

static bool is_current(const struct port *port, int index, const union ibv_gid *gid)
{
	return index < 0 || (index < GIDS && memcmp(port->gids[index], gid->raw, 16) == 0);
}

int port_report(struct ibv_context *context, uint8_t number, int gid_index, union ibv_gid *gid)
{
	struct port *port;
	int error = 0;

	memset(gid, 0, sizeof *gid);
	if (gid_index >= 0 && query_gid(context, number, gid_index, gid) != 0)
		return ENODATA;
	pthread_mutex_lock(&lock);
	port = find(context->device->name, number);
	if (!port || !port->read || !is_current(port, gid_index, gid)) {
		if (!port)
			port = make(context, number);
		error = port ? read_port(context, port) : ENOMEM;
		if (error == 0) {
			port->read = true;
			/* With `lock`: an agent that comes meanwhile is told of it by the thread. */
			send_port(port, false);
		}
	}
	pthread_mutex_unlock(&lock);
	return error;
}

bool ports_restore(void)
{
	bool sent = true;

	pthread_mutex_lock(&lock);
	for (const struct port *port = ports; port && sent; port = port->next)
		sent = !port->read || send_port(port, true);
	pthread_mutex_unlock(&lock);
	return sent;
}
