/* SPDX-License-Identifier: Apache-2.0 */
/* The device of a process: the state that all its queue pairs share. One lock guards all protocol state ("the device's lock");
 * a completion queue, and a receive queue, has its own lock beneath it. Order: device, receive queue, completion queue,
 * completion channel or async event queue. */
#ifndef UROCE_DEVICE_H
#define UROCE_DEVICE_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "counters.h"
#include "device_files.h"
#include "hw_counters.h"
#include "link.h"
#include "lock.h"
#include "table.h"
#include "timer.h"

/* Limits, as ibv_query_device tells them. */
enum {
	MAX_QP = 1 << 17,
	MAX_QP_WR = 16384,
	MAX_SGE = 30,
	MAX_INLINE = 1024,
	MAX_CQ = 1 << 17,
	MAX_CQE = 1 << 22,
	MAX_MR = 1 << 20,
	MAX_MW = 1 << 20,
	MAX_PD = 1 << 17,
	MAX_AH = 1 << 20,
	MAX_SRQ = 1 << 16,
	MAX_SRQ_WR = 1 << 18,
	MAX_MULTICAST_GROUPS = 256,
	MAX_MULTICAST_QPS = 1024, /* of a group */
	MAX_RD_ATOMIC = 128, /* a power of two: rings have that many slots */
};
/* No enumerator: it needs 32 bits, and would make all of the enum unsigned. */
#define MAX_MESSAGE (UINT32_C(1) << 31)

struct cm;
struct gsi;
struct multicast_group;
struct packet;
struct packet_path;
struct progress;
struct qp;
struct shm;
struct udp_link;

struct device {
	struct lock lock;
	atomic_uint waiting; /* threads in device_lock(): a thread that only polls lets them go first */
	bool cancelable; /* what the thread that has the lock was before */
	struct link *link;
	struct udp_link *udp; /* NULL on a simulated wire */
	struct shm *shm; /* to processes of this host; NULL: all goes by the link */
	struct counters *counters;
	struct device_files files; /* the device as files, and counters among them */
	struct hw_counters hw_counters;
	uint64_t now; /* nanoseconds; read once per entry, set by the simulation */
	bool undated; /* `now` may be long past: packets are taken for which it does not matter */
	uint64_t arrived; /* when the packet that is being delivered came to this host, as far as that is known; else `now` */

	/* Set before the first use of a device; they never change after. */
	uint64_t (*clock)(void);
	bool (*same_peer)(const struct device *device, const union ibv_gid *dgid, const union ibv_gid *sgid);
	enum ibv_mtu mtu;

	struct table qps;  /* by QPN */
	struct table keys; /* struct key by key >> 8: see memory.h */
	struct timers timers;
	struct multicast_group *multicast; /* to which queue pairs are attached: multicast.c */
	size_t multicast_count;
	size_t qp_count; /* of all these, for timers and limits */
	size_t block_used; /* QPNs taken of the newest block */
	uint32_t *blocks; /* first QPNs of the claimed blocks */
	size_t block_count;

	/* Queue pairs that have something to send, first come first served: active.c. */
	struct qp *active_head;
	struct qp **active_tail;
	struct qp *parked; /* those that wait for room in shared memory */
	bool eager; /* some of it should go now; else the next round is soon enough, and sends more at once */

	unsigned glances;   /* polls that might have done no more than look */
	unsigned udp_turns; /* polls since the sockets were looked at */
	uint64_t udp_at;    /* when that was */
	unsigned shm_idle;  /* polls since something came through shared memory */
	bool udp_found;     /* something was there */

	bool keeps_ahead;  /* packets that come ahead of a gap, from peers that have a tag: tag.h */
	bool ecn;          /* packets may pass routers that mark them */
	size_t held_bytes; /* of requests that came ahead of a gap: hold.c */
	uint32_t max_window; /* packets of 4 KiB that a receive buffer takes */

	/* Management datagrams (gsi.h), and the connection manager of a program that uses one; NULL on a simulated wire. */
	struct gsi *gsi;
	void (*gsi_receive)(struct device *device, const struct packet *packet, const struct packet_path *path);
	struct cm *cm;

	/* The thread that makes progress when the application does not: progress.c. NULL: there is none. */
	struct progress *progress;
};

/* A thread that polls an empty queue in a loop holds the lock most of the time, and takes it again before a waiting thread has
 * woken. So the waiting ones are counted, and engine_poll leaves the lock to them. */
void device_lock(struct device *device);
/* The same for a moment in which nothing is called that a thread can be cancelled in, unless device_stay comes before. */
void device_lock_briefly(struct device *device);
void device_stay(struct device *device);
bool device_try_lock(struct device *device);
/* The same, again and again for so long. */
bool device_lock_within(struct device *device, uint64_t ns);
void device_unlock(struct device *device);

#endif
