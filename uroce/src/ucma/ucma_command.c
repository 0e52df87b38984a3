/* SPDX-License-Identifier: Apache-2.0 */
/* The commands that do not wait: each has its own structure, whose length is checked. */
#include <errno.h>
#include <fcntl.h>
#include <string.h>

#include "guard.h"
#include "mapping.h"
#include "own_device.h"
#include "ucma_parts.h"

int ucma_respond(const struct rdma_ucm_cmd_hdr *header, uint64_t address, const void *answer, size_t length)
{
	void *room = (void *)(uintptr_t)address;

	if (header->out < length)
		length = header->out;
	return guard_copy(room, answer, length) ? 0 : -EFAULT;
}

#define COMMAND(name, type) static int name(struct ucma_file *file, const struct rdma_ucm_cmd_hdr *header, const type *cmd)
#define FIND(id) \
	struct ucma_id *id = NULL; \
	int missing = ucma_id_find(file, cmd->id, &(id)); \
	if (missing != 0) \
	return missing

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
	error = ucma_respond(header, cmd->response, &resp, sizeof resp);
	if (error != 0)
		ucma_id_destroy(id);
	return error;
}

COMMAND(do_destroy, struct rdma_ucm_destroy_id)
{
	FIND(id);
	const struct rdma_ucm_destroy_id_resp resp = {.events_reported = id->events_reported};
	ucma_id_destroy(id);
	return ucma_respond(header, cmd->response, &resp, sizeof resp);
}

/* ---- binding ---- */

/* An address of so many bytes, neither more nor fewer than one of its family has. */
static int take_address(struct sockaddr_storage *out, const void *address, size_t length)
{
	memset(out, 0, sizeof *out);
	if (length > sizeof *out)
		return -EINVAL;
	memcpy(out, address, length);
	return length != 0 && ucma_address_size(out) == length ? 0 : -EINVAL;
}

/* One of the older commands: sockaddr_in6's room holds an IPv4 address too. */
static int take_ip(struct sockaddr_storage *out, const struct sockaddr_in6 *address)
{
	const struct sockaddr_storage family = {.ss_family = address->sin6_family};

	return take_address(out, address, ucma_address_size(&family) <= sizeof *address ? ucma_address_size(&family) : 0);
}

COMMAND(do_bind_ip, struct rdma_ucm_bind_ip)
{
	struct sockaddr_storage address;
	FIND(id);
	(void)header;
	int error = take_ip(&address, &cmd->addr);
	return error != 0 ? error : ucma_bind(id, &address);
}

COMMAND(do_bind, struct rdma_ucm_bind)
{
	struct sockaddr_storage address;
	FIND(id);
	(void)header;
	int error = cmd->reserved != 0 ? -EINVAL : take_address(&address, &cmd->addr, cmd->addr_size);
	return error != 0 ? error : ucma_bind(id, &address);
}

/* ---- resolving ---- */

COMMAND(do_resolve_ip, struct rdma_ucm_resolve_ip)
{
	struct sockaddr_storage source = {.ss_family = AF_UNSPEC}, destination;
	FIND(id);
	(void)header;
	if ((cmd->src_addr.sin6_family != AF_UNSPEC && take_ip(&source, &cmd->src_addr) != 0) || take_ip(&destination, &cmd->dst_addr) != 0)
		return -EINVAL;
	return ucma_resolve(id, &source, &destination);
}

COMMAND(do_resolve_addr, struct rdma_ucm_resolve_addr)
{
	struct sockaddr_storage source = {.ss_family = AF_UNSPEC}, destination;
	FIND(id);
	(void)header;
	if (cmd->reserved != 0 || (cmd->src_size != 0 && take_address(&source, &cmd->src_addr, cmd->src_size) != 0) ||
	    take_address(&destination, &cmd->dst_addr, cmd->dst_size) != 0)
		return -EINVAL;
	return ucma_resolve(id, &source, &destination);
}

COMMAND(do_resolve_route, struct rdma_ucm_resolve_route)
{
	FIND(id);
	(void)header;
	if (!id->resolved || id->routed || id->endpoint.state != CM_IDLE)
		return -EINVAL;
	id->routed = true;
	id->endpoint.path.tclass = id->tos; /* it may have been set since */
	ucma_event_tell(id, UCMA_ROUTE_RESOLVED, 0);
	return 0;
}

/* ---- questions ---- */

COMMAND(do_query_route, struct rdma_ucm_query)
{
	struct rdma_ucm_query_route_resp resp;
	FIND(id);
	int error = ucma_query_route(id, &resp);
	return error != 0 ? error : ucma_respond(header, cmd->response, &resp, sizeof resp);
}

enum { LEAST_ADDRESS = offsetof(struct rdma_ucm_query_addr_resp, ibdev_index) }; /* as older libraries have it */

COMMAND(do_query, struct rdma_ucm_query)
{
	struct rdma_ucm_query_addr_resp address;
	struct ucma_paths paths;
	FIND(id);
	int error;

	switch (cmd->option) {
	case RDMA_USER_CM_QUERY_ADDR:
		error = header->out < LEAST_ADDRESS ? -ENOSPC : ucma_query_address(id, &address);
		break;
	case RDMA_USER_CM_QUERY_GID:
		error = header->out < LEAST_ADDRESS ? -ENOSPC : ucma_query_gid(id, &address);
		break;
	case RDMA_USER_CM_QUERY_PATH:
		error = header->out < offsetof(struct ucma_paths, path) ? -ENOSPC : ucma_query_path(id, &paths);
		return error != 0 ? error : ucma_respond(header, cmd->response, &paths, sizeof paths);
	default:
		return -ENOSYS;
	}
	return error != 0 ? error : ucma_respond(header, cmd->response, &address, sizeof address);
}

COMMAND(do_init_qp_attr, struct rdma_ucm_init_qp_attr)
{
	struct ib_uverbs_qp_attr resp;
	FIND(id);
	int error = ucma_qp_attr(id, cmd->qp_state, &resp);
	return error != 0 ? error : ucma_respond(header, cmd->response, &resp, sizeof resp);
}

/* ---- connecting ---- */

/* The program's parameters and private data, behind the addresses. False: they are too long. */
static bool fill_message(const struct ucma_id *id, const struct rdma_ucm_conn_param *param, const struct rdma_ucm_ece *ece, enum mad_kind kind,
			 struct mad *out)
{
	size_t skip = ucma_id_hides_ip(id, kind) ? MAD_IP_BYTES : 0;

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
		.ece_vendor = ece->vendor_id & 0xffffff,
		.ece_options = ece->attr_mod,
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
	struct mad mad;
	FIND(id);
	(void)header;
	if (!id->routed || !cmd->conn_param.valid ||
	    !fill_message(id, &cmd->conn_param, &cmd->ece, ucma_id_is_datagram(id) ? MAD_SIDR_REQ : MAD_REQ, &mad))
		return -EINVAL;
	uint64_t service = ucma_address_service(id->port_space, &id->destination);
	if (ucma_id_is_datagram(id))
		return cm_resolve_service(&id->endpoint, service, &mad);
	if (id->ack_timeout != 0)
		id->endpoint.ack_timeout = id->ack_timeout;
	return cm_connect(&id->endpoint, service, &mad);
}

COMMAND(do_listen, struct rdma_ucm_listen)
{
	FIND(id);
	(void)header;
	if (id->resolved)
		return -EINVAL;
	if (id->source.ss_family == AF_UNSPEC) {
		const struct sockaddr_storage any = {.ss_family = AF_INET};
		int error = ucma_bind(id, &any);
		if (error != 0)
			return error;
	}
	int error = id->endpoint.state == CM_IDLE && id->endpoint.name.fd < 0 ? ucma_reserve(id) : 0;
	if (error == 0)
		error = cm_listen(&id->endpoint);
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
	if (!fill_message(id, &cmd->conn_param, &cmd->ece, ucma_id_is_datagram(id) ? MAD_SIDR_REP : MAD_REP, &mad))
		return -EINVAL;
	if (ucma_id_is_datagram(id))
		mad.qkey = id->qkey = cmd->conn_param.qkey != 0 ? cmd->conn_param.qkey : UCMA_UDP_QKEY;
	int error = cm_accept(&id->endpoint, &mad);
	if (error == 0)
		id->uid = cmd->uid;
	return error;
}

COMMAND(do_reject, struct rdma_ucm_reject)
{
	FIND(id);
	(void)header;
	struct mad mad = {.reason = cmd->reason, .private_length = cmd->private_data_len};
	/* The others are the connection manager's own. */
	bool known = mad.reason == 0 || mad.reason == MAD_REASON_CONSUMER || mad.reason == MAD_REASON_VENDOR_OPTION;
	if (!known || cmd->private_data_len > mad_private_room(ucma_id_is_datagram(id) ? MAD_SIDR_REP : MAD_REJ))
		return -EINVAL;
	memcpy(mad.private_data, cmd->private_data, cmd->private_data_len);
	return cm_reject(&id->endpoint, &mad);
}

COMMAND(do_disconnect, struct rdma_ucm_disconnect)
{
	FIND(id);
	(void)header;
	if (!id->bound || id->endpoint.state == CM_IDLE)
		return -EINVAL;
	cm_disconnect(&id->endpoint); /* the kernel does not say whether there was a connection */
	return 0;
}

COMMAND(do_notify, struct rdma_ucm_notify)
{
	FIND(id);
	(void)header;
	return cmd->event == IBV_EVENT_COMM_EST ? cm_note_established(&id->endpoint) : -EINVAL;
}

/* ---- multicast ---- */

static int join(struct ucma_file *file, const struct rdma_ucm_cmd_hdr *header, const struct rdma_ucm_join_mcast *cmd)
{
	struct sockaddr_storage address;
	uint32_t handle;
	FIND(id);
	int error = cmd->join_flags < RDMA_MC_JOIN_FLAG_RESERVED ? take_address(&address, &cmd->addr, cmd->addr_size) : -EINVAL;
	if (error == 0)
		error = ucma_multicast_join(id, cmd->uid, &address, cmd->join_flags == RDMA_MC_JOIN_FLAG_SENDONLY_FULLMEMBER, &handle);
	if (error != 0)
		return error;
	const struct rdma_ucm_create_id_resp resp = {.id = handle};
	error = ucma_respond(header, cmd->response, &resp, sizeof resp);
	if (error != 0)
		ucma_multicast_leave(file, handle, &(uint32_t){0});
	return error;
}

COMMAND(do_join, struct rdma_ucm_join_mcast)
{
	return join(file, header, cmd);
}

COMMAND(do_join_ip, struct rdma_ucm_join_ip_mcast)
{
	struct rdma_ucm_join_mcast whole = {.response = cmd->response, .uid = cmd->uid, .id = cmd->id};
	struct sockaddr_storage address = {.ss_family = cmd->addr.sin6_family};

	memcpy(&whole.addr, &cmd->addr, sizeof cmd->addr);
	whole.addr_size = (uint16_t)ucma_address_size(&address);
	return whole.addr_size <= sizeof cmd->addr ? join(file, header, &whole) : -EINVAL;
}

COMMAND(do_leave, struct rdma_ucm_destroy_id)
{
	struct rdma_ucm_destroy_id_resp resp;

	int error = ucma_multicast_leave(file, cmd->id, &resp.events_reported);
	return error != 0 ? error : ucma_respond(header, cmd->response, &resp, sizeof resp);
}

/* ---- what newer kernels' headers have ---- */

enum { RESOLVE_IB_SERVICE = RDMA_USER_CM_CMD_JOIN_MCAST + 1, WRITE_CM_EVENT };

/* struct rdma_ucm_resolve_ib_service begins so. */
struct resolve_ib_service {
	uint32_t id;
};

/* struct rdma_ucm_write_cm_event, with the part of its union that counts: the others make it longer. */
struct write_cm_event {
	uint32_t id;
	uint32_t reserved;
	uint32_t event;
	uint32_t status;
	uint64_t arg;
};

/* The subnet administrator knows services, and RoCE has none. */
COMMAND(do_resolve_ib_service, struct resolve_ib_service)
{
	FIND(id);
	(void)header;
	return id->bound && id->endpoint.state == CM_IDLE ? -EOPNOTSUPP : -EINVAL;
}

/* A program tells itself something by its own channel; librdmacm tells so that a name is resolved. */
COMMAND(do_write_cm_event, struct write_cm_event)
{
	if (cmd->event != UCMA_USER && cmd->event != UCMA_INTERNAL)
		return -EINVAL;
	FIND(id);
	(void)header;
	struct ucma_event *event = ucma_event_new(id, (enum ucma_event_kind)cmd->event, (int)cmd->status);
	if (!event)
		return -ENOMEM;
	memcpy(&event->resp.param, &cmd->arg, sizeof cmd->arg);
	ucma_event_queue(event);
	return 0;
}

/* ---- options, and other files ---- */

enum { LONGEST_OPTION = 4 << 20 }; /* what the kernel copies */

COMMAND(do_set_option, struct rdma_ucm_set_option)
{
	const void *value = (const void *)(uintptr_t)cmd->optval;
	FIND(id);
	(void)header;
	if (cmd->optlen > LONGEST_OPTION)
		return -EINVAL;
	int error = mapping_check(value, cmd->optlen, false);
	return error != 0 ? error : ucma_set_option(id, cmd->level, cmd->optname, value, cmd->optlen);
}

static int migrate(struct ucma_file *file, struct ucma_file *from, const struct rdma_ucm_cmd_hdr *header, const struct rdma_ucm_migrate_id *cmd)
{
	struct ucma_id *id = NULL;

	/* Another file's, or no descriptor at all. */
	if (!from)
		return fcntl((int)cmd->fd, F_GETFD) >= 0 ? -EINVAL : -ENOENT;
	int error = ucma_id_find(from, cmd->id, &id);
	if (error != 0)
		return error;
	ucma_event_move(id, file);
	const struct rdma_ucm_migrate_resp resp = {.events_reported = id->events_reported};
	return ucma_respond(header, cmd->response, &resp, sizeof resp);
}

/* ---- the table ---- */

typedef int command(struct ucma_file *file, const struct rdma_ucm_cmd_hdr *header, const void *cmd);

/* Older libraries' structures are shorter: what they lack is 0. */
#define ROW(name, least)	     {(command *)(void (*)(void))(name), least, 0}
#define ANSWERED(name, least, room) {(command *)(void (*)(void))(name), least, room}
static const struct {
	command *run;
	size_t least;
	size_t room; /* that its answer needs */
} commands[] = {
	[RDMA_USER_CM_CMD_CREATE_ID] = ANSWERED(do_create, sizeof(struct rdma_ucm_create_id), sizeof(struct rdma_ucm_create_id_resp)),
	[RDMA_USER_CM_CMD_DESTROY_ID] = ANSWERED(do_destroy, sizeof(struct rdma_ucm_destroy_id), sizeof(struct rdma_ucm_destroy_id_resp)),
	[RDMA_USER_CM_CMD_BIND_IP] = ROW(do_bind_ip, sizeof(struct rdma_ucm_bind_ip)),
	[RDMA_USER_CM_CMD_RESOLVE_IP] = ROW(do_resolve_ip, sizeof(struct rdma_ucm_resolve_ip)),
	[RDMA_USER_CM_CMD_RESOLVE_ROUTE] = ROW(do_resolve_route, sizeof(struct rdma_ucm_resolve_route)),
	[RDMA_USER_CM_CMD_QUERY_ROUTE] = ANSWERED(do_query_route, sizeof(struct rdma_ucm_query), offsetof(struct rdma_ucm_query_route_resp, ibdev_index)),
	[RDMA_USER_CM_CMD_CONNECT] = ROW(do_connect, offsetof(struct rdma_ucm_connect, ece)),
	[RDMA_USER_CM_CMD_LISTEN] = ROW(do_listen, sizeof(struct rdma_ucm_listen)),
	[RDMA_USER_CM_CMD_ACCEPT] = ROW(do_accept, offsetof(struct rdma_ucm_accept, ece)),
	[RDMA_USER_CM_CMD_REJECT] = ROW(do_reject, sizeof(struct rdma_ucm_reject)),
	[RDMA_USER_CM_CMD_DISCONNECT] = ROW(do_disconnect, sizeof(struct rdma_ucm_disconnect)),
	[RDMA_USER_CM_CMD_INIT_QP_ATTR] = ANSWERED(do_init_qp_attr, sizeof(struct rdma_ucm_init_qp_attr), sizeof(struct ib_uverbs_qp_attr)),
	[RDMA_USER_CM_CMD_SET_OPTION] = ROW(do_set_option, sizeof(struct rdma_ucm_set_option)),
	[RDMA_USER_CM_CMD_NOTIFY] = ROW(do_notify, sizeof(struct rdma_ucm_notify)),
	[RDMA_USER_CM_CMD_JOIN_IP_MCAST] = ANSWERED(do_join_ip, sizeof(struct rdma_ucm_join_ip_mcast), sizeof(struct rdma_ucm_create_id_resp)),
	[RDMA_USER_CM_CMD_LEAVE_MCAST] = ANSWERED(do_leave, sizeof(struct rdma_ucm_destroy_id), sizeof(struct rdma_ucm_destroy_id_resp)),
	[RDMA_USER_CM_CMD_QUERY] = ROW(do_query, sizeof(struct rdma_ucm_query)),
	[RDMA_USER_CM_CMD_BIND] = ROW(do_bind, sizeof(struct rdma_ucm_bind)),
	[RDMA_USER_CM_CMD_RESOLVE_ADDR] = ROW(do_resolve_addr, sizeof(struct rdma_ucm_resolve_addr)),
	[RDMA_USER_CM_CMD_JOIN_MCAST] = ANSWERED(do_join, sizeof(struct rdma_ucm_join_mcast), sizeof(struct rdma_ucm_create_id_resp)),
	[RESOLVE_IB_SERVICE] = ROW(do_resolve_ib_service, sizeof(struct resolve_ib_service)),
	[WRITE_CM_EVENT] = ROW(do_write_cm_event, sizeof(struct write_cm_event)),
};

int ucma_command(struct ucma_file *file, struct ucma_file *other, const struct rdma_ucm_cmd_hdr *header, const void *cmd, size_t length)
{
	if (header->cmd == RDMA_USER_CM_CMD_MIGRATE_ID)
		return length < sizeof(struct rdma_ucm_migrate_id) ? -EINVAL : migrate(file, other, header, cmd);
	/* Both errors are the kernel's, by which programs find out what it has. */
	if (header->cmd >= sizeof commands / sizeof commands[0])
		return -EINVAL;
	if (!commands[header->cmd].run)
		return -ENOSYS;
	if (length < commands[header->cmd].least)
		return -EINVAL;
	if (header->out < commands[header->cmd].room)
		return -ENOSPC;
	return commands[header->cmd].run(file, header, cmd);
}
