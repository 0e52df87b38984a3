/* SPDX-License-Identifier: Apache-2.0 */
/* Paths through shared memory, as the files that they are made of see them. */
#ifndef UROCE_SHM_PARTS_H
#define UROCE_SHM_PARTS_H

#include <sys/socket.h>
#include <sys/types.h>
#include <sys/un.h>

#include "block.h"
#include "packet_ring.h"
#include "shm.h"
#include "udp_address.h"

enum { HELLO_MAGIC = 0x75726f63, HELLO_VERSION = 2 };

/* Messages of one byte: the sender's, and two of the receiver. */
enum shm_word { SAY_LOOK = 'L', SAY_ROOM = 'S', SAY_REFUSED = 'R' };

enum kind { LISTENER, INCOMING, OUTGOING };

/* The first member of what epoll tells of. */
struct watch {
	enum kind kind;
	int fd;
	struct watch *next;
};

/* What a sender says first, with the ring's descriptor. */
struct hello {
	uint32_t magic;
	uint32_t version;
	union ibv_gid dgid; /* not of a loopback device: one of the receiver's */
	uint32_t gids;
	union ibv_gid gid[UDP_MAX_GIDS]; /* the sender's */
};

struct incoming {
	struct watch watch;
	struct ring_in ring;
	bool busy;      /* on the list of those that are looked at */
	bool untold;    /* packets were taken, and it was not made sure since that the sender does not wait for room */
	unsigned quiet; /* looks in vain */
	unsigned gids;
	union ibv_gid gid[UDP_MAX_GIDS];
	struct incoming *next_busy;
};

struct shm_path {
	struct watch watch;
	struct shm *shm;
	struct ring_out ring;
	union ibv_gid dgid;
	unsigned block;
	unsigned uses;
	bool ended;   /* for one of the reasons of enum shm_event */
	bool killed;
	bool dirty;   /* something was sent since the last flush */
	uint64_t full_since; /* as far as anyone has asked; 0: there is room */
	struct shm_path *next;       /* of the block */
	struct shm_path *next_dirty;
};

/* Not counted yet. */
struct traffic {
	uint64_t packets;
	uint64_t bytes;
};

struct shm {
	struct shm_config config;
	uid_t uid;
	int epoll_fd;
	struct watch *watches;   /* all of them, for abandoning */
	struct incoming *busy;
	unsigned busy_count;
	unsigned incoming_count;
	unsigned looks;
	struct shm_path *paths[BLOCK_COUNT];
	bool listens[BLOCK_COUNT];
	uint64_t pause_until[BLOCK_COUNT]; /* no process of the block could be dialed */
	struct shm_path *dirty;
	struct traffic sent, received;
};

/* ---- shm_watch.c ---- */

int watch_add(struct shm *shm, struct watch *watch, enum kind kind, int fd);
/* Closes its descriptor. */
void watch_remove(struct shm *shm, struct watch *watch);
/* Abstract names belong to the network namespace, as ports do, and end with their process. Blocks of loopback devices, and of
 * those with addresses, are counted apart. */
socklen_t shm_name_of(const struct shm *shm, unsigned block, struct sockaddr_un *out);
bool shm_is_own_user(const struct shm *shm, int fd);
/* Never waits: where the socket takes no more, the other end has enough to read. */
void shm_say(int fd, enum shm_word word);
/* Reads the bytes that wait, the last of them into `last`. False: the other end has closed. */
bool shm_read_bytes(int fd, char *last);
void traffic_count(struct traffic *traffic, _Atomic uint64_t *packets, _Atomic uint64_t *bytes, _Atomic uint64_t *local);

/* ---- shm_in.c: what others send ---- */

/* Takes those who dial. */
void shm_accept_all(struct shm *shm, const struct watch *listener);
/* Its socket is readable, or closed. The bytes that wake the device's thread are left to it, unless `thorough`: it would rest on when
 * another thread had read them. Adds to `taken`. */
void incoming_event(struct shm *shm, struct incoming *in, bool closed, bool thorough, unsigned *taken);
void incoming_end(struct shm *shm, struct incoming *in);
/* Nothing more is taken for now: tells a sender that waits for room. */
void incoming_settle(struct incoming *in);
/* Looks at the rings where something may be; returns the packets taken, about `budget` at most. */
unsigned shm_look_at_busy(struct shm *shm, unsigned budget);
/* Everything that others have sent. */
unsigned shm_take_all(struct shm *shm);

/* ---- shm_out.c: paths to others ---- */

void path_free(struct shm_path *path);
void path_end(struct shm_path *path, enum shm_event event);

#endif
