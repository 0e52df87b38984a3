/* SPDX-License-Identifier: Apache-2.0 */
/* What others send: being dialed, and taking packets out of rings. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "log.h"
#include "shm_parts.h"
#include "wipe.h"

enum {
	BACKLOG = 4096,
	MOST_INCOMING = 8192,
	ACCEPTS = 32,       /* in one go */
	QUIET_LOOKS = 4096, /* looks at a ring in vain, after which its sender has to wake us: when there are many */
	FEW = 32,           /* rings that are looked at for ever: it costs little */
	TAKEN = 24,         /* packets of one ring before it is the next one's turn */
};

/* ---- receiving ---- */

static void forget(struct shm *shm, struct incoming *in)
{
	watch_remove(shm, &in->watch);
	ring_unmap(&in->ring.shared);
	shm->incoming_count--;
	wipe_free(in, sizeof *in);
}

/* `at` is its place on the list. */
static void make_quiet(struct shm *shm, struct incoming **at)
{
	(*at)->busy = false;
	*at = (*at)->next_busy;
	shm->busy_count--;
}

void incoming_end(struct shm *shm, struct incoming *in)
{
	struct incoming **at = &shm->busy;
	while (in->busy && *at != in)
		at = &(*at)->next_busy;
	if (in->busy)
		make_quiet(shm, at);
	forget(shm, in);
}

static void make_busy(struct shm *shm, struct incoming *in)
{
	in->quiet = 0;
	if (in->busy)
		return;
	in->busy = true;
	in->next_busy = shm->busy;
	shm->busy = in;
	shm->busy_count++;
}

/* False: it is no packet. The headers are copied before they are read. */
static bool deliver_one(struct shm *shm, const uint8_t *bytes, size_t length, const struct packet_path *path)
{
	const struct shm_config *config = &shm->config;
	uint8_t header[WIRE_MAX_HEADER];
	struct packet packet;

	memcpy(header, bytes, length < sizeof header ? length : sizeof header);
	if (wire_decode_parts(header, bytes, length, RING_PAYLOAD, &packet) != 0)
		return false;
	packet.local = true;
	shm->received.packets++;
	shm->received.bytes += length;
	config->deliver(config->arg, &packet, path);
	return true;
}

static bool deliver(struct shm *shm, const struct incoming *in, const struct ring_word *word, const uint8_t *bytes)
{
	struct packet_path path = { .sgid_index = word->gid_index, .tclass = word->tclass, .hop_limit = word->hop_limit };
	size_t length = word->length;

	if (word->gid_index >= in->gids)
		return false;
	path.sgid = in->gid[word->gid_index];
	path.dgid = path.sgid;
	if (word->kind == RING_DATAGRAM) {
		if (length < sizeof path.dgid)
			return false;
		memcpy(&path.dgid, bytes, sizeof path.dgid);
		bytes += sizeof path.dgid;
		length -= sizeof path.dgid;
	}
	if (word->kind != RING_ACKED)
		return deliver_one(shm, bytes, length, &path);
	if (length < WIRE_ACK)
		return false;
	length -= WIRE_ACK;
	return deliver_one(shm, bytes, length, &path) && deliver_one(shm, bytes + length, WIRE_ACK, &path);
}

/* Without a fence one that has just begun to wait may be missed. */
static void tell_room(struct incoming *in)
{
	if (atomic_load_explicit(&in->ring.shared->waits, memory_order_relaxed) != 0 &&
	    atomic_exchange(&in->ring.shared->waits, 0) != 0)
		shm_say(in->watch.fd, SAY_ROOM);
}

void incoming_settle(struct incoming *in)
{
	if (!in->untold)
		return;
	in->untold = false;
	ring_fence();
	tell_room(in);
}

/* -EBADMSG: the sender breaks the rules. */
static int take_packets(struct shm *shm, struct incoming *in, unsigned budget, unsigned *taken)
{
	struct ring_word word;
	const uint8_t *bytes;
	unsigned count = 0;
	int found = 0;

	while (count < budget && (found = ring_peek(&in->ring, &word, &bytes)) == 1) {
		if (!deliver(shm, in, &word, bytes)) {
			counter_add(&shm->config.counters->drop_malformed, 1);
			found = -EBADMSG;
			break;
		}
		ring_take(&in->ring, &word);
		count++;
	}
	if (count > 0) {
		in->quiet = 0;
		in->untold = true;
		tell_room(in);
	} else {
		incoming_settle(in);
	}
	*taken += count;
	return found < 0 ? found : 0;
}

bool shm_has_few(const struct shm *shm)
{
	return shm->busy && shm->busy_count <= FEW;
}

bool shm_is_silent(const struct shm *shm)
{
	if (!shm_has_few(shm))
		return false;
	for (const struct incoming *in = shm->busy; in; in = in->next_busy)
		if (!ring_is_silent(&in->ring))
			return false;
	return true;
}

unsigned shm_look_at_busy(struct shm *shm, unsigned budget)
{
	unsigned taken = 0;
	struct incoming **at = &shm->busy;
	while (*at && taken < budget) {
		struct incoming *in = *at;
		if (take_packets(shm, in, TAKEN, &taken) != 0) {
			log_write(LOG_WARN, "another process sent what is no packet through shared memory; its queue pairs fail");
			make_quiet(shm, at);
			forget(shm, in);
			continue;
		}
		if (++in->quiet > QUIET_LOOKS && shm->busy_count > FEW && ring_sleep(&in->ring)) {
			make_quiet(shm, at);
			continue;
		}
		at = &in->next_busy;
	}
	return taken;
}

/* ---- being dialed ---- */

static bool is_own_gid(const struct shm *shm, const union ibv_gid *gid)
{
	for (unsigned i = 0; i < udp_gid_count(shm->config.udp); i++)
		if (memcmp(udp_gid(shm->config.udp, i), gid, sizeof *gid) == 0)
			return true;
	return false;
}

/* 0, -EAGAIN: it has not come yet, or -EPROTO. */
static int receive_hello(int fd, struct hello *hello, int *ring_fd)
{
	struct iovec iov = { hello, sizeof *hello };
	_Alignas(struct cmsghdr) uint8_t control[CMSG_SPACE(sizeof(int))];
	struct msghdr message = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control };
	ssize_t length = recvmsg(fd, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
	if (length < 0)
		return errno == EAGAIN || errno == EINTR ? -EAGAIN : -EPROTO;
	const struct cmsghdr *c = CMSG_FIRSTHDR(&message);
	if (c && c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_RIGHTS && c->cmsg_len == CMSG_LEN(sizeof(int)))
		memcpy(ring_fd, CMSG_DATA(c), sizeof *ring_fd);
	bool known = length == (ssize_t)sizeof *hello && *ring_fd >= 0 && hello->magic == HELLO_MAGIC &&
		     hello->version == HELLO_VERSION && hello->gids <= UDP_MAX_GIDS;
	return known ? 0 : -EPROTO;
}

/* 0, -EAGAIN, or why it is refused. */
static int welcome(struct shm *shm, struct incoming *in)
{
	struct hello hello;
	int ring_fd = -1;
	int error = receive_hello(in->watch.fd, &hello, &ring_fd);
	if (error == 0 && !shm->config.loopback && !is_own_gid(shm, &hello.dgid))
		error = -EADDRNOTAVAIL;
	if (error == 0)
		error = ring_map(ring_fd, &in->ring);
	if (ring_fd >= 0)
		close(ring_fd);
	if (error != 0)
		return error;
	in->gids = hello.gids;
	memcpy(in->gid, hello.gid, sizeof in->gid);
	/* The device's thread may be at rest: the sender must wake it. What is there is looked at now. */
	ring_sleep(&in->ring);
	make_busy(shm, in);
	return 0;
}

static void refuse(struct shm *shm, struct incoming *in, int error)
{
	log_write(LOG_DEBUG, "refused a path of shared memory: %s", strerror(-error));
	shm_say(in->watch.fd, SAY_REFUSED);
	incoming_end(shm, in);
}

/* One that has dialed may have said who it is. */
static void hear(struct shm *shm, struct incoming *in)
{
	int error = welcome(shm, in);
	if (error != 0 && error != -EAGAIN)
		refuse(shm, in, error);
}

/* Somebody dials. Takes the descriptor. */
static void take_caller(struct shm *shm, int fd)
{
	bool wanted = shm_is_own_user(shm, fd) && shm->incoming_count < MOST_INCOMING;
	struct incoming *in = wanted ? calloc(1, sizeof *in) : NULL;
	if (!in || watch_add(shm, &in->watch, INCOMING, fd) != 0) {
		shm_say(fd, SAY_REFUSED);
		close(fd);
		free(in);
		return;
	}
	shm->incoming_count++;
	hear(shm, in);
}

void shm_accept_all(struct shm *shm, const struct watch *listener)
{
	for (unsigned i = 0; i < ACCEPTS; i++) {
		int fd = accept4(listener->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
		if (fd < 0) {
			if (errno == EMFILE || errno == ENFILE) {
				/* It would stay readable: whoever dials from now on goes by UDP. */
				log_write(LOG_INFO, "too many open files for paths of shared memory; packets of others go by UDP");
				epoll_ctl(shm->epoll_fd, EPOLL_CTL_DEL, listener->fd, NULL);
				shutdown(listener->fd, SHUT_RDWR);
			}
			return;
		}
		take_caller(shm, fd);
	}
}

void shm_listen(struct shm *shm, uint32_t first_qpn)
{
	struct sockaddr_un name;
	unsigned block = block_of(first_qpn);
	if (shm->listens[block])
		return;
	struct watch *listener = calloc(1, sizeof *listener);
	int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	socklen_t length = shm_name_of(shm, block, &name);

	if (listener && fd >= 0 && bind(fd, (const struct sockaddr *)&name, length) == 0 && listen(fd, BACKLOG) == 0 &&
	    watch_add(shm, listener, LISTENER, fd) == 0) {
		shm->listens[block] = true;
		return;
	}
	log_write(LOG_DEBUG, "cannot listen for paths of shared memory: %s", strerror(errno));
	if (fd >= 0)
		close(fd);
	free(listener);
}

void incoming_event(struct shm *shm, struct incoming *in, bool closed, bool thorough, unsigned *taken)
{
	char byte;
	if (!in->ring.shared) {
		hear(shm, in);
		return;
	}
	make_busy(shm, in);
	if (!closed && !thorough)
		return;
	if (shm_read_bytes(in->watch.fd, &byte))
		return;
	/* Its last words. */
	unsigned before;
	do {
		before = *taken;
		if (take_packets(shm, in, TAKEN, taken) != 0)
			break;
	} while (*taken != before);
	incoming_end(shm, in);
}

unsigned shm_take_all(struct shm *shm)
{
	unsigned taken = 0, before;
	for (struct watch *watch = shm->watches; watch; watch = watch->next)
		if (watch->kind == LISTENER)
			shm_accept_all(shm, watch);
	for (struct watch *watch = shm->watches; watch; watch = watch->next)
		if (watch->kind == INCOMING && ((struct incoming *)watch)->ring.shared)
			make_busy(shm, (struct incoming *)watch);
	do {
		before = taken;
		taken += shm_look_at_busy(shm, UINT32_MAX);
	} while (taken != before && taken < 1u << 20);
	return taken;
}

