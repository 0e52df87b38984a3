/* SPDX-License-Identifier: Apache-2.0 */
#include "ucma.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "engine.h"
#include "log.h"
#include "own_device.h"
#include "random.h"
#include "ucma_parts.h"
#include "udp.h"

enum {
	MOST_FDS = 1 << 20,
	EPHEMERAL_FIRST = 32768, /* ports that are given to those who ask for any, as Linux does */
	EPHEMERAL_LAST = 60999,
	PORT_TRIES = 1000,
	LONGEST_COMMAND = 1024,
	UDP_QKEY = 0x01234567, /* RDMA_UDP_QKEY of rdma_cma.h */
};

/* ---- descriptors ---- */

/* By descriptor, for write(2) and close(2) of all of the program's: two steps, so that it grows without moving. */
enum { CHUNK = 1024 };
static _Atomic(_Atomic(struct ucma_file *) *) chunks[MOST_FDS / CHUNK];
static pthread_mutex_t files_lock = PTHREAD_MUTEX_INITIALIZER; /* guards the making of chunks, and the users of files */

static _Atomic(struct ucma_file *) *slot_of(int fd, bool make)
{
	if (fd < 0 || fd >= MOST_FDS)
		return NULL;
	_Atomic(_Atomic(struct ucma_file *) *) *chunk = &chunks[fd / CHUNK];
	if (!atomic_load(chunk) && make) {
		pthread_mutex_lock(&files_lock);
		if (!atomic_load(chunk))
			atomic_store(chunk, calloc(CHUNK, sizeof(**chunk)));
		pthread_mutex_unlock(&files_lock);
	}
	_Atomic(struct ucma_file *) *slots = atomic_load(chunk);
	return slots ? &slots[fd % CHUNK] : NULL;
}

/* The file of a descriptor, with one more user; NULL: it is none of ours. */
static struct ucma_file *hold_file(int fd)
{
	_Atomic(struct ucma_file *) *slot = slot_of(fd, false);
	if (!slot || !atomic_load_explicit(slot, memory_order_relaxed))
		return NULL;
	pthread_mutex_lock(&files_lock);
	struct ucma_file *file = atomic_load(slot);
	if (file)
		file->users++;
	pthread_mutex_unlock(&files_lock);
	return file;
}

/* A thread may wait for an event while another closes the channel: then it goes on waiting, as the kernel has it. */
static void release_file(struct ucma_file *file)
{
	pthread_mutex_lock(&files_lock);
	bool last = --file->users == 0;
	pthread_mutex_unlock(&files_lock);
	if (!last)
		return;
	close(file->drain_fd);
	close(file->signal_fd);
	free(file);
}

/* The kernel's struct statx, as far as it matters. Not fstat(2): that is asked about these descriptors too. */
struct status {
	uint32_t unused[7];
	uint16_t mode;
	uint16_t unused_too;
	uint64_t inode;
	uint64_t rest[27];
};
_Static_assert(sizeof(struct status) == 256 && offsetof(struct status, inode) == 32, "the kernel's layout");

/* 0: it is no pipe. */
static uint64_t pipe_inode(int fd)
{
	struct status status;

	if (syscall(SYS_statx, fd, "", AT_EMPTY_PATH, 0, &status) != 0 || !S_ISFIFO(status.mode))
		return 0;
	return status.inode;
}

bool ucma_is(int fd)
{
	struct ucma_file *file = hold_file(fd);
	if (!file)
		return false;
	/* The program may have closed it in a way that is not seen here (close_range), and opened another. */
	bool same = pipe_inode(fd) == file->inode;
	release_file(file);
	return same;
}

/* ---- IDs ---- */

static struct ucma_id *find_id(struct ucma_file *file, uint32_t handle)
{
	struct ucma *ucma = file->ucma;
	struct ucma_id *id = handle < ucma->room ? ucma->ids[handle] : NULL;
	return id && id->file == file ? id : NULL;
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
		struct ucma_id **ids = reallocarray(ucma->ids, room, sizeof *ids);
		if (!ids)
			return -ENOMEM;
		memset(ids + ucma->room, 0, (room - ucma->room) * sizeof *ids);
		ucma->ids = ids;
		ucma->room = room;
	}
	ucma->ids[handle] = id;
	ucma->lowest = handle + 1;
	id->handle = handle;
	return 0;
}

static int new_id(struct ucma_file *file, uint64_t uid, uint16_t port_space, uint8_t qp_type, struct ucma_id **out)
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

/* A request is settled: the listener has room for another. */
static void leave_listener(struct ucma_id *id)
{
	if (id->listener)
		id->listener->backlog++;
	id->listener = NULL;
}

static void destroy_id(struct ucma_id *id)
{
	struct ucma *ucma = id->file->ucma;

	bool listened = id->endpoint.state == CM_LISTENING;
	cm_remove(&id->endpoint);
	for (uint32_t handle = 0; listened && handle < ucma->room; handle++)
		if (ucma->ids[handle] && ucma->ids[handle]->listener == id)
			ucma->ids[handle]->listener = NULL;
	leave_listener(id);
	ucma_event_purge(id, destroy_id);
	ucma->ids[id->handle] = NULL;
	if (id->handle < ucma->lowest)
		ucma->lowest = id->handle;
	free(id);
}

static struct ucma_id *id_of(struct cm_endpoint *endpoint)
{
	return (struct ucma_id *)((char *)endpoint - offsetof(struct ucma_id, endpoint));
}

static bool is_datagram(const struct ucma_id *id)
{
	return id->qp_type == IBV_QPT_UD;
}

static uint64_t service_of(const struct ucma_id *id, const struct sockaddr_storage *address)
{
	return (uint64_t)id->port_space << 16 | ucma_address_port(address);
}

/* ---- what the connection manager tells ---- */

/* Private data that is the program's begins behind the addresses. */
static size_t skip_of(const struct mad *mad)
{
	return mad->kind == MAD_REQ || mad->kind == MAD_SIDR_REQ ? MAD_IP_BYTES : 0;
}

static struct cm_endpoint *request(struct cm_endpoint *listening, const struct mad *mad)
{
	struct ucma_id *listener = id_of(listening), *id;
	struct mad_ip ip;

	if (listener->backlog == 0 || (mad->kind == MAD_SIDR_REQ) != is_datagram(listener) ||
	    !mad_read_ip(mad->private_data, mad->private_length, &ip))
		return NULL;
	if (new_id(listener->file, 0, listener->port_space, listener->qp_type, &id) != 0)
		return NULL;
	if (mad->kind == MAD_REQ)
		id->qp_type = mad->transport == 0 ? IBV_QPT_RC : IBV_QPT_UC;
	listener->backlog--;
	id->listener = listener;
	ucma_address_from_gid(&ip.source, ip.port, &id->destination);
	ucma_address_from_gid(&ip.destination, ucma_address_port(&listener->source), &id->source);
	id->bound = id->resolved = id->routed = true;
	return &id->endpoint;
}

static void requested(struct cm_endpoint *listening, struct cm_endpoint *endpoint, const struct mad *mad)
{
	struct ucma_id *listener = id_of(listening), *id = id_of(endpoint);
	struct ucma_event *event = ucma_event_new(listener, UCMA_CONNECT_REQUEST, 0);

	endpoint->path.hop_limit = 64;
	if (!event) {
		destroy_id(id);
		return;
	}
	event->made = id;
	event->resp.id = id->handle;
	ucma_event_fill(event, endpoint, is_datagram(id), mad, skip_of(mad));
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
		ucma_event_fill(event, endpoint, is_datagram(id), mad, skip_of(mad));
	ucma_event_queue(event);
}

static const struct cm_user user = {.request = request, .requested = requested, .event = cm_event};

/* ---- commands: each has its own structure, whose length is checked ---- */

/* What the program has given for the answer takes as much of it as there is. */
static void respond(const struct rdma_ucm_cmd_hdr *header, uint64_t address, const void *answer, size_t length)
{
	memcpy((void *)(uintptr_t)address, answer, header->out < length ? header->out : length);
}

#define COMMAND(name, type) static int name(struct ucma_file *file, const struct rdma_ucm_cmd_hdr *header, const type *cmd)
#define FIND(id) \
	struct ucma_id *id = find_id(file, cmd->id); \
	if (!id) \
	return -ENOENT

COMMAND(do_create, struct rdma_ucm_create_id)
{
	struct ucma_id *id;
	uint8_t qp_type = cmd->qp_type;

	switch (cmd->ps) {
	case RDMA_PS_TCP:
		qp_type = qp_type == IBV_QPT_UC ? IBV_QPT_UC : IBV_QPT_RC;
		break;
	case RDMA_PS_UDP:
	case RDMA_PS_IPOIB:
		qp_type = IBV_QPT_UD;
		break;
	case RDMA_PS_IB:
		if (qp_type != IBV_QPT_RC && qp_type != IBV_QPT_UC && qp_type != IBV_QPT_UD)
			return -EINVAL;
		break;
	default:
		return -EINVAL;
	}
	int error = new_id(file, cmd->uid, cmd->ps, qp_type, &id);
	if (error != 0)
		return error;
	const struct rdma_ucm_create_id_resp resp = {.id = id->handle};
	respond(header, cmd->response, &resp, sizeof resp);
	return 0;
}

COMMAND(do_destroy, struct rdma_ucm_destroy_id)
{
	FIND(id);
	const struct rdma_ucm_destroy_id_resp resp = {.events_reported = id->events_reported};
	destroy_id(id);
	respond(header, cmd->response, &resp, sizeof resp);
	return 0;
}

/* ---- binding ---- */

/* Takes the name of a port, so that no other process listens there. */
static int reserve(struct ucma_id *id, const struct sockaddr_storage *address)
{
	union ibv_gid gid;
	bool any = ucma_address_is_any(address);

	ucma_address_to_gid(address, &gid);
	return cm_reserve(&id->endpoint, service_of(id, address), any ? NULL : &gid);
}

static int any_port(uint16_t *out)
{
	uint32_t random;
	int error = random_u32(&random);

	*out = (uint16_t)(EPHEMERAL_FIRST + random % (EPHEMERAL_LAST - EPHEMERAL_FIRST + 1));
	return error;
}

static int bind_id(struct ucma_id *id, const struct sockaddr_storage *address)
{
	struct sockaddr_storage wanted = *address;
	unsigned index;
	int error = -EADDRINUSE;

	if (id->endpoint.state != CM_IDLE || id->source.ss_family != AF_UNSPEC)
		return -EINVAL;
	if (ucma_address_size(address) == 0)
		return -EAFNOSUPPORT;
	if (!ucma_address_is_any(address)) {
		error = ucma_find_own(id->file->device, address, &index);
		if (error != 0)
			return error;
		id->endpoint.path.own = *udp_gid(id->file->device->udp, index);
		id->endpoint.path.sgid_index = (uint8_t)index;
	}
	if (ucma_address_port(address) != 0) {
		error = reserve(id, &wanted);
	} else {
		error = -EADDRINUSE;
		for (unsigned tries = 0; tries < PORT_TRIES && error == -EADDRINUSE; tries++) {
			uint16_t port;
			error = any_port(&port);
			ucma_address_set_port(&wanted, port);
			if (error == 0)
				error = reserve(id, &wanted);
		}
	}
	if (error != 0)
		return error;
	id->source = wanted;
	id->bound = !ucma_address_is_any(address);
	return 0;
}

static int take_address(struct sockaddr_storage *out, const void *address, size_t length)
{
	memset(out, 0, sizeof *out);
	if (length > sizeof *out)
		return -EINVAL;
	memcpy(out, address, length);
	/* sockaddr_in6's room holds an IPv4 address too. */
	return ucma_address_size(out) <= length ? 0 : -EINVAL;
}

COMMAND(do_bind_ip, struct rdma_ucm_bind_ip)
{
	struct sockaddr_storage address;
	FIND(id);
	(void)header;
	int error = take_address(&address, &cmd->addr, sizeof cmd->addr);
	return error != 0 ? error : bind_id(id, &address);
}

COMMAND(do_bind, struct rdma_ucm_bind)
{
	struct sockaddr_storage address;
	FIND(id);
	(void)header;
	if (cmd->addr_size > sizeof cmd->addr)
		return -EINVAL;
	int error = take_address(&address, &cmd->addr, cmd->addr_size);
	return error != 0 ? error : bind_id(id, &address);
}

/* ---- resolving ---- */

static int resolve(struct ucma_id *id, const struct sockaddr_storage *source, const struct sockaddr_storage *destination)
{
	struct sockaddr_storage from = id->source;

	if (id->endpoint.state != CM_IDLE || id->resolved)
		return -EINVAL;
	if (ucma_address_size(destination) == 0 || ucma_address_is_any(destination))
		return -EINVAL;
	if (source->ss_family != AF_UNSPEC && from.ss_family == AF_UNSPEC) {
		/* It is bound there first, as the kernel does. */
		if (!ucma_address_is_any(source) || ucma_address_port(source) != 0) {
			int error = bind_id(id, source);
			if (error != 0)
				return error;
		}
		from = id->source;
	}
	id->destination = *destination;
	if (from.ss_family == AF_UNSPEC) {
		memset(&from, 0, sizeof from);
		from.ss_family = destination->ss_family;
	}
	int error = ucma_find_path(id->file->device, &from, destination, &id->endpoint.path);
	if (error == 0 && ucma_address_port(&from) == 0) {
		uint16_t port;
		error = any_port(&port);
		ucma_address_set_port(&from, port);
	}
	if (error != 0) {
		ucma_event_tell(id, UCMA_ADDR_ERROR, error);
		return 0;
	}
	id->endpoint.path.tclass = id->tos;
	id->source = from;
	id->bound = id->resolved = true;
	ucma_event_tell(id, UCMA_ADDR_RESOLVED, 0);
	return 0;
}

COMMAND(do_resolve_ip, struct rdma_ucm_resolve_ip)
{
	struct sockaddr_storage source, destination;
	FIND(id);
	(void)header;
	if (take_address(&source, &cmd->src_addr, sizeof cmd->src_addr) != 0 ||
	    take_address(&destination, &cmd->dst_addr, sizeof cmd->dst_addr) != 0)
		return -EINVAL;
	return resolve(id, &source, &destination);
}

COMMAND(do_resolve_addr, struct rdma_ucm_resolve_addr)
{
	struct sockaddr_storage source, destination;
	FIND(id);
	(void)header;
	if (cmd->src_size > sizeof cmd->src_addr || cmd->dst_size > sizeof cmd->dst_addr ||
	    take_address(&source, &cmd->src_addr, cmd->src_size) != 0 || take_address(&destination, &cmd->dst_addr, cmd->dst_size) != 0)
		return -EINVAL;
	return resolve(id, &source, &destination);
}

COMMAND(do_resolve_route, struct rdma_ucm_resolve_route)
{
	FIND(id);
	(void)header;
	if (!id->resolved || id->endpoint.state != CM_IDLE)
		return -EINVAL;
	id->routed = true;
	ucma_event_tell(id, UCMA_ROUTE_RESOLVED, 0);
	return 0;
}

/* ---- questions ---- */

COMMAND(do_query_route, struct rdma_ucm_query)
{
	struct rdma_ucm_query_route_resp resp;
	FIND(id);
	int error = ucma_query_route(id, &resp);
	if (error == 0)
		respond(header, cmd->response, &resp, sizeof resp);
	return error;
}

COMMAND(do_query, struct rdma_ucm_query)
{
	struct rdma_ucm_query_addr_resp address;
	struct ucma_paths paths;
	FIND(id);
	int error;

	switch (cmd->option) {
	case RDMA_USER_CM_QUERY_ADDR:
		error = ucma_query_address(id, &address);
		break;
	case RDMA_USER_CM_QUERY_GID:
		error = ucma_query_gid(id, &address);
		break;
	case RDMA_USER_CM_QUERY_PATH:
		error = ucma_query_path(id, &paths);
		if (error == 0)
			respond(header, cmd->response, &paths, sizeof paths);
		return error;
	default:
		return -ENOSYS;
	}
	if (error == 0)
		respond(header, cmd->response, &address, sizeof address);
	return error;
}

COMMAND(do_init_qp_attr, struct rdma_ucm_init_qp_attr)
{
	struct ib_uverbs_qp_attr resp;
	FIND(id);
	int error = ucma_qp_attr(id, cmd->qp_state, &resp);
	if (error == 0)
		respond(header, cmd->response, &resp, sizeof resp);
	return error;
}

/* ---- connecting ---- */

/* The program's parameters and private data, behind the addresses. False: they are too long. */
static bool fill_message(const struct ucma_id *id, const struct rdma_ucm_conn_param *param, enum mad_kind kind, struct mad *out)
{
	size_t skip = kind == MAD_REQ || kind == MAD_SIDR_REQ ? MAD_IP_BYTES : 0;

	*out = (struct mad){
		.kind = kind,
		.guid = be64toh(own_device_guid()),
		.qpn = param->qp_num & 0xffffff,
		.responder_resources = param->responder_resources,
		.initiator_depth = param->initiator_depth,
		.flow_control = param->flow_control != 0,
		.srq = param->srq != 0,
		.retry_count = param->retry_count < 7 ? param->retry_count : 7,
		.rnr_retry_count = param->rnr_retry_count < 7 ? param->rnr_retry_count : 7,
		.transport = id->qp_type == IBV_QPT_UC,
	};
	if (param->private_data_len + skip > mad_private_room(kind))
		return false;
	if (skip > 0) {
		struct mad_ip ip = {.v4 = id->source.ss_family == AF_INET, .port = ucma_address_port(&id->source)};
		ucma_address_to_gid(&id->source, &ip.source);
		ucma_address_to_gid(&id->destination, &ip.destination);
		mad_write_ip(&ip, out->private_data);
	}
	memcpy(out->private_data + skip, param->private_data, param->private_data_len);
	out->private_length = (uint8_t)(skip + param->private_data_len);
	return true;
}

COMMAND(do_connect, struct rdma_ucm_connect)
{
	union ibv_gid address;
	struct mad mad;
	FIND(id);
	(void)header;
	if (!id->routed || !cmd->conn_param.valid ||
	    !fill_message(id, &cmd->conn_param, is_datagram(id) ? MAD_SIDR_REQ : MAD_REQ, &mad))
		return -EINVAL;
	ucma_address_to_gid(&id->destination, &address);
	uint64_t service = service_of(id, &id->destination);
	if (is_datagram(id))
		return cm_resolve_service(&id->endpoint, service, &address, &mad);
	if (id->ack_timeout != 0)
		id->endpoint.ack_timeout = id->ack_timeout;
	return cm_connect(&id->endpoint, service, &address, &mad);
}

COMMAND(do_listen, struct rdma_ucm_listen)
{
	FIND(id);
	(void)header;
	if (id->source.ss_family == AF_UNSPEC) {
		const struct sockaddr_storage any = {.ss_family = AF_INET};
		int error = bind_id(id, &any);
		if (error != 0)
			return error;
	}
	id->backlog = cmd->backlog == 0 || cmd->backlog > UCMA_BACKLOG ? UCMA_BACKLOG : cmd->backlog;
	return cm_listen(&id->endpoint);
}

COMMAND(do_accept, struct rdma_ucm_accept)
{
	struct mad mad;
	FIND(id);
	(void)header;
	/* Without parameters it is the connecting end's confirmation. */
	if (!cmd->conn_param.valid)
		return cm_confirm(&id->endpoint);
	if (!fill_message(id, &cmd->conn_param, is_datagram(id) ? MAD_SIDR_REP : MAD_REP, &mad))
		return -EINVAL;
	if (is_datagram(id))
		mad.qkey = id->qkey = cmd->conn_param.qkey != 0 ? cmd->conn_param.qkey : UDP_QKEY;
	int error = cm_accept(&id->endpoint, &mad);
	if (error != 0)
		return error;
	id->uid = cmd->uid;
	leave_listener(id);
	return 0;
}

COMMAND(do_reject, struct rdma_ucm_reject)
{
	FIND(id);
	(void)header;
	struct mad mad = {.reason = cmd->reason, .private_length = cmd->private_data_len};
	if (cmd->private_data_len > mad_private_room(is_datagram(id) ? MAD_SIDR_REP : MAD_REJ))
		return -EINVAL;
	memcpy(mad.private_data, cmd->private_data, cmd->private_data_len);
	leave_listener(id);
	return cm_reject(&id->endpoint, &mad);
}

COMMAND(do_disconnect, struct rdma_ucm_disconnect)
{
	FIND(id);
	(void)header;
	return cm_disconnect(&id->endpoint);
}

COMMAND(do_notify, struct rdma_ucm_notify)
{
	FIND(id);
	(void)header;
	return cmd->event == IBV_EVENT_COMM_EST ? cm_note_established(&id->endpoint) : -EINVAL;
}

/* ---- options, and other files ---- */

COMMAND(do_set_option, struct rdma_ucm_set_option)
{
	const void *value = (const void *)(uintptr_t)cmd->optval;
	int flag = 0;
	FIND(id);
	(void)header;
	if (cmd->level != RDMA_OPTION_ID)
		return cmd->level == RDMA_OPTION_IB ? -EINVAL : -ENOSYS;
	switch (cmd->optname) {
	case RDMA_OPTION_ID_TOS:
	case RDMA_OPTION_ID_ACK_TIMEOUT:
		if (cmd->optlen != 1)
			return -EINVAL;
		memcpy(cmd->optname == RDMA_OPTION_ID_TOS ? &id->tos : &id->ack_timeout, value, 1);
		id->ack_timeout &= 0x1f;
		return 0;
	case RDMA_OPTION_ID_REUSEADDR:
	case RDMA_OPTION_ID_AFONLY:
		if (cmd->optlen != sizeof flag)
			return -EINVAL;
		return 0;
	default:
		return -ENOSYS;
	}
}

COMMAND(do_migrate, struct rdma_ucm_migrate_id)
{
	struct ucma_file *from = hold_file((int)cmd->fd);
	struct ucma_id *id = from ? find_id(from, cmd->id) : NULL;
	if (id)
		ucma_event_move(id, file);
	if (from)
		release_file(from);
	if (!id)
		return -ENOENT;
	const struct rdma_ucm_migrate_resp resp = {.events_reported = id->events_reported};
	respond(header, cmd->response, &resp, sizeof resp);
	return 0;
}

/* ---- the table ---- */

typedef int command(struct ucma_file *file, const struct rdma_ucm_cmd_hdr *header, const void *cmd);

/* Older libraries' structures are shorter: what they lack is 0. */
#define ROW(name, least) {(command *)(void (*)(void))(name), least}
static const struct {
	command *run;
	size_t least;
} commands[] = {
	[RDMA_USER_CM_CMD_CREATE_ID] = ROW(do_create, sizeof(struct rdma_ucm_create_id)),
	[RDMA_USER_CM_CMD_DESTROY_ID] = ROW(do_destroy, sizeof(struct rdma_ucm_destroy_id)),
	[RDMA_USER_CM_CMD_BIND_IP] = ROW(do_bind_ip, sizeof(struct rdma_ucm_bind_ip)),
	[RDMA_USER_CM_CMD_RESOLVE_IP] = ROW(do_resolve_ip, sizeof(struct rdma_ucm_resolve_ip)),
	[RDMA_USER_CM_CMD_RESOLVE_ROUTE] = ROW(do_resolve_route, sizeof(struct rdma_ucm_resolve_route)),
	[RDMA_USER_CM_CMD_QUERY_ROUTE] = ROW(do_query_route, sizeof(struct rdma_ucm_query)),
	[RDMA_USER_CM_CMD_CONNECT] = ROW(do_connect, offsetof(struct rdma_ucm_connect, ece)),
	[RDMA_USER_CM_CMD_LISTEN] = ROW(do_listen, sizeof(struct rdma_ucm_listen)),
	[RDMA_USER_CM_CMD_ACCEPT] = ROW(do_accept, offsetof(struct rdma_ucm_accept, ece)),
	[RDMA_USER_CM_CMD_REJECT] = ROW(do_reject, sizeof(struct rdma_ucm_reject)),
	[RDMA_USER_CM_CMD_DISCONNECT] = ROW(do_disconnect, sizeof(struct rdma_ucm_disconnect)),
	[RDMA_USER_CM_CMD_INIT_QP_ATTR] = ROW(do_init_qp_attr, sizeof(struct rdma_ucm_init_qp_attr)),
	[RDMA_USER_CM_CMD_SET_OPTION] = ROW(do_set_option, sizeof(struct rdma_ucm_set_option)),
	[RDMA_USER_CM_CMD_NOTIFY] = ROW(do_notify, sizeof(struct rdma_ucm_notify)),
	[RDMA_USER_CM_CMD_MIGRATE_ID] = ROW(do_migrate, sizeof(struct rdma_ucm_migrate_id)),
	[RDMA_USER_CM_CMD_QUERY] = ROW(do_query, sizeof(struct rdma_ucm_query)),
	[RDMA_USER_CM_CMD_BIND] = ROW(do_bind, sizeof(struct rdma_ucm_bind)),
	[RDMA_USER_CM_CMD_RESOLVE_ADDR] = ROW(do_resolve_addr, sizeof(struct rdma_ucm_resolve_addr)),
};

/* ---- events ---- */

/* Waits for one, where the descriptor is to wait. */
static int wait_for_event(struct ucma_file *file)
{
	struct pollfd readable = {.fd = file->drain_fd, .events = POLLIN};
	int flags = fcntl(file->drain_fd, F_GETFL);

	if (flags & O_NONBLOCK)
		return -EAGAIN;
	return poll(&readable, 1, -1) < 0 ? -errno : 0;
}

static int get_event(struct ucma_file *file, const struct rdma_ucm_cmd_hdr *header, const struct rdma_ucm_get_event *cmd)
{
	for (;;) {
		engine_enter(file->device);
		struct ucma_event *event = ucma_event_take(file);
		if (event)
			event->id->events_reported++;
		engine_leave(file->device);
		if (event) {
			respond(header, cmd->response, &event->resp, sizeof event->resp);
			free(event);
			return 0;
		}
		int error = wait_for_event(file);
		if (error != 0)
			return error;
	}
}

/* ---- the device ---- */

static int run_command(struct ucma_file *file, const struct rdma_ucm_cmd_hdr *header, const void *bytes, size_t length)
{
	_Alignas(8) uint8_t cmd[LONGEST_COMMAND] = {0};

	if (length > sizeof cmd)
		return -EINVAL;
	memcpy(cmd, bytes, length);
	if (header->cmd == RDMA_USER_CM_CMD_GET_EVENT)
		return length < sizeof(struct rdma_ucm_get_event) ? -EINVAL : get_event(file, header, (const void *)cmd);
	if (header->cmd >= sizeof commands / sizeof commands[0] || !commands[header->cmd].run)
		return -ENOSYS;
	if (length < commands[header->cmd].least)
		return -EINVAL;
	engine_enter(file->device);
	int error = commands[header->cmd].run(file, header, cmd);
	engine_leave(file->device);
	return error;
}

ssize_t ucma_write(int fd, const void *bytes, size_t length)
{
	struct ucma_file *file = hold_file(fd);
	struct rdma_ucm_cmd_hdr header;
	int error = file ? -EINVAL : -EBADF;

	if (file && length >= sizeof header) {
		memcpy(&header, bytes, sizeof header);
		if (header.in + sizeof header <= length)
			error = run_command(file, &header, (const uint8_t *)bytes + sizeof header, header.in);
	}
	if (file)
		release_file(file);
	if (error == 0)
		return (ssize_t)length;
	errno = -error;
	return -1;
}

static struct ucma *own; /* guarded by `own_lock` */
static pthread_mutex_t own_lock = PTHREAD_MUTEX_INITIALIZER;

/* The process's connection manager. */
static int start(struct device *device, struct ucma **out)
{
	int error = 0;

	pthread_mutex_lock(&own_lock);
	if (!own || own->device != device) {
		/* A child that was forked leaves its parent's. */
		struct ucma *ucma = calloc(1, sizeof *ucma);
		error = ucma ? 0 : -ENOMEM;
		if (ucma) {
			ucma->device = device;
			engine_enter(device);
			error = cm_open(device, &user, &ucma->cm);
			if (error == 0)
				error = cm_start(ucma->cm);
			device->cm = error == 0 ? ucma->cm : NULL;
			engine_leave(device);
		}
		if (error == 0)
			own = ucma;
		else
			free(ucma);
	}
	*out = own;
	pthread_mutex_unlock(&own_lock);
	return error;
}

bool ucma_is_there(void)
{
	return own_device() != NULL;
}

static int make_file(struct device *device, int flags, struct ucma_file **out)
{
	struct ucma_file *file = calloc(1, sizeof *file);
	int ends[2];

	if (!file)
		return -ENOMEM;
	int error = start(device, &file->ucma);
	if (error != 0)
		goto free_file;
	if (pipe2(ends, O_CLOEXEC | (flags & O_NONBLOCK)) != 0) {
		error = -errno;
		goto free_file;
	}
	file->drain_fd = fcntl(ends[0], F_DUPFD_CLOEXEC, 0);
	file->inode = pipe_inode(ends[0]);
	if (file->drain_fd < 0 || file->inode == 0) {
		error = -errno;
		goto close_ends;
	}
	file->device = device;
	file->fd = ends[0];
	file->signal_fd = ends[1];
	file->last = &file->first;
	file->users = 1;
	*out = file;
	return 0;

close_ends:
	close(ends[0]);
	close(ends[1]);
free_file:
	free(file);
	return error;
}

int ucma_open(int flags)
{
	struct device *device = own_device();
	struct ucma_file *file = NULL;

	int error = device ? make_file(device, flags, &file) : -ENODEV;
	_Atomic(struct ucma_file *) *slot = file ? slot_of(file->fd, true) : NULL;
	if (file && !slot) {
		close(file->fd);
		close(file->drain_fd);
		close(file->signal_fd);
		free(file);
		error = -EMFILE;
	}
	if (error != 0) {
		errno = -error;
		return -1;
	}
	if (!(flags & O_CLOEXEC))
		fcntl(file->fd, F_SETFD, 0);
	atomic_store(slot, file);
	return file->fd;
}

void ucma_close(int fd)
{
	_Atomic(struct ucma_file *) *slot = slot_of(fd, false);
	struct ucma_file *file = slot ? atomic_exchange(slot, NULL) : NULL; /* and its first user */

	if (!file)
		return;
	struct ucma *ucma = file->ucma;
	engine_enter(file->device);
	for (uint32_t handle = 0; handle < ucma->room; handle++)
		if (ucma->ids[handle] && ucma->ids[handle]->file == file)
			destroy_id(ucma->ids[handle]);
	engine_leave(file->device);
	release_file(file);
}
