/* SPDX-License-Identifier: Apache-2.0 */
/* The devices of this machine, port by port. */
#include "securdma.h"

#include "gids.h"
#include "log.h"
#include "net.h"
#include "qp.h"
#include "sized.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void describe_port(struct ibv_context *context, uint8_t port, struct srdma_port_info *info)
{
	struct ibv_port_attr attr;
	struct ibv_gid_entry *gids;
	union ibv_gid *own;
	size_t own_count;
	int error = ibv_query_port(context, port, &attr);

	info->port = port;
	if (error != 0) {
		snprintf(info->error, sizeof info->error, "cannot query the port: %s", strerror(error));
		return;
	}
	info->state = attr.state;
	info->link_layer = attr.link_layer;
	info->active_mtu = attr.active_mtu ? srdma_mtu_bytes(attr.active_mtu) : 0;
	info->lid = attr.lid;
	info->gid_count = (int)srdma_gids_read(context, port, &gids);
	free(gids);
	own = srdma_net_own_addresses(&own_count);
	info->is_local = srdma_gids_are_local(context, port, attr.link_layer, own, own_count);
	free(own);
}

struct port_list {
	struct srdma_port_info *ports;
	size_t count;
};

static struct srdma_port_info *add_port(struct port_list *list, const char *device)
{
	struct srdma_port_info *grown = realloc(list->ports, (list->count + 1) * sizeof *grown);

	if (!grown)
		return NULL;
	list->ports = grown;
	grown += list->count++;
	memset(grown, 0, sizeof *grown);
	snprintf(grown->device, sizeof grown->device, "%s", device);
	return grown;
}

static int list_device(struct ibv_device *device, struct port_list *list)
{
	struct ibv_context *context = ibv_open_device(device);
	struct ibv_device_attr attr;
	struct srdma_port_info *info;

	if (!context || ibv_query_device(context, &attr) != 0) {
		int error = errno;

		if (context)
			ibv_close_device(context);
		info = add_port(list, ibv_get_device_name(device));
		if (!info)
			return -ENOMEM;
		snprintf(info->error, sizeof info->error, "cannot open the device: %s", strerror(error));
		return 0;
	}
	int ret = 0;
	for (unsigned port = 1; port <= attr.phys_port_cnt && ret == 0; port++) {
		info = add_port(list, ibv_get_device_name(device));
		if (info)
			describe_port(context, (uint8_t)port, info);
		else
			ret = -ENOMEM;
	}
	ibv_close_device(context);
	return ret;
}

/* Converts the list to the layout of the program's structure. */
static struct srdma_port_info *resize(struct port_list *list, size_t size)
{
	unsigned char *out = calloc(list->count + 1, size);

	for (size_t i = 0; out && i < list->count; i++)
		srdma_sized_fill(out + i * size, size, &list->ports[i], sizeof *list->ports);
	free(list->ports);
	return (struct srdma_port_info *)out;
}

int srdma_device_list_sized(struct srdma_port_info **out, size_t *count, size_t size)
{
	struct port_list list = {0};
	int n = 0, ret = 0;
	struct ibv_device **devices = ibv_get_device_list(&n);

	*out = NULL;
	*count = 0;
	if (!devices)
		return errno == ENOSYS || errno == ENOENT
			       ? 0
			       : srdma_fail(-errno, "cannot list the RDMA devices: %s", strerror(errno));
	for (int i = 0; i < n && ret == 0; i++)
		ret = list_device(devices[i], &list);
	ibv_free_device_list(devices);
	if (ret != 0) {
		free(list.ports);
		return srdma_fail(ret, "out of memory");
	}
	if (list.count == 0)
		return 0;
	*out = resize(&list, size);
	if (!*out)
		return srdma_fail(-ENOMEM, "out of memory");
	*count = list.count;
	return 0;
}

void srdma_device_list_free(struct srdma_port_info **list)
{
	free(*list);
	*list = NULL;
}
