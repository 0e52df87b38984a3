/* SPDX-License-Identifier: Apache-2.0 */
/* Epochs of a connection: both ends stop, draw new PSNs, exchange them over TLS, renew the queue pair, and go on. They do so by
 * agreement while the queue pair works, or because it has failed. docs/PROTOCOL.md, "Epochs". */
#ifndef SRDMA_EPOCH_H
#define SRDMA_EPOCH_H

#include "epoch_phase.h"
#include "qp_pool.h"

#include <stdatomic.h>

struct srdma_conn;

/* The change under way. All zero: there is none. */
struct srdma_epoch_change {
	enum srdma_epoch_phase phase, peer_phase;
	enum srdma_epoch_reason reason;
	enum srdma_epoch_reason begun_reason, peer_reason; /* as the two EPOCH_BEGIN said */
	bool broken, peer_broken; /* this end's, or the peer's, queue pair has failed */
	bool broken_again;        /* the new queue pair has failed already */
	bool peer_keys;           /* the peer has sent the new rkeys of its regions with names */
	bool peer_spent;          /* the peer asked, and by this end's count it has used up its PSNs */
	uint64_t peer_sends;      /* posted by the peer on the old queue pair and all before */
	struct srdma_epoch_frame peer; /* the peer's parameters */
	struct srdma_qp fresh;    /* from the pool, when this change replaces the queue pair */
	uint32_t psn;             /* this end's new one */
	uint32_t psn_limit;       /* number of PSNs that it may use from there on */
	uint64_t held_since;
	uint64_t deadline;
};

struct srdma_epoch {
	bool agreed;              /* both ends have epochs */
	uint64_t began;           /* start of the present epoch */
	uint64_t sweeps_seen;     /* of the device's */
	atomic_bool wanted;       /* by the program */
	struct srdma_qp_pool pool;
	struct srdma_epoch_change change;
	bool stayed;              /* at the last change both queue pairs stayed, to use the other half of their PSNs */
	uint32_t last_request;    /* number of the peer's last EPOCH_REQUEST: an end asks for an epoch once */
	uint64_t minute_began;    /* start of the minute whose recoveries are counted */
	unsigned minute_recoveries;
	/* written by the connection's thread, readable by any */
	atomic_uint number, recoveries, pause_us, pause_max_us;
};

/* Begins the first epoch, after the set-up. */
void srdma_epoch_start(struct srdma_conn *conn);
/* Advances a change, or begins one that is due. `thorough`: also looks at the clock and the device's counters. Returns 0, or the
 * error that ends the connection. */
int srdma_epoch_step(struct srdma_conn *conn, bool thorough);
/* Takes a frame of type EPOCH_* from the inbox. */
int srdma_epoch_take(struct srdma_conn *conn);
/* Takes note of REGION_KEYS, which is due once in a change. */
int srdma_epoch_take_keys(struct srdma_conn *conn);
/* The queue pair has failed with `error`, the thread's last one. Returns 0 when it will be replaced, else `error`. */
int srdma_epoch_break(struct srdma_conn *conn, int error);
bool srdma_epoch_is_changing(const struct srdma_conn *conn);
/* Whether a step would do something merely because time has passed. */
bool srdma_epoch_is_due(struct srdma_conn *conn, uint64_t now);
/* When the caller should ask srdma_epoch_is_due again (clock.h); SRDMA_NEVER. */
uint64_t srdma_epoch_next(const struct srdma_conn *conn, uint64_t now);
/* The same for a caller that is told of sweeps, and of every step of a change. */
uint64_t srdma_epoch_next_by_time(const struct srdma_conn *conn, uint64_t now);
void srdma_epoch_release(struct srdma_conn *conn);

#endif
