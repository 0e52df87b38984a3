/* SPDX-License-Identifier: Apache-2.0 */
/* Epochs of a connection: both ends stop, draw new PSNs, exchange them over TLS, renew the queue pair, and go on. By agreement
 * while the queue pair works, or because it has failed. docs/PROTOCOL.md, "Epochs". */
#ifndef SRDMA_EPOCH_H
#define SRDMA_EPOCH_H

#include "frames.h"
#include "qp_pool.h"

#include <stdatomic.h>

struct srdma_conn;

struct srdma_epoch {
	bool agreed;              /* both ends have epochs */
	uint64_t began;           /* when the present one did */
	uint64_t sweeps_seen;     /* of the device's */
	atomic_bool wanted;       /* by the program */
	struct srdma_qp_pool pool;

	/* the change under way */
	enum srdma_epoch_reason reason;
	enum srdma_epoch_reason begun_reason, peer_reason; /* as both ends' EPOCH_BEGIN said */
	bool stayed;         /* both queue pairs did at the change before: they have had half of their PSNs, and another half */
	bool requested;      /* EPOCH_REQUEST was sent; work goes on until the peer begins */
	bool peer_asked;     /* and the other way round */
	bool peer_spent;     /* and has used up its PSNs, as far as this end can see */
	uint32_t last_request; /* number of the peer's last EPOCH_REQUEST: one asks for an epoch once */
	bool begun;          /* EPOCH_BEGIN was sent: nothing is posted any more */
	bool broken;         /* the own queue pair has failed */
	bool told;           /* EPOCH_PARAMETERS was sent */
	bool connected;      /* the new queue pair is in RTS, EPOCH_READY was sent */
	bool broken_again;   /* and has failed already */
	bool peer_begun, peer_broken, peer_told, peer_ready;
	uint64_t peer_sends; /* posted by the peer on the old queue pair and all before */
	struct srdma_epoch_frame peer; /* its parameters */
	struct srdma_qp fresh;   /* taken from the pool, when the queue pair is to be replaced */
	uint32_t psn;            /* the own new one */
	uint32_t psn_limit;      /* and how many it may use from there on */
	uint64_t held_since;
	uint64_t deadline;

	uint64_t minute_began;    /* the recoveries of which are counted */
	unsigned minute_recoveries;
	/* written by the connection's thread, readable by any */
	atomic_uint number, recoveries, pause_us, pause_max_us;
};

/* The set-up is done. */
void srdma_epoch_start(struct srdma_conn *conn);
/* Moves a change on, or begins one that is due; `thorough`: looks at the clock and at the device's counters, too. 0, or the error
 * that ends the connection. */
int srdma_epoch_step(struct srdma_conn *conn, bool thorough);
/* A frame of type EPOCH_*. */
int srdma_epoch_take(struct srdma_conn *conn);
/* The queue pair has failed with `error`, the thread's last one: 0 when it will be replaced, else `error`. */
int srdma_epoch_break(struct srdma_conn *conn, int error);
/* Whether a change is under way. */
bool srdma_epoch_is_changing(const struct srdma_conn *conn);
/* Whether a step would do anything though nothing has happened but that time went by. */
bool srdma_epoch_is_due(struct srdma_conn *conn, uint64_t now);
/* Milliseconds after which to ask srdma_epoch_is_due again; -1: need not be asked. */
int srdma_epoch_tick_ms(const struct srdma_conn *conn);
void srdma_epoch_release(struct srdma_conn *conn);

#endif
