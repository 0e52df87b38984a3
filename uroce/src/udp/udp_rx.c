/* SPDX-License-Identifier: Apache-2.0 */
/* The way in. A read gives one message or several, and a message may be a run of packets that the kernel has put together
 * (UDP_GRO), all of one size but the last. */
#include "udp_rx.h"

#include <errno.h>
#include <netinet/udp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "share.h"
#include "timer.h"
#include "udp_group.h"
#include "udp_tx.h"
#include "wipe.h"

#ifndef UDP_GRO
#define UDP_GRO 104
#endif

enum {
	BUFFERS = 4,
	BUFFER_BYTES = 65536,
	EVENTS = 16,
	/* The socket that had something last is asked first; the others if it has nothing, and every so many times. */
	LOYALTY = 8,
	/* Identifications that our own sender makes: packets of a run. */
	OWN_IDS = 64,
	SOURCES = 256,
	AHEAD = 8192,
	BEHIND = 4096, /* overtaken on the way: other queue pairs and processors of the same host number by the same counter */
	NEXT = 64,
	LONG_SILENCE = 16000, /* milliseconds */
	LONGEST_WAIT_NS = 1000000000, /* in a socket: a time before that tells of a clock that was set */
	MOST_READS = 32,
};

/* A sender that numbers its packets, as the kernel's rdma_rxe does. */
struct source {
	in_addr_t address;
	uint16_t last;
	bool has_odd;  /* the one before did not follow: */
	uint16_t odd;
	uint64_t used; /* when, in nanoseconds; 0: free */
};

struct udp_rx {
	struct mmsghdr header[BUFFERS];
	struct iovec iov[BUFFERS];
	union udp_sockaddr from[BUFFERS];
	_Alignas(struct cmsghdr) uint8_t control[BUFFERS][5 * CMSG_SPACE(sizeof(int)) + CMSG_SPACE(sizeof(struct timespec))];
	unsigned hot; /* socket */
	unsigned turns;
	bool found; /* the last read found something */
	struct source source[SOURCES];
	uint8_t bytes[BUFFERS][BUFFER_BYTES];
};

/* ---- ICRC ---- */

static struct source *find_source(struct udp_rx *rx, in_addr_t address)
{
	struct source *oldest = &rx->source[0];

	for (struct source *s = rx->source; s < rx->source + SOURCES; s++) {
		if (s->used != 0 && s->address == address)
			return s;
		if (s->used < oldest->used)
			oldest = s;
	}
	*oldest = (struct source){ .address = address };
	return oldest;
}

/* The ICRC covers the IPv4 identification, which a socket does not show. Every damaged packet would be right with one
 * identification in 65,536, so that taking any would leave 16 bits of the check. Our own senders use the lowest few. Other
 * senders count: the next one must lie a little ahead of the last (or, overtaken, just behind). A new sender, or one that
 * was silent for long, is believed once: nothing else is known of it, and its packets may not come again. */
static bool plausible_id(struct udp_rx *rx, in_addr_t address, uint16_t id)
{
	if (id < OWN_IDS)
		return true;
	struct source *source = find_source(rx, address);
	uint64_t now = clock_ns(CLOCK_MONOTONIC);
	/* Linux adds up to as many as its clock has ticked meanwhile: at most one a millisecond. */
	uint64_t silence = source->used == 0 ? UINT64_MAX : (now - source->used) / 1000000;
	int16_t step = (int16_t)(id - source->last), after_odd = (int16_t)(id - source->odd);
	bool follows = silence > LONG_SILENCE || (step >= -BEHIND && step <= AHEAD + (int)silence);

	source->used = now;
	if (!follows && source->has_odd && after_odd > 0 && after_odd <= NEXT)
		follows = true; /* the second of a new sequence vouches for it */
	else if (!follows)
		source->odd = id;
	source->has_odd = !follows;
	if (follows && (step > 0 || step < -BEHIND))
		source->last = id;
	return follows;
}

/* Common to the packets of one run. */
struct run {
	struct icrc_flow flow;
	struct packet_path path;
	bool v4;
	uint16_t expected; /* the next packet's identification */
};

static bool icrc_fits(struct udp_rx *rx, struct run *run, const uint8_t *bytes, size_t length)
{
	const struct iovec covered = { (void *)(uintptr_t)bytes, length };
	uint32_t stored;
	in_addr_t source;

	memcpy(&stored, bytes + length, sizeof stored);
	/* Finding the identification takes longer than trying the likely one. */
	bool fits = icrc_compute(&run->flow, run->expected, &covered, 1) == stored;
	if (!run->v4)
		return fits;
	if (fits && run->expected < OWN_IDS) {
		run->expected++;
		return true;
	}
	int id = icrc_find_id(&run->flow, bytes, length, stored);
	if (id < 0)
		return false;
	run->expected = (uint16_t)(id + 1);
	memcpy(&source, run->flow.src.raw + 12, sizeof source);
	return plausible_id(rx, source, (uint16_t)id);
}

/* A FLUSH may come from rdma_rxe, which sums it in its own way. */
static bool icrc_right(struct udp_rx *rx, struct run *run, const uint8_t *bytes, size_t length)
{
	if (icrc_fits(rx, run, bytes, length))
		return true;
	if (bytes[0] != OP_FLUSH)
		return false;
	run->flow.twice = true;
	bool fits = icrc_fits(rx, run, bytes, length);
	run->flow.twice = false;
	return fits;
}

/* ---- packets ---- */

static uint32_t qpn_in(const uint8_t *bth)
{
	return (uint32_t)bth[5] << 16 | (uint32_t)bth[6] << 8 | bth[7];
}

static unsigned block_in(const uint8_t *bth)
{
	return block_of(qpn_in(bth));
}

/* Packets of a run that are for one and the same block of another process. Returns their length. */
static size_t pass_on(struct udp_link *link, const struct udp_arrival *arrival, size_t offset)
{
	unsigned block = block_in(arrival->bytes + offset);
	size_t end = offset, packets = 0;

	while (end < arrival->length && arrival->length - end >= WIRE_BTH && block_in(arrival->bytes + end) == block) {
		size_t left = arrival->length - end;
		end += left < arrival->segment ? left : arrival->segment;
		packets++;
	}
	struct udp_arrival part = *arrival;
	part.bytes += offset;
	part.length = end - offset;
	share_forward(link, block, &part, packets);
	return part.length;
}

/* False: it comes from where no peer can be. */
static bool start_run(const struct udp_link *link, const struct udp_arrival *arrival, struct run *out)
{
	const union udp_sockaddr *from = arrival->source;

	out->v4 = from->any.sa_family == AF_INET;
	out->expected = 0;
	if (out->v4) {
		gid_map_v4(&out->flow.src, from->v4.sin_addr.s_addr);
		out->flow.src_port = ntohs(from->v4.sin_port);
	} else {
		memcpy(out->flow.src.raw, &from->v6.sin6_addr, sizeof out->flow.src.raw);
		out->flow.src_port = ntohs(from->v6.sin6_port);
	}
	out->flow.dst = *arrival->local;
	out->flow.dst_port = WIRE_PORT;
	out->flow.twice = false;
	out->path.tclass = arrival->tclass;
	out->path.hop_limit = arrival->hop_limit;
	out->path.arrived = arrival->arrived;
	unsigned index = arrival->gid_index;
	if (link->loopback && (out->flow.src_port != WIRE_PORT || block_of_source(from->v4.sin_addr, &index) == 0))
		return false;
	out->path.sgid_index = (uint8_t)index;
	out->path.dgid = arrival->group ? *arrival->group : link->gid[index].gid;
	out->path.sgid = link->loopback ? link->gid[index].gid : out->flow.src;
	return true;
}

static bool deliver(struct udp_link *link, struct run *run, const uint8_t *bytes, size_t length)
{
	if (link->capture) {
		struct iovec piece = { (void *)(uintptr_t)bytes, length };
		capture_packet(link->capture, false, &run->flow, run->path.tclass, &piece, 1);
	}
	if (!icrc_right(link->rx, run, bytes, length - WIRE_ICRC)) {
		counter_add(&link->config.counters->drop_icrc, 1);
		return false;
	}
	link->config.deliver(link->config.arg, bytes, length - WIRE_ICRC, &run->path);
	return true;
}

/* Returns the number of packets delivered. */
static unsigned take_arrival(struct udp_link *link, const struct udp_arrival *arrival)
{
	struct counters *counters = link->config.counters;
	struct run run;
	unsigned delivered = 0, packets = 0;
	size_t total = 0;
	bool welcome = start_run(link, arrival, &run);

	for (size_t offset = 0, step; offset < arrival->length; offset += step) {
		size_t left = arrival->length - offset;
		const uint8_t *bytes = arrival->bytes + offset;
		step = left < arrival->segment ? left : arrival->segment;
		if (step < WIRE_BTH + WIRE_ICRC) {
			counter_add(&counters->drop_malformed, 1);
		} else if (!welcome) {
			counter_add(&counters->drop_source, 1);
		} else if (arrival->group && qpn_in(bytes) != WIRE_MULTICAST_QPN) {
			counter_add(&counters->drop_qpn, 1);
		} else if (!arrival->group && link->share && block_in(bytes) != 0 && link->owner[block_in(bytes)] == 0) {
			step = pass_on(link, arrival, offset);
			continue;
		} else {
			delivered += deliver(link, &run, bytes, step);
		}
		packets++;
		total += step;
	}
	counter_add(&counters->rx_packets, packets);
	counter_add(&counters->rx_bytes, total);
	return delivered;
}

/* ---- sockets ---- */

static void prepare_headers(struct udp_rx *rx, unsigned count)
{
	for (unsigned i = 0; i < count; i++) {
		rx->iov[i] = (struct iovec){ rx->bytes[i], BUFFER_BYTES };
		rx->header[i].msg_hdr = (struct msghdr){
			.msg_name = &rx->from[i],
			.msg_namelen = sizeof rx->from[i],
			.msg_iov = &rx->iov[i],
			.msg_iovlen = 1,
			.msg_control = rx->control[i],
			.msg_controllen = sizeof rx->control[i],
		};
	}
}

/* Several messages where the last read found something; else one, which costs less and is how a lone message is waited
 * for. Returns how many; none or -1 when there are none. */
static int read_messages(struct udp_rx *rx, int fd)
{
	if (rx->found) {
		prepare_headers(rx, BUFFERS);
		return recvmmsg(fd, rx->header, BUFFERS, MSG_DONTWAIT, NULL);
	}
	prepare_headers(rx, 1);
	ssize_t length = recvmsg(fd, &rx->header[0].msg_hdr, MSG_DONTWAIT);
	rx->header[0].msg_len = (unsigned)length;
	return length < 0 ? -1 : 1;
}

/* The kernel says by CLOCK_REALTIME when a packet has arrived. Returns it by the device's clock; 0: it can't be told. */
static uint64_t read_time(const struct cmsghdr *c)
{
	struct timespec stamp;
	if (c->cmsg_len < CMSG_LEN(sizeof stamp))
		return 0;
	memcpy(&stamp, CMSG_DATA(c), sizeof stamp);
	uint64_t waited = clock_ns(CLOCK_REALTIME) - ((uint64_t)stamp.tv_sec * 1000000000 + (uint64_t)stamp.tv_nsec);
	return waited < LONGEST_WAIT_NS ? clock_ns(CLOCK_MONOTONIC) - waited : 0;
}

/* `overflows`: how many packets the socket has had no room for, as its last message said. */
static void read_control(struct msghdr *header, struct udp_arrival *arrival, uint32_t *overflows)
{
	for (struct cmsghdr *c = CMSG_FIRSTHDR(header); c; c = CMSG_NXTHDR(header, c)) {
		int value = 0;
		size_t size = c->cmsg_len - CMSG_LEN(0);
		if (size < sizeof(int)) {
			value = *CMSG_DATA(c); /* IP_TOS is a byte */
		} else {
			memcpy(&value, CMSG_DATA(c), sizeof value);
		}
		if (c->cmsg_level == SOL_UDP && c->cmsg_type == UDP_GRO && value > 0)
			arrival->segment = (size_t)value;
		else if ((c->cmsg_level == IPPROTO_IP && c->cmsg_type == IP_TOS) ||
			 (c->cmsg_level == IPPROTO_IPV6 && c->cmsg_type == IPV6_TCLASS))
			arrival->tclass = (uint8_t)value;
		else if ((c->cmsg_level == IPPROTO_IP && c->cmsg_type == IP_TTL) ||
			 (c->cmsg_level == IPPROTO_IPV6 && c->cmsg_type == IPV6_HOPLIMIT))
			arrival->hop_limit = (uint8_t)value;
		else if (c->cmsg_level == SOL_SOCKET && c->cmsg_type == SO_RXQ_OVFL)
			*overflows = (uint32_t)value;
		else if (c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_TIMESTAMPNS)
			arrival->arrived = read_time(c);
	}
}

static unsigned take_message(struct udp_link *link, struct udp_socket *socket, unsigned index)
{
	struct udp_rx *rx = link->rx;
	struct msghdr *header = &rx->header[index].msg_hdr;
	struct udp_arrival arrival = {
		.source = &rx->from[index],
		.gid_index = socket->gid_index,
		.local = &socket->local,
		.bytes = rx->bytes[index],
		.length = rx->header[index].msg_len,
		.segment = rx->header[index].msg_len,
		.hop_limit = UDP_DEFAULT_HOPS,
		.group = socket->group,
	};
	uint32_t overflows = socket->overflows;
	read_control(header, &arrival, &overflows);
	counter_add(&link->config.counters->rx_overflow, overflows - socket->overflows);
	socket->overflows = overflows;
	/* Nothing at all would be counted nowhere. */
	if (arrival.length == 0) {
		counter_add(&link->config.counters->drop_malformed, 1);
		return 0;
	}
	if (!arrival.group && share_is_probe(link, &arrival))
		return 0;
	return take_arrival(link, &arrival);
}

/* Reads a socket until a read finds less than it asks for, or `budget` packets have come. Any message means that it is
 * worth asking again. */
static unsigned drain_socket(struct udp_link *link, struct udp_socket *socket, unsigned budget, bool *any)
{
	struct udp_rx *rx = link->rx;
	unsigned delivered = 0, reads = 0;
	int n;

	do {
		n = read_messages(rx, socket->fd);
		rx->found = n > 0;
		if (n <= 0)
			break;
		*any = true;
		counter_add(&link->config.counters->rx_calls, 1);
		for (int i = 0; i < n; i++)
			delivered += take_message(link, socket, (unsigned)i);
	} while (n == BUFFERS && delivered < budget && ++reads < MOST_READS);
	return delivered;
}

static unsigned drain_group(struct udp_link *link, uint32_t which, unsigned budget)
{
	struct udp_socket *socket = udp_group_socket(link, which);
	bool any = false;
	return socket ? drain_socket(link, socket, budget, &any) : 0;
}

static unsigned drain_ready_sockets(struct udp_link *link, unsigned budget)
{
	struct epoll_event events[EVENTS];
	unsigned delivered = 0;
	int n = epoll_wait(link->epoll_fd, events, EVENTS, 0);

	for (int i = 0; i < n && delivered < budget; i++) {
		uint32_t which = events[i].data.u32;
		bool any = false;
		if (!(events[i].events & EPOLLIN) || which == UDP_EVENT_TIMER)
			continue;
		if (which & UDP_EVENT_INBOX) {
			delivered += share_receive(link, which & ~UDP_EVENT_INBOX, take_arrival);
			continue;
		}
		if (which & UDP_EVENT_WATCHED) {
			link->config.readable(link->config.arg, which & ~UDP_EVENT_WATCHED);
			delivered++;
			continue;
		}
		if (which & UDP_EVENT_GROUP) {
			delivered += drain_group(link, which & ~UDP_EVENT_GROUP, budget - delivered);
			continue;
		}
		delivered += drain_socket(link, &link->sockets[which], budget - delivered, &any);
		if (any)
			link->rx->hot = which;
	}
	return delivered;
}

static void run_timer(struct udp_link *link)
{
	uint64_t expired;
	if (link->timer_fd < 0 || read(link->timer_fd, &expired, sizeof expired) != sizeof expired)
		return;
	link->timer_due = UINT64_MAX;
	udp_tx_run_faults(link);
}

unsigned udp_receive(struct udp_link *link, unsigned budget)
{
	struct udp_rx *rx = link->rx;
	unsigned delivered = 0;
	bool any = false;

	run_timer(link);
	if (link->socket_count > 0)
		delivered = drain_socket(link, &link->sockets[rx->hot], budget, &any);
	if (link->socket_count == 1 && !link->share && link->watched == 0 && link->group_count == 0)
		return delivered;
	if ((!any || ++rx->turns % LOYALTY == 0) && delivered < budget)
		delivered += drain_ready_sockets(link, budget - delivered);
	return delivered;
}

int udp_rx_open(struct udp_link *link)
{
	link->rx = calloc(1, sizeof *link->rx);
	return link->rx ? 0 : -ENOMEM;
}

void udp_rx_close(struct udp_link *link)
{
	wipe_free(link->rx, sizeof *link->rx);
}
