/* SPDX-License-Identifier: Apache-2.0 */
#include "share.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/un.h>
#include <unistd.h>

#include "log.h"
#include "random.h"
#include "steer.h"
#include "timer.h"
#include "wipe.h"

enum {
	PROBES = 16, /* sent at once */
	MOST_SOCKETS = 1024,
	MESSAGES = 32, /* of an inbox, read at once */
	MESSAGE_BYTES = 65536,
	OUT_BUFFER = 1 << 20,
};

/* Between two tries to steer better. They get rarer, for some packets always go astray: those that the kernel has put
 * together with another process's. */
#define FIRST_PAUSE_NS 100000000u
#define LONGEST_PAUSE_NS 30000000000u

enum kind {
	KIND_PACKETS = 1, /* bytes follow */
	KIND_SOCKET,      /* an answer to a probe */
};

/* A message to an inbox, between processes of one host and one version. */
struct note {
	uint32_t kind;
	uint32_t version;
	union ibv_gid local;
	union {
		struct {
			union udp_sockaddr source;
			uint32_t segment;
			uint8_t tclass;
			uint8_t hop_limit;
		} packets;
		struct {
			uint32_t nonce;
			uint16_t socket;
			uint8_t blocks[BLOCK_COUNT / 8];
		} answer;
	};
};

enum { NOTE_VERSION = 1 };

/* Steering of one address. Each process makes the whole map by itself, and two may do so at once: the program that is
 * attached last is the one of a process that goes on until its map is whole. */
struct steering {
	struct steer_map map;
	uint32_t nonce;    /* of the probes sent; 0: none */
	uint32_t answered; /* nonce of the last probe answered: only its first counts */
	unsigned probed;   /* sockets asked */
	bool changed;
	bool superseded; /* a newcomer asks: its map will have all that ours has, and itself */
	uint64_t next;  /* not before */
	uint64_t pause;
};

struct share {
	uid_t uid;
	int out_fd;
	int inbox[BLOCK_COUNT]; /* of owned blocks */
	struct steering steering[UDP_MAX_GIDS];
	uint8_t bytes[MESSAGE_BYTES];
};

/* ---- inboxes ---- */

/* Abstract names belong to the network namespace, as ports do, and end with their process. */
static socklen_t inbox_name(unsigned block, struct sockaddr_un *out)
{
	memset(out, 0, sizeof *out);
	out->sun_family = AF_UNIX;
	int length = snprintf(out->sun_path + 1, sizeof out->sun_path - 1, "uroce-block-%u", block);
	return (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + (size_t)length);
}

struct inbox_claim {
	int fd;
};

static int claim_inbox(void *arg, unsigned block)
{
	struct inbox_claim *claim = arg;
	struct sockaddr_un name;
	socklen_t length = inbox_name(block, &name);
	return bind(claim->fd, (const struct sockaddr *)&name, length) == 0 ? 0 : -errno;
}

static int open_unix(void)
{
	return socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
}

int share_claim(struct udp_link *link, unsigned *block)
{
	struct inbox_claim claim = { .fd = open_unix() };
	struct epoll_event event = { .events = EPOLLIN };
	int on = 1, error;

	/* Before there is a name to send to: each message names its sender. */
	if (claim.fd < 0 || setsockopt(claim.fd, SOL_SOCKET, SO_PASSCRED, &on, sizeof on) != 0)
		error = -errno;
	else
		error = block_choose(claim_inbox, &claim, block);
	if (error == 0) {
		event.data.u32 = UDP_EVENT_INBOX | *block;
		if (epoll_ctl(link->epoll_fd, EPOLL_CTL_ADD, claim.fd, &event) != 0)
			error = -errno;
	}
	if (error != 0) {
		log_write(LOG_ERROR, "cannot get a block of queue pair numbers: %s%s", strerror(-error),
			  error == -ENOSPC  ? "; other processes of this host have all of them" :
			  error == -EMFILE ? "; raise the limit of open files (ulimit -n)" :
					     "");
		if (claim.fd >= 0)
			close(claim.fd);
		return error;
	}
	link->share->inbox[*block] = claim.fd;
	link->owner[*block] = 1;
	return 0;
}

/* 0, or a negative errno: -ECONNREFUSED when nobody has the block. */
static int send_note(struct share *share, unsigned block, const struct note *note, const uint8_t *bytes, size_t length)
{
	struct sockaddr_un name;
	struct iovec iov[2] = {
		{ (void *)(uintptr_t)note, sizeof *note },
		{ (void *)(uintptr_t)bytes, length },
	};
	struct msghdr message = {
		.msg_name = &name,
		.msg_namelen = inbox_name(block, &name),
		.msg_iov = iov,
		.msg_iovlen = 2,
	};
	return sendmsg(share->out_fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL) >= 0 ? 0 : -errno;
}

/* ---- steering ---- */

static void steering_probe(struct udp_link *link, unsigned gid_index)
{
	struct steering *steering = &link->share->steering[gid_index];
	struct udp_socket *own = &link->sockets[gid_index];
	uint8_t bytes[STEER_PROBE_BYTES];
	union udp_sockaddr to;
	socklen_t length = sizeof to;
	struct steer_probe probe = { .nonce = steering->nonce };

	while (probe.block < BLOCK_LAST && link->owner[probe.block] == 0)
		probe.block++;
	if (getsockname(own->fd, &to.any, &length) != 0)
		return;
	for (unsigned end = steering->probed + PROBES; steering->probed < end; steering->probed++) {
		probe.socket = (uint16_t)steering->probed;
		steer_write_probe(&probe, bytes);
		sendto(own->fd, bytes, sizeof bytes, MSG_DONTWAIT | MSG_NOSIGNAL, &to.any, length);
	}
}

/* Asks all sockets of an address's group for their numbers. The map stays in use meanwhile. */
static void steering_rebuild(struct udp_link *link, unsigned gid_index, bool at_once)
{
	struct steering *steering = &link->share->steering[gid_index];
	uint64_t now = clock_ns(CLOCK_MONOTONIC);

	if (!at_once && now < steering->next)
		return;
	steering->pause = at_once || steering->pause == 0 ? FIRST_PAUSE_NS : steering->pause * 2;
	if (steering->pause > LONGEST_PAUSE_NS)
		steering->pause = LONGEST_PAUSE_NS;
	steering->next = now + steering->pause;
	if (random_u32(&steering->nonce) != 0)
		return;
	steering->nonce |= 1; /* 0 is none */
	steering->probed = 0;
	steering->superseded = false;
	int error = steer_attach(link->sockets[gid_index].fd, &steering->map);
	if (error == 0) {
		steering_probe(link, gid_index);
		return;
	}
	steering->nonce = 0;
	log_write(LOG_DEBUG, "cannot steer packets among the processes of one address: %s", strerror(-error));
}

void share_announce(struct udp_link *link)
{
	for (unsigned i = 0; i < link->gids; i++)
		steering_rebuild(link, i, true);
}

static void steering_learn(struct udp_link *link, unsigned gid_index, const struct note *note)
{
	struct steering *steering = &link->share->steering[gid_index];
	unsigned socket = note->answer.socket;

	if (note->answer.nonce != steering->nonce || steering->nonce == 0 || socket >= steering->probed)
		return;
	for (unsigned block = 0; block < BLOCK_COUNT; block++) {
		bool owned = note->answer.blocks[block / 8] >> block % 8 & 1;
		uint16_t *entry = &steering->map.socket[block];
		/* Another block that was there has gone. */
		uint16_t value = owned ? (uint16_t)(socket + 1) : *entry == socket + 1 ? 0 : *entry;
		steering->changed |= *entry != value;
		*entry = value;
	}
	if (steering->changed && !steering->superseded)
		steer_attach(link->sockets[gid_index].fd, &steering->map);
	steering->changed = false;
	/* The last one asked is there: there may be more. */
	if (socket + 1 == steering->probed && steering->probed < MOST_SOCKETS)
		steering_probe(link, gid_index);
}

bool share_is_probe(struct udp_link *link, const struct udp_arrival *arrival)
{
	struct share *share = link->share;
	struct steer_probe probe;
	struct note note = { .kind = KIND_SOCKET, .version = NOTE_VERSION, .local = *arrival->local };

	if (!share || !steer_read_probe(arrival->bytes, arrival->segment, &probe))
		return false;
	struct steering *steering = &share->steering[arrival->gid_index];
	/* Those with the numbers of no socket go to any, but after the one with its own number. */
	if (steering->answered == probe.nonce)
		return true;
	steering->answered = probe.nonce;
	note.answer.nonce = probe.nonce;
	note.answer.socket = probe.socket;
	for (unsigned block = 0; block < BLOCK_COUNT; block++)
		if (link->owner[block] != 0)
			note.answer.blocks[block / 8] |= (uint8_t)(1u << block % 8);
	if (link->owner[probe.block] != 0) {
		steering_learn(link, arrival->gid_index, &note);
		return true;
	}
	steering->superseded |= steering->map.socket[probe.block] == 0;
	send_note(share, probe.block, &note, NULL, 0);
	return true;
}

/* ---- passing on ---- */

void share_forward(struct udp_link *link, unsigned block, const struct udp_arrival *packets, size_t count)
{
	struct counters *counters = link->config.counters;
	struct note note = { .kind = KIND_PACKETS, .version = NOTE_VERSION, .local = *packets->local };

	note.packets.source = *packets->source;
	note.packets.segment = (uint32_t)packets->segment;
	note.packets.tclass = packets->tclass;
	note.packets.hop_limit = packets->hop_limit;
	/* A packet that came by an inbox goes no further. */
	int error = packets->passed_on ? -ECONNREFUSED :
					 send_note(link->share, block, &note, packets->bytes, packets->length);
	switch (error) {
	case 0:
		counter_add(&counters->rx_forwarded, count);
		steering_rebuild(link, packets->gid_index, false);
		break;
	case -ECONNREFUSED:
		counter_add(&counters->drop_qpn, count);
		break;
	default:
		counter_add(&counters->drop_inbox, count);
	}
}

/* Whether a message comes from a process of this user: the kernel mixes their packets with ours. */
static bool is_trusted(const struct share *share, struct msghdr *message)
{
	struct ucred credentials;
	for (struct cmsghdr *c = CMSG_FIRSTHDR(message); c; c = CMSG_NXTHDR(message, c)) {
		if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_CREDENTIALS ||
		    c->cmsg_len < CMSG_LEN(sizeof credentials))
			continue;
		memcpy(&credentials, CMSG_DATA(c), sizeof credentials);
		return credentials.uid == share->uid;
	}
	return false;
}

static unsigned take_note(struct udp_link *link, const struct note *note, size_t length, share_deliver *deliver)
{
	unsigned gid_index = 0;

	while (gid_index < link->gids && memcmp(&link->gid[gid_index].gid, &note->local, sizeof note->local) != 0)
		gid_index++;
	if (note->version != NOTE_VERSION || gid_index == link->gids)
		return 0;
	if (note->kind == KIND_SOCKET)
		steering_learn(link, gid_index, note);
	sa_family_t family = gid_is_v4(&note->local) ? AF_INET : AF_INET6;
	if (note->kind != KIND_PACKETS || length == 0 || note->packets.segment == 0 ||
	    note->packets.source.any.sa_family != family)
		return 0;
	struct udp_arrival arrival = {
		.source = &note->packets.source,
		.gid_index = gid_index,
		.local = &note->local,
		.bytes = link->share->bytes,
		.length = length,
		.segment = note->packets.segment,
		.tclass = note->packets.tclass,
		.hop_limit = note->packets.hop_limit,
		.passed_on = true,
	};
	return deliver(link, &arrival);
}

unsigned share_receive(struct udp_link *link, unsigned block, share_deliver *deliver)
{
	struct share *share = link->share;
	_Alignas(struct cmsghdr) uint8_t control[CMSG_SPACE(sizeof(struct ucred))];
	struct note note;
	struct iovec iov[2] = { { &note, sizeof note }, { share->bytes, sizeof share->bytes } };
	unsigned delivered = 0;

	for (unsigned i = 0; i < MESSAGES; i++) {
		struct msghdr message = {
			.msg_iov = iov, .msg_iovlen = 2, .msg_control = control, .msg_controllen = sizeof control };
		ssize_t length = recvmsg(share->inbox[block], &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
		if (length < 0)
			break;
		if ((size_t)length >= sizeof note && is_trusted(share, &message))
			delivered += take_note(link, &note, (size_t)length - sizeof note, deliver);
	}
	return delivered;
}

/* ---- opening and closing ---- */

int share_open(struct udp_link *link)
{
	struct share *share = calloc(1, sizeof *share);
	int size = OUT_BUFFER;

	if (!share) {
		log_write(LOG_ERROR, "out of memory for the device");
		return -ENOMEM;
	}
	share->uid = getuid();
	share->out_fd = open_unix();
	if (share->out_fd < 0) {
		int error = -errno;
		log_write(LOG_ERROR, "cannot make a socket to pass packets on: %s", strerror(-error));
		free(share);
		return error;
	}
	setsockopt(share->out_fd, SOL_SOCKET, SO_SNDBUF, &size, sizeof size);
	link->share = share;
	return 0;
}

void share_abandon(struct udp_link *link)
{
	if (!link->share)
		return;
	for (unsigned block = BLOCK_FIRST; block <= BLOCK_LAST; block++) {
		if (link->owner[block] != 0)
			close(link->share->inbox[block]);
		link->owner[block] = 0;
	}
	if (link->share->out_fd >= 0)
		close(link->share->out_fd);
	link->share->out_fd = -1;
}

void share_close(struct udp_link *link)
{
	share_abandon(link);
	wipe_free(link->share, sizeof *link->share);
}
