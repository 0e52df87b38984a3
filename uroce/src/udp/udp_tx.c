/* SPDX-License-Identifier: Apache-2.0 */
/* The way out. Packets wait in a batch of messages. One sendmsg takes a message: one packet, or a run of
 * packets of one size to one destination, which the kernel cuts up again (UDP_SEGMENT). Headers, small payloads and
 * ICRCs lie one after the other in a buffer; larger payloads are referenced. */
#include "udp_tx.h"

#include <errno.h>
#include <netinet/udp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/timerfd.h>

#include "guard.h"
#include "log.h"
#include "timer.h"
#include "udp_group.h"
#include "wipe.h"

#ifndef UDP_SEGMENT
#define UDP_SEGMENT 103
#endif

enum {
	MAX_SEGMENTS = 64, /* UDP_MAX_SEGMENTS of older kernels */
	MAX_MESSAGES = 64,
	MAX_IOVS = 1024, /* of the batch; also UIO_MAXIOV, of a message */
	LINEAR_BYTES = 256 << 10,
	COPY_LIMIT = 1024, /* larger payloads are referenced */
	/* Sent without being asked to: enough to make a system call cheap, little enough to stay in the cache. */
	BATCH_BYTES = 128 << 10,
	/* The most that has to be copied when the kernel takes no more. */
	SPILL_BYTES = BATCH_BYTES + UDP_MAX_DATAGRAM + WIRE_MAX_MTU,
	LONGEST_PACKET = WIRE_MAX_HEADER + WIRE_MAX_MTU + 4 + WIRE_ICRC,
};

/* Common to all packets of a message. Compared as bytes: without padding. */
struct route {
	union ibv_gid dgid;
	uint16_t block; /* of the peer: its process takes all of a message */
	uint16_t socket;
	uint8_t tclass;
	uint8_t hop_limit; /* 0: the default */
	uint8_t gid_index; /* loopback mode: of the sender's GID; else 0 */
	uint8_t icrc_twice;
};

struct message {
	struct route route;
	struct icrc_flow flow;
	union udp_sockaddr to;
	uint32_t segment; /* bytes of each packet but the last */
	uint32_t bytes;
	uint16_t segments;
	bool closed; /* its last packet is shorter, or it must not grow */
	unsigned iov;
	unsigned iovs;
};

struct udp_tx {
	struct message message[MAX_MESSAGES];
	unsigned first; /* messages before it have been sent */
	unsigned count;
	struct iovec iov[MAX_IOVS];
	unsigned iovs;
	size_t linear_used;
	size_t referenced; /* bytes that lie with the application */
	size_t bytes;
	bool blocked;
	bool complained;

	/* Sent and not yet counted. */
	uint64_t packets;
	uint64_t sent_bytes;
	uint64_t calls;

	struct mmsghdr header[MAX_MESSAGES];
	_Alignas(struct cmsghdr) uint8_t control[MAX_MESSAGES][3 * CMSG_SPACE(sizeof(int)) + CMSG_SPACE(sizeof(struct in_pktinfo))];
	uint8_t linear[LINEAR_BYTES];
	uint8_t *spill; /* copies of referenced payloads; made when first needed */
	size_t spill_used;
};

/* ---- the kernel ---- */

static void put_control(struct msghdr *header, int level, int type, const void *value, size_t size)
{
	struct cmsghdr *cmsg = (struct cmsghdr *)((uint8_t *)header->msg_control + header->msg_controllen);
	cmsg->cmsg_level = level;
	cmsg->cmsg_type = type;
	cmsg->cmsg_len = (__typeof__(cmsg->cmsg_len))CMSG_LEN(size); /* socklen_t, not size_t, in musl */
	memcpy(CMSG_DATA(cmsg), value, size);
	header->msg_controllen += (__typeof__(header->msg_controllen))CMSG_SPACE(size);
}

static void fill_header(struct udp_tx *tx, struct message *message, struct msghdr *header, void *control)
{
	bool v4 = message->to.any.sa_family == AF_INET;
	*header = (struct msghdr){
		.msg_name = &message->to,
		.msg_namelen = v4 ? sizeof message->to.v4 : sizeof message->to.v6,
		.msg_iov = &tx->iov[message->iov],
		.msg_iovlen = message->iovs,
		.msg_control = control,
	};
	if (message->segments > 1) {
		uint16_t size = (uint16_t)message->segment;
		put_control(header, SOL_UDP, UDP_SEGMENT, &size, sizeof size);
	}
	if (message->route.tclass != 0) {
		int tclass = message->route.tclass;
		put_control(header, v4 ? IPPROTO_IP : IPPROTO_IPV6, v4 ? IP_TOS : IPV6_TCLASS, &tclass, sizeof tclass);
	}
	if (message->route.hop_limit != 0) {
		int hops = message->route.hop_limit;
		put_control(header, v4 ? IPPROTO_IP : IPPROTO_IPV6, v4 ? IP_TTL : IPV6_HOPLIMIT, &hops, sizeof hops);
	}
	if (message->route.gid_index != 0) {
		struct in_pktinfo info = { .ipi_ifindex = 0 };
		memcpy(&info.ipi_spec_dst, message->flow.src.raw + 12, sizeof info.ipi_spec_dst);
		put_control(header, IPPROTO_IP, IP_PKTINFO, &info, sizeof info);
	}
	if (header->msg_controllen == 0)
		header->msg_control = NULL;
}

static void tx_reset(struct udp_tx *tx)
{
	tx->first = tx->count = tx->iovs = 0;
	tx->linear_used = tx->referenced = tx->bytes = tx->spill_used = 0;
}

static void count_sent(struct udp_link *link)
{
	struct udp_tx *tx = link->tx;
	struct counters *counters = link->config.counters;
	if (tx->calls == 0)
		return;
	counter_add(&counters->tx_packets, tx->packets);
	counter_add(&counters->tx_bytes, tx->sent_bytes);
	counter_add(&counters->tx_calls, tx->calls);
	tx->packets = tx->sent_bytes = tx->calls = 0;
}

static void tx_refused(struct udp_link *link, const struct message *message, unsigned packets, int error)
{
	char text[UDP_ADDRESS_TEXT];
	struct udp_address peer = { .gid = message->flow.dst };

	counter_add(&link->config.counters->tx_errors, packets);
	if (link->tx->complained)
		return;
	link->tx->complained = true;
	udp_address_text(&peer, text);
	log_write(LOG_WARN, "cannot send packets to %s and counts them as lost: %s%s", text, strerror(error),
		  error == EPERM    ? "; a firewall here forbids UDP port 4791" :
		  error == EMSGSIZE ? "; the path MTU of the queue pair is above that of the network" :
				      "");
}

static void want_out(struct udp_link *link, struct udp_socket *socket, bool wanted)
{
	struct epoll_event event = {
		.events = EPOLLIN | (wanted ? (uint32_t)EPOLLOUT : 0),
		.data.u32 = (uint32_t)(socket - link->sockets),
	};
	if (socket->wants_out == wanted)
		return;
	if (epoll_ctl(link->epoll_fd, EPOLL_CTL_MOD, socket->fd, &event) == 0)
		socket->wants_out = wanted;
}

/* Of a packet whose ICRC is computed. If the memory has gone since, the ICRC will not fit: the packet counts as lost. */
static void copy_or_clear(uint8_t *to, const uint8_t *from, size_t length)
{
	if (!guard_copy(to, from, length))
		memset(to, 0, length);
}

/* The bytes of a message from `offset`. */
static void tx_gather(const struct udp_tx *tx, const struct message *message, size_t offset, uint8_t *out, size_t length)
{
	for (unsigned i = 0; i < message->iovs && length > 0; i++) {
		const struct iovec *iov = &tx->iov[message->iov + i];
		if (offset >= iov->iov_len) {
			offset -= iov->iov_len;
			continue;
		}
		size_t n = iov->iov_len - offset < length ? iov->iov_len - offset : length;
		copy_or_clear(out, (const uint8_t *)iov->iov_base + offset, n);
		out += n;
		length -= n;
		offset = 0;
	}
}

/* A message of several packets that the kernel did not take, one packet at a time. Returns how many went out. */
static unsigned send_singly(struct udp_link *link, struct message *message)
{
	struct udp_tx *tx = link->tx;
	struct udp_socket *socket = &link->sockets[message->route.socket];
	uint8_t packet[LONGEST_PACKET];
	struct iovec iov = { .iov_base = packet };
	unsigned sent = 0;
	int error = 0;

	for (size_t offset = 0; offset < message->bytes; offset += message->segment) {
		size_t left = message->bytes - offset;
		struct message single = *message;
		struct msghdr header;
		iov.iov_len = left < message->segment ? left : message->segment;
		tx_gather(tx, message, offset, packet, iov.iov_len);
		/* It was made for an identification that the kernel would have counted up. */
		struct iovec covered = { packet, iov.iov_len - WIRE_ICRC };
		uint32_t icrc = icrc_compute(&message->flow, 0, &covered, 1);
		memcpy(packet + covered.iov_len, &icrc, sizeof icrc);
		single.segments = 1;
		fill_header(tx, &single, &header, tx->control[0]);
		header.msg_iov = &iov;
		header.msg_iovlen = 1;
		tx->calls++;
		if (sendmsg(socket->fd, &header, MSG_DONTWAIT | MSG_NOSIGNAL) < 0) {
			error = errno;
			continue;
		}
		sent++;
		tx->packets++;
		tx->sent_bytes += iov.iov_len;
	}
	if (sent < message->segments)
		tx_refused(link, message, message->segments - sent, error);
	explicit_bzero(packet, sizeof packet);
	return sent;
}

/* sendmmsg failed with the first message. False: nothing can be done about it now. */
static bool overcome(struct udp_link *link, struct message *message, int error)
{
	struct udp_tx *tx = link->tx;
	struct udp_socket *socket = &link->sockets[message->route.socket];

	if (error == EINTR)
		return true;
	if (error == EAGAIN) {
		if (!tx->blocked)
			counter_add(&link->config.counters->tx_blocked, 1);
		tx->blocked = true;
		want_out(link, socket, true);
		return false;
	}
	bool run_refused = error == EINVAL || error == EIO || error == ENOPROTOOPT || error == EMSGSIZE;
	if (message->segments > 1 && run_refused) {
		if (send_singly(link, message) > 0 && socket->gso) {
			log_write(LOG_INFO, "cannot use segmentation offload (%s): packets go out one by one", strerror(error));
			socket->gso = false;
		}
	} else {
		/* ENOBUFS and ENOMEM too: the socket counts as writable then, and to wait for that would be to spin. */
		tx_refused(link, message, message->segments, error);
	}
	tx->first++;
	return true;
}

/* Messages from the first on that go out of the same socket: their headers. */
static unsigned fill_headers(struct udp_tx *tx)
{
	unsigned socket = tx->message[tx->first].route.socket, n = 0;

	for (unsigned i = tx->first; i < tx->count && tx->message[i].route.socket == socket; i++, n++)
		fill_header(tx, &tx->message[i], &tx->header[n].msg_hdr, tx->control[n]);
	return n;
}

/* Until all is sent, or the kernel takes no more. */
static void transmit(struct udp_link *link)
{
	struct udp_tx *tx = link->tx;

	while (tx->first < tx->count) {
		struct udp_socket *socket = &link->sockets[tx->message[tx->first].route.socket];
		unsigned n = fill_headers(tx);
		int sent = sendmmsg(socket->fd, tx->header, n, MSG_DONTWAIT | MSG_NOSIGNAL);
		tx->calls++;
		if (sent < 0 && !overcome(link, &tx->message[tx->first], errno))
			break;
		for (; sent > 0; sent--, tx->first++) {
			tx->packets += tx->message[tx->first].segments;
			tx->sent_bytes += tx->message[tx->first].bytes;
		}
	}
	count_sent(link);
	if (tx->first < tx->count)
		return;
	tx_reset(tx);
	if (tx->blocked) {
		tx->blocked = false;
		for (unsigned i = 0; i < link->socket_count; i++)
			want_out(link, &link->sockets[i], false);
	}
}

/* ---- the batch ---- */

static bool tx_has_room(const struct udp_tx *tx, size_t linear, unsigned iovs, size_t referenced)
{
	return tx->count < MAX_MESSAGES && tx->iovs + iovs <= MAX_IOVS && tx->linear_used + linear <= LINEAR_BYTES &&
	       tx->referenced + referenced <= SPILL_BYTES;
}

/* False: the kernel takes no more, and the batch is full. */
static bool tx_make_room(struct udp_link *link, size_t linear, unsigned iovs, size_t referenced)
{
	if (tx_has_room(link->tx, linear, iovs, referenced))
		return true;
	transmit(link);
	return tx_has_room(link->tx, linear, iovs, referenced);
}

static void put_destination(const struct udp_link *link, struct message *message)
{
	const struct route *route = &message->route;
	const struct udp_socket *socket = &link->sockets[route->socket];
	struct icrc_flow *flow = &message->flow;

	flow->src = socket->local;
	flow->src_port = flow->dst_port = WIRE_PORT;
	if (gid_is_multicast(&route->dgid))
		udp_group_carrier(link, &route->dgid, &flow->dst);
	else if (link->loopback)
		gid_map_v4(&flow->dst, block_carrier(route->block).s_addr);
	else
		flow->dst = route->dgid;
	if (link->loopback) {
		struct in_addr local;
		unsigned gid_index;
		memcpy(&local, socket->local.raw + 12, sizeof local);
		gid_map_v4(&flow->src, block_source(block_of_source(local, &gid_index), route->gid_index).s_addr);
	}
	flow->twice = route->icrc_twice;
	udp_sockaddr_of(&flow->dst, link->gid[socket->gid_index].ifindex, &message->to);
}

static bool joins(const struct udp_tx *tx, const struct route *route, size_t length)
{
	if (tx->first == tx->count)
		return false;
	const struct message *last = &tx->message[tx->count - 1];
	return !last->closed && length <= last->segment && last->segments < MAX_SEGMENTS &&
	       last->bytes + length <= UDP_MAX_DATAGRAM && memcmp(&last->route, route, sizeof *route) == 0;
}

/* The message that a packet goes into. There must be room. */
static struct message *message_for(struct udp_link *link, const struct route *route, size_t length, bool alone)
{
	struct udp_tx *tx = link->tx;

	if (!alone && joins(tx, route, length)) {
		struct message *last = &tx->message[tx->count - 1];
		last->closed = length < last->segment;
		return last;
	}
	if (tx->bytes >= BATCH_BYTES && !tx->blocked)
		transmit(link);
	struct message *message = &tx->message[tx->count++];
	/* Often one of before, whose address is known. */
	if (memcmp(&message->route, route, sizeof *route) != 0 || message->to.any.sa_family == AF_UNSPEC) {
		message->route = *route;
		put_destination(link, message);
	}
	message->segment = (uint32_t)length;
	message->bytes = 0;
	message->segments = 0;
	message->closed = alone || !link->sockets[route->socket].gso;
	message->iov = tx->iovs;
	message->iovs = 0;
	return message;
}

static void add_iov(struct udp_tx *tx, struct message *message, void *base, size_t length)
{
	if (length == 0)
		return;
	if (message->iovs > 0) {
		struct iovec *last = &tx->iov[tx->iovs - 1];
		if ((uint8_t *)last->iov_base + last->iov_len == base) {
			last->iov_len += length;
			return;
		}
	}
	tx->iov[tx->iovs++] = (struct iovec){ base, length };
	message->iovs++;
}

/* The ICRC of pieces, some of them the application's. False: the memory of one is not there. */
static bool sum_guarded(const struct icrc_flow *flow, uint16_t id, const struct iovec *piece, size_t pieces, uint32_t *icrc)
{
	if (GUARD_SET(*guard_begin(piece, pieces)) != 0)
		return false;
	*icrc = icrc_compute(flow, id, piece, pieces);
	guard_end();
	return true;
}

/* A packet that message_for made room for does not come. */
static void take_back(struct udp_tx *tx, struct message *message)
{
	if (message->segments == 0)
		tx->count--;
	else
		message->closed = false;
}

/* The packet in pieces, ICRC last, whose four bytes are computed here. `copied`: none of them is the
 * application's. */
static bool finish_packet(struct udp_link *link, struct message *message, struct iovec *piece, unsigned pieces,
			  size_t length, bool copied)
{
	struct udp_tx *tx = link->tx;
	/* An unconnected socket with IP_PMTUDISC_DO sends identification 0; the kernel, or the card, that cuts a run up
	 * numbers its packets from there. IPv6 has none. */
	uint32_t icrc = 0;
	if (copied)
		icrc = icrc_compute(&message->flow, message->segments, piece, pieces - 1);
	else if (!sum_guarded(&message->flow, message->segments, piece, pieces - 1, &icrc))
		return false;
	memcpy(piece[pieces - 1].iov_base, &icrc, sizeof icrc);
	for (unsigned i = 0; i < pieces; i++)
		add_iov(tx, message, piece[i].iov_base, piece[i].iov_len);
	message->segments++;
	message->bytes += (uint32_t)length;
	tx->bytes += length;
	if (link->capture)
		capture_packet(link->capture, true, &message->flow, message->route.tclass, piece, pieces);
	return true;
}

static bool must_copy(const struct packet_out *packet)
{
	return packet->payload_length <= COPY_LIMIT || packet->may_change;
}

static uint8_t *put_bytes(uint8_t *to, const void *from, size_t length)
{
	memcpy(to, from, length);
	return to + length;
}

/* NULL: some of its memory is not there. */
static uint8_t *put_payload(uint8_t *to, const struct packet_out *packet)
{
	for (size_t i = 0; i < packet->pieces; i++) {
		if (!guard_copy(to, packet->piece[i].iov_base, packet->piece[i].iov_len))
			return NULL;
		to += packet->piece[i].iov_len;
	}
	return to;
}

static bool queue_packet(struct udp_link *link, const struct packet_out *packet, const struct route *route)
{
	struct udp_tx *tx = link->tx;
	struct iovec piece[LINK_MAX_PIECES + 3];
	unsigned pieces = 0;
	/* What is captured is what is sent, and memory that goes meanwhile hurts neither. */
	bool copy = must_copy(packet) || link->capture;
	size_t pad = -packet->payload_length & 3;
	size_t length = packet->header_length + packet->payload_length + pad + WIRE_ICRC;
	size_t referenced = copy ? 0 : packet->payload_length;

	if (!tx_make_room(link, length - referenced, copy ? 1 : (unsigned)packet->pieces + 2, referenced)) {
		counter_add(&link->config.counters->tx_errors, 1);
		return true;
	}
	struct message *message = message_for(link, route, length, false);
	uint8_t *start = tx->linear + tx->linear_used;
	uint8_t *end = put_bytes(start, packet->header, packet->header_length);
	if (copy) {
		end = put_payload(end, packet);
		if (!end) {
			take_back(tx, message);
			return false;
		}
	} else {
		piece[pieces++] = (struct iovec){ start, packet->header_length };
		for (size_t i = 0; i < packet->pieces; i++)
			piece[pieces++] = packet->piece[i];
		start = end;
	}
	memset(end, 0, pad);
	end += pad;
	if (end > start)
		piece[pieces++] = (struct iovec){ start, (size_t)(end - start) };
	piece[pieces++] = (struct iovec){ end, WIRE_ICRC };
	if (!finish_packet(link, message, piece, pieces, length, copy)) {
		take_back(tx, message);
		return false;
	}
	tx->linear_used += length - referenced;
	tx->referenced += referenced;
	return true;
}

/* ---- fault injection ---- */

static void tx_emit(void *arg, const void *datagram, size_t length, const void *cookie)
{
	struct udp_link *link = arg;
	struct udp_tx *tx = link->tx;
	struct route route;
	struct iovec piece[1];

	memcpy(&route, cookie, sizeof route);
	if (!tx_make_room(link, length, 1, 0)) {
		counter_add(&link->config.counters->tx_errors, 1);
		return;
	}
	struct message *message = message_for(link, &route, length, true);
	piece[0] = (struct iovec){ tx->linear + tx->linear_used, length };
	memcpy(piece[0].iov_base, datagram, length);
	tx->linear_used += length;
	add_iov(tx, message, piece[0].iov_base, length);
	message->segments = 1;
	message->bytes = (uint32_t)length;
	tx->bytes += length;
	capture_packet(link->capture, true, &message->flow, route.tclass, piece, 1);
}

/* Whole and alone, so that a fault meets this packet and no other. */
static bool queue_through_faults(struct udp_link *link, const struct packet_out *packet, const struct route *route)
{
	uint8_t datagram[LONGEST_PACKET];
	struct message scratch = { .route = *route };
	size_t pad = -packet->payload_length & 3;

	uint8_t *end = put_bytes(datagram, packet->header, packet->header_length);
	end = put_payload(end, packet);
	if (!end)
		return false;
	memset(end, 0, pad);
	end += pad;
	struct iovec covered = { datagram, (size_t)(end - datagram) };
	put_destination(link, &scratch);
	uint32_t icrc = icrc_compute(&scratch.flow, 0, &covered, 1);
	end = put_bytes(end, &icrc, sizeof icrc);
	size_t length = (size_t)(end - datagram);
	fault_apply(link->fault, clock_ns(CLOCK_MONOTONIC), datagram, length, route, sizeof *route, tx_emit, link);
	explicit_bzero(datagram, sizeof datagram);
	return true;
}

static void set_timer(struct udp_link *link)
{
	uint64_t due = fault_next(link->fault);
	struct itimerspec time = { .it_value = { 0 } };

	if (due == link->timer_due)
		return;
	if (due != UINT64_MAX) {
		time.it_value.tv_sec = (time_t)(due / 1000000000);
		time.it_value.tv_nsec = (long)(due % 1000000000) + (due == 0); /* all zero would be no time */
	}
	if (timerfd_settime(link->timer_fd, TFD_TIMER_ABSTIME, &time, NULL) == 0)
		link->timer_due = due;
}

void udp_tx_run_faults(struct udp_link *link)
{
	if (!link->fault)
		return;
	fault_run(link->fault, clock_ns(CLOCK_MONOTONIC), tx_emit, link);
	set_timer(link);
	transmit(link);
}

/* ---- the link ---- */

static struct udp_link *udp_of(struct link *link)
{
	return (struct udp_link *)((char *)link - offsetof(struct udp_link, link));
}

static bool tx_is_ready(struct link *base)
{
	struct udp_link *link = udp_of(base);
	if (link->tx->blocked)
		transmit(link);
	return !link->tx->blocked;
}

static bool tx_send(struct link *base, const struct packet_out *packet)
{
	struct udp_link *link = udp_of(base);
	struct route route = {
		.dgid = packet->dgid,
		.block = (uint16_t)block_of(packet->dqpn),
		.tclass = link->reports_path ? packet->tclass : 0,
		.hop_limit = link->reports_path ? packet->hop_limit : 0,
		.icrc_twice = packet->icrc_twice,
	};
	if (link->loopback) {
		/* Two names of one place; but a datagram's header shows which one its sender has. */
		if (!gid_is_multicast(&packet->dgid))
			memset(&route.dgid, 0, sizeof route.dgid);
		route.gid_index = packet->sgid_index;
		route.socket = (uint16_t)(link->owner[block_of(packet->sqpn)] - 1);
	} else {
		route.socket = packet->sgid_index;
	}
	/* A queue pair of ours has a block and an address of ours: no packet of another kind gets here. */
	if (route.socket >= link->socket_count) {
		counter_add(&link->config.counters->tx_errors, 1);
		return true;
	}
	return link->fault ? queue_through_faults(link, packet, &route) : queue_packet(link, packet, &route);
}

/* The application's memory is not read after the flush: packets that remain are copied. */
static void keep_unsent(struct udp_link *link)
{
	struct udp_tx *tx = link->tx;

	if (!tx->spill)
		tx->spill = malloc(SPILL_BYTES);
	for (unsigned m = tx->first; m < tx->count; m++) {
		struct message *message = &tx->message[m];
		for (unsigned i = message->iov; i < message->iov + message->iovs; i++) {
			struct iovec *iov = &tx->iov[i];
			const uint8_t *base = iov->iov_base;
			if ((base >= tx->linear && base < tx->linear + LINEAR_BYTES) ||
			    (tx->spill && base >= tx->spill && base < tx->spill + SPILL_BYTES))
				continue;
			if (!tx->spill) {
				tx_refused(link, &tx->message[tx->first], 1, ENOMEM);
				tx_reset(tx);
				return;
			}
			iov->iov_base = tx->spill + tx->spill_used;
			copy_or_clear(iov->iov_base, base, iov->iov_len);
			tx->spill_used += iov->iov_len;
		}
		message->closed = true; /* a piece must not be joined to one that only happens to follow it */
	}
}

static void tx_flush(struct link *base)
{
	struct udp_link *link = udp_of(base);
	if (link->fault)
		udp_tx_run_faults(link);
	else if (link->tx->count > 0)
		transmit(link);
	if (link->tx->count > 0)
		keep_unsent(link);
}

const struct link_ops udp_ops = { .ready = tx_is_ready, .send = tx_send, .flush = tx_flush };

int udp_tx_open(struct udp_link *link)
{
	link->tx = calloc(1, sizeof *link->tx);
	return link->tx ? 0 : -ENOMEM;
}

void udp_tx_close(struct udp_link *link)
{
	if (link->tx)
		wipe_free(link->tx->spill, SPILL_BYTES);
	wipe_free(link->tx, sizeof *link->tx);
}
