/* SPDX-License-Identifier: Apache-2.0 */
#include "gsi.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "gsi_name.h"
#include "gsi_parts.h"
#include "log.h"
#include "outgoing.h"
#include "random.h"
#include "udp.h"

enum {
	MOST_SOCKETS = 4096,
	MESSAGES = 64, /* of a socket, read at once */
	NOTE_VERSION = 1,
	HOPS = 64,
};

/* ---- sockets ---- */

/* A free place, or -EMFILE or -ENOMEM. */
static int find_place(struct gsi *gsi)
{
	for (unsigned place = 0; place < gsi->places; place++)
		if (gsi->sockets[place] < 0)
			return (int)place;
	unsigned more = gsi->places == 0 ? 8 : gsi->places * 2;
	if (more > MOST_SOCKETS)
		return -EMFILE;
	int *sockets = reallocarray(gsi->sockets, more, sizeof *sockets);
	if (!sockets)
		return -ENOMEM;
	for (unsigned place = gsi->places; place < more; place++)
		sockets[place] = -1;
	gsi->sockets = sockets;
	unsigned first = gsi->places;
	gsi->places = more;
	return (int)first;
}

/* Opens a socket of that name at a place. Negative: an errno. */
static int open_named(struct gsi *gsi, const struct sockaddr_un *name, socklen_t length)
{
	int place = find_place(gsi);
	if (place < 0)
		return place;
	int fd = gsi_open_socket();
	if (fd < 0)
		return -errno;
	if (bind(fd, (const struct sockaddr *)name, length) != 0) {
		int error = -errno;
		close(fd);
		return error;
	}
	int error = udp_watch(gsi->device->udp, fd, (unsigned)place);
	if (error != 0) {
		close(fd);
		return error;
	}
	gsi->sockets[place] = fd;
	return place;
}

static void close_place(struct gsi *gsi, unsigned place)
{
	udp_unwatch(gsi->device->udp, gsi->sockets[place]);
	close(gsi->sockets[place]);
	gsi->sockets[place] = -1;
}

/* ---- receiving ---- */

static bool is_own(const struct gsi *gsi, uint32_t id)
{
	return gsi->take && id >> GSI_NUMBER_BITS == gsi->prefix >> GSI_NUMBER_BITS;
}

/* The ID by which the process that has to get a message is found; 0: it is the service. */
static uint32_t addressee(const struct mad *mad)
{
	switch (mad->kind) {
	case MAD_REQ:
	case MAD_SIDR_REQ:
		return 0;
	case MAD_SIDR_REP:
		return mad->local; /* the request's, which its sender has chosen */
	default:
		return mad->remote;
	}
}

int gsi_try_notes(struct gsi *gsi, const struct gsi_note *notes, size_t count, const struct sockaddr_un *name, socklen_t length)
{
	if (gsi->out_fd < 0)
		gsi->out_fd = gsi_open_socket();
	if (gsi->out_fd < 0)
		return -EAGAIN; /* this process has no descriptor or memory left, for now */
	ssize_t sent = sendto(gsi->out_fd, notes, count * sizeof *notes, MSG_DONTWAIT | MSG_NOSIGNAL, (const struct sockaddr *)name, length);
	if (sent >= 0)
		return 0;
	return errno == ENOBUFS || errno == ENOMEM || errno == EINTR ? -EAGAIN : -errno;
}

static bool try_listener(struct gsi *gsi, const struct gsi_name *listener, const struct gsi_note *note)
{
	struct sockaddr_un name;
	socklen_t length = gsi_service_name(listener, udp_is_loopback(gsi->device->udp), &name);

	return gsi_send_note(gsi, note, &name, length);
}

/* Those who listen at the very address that a program has connected to come first, then those who listen at more. */
bool gsi_try_owner(struct gsi *gsi, const struct mad *mad, const struct gsi_note *note)
{
	uint32_t id = addressee(mad);
	struct sockaddr_un name;
	struct mad_ip ip;

	if (id != 0) {
		socklen_t length = gsi_process_name(id, &name);
		return gsi_send_note(gsi, note, &name, length);
	}
	bool has_ip = mad_read_ip(mad->private_data, mad->private_length, &ip);
	struct gsi_name listener = {.service = mad->service, .address = has_ip ? ip.destination : note->destination};
	enum gsi_where family = gid_is_v4(&listener.address) ? GSI_ANY_V4 : GSI_ANY_V6;
	if (try_listener(gsi, &listener, note))
		return true;
	/* Private data of a program that connects by GIDs may look like addresses. In loopback mode the GID stands for all of them. */
	listener.address = note->destination;
	if (has_ip && !udp_is_loopback(gsi->device->udp) && try_listener(gsi, &listener, note))
		return true;
	listener.where = family;
	if (try_listener(gsi, &listener, note))
		return true;
	listener.where = GSI_ANY;
	return try_listener(gsi, &listener, note);
}

void gsi_refuse(struct gsi *gsi, const struct mad *mad, const struct gsi_note *note)
{
	struct mad answer = {.transaction = mad->transaction, .local = mad->remote, .remote = mad->local};
	const struct gsi_path back = {
		.own = note->destination, .peer = note->source, .sgid_index = (uint8_t)udp_find_gid(gsi->device->udp, &note->destination)};

	switch (mad->kind) {
	case MAD_REQ:
		answer.kind = MAD_REJ;
		answer.about = MAD_ABOUT_REQ;
		answer.reason = MAD_REASON_SERVICE;
		break;
	case MAD_SIDR_REQ:
		answer.kind = MAD_SIDR_REP;
		answer.local = mad->local;
		answer.service = mad->service;
		answer.reason = MAD_SIDR_UNSUPPORTED;
		break;
	case MAD_REP:
		answer.kind = MAD_REJ;
		answer.about = MAD_ABOUT_REP;
		answer.reason = MAD_REASON_NO_ID;
		break;
	case MAD_DREQ:
		answer.kind = MAD_DREP;
		break;
	case MAD_LAP:
		answer.kind = MAD_APR;
		answer.reason = MAD_APR_NO_ID;
		break;
	default:
		return;
	}
	gsi_send(gsi, &back, &answer);
}

static void pass_on(struct gsi *gsi, const struct mad *mad, const struct gsi_note *note)
{
	if (gsi_try_owner(gsi, mad, note))
		return;
	if (addressee(mad) == 0 && gsi_keep_request(gsi, note))
		return;
	gsi_refuse(gsi, mad, note);
}

static void take_note(struct gsi *gsi, const struct gsi_note *note)
{
	unsigned index = udp_find_gid(gsi->device->udp, &note->destination);
	struct mad mad;

	if (note->version != NOTE_VERSION || mad_decode(note->bytes, sizeof note->bytes, &mad) != 0 ||
	    index >= udp_gid_count(gsi->device->udp)) {
		counter_add(&gsi->device->counters->drop_malformed, 1);
		return;
	}
	const struct gsi_path path = {.own = note->destination,
				      .peer = note->source,
				      .sgid_index = (uint8_t)index,
				      .tclass = note->tclass,
				      .hop_limit = note->hop_limit};
	gsi->take(gsi->arg, &mad, &path);
}

static void readable(struct gsi *gsi, unsigned place)
{
	struct gsi_note notes[GSI_TOGETHER];

	for (unsigned i = 0; i < MESSAGES && place < gsi->places && gsi->sockets[place] >= 0; i++) {
		ssize_t length = recv(gsi->sockets[place], notes, sizeof notes, MSG_DONTWAIT | MSG_TRUNC);
		if (length < 0)
			break;
		if (length == 0 || (size_t)length > sizeof notes || (size_t)length % sizeof notes[0] != 0) {
			counter_add(&gsi->device->counters->drop_malformed, 1);
			continue;
		}
		for (size_t n = 0; n < (size_t)length / sizeof notes[0]; n++)
			take_note(gsi, &notes[n]);
	}
}

void gsi_readable(void *device, unsigned place)
{
	readable(((struct device *)device)->gsi, place);
}

/* A packet to queue pair 1. */
static void receive(struct device *device, const struct packet *packet, const struct packet_path *from)
{
	struct gsi *gsi = device->gsi;
	struct gsi_note note = {
		.version = NOTE_VERSION,
		.tclass = from->tclass,
		.hop_limit = from->hop_limit,
		.source = from->sgid,
		.destination = from->dgid,
	};
	struct mad mad;

	if ((packet->opcode & 0xe0) != WIRE_UD || packet->qkey != MAD_QKEY) {
		counter_add(packet->qkey != MAD_QKEY ? &device->counters->drop_qkey : &device->counters->drop_transport, 1);
		return;
	}
	if (mad_decode(packet->payload, packet->payload_length, &mad) != 0) {
		counter_add(&device->counters->drop_malformed, 1);
		return;
	}
	const struct gsi_path path = {.own = from->dgid,
				      .peer = from->sgid,
				      .sgid_index = from->sgid_index,
				      .tclass = from->tclass,
				      .hop_limit = from->hop_limit};
	uint32_t id = addressee(&mad);
	if (id != 0 && is_own(gsi, id)) {
		gsi->take(gsi->arg, &mad, &path);
		return;
	}
	memcpy(note.bytes, packet->payload, sizeof note.bytes);
	pass_on(gsi, &mad, &note);
}

/* ---- sending ---- */

static void send_packet_to(struct gsi *gsi, const struct gsi_path *path, const uint8_t bytes[MAD_BYTES])
{
	struct packet packet = {
		.opcode = WIRE_UD | OP_SEND_ONLY,
		.qpn = WIRE_GSI_QPN,
		.pkey = WIRE_PKEY,
		.psn = gsi->psn,
		.qkey = MAD_QKEY,
		.src_qpn = WIRE_GSI_QPN,
		.payload_length = MAD_BYTES,
	};
	struct packet_out out = {
		.dgid = path->peer,
		.dqpn = WIRE_GSI_QPN,
		.sqpn = WIRE_GSI_QPN,
		.sgid_index = path->sgid_index,
		.tclass = path->tclass,
		.hop_limit = HOPS,
		.piece[0] = {.iov_base = (void *)(uintptr_t)bytes, .iov_len = MAD_BYTES},
		.pieces = 1,
		.payload_length = MAD_BYTES,
		.may_change = true,
	};
	struct link *link = gsi->device->link;

	if (!link_ready(link)) {
		counter_add(&gsi->device->counters->tx_errors, 1);
		return;
	}
	gsi->psn = psn_add(gsi->psn, 1);
	out.header_length = wire_encode(&packet, out.header);
	link_send(link, &out);
	link_flush(link);
}

void gsi_send(struct gsi *gsi, const struct gsi_path *path, const struct mad *mad)
{
	struct gsi_note note = {
		.version = NOTE_VERSION,
		.tclass = path->tclass,
		.hop_limit = HOPS,
		.source = path->own,
		.destination = path->peer,
	};

	mad_encode(mad, note.bytes);
	if (udp_is_loopback(gsi->device->udp))
		pass_on(gsi, mad, &note);
	else
		send_packet_to(gsi, path, note.bytes);
}

/* ---- opening, listening ---- */

int gsi_open(struct device *device)
{
	struct gsi *gsi = calloc(1, sizeof *gsi);
	if (!gsi)
		return -ENOMEM;
	gsi->device = device;
	gsi->out_fd = -1;
	gsi_wait_open(gsi);
	if (timers_reserve(&device->timers, DEVICE_TIMERS) != 0) {
		free(gsi);
		return -ENOMEM;
	}
	device->gsi = gsi;
	device->gsi_receive = receive;
	return 0;
}

void gsi_abandon(struct gsi *gsi)
{
	for (unsigned place = 0; place < gsi->places; place++)
		if (gsi->sockets[place] >= 0)
			close(gsi->sockets[place]);
	gsi->places = 0;
	timer_cancel(&gsi->device->timers, &gsi->wait.timer);
	if (gsi->out_fd >= 0)
		close(gsi->out_fd);
	gsi->out_fd = -1;
}

int gsi_start(struct gsi *gsi, gsi_take *take, void *arg)
{
	struct sockaddr_un name;
	uint32_t random;

	int error = random_u32(&gsi->psn);
	for (unsigned tries = 0; tries < GSI_PROCESSES && error == 0; tries++) {
		error = random_u32(&random);
		uint32_t prefix = random & ~((UINT32_C(1) << GSI_NUMBER_BITS) - 1);
		if (error != 0 || prefix == 0)
			continue;
		socklen_t length = gsi_process_name(prefix, &name);
		int place = open_named(gsi, &name, length);
		if (place == -EADDRINUSE)
			continue;
		error = place < 0 ? place : 0;
		if (error != 0)
			break;
		gsi->psn &= WIRE_PSN_MASK;
		gsi->prefix = prefix;
		gsi->take = take;
		gsi->arg = arg;
		return 0;
	}
	if (error == 0)
		error = -ENOSPC;
	log_write(LOG_ERROR, "cannot receive connection requests: %s%s", strerror(-error),
		  error == -ENOSPC ? "; thousands of processes of this host do already" : "");
	return error;
}

uint32_t gsi_prefix(const struct gsi *gsi)
{
	return gsi->prefix;
}

bool gsi_is_near(const struct gsi *gsi, const union ibv_gid *peer)
{
	struct udp_link *udp = gsi->device->udp;

	return udp_is_loopback(udp) || udp_find_gid(udp, peer) < udp_gid_count(udp);
}

bool gsi_has_left(const struct gsi *gsi, uint32_t id)
{
	struct sockaddr_un name;
	socklen_t length = gsi_process_name(id, &name);

	return !is_own(gsi, id) && gsi_try_name(&name, length) == -ECONNREFUSED;
}

int gsi_listen(struct gsi *gsi, const struct gsi_name *service, struct gsi_service *out)
{
	struct sockaddr_un name;
	socklen_t length = gsi_service_name(service, udp_is_loopback(gsi->device->udp), &name);

	if (gsi_is_in_use(service, udp_is_loopback(gsi->device->udp)))
		return -EADDRINUSE;
	int place = open_named(gsi, &name, length);
	if (place < 0)
		return place;
	out->place = (unsigned)place;
	out->fd = gsi->sockets[place];
	return 0;
}

void gsi_unlisten(struct gsi *gsi, struct gsi_service *service)
{
	if (service->fd >= 0 && service->place < gsi->places)
		close_place(gsi, service->place);
	service->fd = -1;
}
