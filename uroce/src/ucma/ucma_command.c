/* SPDX-License-Identifier: Apache-2.0 */
/* The commands that do not wait: each has its own structure, whose length is checked. */
#include <errno.h>
#include <string.h>

#include "own_device.h"
#include "random.h"
#include "ucma_parts.h"
#include "udp.h"

enum {
	EPHEMERAL_FIRST = 32768, /* ports that are given to those who ask for any, as Linux does */
	EPHEMERAL_LAST = 60999,
	PORT_TRIES = 1000,
};

void ucma_respond(const struct rdma_ucm_cmd_hdr *header, uint64_t address, const void *answer, size_t length)
{
	memcpy((void *)(uintptr_t)address, answer, header->out < length ? header->out : length);
}

#define COMMAND(name, type) static int name(struct ucma_file *file, const struct rdma_ucm_cmd_hdr *header, const type *cmd)
#define FIND(id) \
	struct ucma_id *id = ucma_id_find(file, cmd->id); \
	if (!(id)) \
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
	int error = ucma_id_new(file, cmd->uid, cmd->ps, qp_type, &id);
	if (error != 0)
		return error;
	const struct rdma_ucm_create_id_resp resp = {.id = id->handle};
	ucma_respond(header, cmd->response, &resp, sizeof resp);
	return 0;
}

COMMAND(do_destroy, struct rdma_ucm_destroy_id)
{
	FIND(id);
	const struct rdma_ucm_destroy_id_resp resp = {.events_reported = id->events_reported};
	ucma_id_destroy(id);
	ucma_respond(header, cmd->response, &resp, sizeof resp);
	return 0;
}

static uint64_t service_of(const struct ucma_id *id, const struct sockaddr_storage *address)
{
	return (uint64_t)id->port_space << 16 | ucma_address_port(address);
}

/* ---- binding ---- */

/* Takes the name of a port, so that no other process listens there. */
static int reserve(struct ucma_id *id, const struct sockaddr_storage *address)
{
	union ibv_gid gid;
	/* As the kernel has it: :: is IPv4's addresses too, unless the program wants it alone. */
	bool both = address->ss_family == AF_INET6 && ucma_address_is_any(address) && !id->one_family;

	ucma_address_to_gid(address, &gid);
	return cm_reserve(&id->endpoint, service_of(id, address), both ? NULL : &gid);
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
		ucma_respond(header, cmd->response, &resp, sizeof resp);
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
			ucma_respond(header, cmd->response, &paths, sizeof paths);
		return error;
	default:
		return -ENOSYS;
	}
	if (error == 0)
		ucma_respond(header, cmd->response, &address, sizeof address);
	return error;
}

COMMAND(do_init_qp_attr, struct rdma_ucm_init_qp_attr)
{
	struct ib_uverbs_qp_attr resp;
	FIND(id);
	int error = ucma_qp_attr(id, cmd->qp_state, &resp);
	if (error == 0)
		ucma_respond(header, cmd->response, &resp, sizeof resp);
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
	    !fill_message(id, &cmd->conn_param, ucma_id_is_datagram(id) ? MAD_SIDR_REQ : MAD_REQ, &mad))
		return -EINVAL;
	ucma_address_to_gid(&id->destination, &address);
	uint64_t service = service_of(id, &id->destination);
	if (ucma_id_is_datagram(id))
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
	int error = cm_listen(&id->endpoint);
	if (error == 0)
		id->backlog = cmd->backlog == 0 || cmd->backlog > UCMA_BACKLOG ? UCMA_BACKLOG : cmd->backlog;
	return error;
}

COMMAND(do_accept, struct rdma_ucm_accept)
{
	struct mad mad;
	FIND(id);
	(void)header;
	/* Without parameters it is the connecting end's confirmation. */
	if (!cmd->conn_param.valid)
		return cm_confirm(&id->endpoint);
	if (!fill_message(id, &cmd->conn_param, ucma_id_is_datagram(id) ? MAD_SIDR_REP : MAD_REP, &mad))
		return -EINVAL;
	if (ucma_id_is_datagram(id))
		mad.qkey = id->qkey = cmd->conn_param.qkey != 0 ? cmd->conn_param.qkey : UCMA_UDP_QKEY;
	int error = cm_accept(&id->endpoint, &mad);
	if (error != 0)
		return error;
	id->uid = cmd->uid;
	ucma_id_leave_listener(id);
	return 0;
}

COMMAND(do_reject, struct rdma_ucm_reject)
{
	FIND(id);
	(void)header;
	struct mad mad = {.reason = cmd->reason, .private_length = cmd->private_data_len};
	if (cmd->private_data_len > mad_private_room(ucma_id_is_datagram(id) ? MAD_SIDR_REP : MAD_REJ))
		return -EINVAL;
	memcpy(mad.private_data, cmd->private_data, cmd->private_data_len);
	ucma_id_leave_listener(id);
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
		memcpy(&flag, value, sizeof flag);
		if (cmd->optname == RDMA_OPTION_ID_AFONLY)
			id->one_family = flag != 0;
		return 0;
	default:
		return -ENOSYS;
	}
}

static int migrate(struct ucma_file *file, struct ucma_file *from, const struct rdma_ucm_cmd_hdr *header, const struct rdma_ucm_migrate_id *cmd)
{
	struct ucma_id *id = from ? ucma_id_find(from, cmd->id) : NULL;
	if (!id)
		return -ENOENT;
	ucma_event_move(id, file);
	const struct rdma_ucm_migrate_resp resp = {.events_reported = id->events_reported};
	ucma_respond(header, cmd->response, &resp, sizeof resp);
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
	[RDMA_USER_CM_CMD_QUERY] = ROW(do_query, sizeof(struct rdma_ucm_query)),
	[RDMA_USER_CM_CMD_BIND] = ROW(do_bind, sizeof(struct rdma_ucm_bind)),
	[RDMA_USER_CM_CMD_RESOLVE_ADDR] = ROW(do_resolve_addr, sizeof(struct rdma_ucm_resolve_addr)),
};

int ucma_command(struct ucma_file *file, struct ucma_file *other, const struct rdma_ucm_cmd_hdr *header, const void *cmd, size_t length)
{
	if (header->cmd == RDMA_USER_CM_CMD_MIGRATE_ID)
		return length < sizeof(struct rdma_ucm_migrate_id) ? -EINVAL : migrate(file, other, header, cmd);
	if (header->cmd >= sizeof commands / sizeof commands[0] || !commands[header->cmd].run)
		return -ENOSYS;
	if (length < commands[header->cmd].least)
		return -EINVAL;
	return commands[header->cmd].run(file, header, cmd);
}
