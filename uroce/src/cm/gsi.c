/* SPDX-License-Identifier: Apache-2.0 */
#include "gsi.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "log.h"
#include "outgoing.h"
#include "random.h"
#include "udp.h"
#include "wipe.h"

enum {
	PREFIXES = 1 << (32 - GSI_NUMBER_BITS),
	INBOX = 0,         /* the process's own place; services follow */
	MOST_SOCKETS = 4096,
	MESSAGES = 64,     /* of a socket, read at once */
	NOTE_VERSION = 1,
	MOST_WAITING = 4096,
	MOST_UNCLAIMED = 256,
	AGAIN_NS = 200000,
	LONGEST_AGAIN_NS = 5000000,
	UNCLAIMED_NS = 200000000,
	ROOMLESS_NS = 1000000000, /* its sender has sent it again by then */
	HOPS = 64,
};

/* A message between processes of one host. Another user's process may send one too: what it says is no more to be believed than what
 * comes from the network. */
struct note {
	uint32_t version;
	uint8_t tclass;
	uint8_t hop_limit;
	uint8_t unused[2];
	union ibv_gid source;
	union ibv_gid destination;
	uint8_t bytes[MAD_BYTES];
};

/* A note that its receiver has no room for yet, for the kernel keeps ten or so for each; or a request that nobody listens for yet:
 * programs that stop listening and begin anew, or tell others of a port just before they listen, are given a moment. */
struct waiting {
	struct waiting *next;
	uint64_t until;
	bool unclaimed; /* a request: nobody has the name */
	struct sockaddr_un name;
	socklen_t length;
	struct note note;
};

struct gsi {
	struct device *device;
	struct waiting *first; /* oldest first */
	struct waiting **last;
	unsigned waiting;
	unsigned unclaimed; /* of these */
	uint64_t pause; /* before they are tried again */
	struct timer timer; /* for them */
	gsi_take *take; /* NULL: this process wants none */
	void *arg;
	uint32_t prefix;
	uint32_t psn;
	int out_fd;
	int *sockets; /* by place; -1: free */
	unsigned places;
};

/* ---- names ---- */

static socklen_t name_length(int length)
{
	return (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + (size_t)length);
}

static socklen_t process_name(uint32_t id, struct sockaddr_un *out)
{
	*out = (struct sockaddr_un){.sun_family = AF_UNIX};
	return name_length(snprintf(out->sun_path + 1, sizeof out->sun_path - 1, "uroce-cm-%03" PRIx32, id >> GSI_NUMBER_BITS));
}

static socklen_t service_name(uint64_t service, const union ibv_gid *address, struct sockaddr_un *out)
{
	char where[2 * sizeof *address + 1];

	for (size_t i = 0; i < sizeof *address; i++)
		snprintf(where + 2 * i, 3, "%02x", address->raw[i]);
	*out = (struct sockaddr_un){.sun_family = AF_UNIX};
	return name_length(
			   snprintf(out->sun_path + 1, sizeof out->sun_path - 1, "uroce-service-%016" PRIx64 "-%s", service, where));
}

static const union ibv_gid any_v4 = {.raw = {[10] = 0xff, [11] = 0xff}}, any_v6;

/* All addresses of this one's family. */
static const union ibv_gid *any_like(const union ibv_gid *address)
{
	return gid_is_v4(address) ? &any_v4 : &any_v6;
}

/* ---- sockets ---- */

static int open_socket(void)
{
	return socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
}

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
	int fd = open_socket();
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

/* 0, -EAGAIN: the receiver has no room now; others: nobody has the name. */
static int try_note(struct gsi *gsi, const struct note *note, const struct sockaddr_un *name, socklen_t length)
{
	if (gsi->out_fd < 0)
		gsi->out_fd = open_socket();
	return sendto(gsi->out_fd, note, sizeof *note, MSG_DONTWAIT | MSG_NOSIGNAL, (const struct sockaddr *)name, length) >= 0 ? 0 : -errno;
}

static bool is_same_name(const struct waiting *waiting, const struct sockaddr_un *name, socklen_t length)
{
	return waiting->length == length && memcmp(&waiting->name, name, length) == 0;
}

static bool waits_for(const struct gsi *gsi, const struct sockaddr_un *name, socklen_t length)
{
	const struct waiting *waiting = gsi->first;

	while (waiting && !is_same_name(waiting, name, length))
		waiting = waiting->next;
	return waiting;
}

static void set_timer(struct gsi *gsi)
{
	/* One that is set stays, or it would never fire while messages come. */
	bool soon = gsi->timer.place != 0 && gsi->timer.deadline <= gsi->device->now + gsi->pause;

	if (gsi->first && !soon)
		timer_set(&gsi->device->timers, &gsi->timer, gsi->device->now + gsi->pause);
}

static void append(struct gsi *gsi, struct waiting *waiting)
{
	waiting->next = NULL;
	*gsi->last = waiting;
	gsi->last = &waiting->next;
	gsi->waiting++;
	gsi->unclaimed += waiting->unclaimed;
}

static void discard(struct waiting *waiting)
{
	wipe_free(waiting, sizeof *waiting); /* PSNs, and private data */
}

/* False: there are too many. */
static bool keep(struct gsi *gsi, const struct waiting *what)
{
	struct waiting *waiting = gsi->waiting < MOST_WAITING ? malloc(sizeof *waiting) : NULL;

	if (!waiting)
		return false;
	*waiting = *what;
	waiting->until = gsi->device->now + (what->unclaimed ? UNCLAIMED_NS : ROOMLESS_NS);
	append(gsi, waiting);
	if (!what->unclaimed)
		gsi->pause = AGAIN_NS;
	else if (gsi->waiting == 1)
		gsi->pause = LONGEST_AGAIN_NS;
	set_timer(gsi);
	return true;
}

/* False: nobody has the name. One that finds no place counts as lost: its sender sends it again. */
static bool send_note(struct gsi *gsi, const struct note *note, const struct sockaddr_un *name, socklen_t length)
{
	int error = waits_for(gsi, name, length) ? -EAGAIN : try_note(gsi, note, name, length);

	if (error == -EAGAIN && !keep(gsi, &(struct waiting){.name = *name, .length = length, .note = *note}))
		counter_add(&gsi->device->counters->drop_inbox, 1);
	return error == 0 || error == -EAGAIN;
}

/* To the process of this host that it is for. Those who listen at the very address that a program has connected to come first, then
 * those who listen at all. False: nobody is there. */
static bool try_owner(struct gsi *gsi, const struct mad *mad, const struct note *note)
{
	uint32_t id = addressee(mad);
	struct sockaddr_un name;
	socklen_t length;
	struct mad_ip ip;

	if (id != 0) {
		length = process_name(id, &name);
		return send_note(gsi, note, &name, length);
	}
	if (!mad_read_ip(mad->private_data, mad->private_length, &ip))
		ip.destination = note->destination;
	length = service_name(mad->service, &ip.destination, &name);
	if (send_note(gsi, note, &name, length))
		return true;
	length = service_name(mad->service, any_like(&ip.destination), &name);
	return send_note(gsi, note, &name, length);
}

/* Answers for a process that is not there. */
static void refuse(struct gsi *gsi, const struct mad *mad, const struct note *note)
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
	case MAD_DREQ:
		answer.kind = MAD_DREP;
		break;
	default:
		return;
	}
	gsi_send(gsi, &back, &answer);
}

static void pass_on(struct gsi *gsi, const struct mad *mad, const struct note *note)
{
	const struct waiting request = {.unclaimed = true, .note = *note};

	if (try_owner(gsi, mad, note))
		return;
	if (addressee(mad) == 0 && gsi->unclaimed < MOST_UNCLAIMED && keep(gsi, &request))
		return;
	refuse(gsi, mad, note);
}

/* True: it is settled. */
static bool try_again(struct gsi *gsi, const struct waiting *waiting)
{
	struct mad mad;

	if (!waiting->unclaimed && gsi->device->now >= waiting->until) {
		counter_add(&gsi->device->counters->drop_inbox, 1);
		return true;
	}
	if (!waiting->unclaimed)
		return !waits_for(gsi, &waiting->name, waiting->length) &&
		       try_note(gsi, &waiting->note, &waiting->name, waiting->length) != -EAGAIN;
	if (mad_decode(waiting->note.bytes, sizeof waiting->note.bytes, &mad) != 0 || try_owner(gsi, &mad, &waiting->note))
		return true;
	if (gsi->device->now < waiting->until)
		return false;
	refuse(gsi, &mad, &waiting->note);
	return true;
}

static void timer_fired(struct timer *timer)
{
	struct gsi *gsi = (struct gsi *)((char *)timer - offsetof(struct gsi, timer));
	struct waiting *list = gsi->first;

	gsi->first = NULL;
	gsi->last = &gsi->first;
	gsi->waiting = gsi->unclaimed = 0;
	while (list) {
		struct waiting *waiting = list;
		list = waiting->next;
		if (try_again(gsi, waiting))
			discard(waiting);
		else
			append(gsi, waiting);
	}
	gsi->pause = 2 * gsi->pause < LONGEST_AGAIN_NS ? 2 * gsi->pause : LONGEST_AGAIN_NS;
	set_timer(gsi);
}

static void readable(struct gsi *gsi, unsigned place)
{
	struct note note;
	struct mad mad;

	for (unsigned i = 0; i < MESSAGES && place < gsi->places && gsi->sockets[place] >= 0; i++) {
		ssize_t length = recv(gsi->sockets[place], &note, sizeof note, MSG_DONTWAIT);
		if (length < 0)
			break;
		if ((size_t)length != sizeof note || note.version != NOTE_VERSION || mad_decode(note.bytes, sizeof note.bytes, &mad) != 0) {
			counter_add(&gsi->device->counters->drop_malformed, 1);
			continue;
		}
		struct gsi_path path = {
			.own = note.destination, .peer = note.source, .tclass = note.tclass, .hop_limit = note.hop_limit};
		unsigned index = udp_find_gid(gsi->device->udp, &note.destination);
		if (index >= udp_gid_count(gsi->device->udp)) {
			counter_add(&gsi->device->counters->drop_malformed, 1);
			continue;
		}
		path.sgid_index = (uint8_t)index;
		gsi->take(gsi->arg, &mad, &path);
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
	struct note note = {
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
	struct note note = {
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
	gsi->last = &gsi->first;
	gsi->timer.fire = timer_fired;
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
	timer_cancel(&gsi->device->timers, &gsi->timer);
	if (gsi->out_fd >= 0)
		close(gsi->out_fd);
	gsi->out_fd = -1;
}

int gsi_start(struct gsi *gsi, gsi_take *take, void *arg)
{
	struct sockaddr_un name;
	uint32_t random;

	int error = random_u32(&gsi->psn);
	for (unsigned tries = 0; tries < PREFIXES && error == 0; tries++) {
		error = random_u32(&random);
		uint32_t prefix = random & ~((UINT32_C(1) << GSI_NUMBER_BITS) - 1);
		if (error != 0 || prefix == 0)
			continue;
		socklen_t length = process_name(prefix, &name);
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

/* Whether any process has this name. */
static bool is_taken(uint64_t service, const union ibv_gid *address)
{
	struct sockaddr_un name;
	socklen_t length = service_name(service, address, &name);
	int fd = open_socket();
	if (fd < 0)
		return false;
	bool taken = connect(fd, (const struct sockaddr *)&name, length) == 0;
	close(fd);
	return taken;
}

static int take_name(struct gsi *gsi, uint64_t service, const union ibv_gid *address, struct gsi_service *out)
{
	struct sockaddr_un name;
	socklen_t length = service_name(service, address, &name);
	int place = open_named(gsi, &name, length);

	if (place < 0)
		return place;
	out->place[out->names++] = (unsigned)place;
	return 0;
}

int gsi_listen(struct gsi *gsi, uint64_t service, const union ibv_gid *address, struct gsi_service *out)
{
	if (address && !gid_is_any(address) && is_taken(service, any_like(address)))
		return -EADDRINUSE;
	out->names = 0;
	int error = take_name(gsi, service, address ? address : &any_v6, out);
	if (error == 0 && !address)
		error = take_name(gsi, service, &any_v4, out);
	if (error != 0)
		gsi_unlisten(gsi, out);
	return error;
}

void gsi_unlisten(struct gsi *gsi, struct gsi_service *service)
{
	for (; service->names > 0; service->names--)
		if (service->place[service->names - 1] < gsi->places) /* a forked child has left its parent's */
			close_place(gsi, service->place[service->names - 1]);
}
