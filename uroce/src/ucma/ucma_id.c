/* SPDX-License-Identifier: Apache-2.0 */
/* IDs: what librdmacm's rdma_cm_id is to the kernel. Those that a program makes, and those that requests make. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "ucma_parts.h"
#include "udp.h"
#include "wipe.h"

int ucma_id_find(struct ucma_file *file, uint32_t handle, struct ucma_id **out)
{
	struct ucma *ucma = file->ucma;
	struct ucma_id *id = handle < ucma->room ? ucma->ids[handle] : NULL;

	if (!id)
		return -ENOENT;
	*out = id;
	return id->file == file ? 0 : -EINVAL;
}

static int take_handle(struct ucma *ucma, struct ucma_id *id)
{
	uint32_t handle = ucma->lowest;

	while (handle < ucma->room && ucma->ids[handle])
		handle++;
	if (handle >= UCMA_IDS)
		return -ENOSPC;
	if (handle == ucma->room) {
		uint32_t room = ucma->room == 0 ? 64 : ucma->room * 2;
		struct ucma_id **ids = reallocarray(ucma->ids, room, sizeof(struct ucma_id *));
		if (!ids)
			return -ENOMEM;
		memset(ids + ucma->room, 0, (room - ucma->room) * sizeof(struct ucma_id *));
		ucma->ids = ids;
		ucma->room = room;
	}
	ucma->ids[handle] = id;
	ucma->lowest = handle + 1;
	id->handle = handle;
	return 0;
}

int ucma_id_new(struct ucma_file *file, uint64_t uid, uint16_t port_space, uint8_t qp_type, struct ucma_id **out)
{
	struct ucma_id *id = calloc(1, sizeof *id);
	if (!id)
		return -ENOMEM;
	id->file = file;
	id->uid = uid;
	id->port_space = port_space;
	id->qp_type = qp_type;
	int error = take_handle(file->ucma, id);
	if (error != 0)
		goto free_id;
	error = cm_add(file->ucma->cm, &id->endpoint);
	if (error != 0)
		goto give_handle;
	counter_object(&file->device->counters->objects.cm_id, 1);
	id->endpoint.mtu = (uint8_t)file->device->mtu;
	id->endpoint.ack_timeout = UCMA_LIFETIME + 1;
	*out = id;
	return 0;

give_handle:
	file->ucma->ids[id->handle] = NULL;
	file->ucma->lowest = id->handle;
free_id:
	free(id);
	return error;
}

void ucma_id_leave_listener(struct ucma_id *id)
{
	if (id->listener)
		id->listener->backlog++;
	id->listener = NULL;
}

void ucma_id_destroy(struct ucma_id *id)
{
	struct ucma *ucma = id->file->ucma;

	ucma_multicast_leave_all(id);
	bool listened = id->endpoint.state == CM_LISTENING;
	cm_remove(&id->endpoint);
	for (uint32_t handle = 0; listened && handle < ucma->room; handle++)
		if (ucma->ids[handle] && ucma->ids[handle]->listener == id)
			ucma->ids[handle]->listener = NULL;
	ucma_id_leave_listener(id);
	ucma_event_purge(id, ucma_id_destroy);
	counter_object(&id->file->device->counters->objects.cm_id, -1);
	ucma->ids[id->handle] = NULL;
	if (id->handle < ucma->lowest)
		ucma->lowest = id->handle;
	wipe_free(id, sizeof *id); /* PSNs, and private data */
}

static struct ucma_id *id_of(struct cm_endpoint *endpoint)
{
	return (struct ucma_id *)((char *)endpoint - offsetof(struct ucma_id, endpoint));
}

/* ---- what the connection manager tells ---- */

static size_t skip_of(const struct ucma_id *id, const struct mad *mad)
{
	return ucma_id_hides_ip(id, mad->kind) ? MAD_IP_BYTES : 0;
}

static struct cm_endpoint *request(struct cm_endpoint *listening, const struct mad *mad)
{
	struct ucma_id *listener = id_of(listening), *id;
	bool by_gid = ucma_address_is_ib(&listener->source);
	struct mad_ip ip;

	if (listener->backlog == 0 || (mad->kind == MAD_SIDR_REQ) != ucma_id_is_datagram(listener) ||
	    (!by_gid && !mad_read_ip(mad->private_data, mad->private_length, &ip)))
		return NULL;
	if (ucma_id_new(listener->file, 0, listener->port_space, listener->qp_type, &id) != 0)
		return NULL;
	if (mad->kind == MAD_REQ)
		id->qp_type = mad->transport == 0 ? IBV_QPT_RC : IBV_QPT_UC;
	listener->backlog--;
	id->listener = listener;
	if (by_gid) {
		id->source = listener->source; /* and the rest when the way is known */
	} else {
		ucma_address_from_gid(&ip.source, ip.port, &id->destination);
		ucma_address_from_gid(&ip.destination, ucma_address_port(&listener->source), &id->source);
	}
	id->bound = id->resolved = id->routed = true;
	return &id->endpoint;
}

static void requested(struct cm_endpoint *listening, struct cm_endpoint *endpoint, const struct mad *mad)
{
	struct ucma_id *listener = id_of(listening), *id = id_of(endpoint);
	struct ucma_event *event = ucma_event_new(listener, UCMA_CONNECT_REQUEST, 0);

	endpoint->path.hop_limit = UCMA_HOPS;
	/* Programs may decide by it: not what the peer says of itself, but what it has sent from. */
	if (ucma_address_is_ib(&id->source)) {
		ucma_address_make_ib(&endpoint->path.own, mad->service, &id->source);
		ucma_address_make_ib(&endpoint->path.peer, mad->service, &id->destination);
	} else if (!udp_is_loopback(id->file->device->udp))
		ucma_address_from_gid(&endpoint->path.peer, ucma_address_port(&id->destination), &id->destination);
	if (!event) {
		ucma_id_destroy(id);
		return;
	}
	event->made = id;
	event->resp.id = id->handle;
	ucma_event_fill(event, endpoint, ucma_id_is_datagram(id), mad, skip_of(id, mad));
	ucma_event_queue(event);
}

static enum ucma_event_kind kind_of(enum cm_event event)
{
	static const enum ucma_event_kind kinds[] = {
		[CM_RESPONSE] = UCMA_CONNECT_RESPONSE, [CM_CONNECTED] = UCMA_ESTABLISHED,	 [CM_REJECTED] = UCMA_REJECTED,
		[CM_UNREACHABLE] = UCMA_UNREACHABLE,   [CM_DISCONNECTED] = UCMA_DISCONNECTED, [CM_TIMEWAIT_EXIT] = UCMA_TIMEWAIT_EXIT,
	};
	return kinds[event];
}

static void cm_event(struct cm_endpoint *endpoint, enum cm_event what, int status, const struct mad *mad)
{
	struct ucma_id *id = id_of(endpoint);

	/* The program does not know it yet: accepting it fails. */
	if (id->uid == 0)
		return;
	struct ucma_event *event = ucma_event_new(id, kind_of(what), status);
	if (!event)
		return;
	if (mad)
		ucma_event_fill(event, endpoint, ucma_id_is_datagram(id), mad, skip_of(id, mad));
	ucma_event_queue(event);
}

const struct cm_user ucma_user = {.request = request, .requested = requested, .event = cm_event};
