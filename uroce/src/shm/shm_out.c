/* SPDX-License-Identifier: Apache-2.0 */
/* Paths to other processes: dialing, sending, and their ends. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "guard.h"
#include "shm_parts.h"
#include "timer.h"
#include "udp_socket.h"
#include "wipe.h"

#define PAUSE_NS 1000000000u /* after a process could not be dialed */
#define STUCK_NS 100000000u  /* a receiver that takes nothing for so long is stopped, and not only slow */

enum {
	DEFAULT_HOPS = 64,
	/* Short entries are put together elsewhere, and then copied at once. The receiver polls their first line: if it took that away
	 * while it is being filled, it would have to be fetched back before the word could be written. */
	STAGED = 256,
};

/* ---- dialing ---- */

/* In its own network namespace; else a process of this host that happens to have the same block is another one. */
static bool is_here(const union ibv_gid *gid)
{
	union udp_sockaddr address;
	socklen_t length = udp_sockaddr_of(gid, 0, &address);
	int fd = socket(address.any.sa_family, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return false;
	if (address.any.sa_family == AF_INET)
		address.v4.sin_port = 0;
	else
		address.v6.sin6_port = 0;
	bool here = bind(fd, &address.any, length) == 0;
	close(fd);
	return here;
}

static int send_hello(const struct shm *shm, int fd, int ring_fd, const union ibv_gid *dgid)
{
	struct hello hello = { .magic = HELLO_MAGIC, .version = HELLO_VERSION, .dgid = *dgid, .gids = udp_gid_count(shm->config.udp) };
	struct iovec iov = { &hello, sizeof hello };
	_Alignas(struct cmsghdr) uint8_t control[CMSG_SPACE(sizeof(int))] = { 0 };
	struct msghdr message = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control };
	struct cmsghdr *c = CMSG_FIRSTHDR(&message);

	for (unsigned i = 0; i < hello.gids; i++)
		hello.gid[i] = *udp_gid(shm->config.udp, i);
	c->cmsg_level = SOL_SOCKET;
	c->cmsg_type = SCM_RIGHTS;
	c->cmsg_len = (__typeof__(c->cmsg_len))CMSG_LEN(sizeof ring_fd);
	memcpy(CMSG_DATA(c), &ring_fd, sizeof ring_fd);
	return sendmsg(fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL) == (ssize_t)sizeof hello ? 0 : -errno;
}

static int connect_to(const struct shm *shm, unsigned block)
{
	struct sockaddr_un name;
	socklen_t length = shm_name_of(shm, block, &name);
	int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return -errno;
	int error = connect(fd, (const struct sockaddr *)&name, length) != 0 ? -errno : shm_is_own_user(shm, fd) ? 0 : -EPERM;
	if (error != 0)
		close(fd);
	return error == 0 ? fd : error;
}

static struct shm_path *dial(struct shm *shm, unsigned block, const union ibv_gid *dgid)
{
	int fd = connect_to(shm, block);
	if (fd < 0)
		return NULL;
	struct shm_path *path = calloc(1, sizeof *path);
	int ring_fd = path ? ring_create(&path->ring) : -ENOMEM;
	if (ring_fd < 0) {
		close(fd);
		free(path);
		return NULL;
	}
	int error = send_hello(shm, fd, ring_fd, dgid);
	close(ring_fd);
	if (error != 0 || watch_add(shm, &path->watch, OUTGOING, fd) != 0) {
		close(fd);
		ring_unmap(&path->ring.shared);
		free(path);
		return NULL;
	}
	path->shm = shm;
	path->dgid = *dgid;
	path->block = block;
	path->next = shm->paths[block];
	shm->paths[block] = path;
	return path;
}

/* All names of the loopback device are of one place. */
static const union ibv_gid *place_of(const struct shm *shm, const union ibv_gid *dgid)
{
	static const union ibv_gid any;
	return shm->config.loopback ? &any : dgid;
}

struct shm_path *shm_known_path(const struct shm *shm, const union ibv_gid *dgid, uint32_t qpn)
{
	dgid = place_of(shm, dgid);
	for (struct shm_path *path = shm->paths[block_of(qpn)]; path; path = path->next)
		if (memcmp(&path->dgid, dgid, sizeof *dgid) == 0 && !path->ended)
			return path;
	return NULL;
}

struct shm_path *shm_path_to(struct shm *shm, const union ibv_gid *dgid, uint32_t qpn)
{
	struct shm_path *known = shm_known_path(shm, dgid, qpn);
	if (known)
		return known;
	unsigned block = block_of(qpn);
	dgid = place_of(shm, dgid);
	uint64_t now = clock_ns(CLOCK_MONOTONIC);
	if (now < shm->pause_until[block])
		return NULL;
	struct shm_path *path = shm->config.loopback || is_here(dgid) ? dial(shm, block, dgid) : NULL;
	if (!path)
		shm->pause_until[block] = now + PAUSE_NS;
	return path;
}

void path_free(struct shm_path *path)
{
	struct shm *shm = path->shm;
	for (struct shm_path **at = &shm->paths[path->block]; *at; at = &(*at)->next) {
		if (*at == path) {
			*at = path->next;
			break;
		}
	}
	for (struct shm_path **at = &shm->dirty; *at; at = &(*at)->next_dirty) {
		if (*at == path) {
			*at = path->next_dirty;
			break;
		}
	}
	if (path->watch.fd >= 0)
		watch_remove(shm, &path->watch);
	ring_unmap(&path->ring.shared);
	wipe_free(path, sizeof *path);
}

void shm_hold(struct shm_path *path)
{
	if (path)
		path->uses++;
}

void shm_release(struct shm_path *path)
{
	if (path && --path->uses == 0 && path->ended)
		path_free(path);
}

void path_end(struct shm_path *path, enum shm_event event)
{
	struct shm *shm = path->shm;
	if (event == SHM_REFUSED)
		shm->pause_until[path->block] = clock_ns(CLOCK_MONOTONIC) + PAUSE_NS;
	path->ended = true;
	path->killed = event == SHM_KILLED;
	watch_remove(shm, &path->watch);
	shm_hold(path);
	shm->config.notify(shm->config.arg, path, event);
	shm_release(path);
}

/* ---- sending ---- */

bool shm_was_killed(const struct shm_path *path)
{
	return path->killed;
}

bool shm_ready(struct shm_path *path)
{
	if (!path->ended && !ring_has_room(&path->ring))
		return false;
	path->full_since = 0;
	return true;
}

bool shm_is_stuck(struct shm_path *path, uint64_t now, uint64_t *until)
{
	if (path->full_since == 0)
		path->full_since = now;
	*until = path->full_since + STUCK_NS;
	return now >= *until;
}

bool shm_ready_for_short(struct shm_path *path)
{
	return path->ended || ring_has_short_room(&path->ring);
}

bool shm_drained(const struct shm_path *path)
{
	return path->ended || ring_is_drained(&path->ring);
}

bool shm_send(struct shm_path *path, const struct packet_out *packet, const uint8_t *ack)
{
	struct shm *shm = path->shm;
	struct ring_word word = {
		.kind = RING_PACKET, .gid_index = packet->sgid_index, .tclass = packet->tclass, .hop_limit = packet->hop_limit };
	size_t length = packet->header_length + packet->payload_length, pad = -packet->payload_length & 3, more = ack ? WIRE_ACK : 0;

	if (path->ended)
		return true;
	if (word.hop_limit == 0)
		word.hop_limit = DEFAULT_HOPS;
	uint8_t staged[STAGED];
	uint8_t *place = ring_begin(&path->ring, sizeof packet->dgid + length + pad + more);
	bool stage = sizeof packet->dgid + length + pad + more <= sizeof staged;
	uint8_t *begin = stage ? staged : place, *to = begin;
	if ((packet->header[0] & 0xe0) == WIRE_UD && !shm->config.loopback) {
		word.kind = RING_DATAGRAM;
		memcpy(to, &packet->dgid, sizeof packet->dgid);
		to += sizeof packet->dgid;
	}
	memcpy(to, packet->header, packet->header_length);
	to += packet->header_length;
	for (size_t i = 0; i < packet->pieces; i++) {
		if (!guard_copy(to, packet->piece[i].iov_base, packet->piece[i].iov_len))
			return false;
		to += packet->piece[i].iov_len;
	}
	memset(to, 0, pad);
	if (ack) {
		word.kind = RING_ACKED;
		memcpy(to + pad, ack, WIRE_ACK);
	}
	word.length = (uint32_t)(to + pad + more - begin);
	if (begin != place)
		memcpy(place, begin, word.length);
	ring_publish(&path->ring, word);
	shm->sent.packets += ack ? 2 : 1;
	shm->sent.bytes += length + pad + more;
	if (!path->dirty) {
		path->dirty = true;
		path->next_dirty = shm->dirty;
		shm->dirty = path;
	}
	return true;
}

/* After a fence. */
static bool sleeps(const struct shm_path *path)
{
	return !path->ended && atomic_load_explicit(&path->ring.shared->sleeps, memory_order_relaxed) != 0;
}

bool shm_flush_awake(struct shm *shm)
{
	ring_fence();
	while (shm->dirty && !sleeps(shm->dirty)) {
		shm->dirty->dirty = false;
		shm->dirty = shm->dirty->next_dirty;
	}
	return !shm->dirty;
}

void shm_flush(struct shm *shm)
{
	struct counters *counters = shm->config.counters;
	traffic_count(&shm->sent, &counters->tx_packets, &counters->tx_bytes, &counters->tx_local);
	if (!shm->dirty)
		return;
	ring_fence();
	while (shm->dirty) {
		struct shm_path *path = shm->dirty;
		shm->dirty = path->next_dirty;
		path->dirty = false;
		if (sleeps(path) && atomic_exchange(&path->ring.shared->sleeps, 0) != 0)
			shm_say(path->watch.fd, SAY_LOOK);
	}
}

