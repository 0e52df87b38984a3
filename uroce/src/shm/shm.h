/* SPDX-License-Identifier: Apache-2.0 */
/* Packets between processes of one user on one host, and within a process, through shared memory: no network stack, no ICRC.
 *
 * Each direction has a ring, which its sender makes and hands over by a unix socket ("dials"). The sender uses it at once, and need not
 * wait for the other process. The socket stays: it wakes the receiver, tells the sender of room, and its end is the end of the other
 * process. The device's lock is held in all. */
#ifndef UROCE_SHM_H
#define UROCE_SHM_H

#include "counters.h"
#include "link.h"
#include "udp.h"

struct shm;
struct shm_path; /* to another process */

/* What happens to a path. */
enum shm_event {
	SHM_KILLED,  /* the other process has ended, and not of its own accord; all that it sent has been delivered */
	SHM_LEFT,    /* of its own accord: nothing answers any more, as on a network */
	SHM_REFUSED, /* it takes no packets this way: they go by UDP, and those that were sent are lost */
};

struct shm_config {
	const struct udp_link *udp; /* its addresses are the device's */
	bool loopback;              /* it has none of its own */
	struct counters *counters;
	/* One packet. Its payload lies where another process may change it. */
	void (*deliver)(void *arg, const struct packet *packet, const struct packet_path *path);
	/* The path is not used any more after it returns, but for shm_release. */
	void (*notify)(void *arg, struct shm_path *path, enum shm_event event);
	void *arg;
};

/* 0 or a negative errno, not logged: without it everything goes by UDP. */
int shm_open_device(const struct shm_config *config, struct shm **out);
void shm_close(struct shm **shm);
/* The process ends: the others need not take it for killed. */
void shm_leave(struct shm *shm);
/* In a forked child. Async-signal-safe: the descriptors. */
void shm_abandon(struct shm *shm);

/* Other processes may dial for queue pairs of this block from now on. When it fails, they use UDP. */
void shm_listen(struct shm *shm, uint32_t first_qpn);

/* The path to a queue pair of another process, or of this one; NULL: there is none. */
struct shm_path *shm_path_to(struct shm *shm, const union ibv_gid *dgid, uint32_t qpn);
/* The same, if it is there already. No cancellation point. */
struct shm_path *shm_known_path(const struct shm *shm, const union ibv_gid *dgid, uint32_t qpn);
/* A path stays valid between these, whatever happens to it; NULL is fine. */
void shm_hold(struct shm_path *path);
void shm_release(struct shm_path *path);

/* The other process was killed: nothing is sent any more, and waiting for answers is in vain. */
bool shm_was_killed(const struct shm_path *path);
/* Room for a packet. False: there will be, or the path ends. */
bool shm_ready(struct shm_path *path);
/* Where there is none: whether that has lasted so long that what may be lost is lost. Else `until` is when it will have. */
bool shm_is_stuck(struct shm_path *path, uint64_t now, uint64_t *until);
/* The same for one without payload. */
bool shm_ready_for_short(struct shm_path *path);
/* The other process has taken all packets. */
bool shm_drained(const struct shm_path *path);
/* Sends a packet, and with it an acknowledgement of WIRE_ACK bytes, which comes after it, unless `ack` is NULL; shm_ready must have been
 * true. False: memory of the payload is not there, and nothing is sent. On a path that has ended it is lost. */
bool shm_send(struct shm_path *path, const struct packet_out *packet, const uint8_t *ack);
/* Wakes the receivers of what was sent, and counts it. */
void shm_flush(struct shm *shm);
/* False: one of them sleeps, and has to be woken. No cancellation point; what was sent is counted later. */
bool shm_flush_awake(struct shm *shm);

/* Delivers packets, about `budget` of them at most; returns their number. `thorough`: looks also where rarely something happens. */
unsigned shm_receive(struct shm *shm, unsigned budget, bool thorough);
/* The same of the rings where packets come now and then, and nothing else; the next call of shm_receive counts them. */
unsigned shm_receive_briefly(struct shm *shm, unsigned budget);
/* Packets come now and then, so that it is worth looking often. */
bool shm_is_busy(const struct shm *shm);
/* It is, and its rings are few. */
bool shm_has_few(const struct shm *shm);
/* The same, and nothing has come in any of them. */
bool shm_is_silent(const struct shm *shm);
/* From now on whoever sends wakes this process. False: something has arrived. */
bool shm_sleep(struct shm *shm);
/* Readable when something has happened, after shm_sleep. */
int shm_fd(const struct shm *shm);

#endif
