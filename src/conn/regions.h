/* SPDX-License-Identifier: Apache-2.0 */
/* Regions with names: those that this end offers, and those of the peer. docs/PROTOCOL.md, "Regions with names". */
#ifndef SRDMA_REGIONS_H
#define SRDMA_REGIONS_H

#include "memory.h"
#include "region_frames.h"

struct srdma_conn;

enum srdma_offer_state {
	SRDMA_OFFER_NONE,
	SRDMA_OFFER_UNBOUND,     /* the bind of its window is due */
	SRDMA_OFFER_BINDING,     /* and is on the send queue */
	SRDMA_OFFER_NEW,         /* REGION_OFFER is due */
	SRDMA_OFFER_TOLD,
	SRDMA_OFFER_DROPPED,     /* withdrawn while BINDING: it goes when the bind is over. The peer never knew it */
	SRDMA_OFFER_WITHDRAWN,   /* REGION_WITHDRAW is due */
	SRDMA_OFFER_UNCONFIRMED, /* the peer is to send REGION_RELEASED */
};

/* A region that this end offers, or has withdrawn. */
struct srdma_own_region {
	enum srdma_offer_state state;
	struct srdma_region_offer facts;
	struct srdma_region region; /* while it is offered */
	struct srdma_lease *lease;  /* likewise */
	uint64_t bind;              /* BINDING, DROPPED: its number among the queues' */
};

static inline bool srdma_own_region_is_offered(const struct srdma_own_region *own)
{
	return own->state >= SRDMA_OFFER_UNBOUND && own->state <= SRDMA_OFFER_TOLD;
}

static inline bool srdma_own_region_is_binding(const struct srdma_own_region *own)
{
	return own->state == SRDMA_OFFER_BINDING || own->state == SRDMA_OFFER_DROPPED;
}

enum srdma_peer_region_state {
	SRDMA_PEER_REGION_NONE,
	SRDMA_PEER_REGION_KNOWN,
	SRDMA_PEER_REGION_WITHDRAWN, /* REGION_RELEASED is due, once no request concerns it */
};

struct srdma_known_region {
	enum srdma_peer_region_state state;
	struct srdma_region_offer facts;
	uint64_t order; /* a later offer has a higher number */
};

struct srdma_regions {
	struct srdma_own_region own[SRDMA_REGIONS_MAX];
	uint16_t last_id;
	struct srdma_known_region peer[SRDMA_REGIONS_MAX];
	uint64_t changes; /* of the peer's regions, so far */
	uint64_t handled; /* of these, by a server's handler */
	char awaited[SRDMA_REGION_NAME_SIZE]; /* srdma_conn_find_region; a server asks for it again after the call */
	uint64_t seen_changes;   /* srdma_conn_wait_regions */
	bool due;         /* a frame or a bind is, or a bind is under way */
};

/* The ends have agreed on regions with names. */
int srdma_regions_start(struct srdma_conn *conn);
/* -EOPNOTSUPP: they have not. */
int srdma_regions_check_agreed(const struct srdma_conn *conn);
/* Frees everything; the queue pair is gone. */
void srdma_regions_release(struct srdma_conn *conn);
/* Sends the frames that are due, as far as there is room, and lets go of memory that the program has released. */
int srdma_regions_step(struct srdma_conn *conn);
/* Takes a frame of type REGION_*. */
int srdma_regions_take_frame(struct srdma_conn *conn);
/* Withdraws all that this end offers of a memory. */
int srdma_regions_withdraw_of(struct srdma_conn *conn, const struct srdma_lease *lease);
/* The region that this end offers under the id; NULL: none. */
const struct srdma_region *srdma_regions_find_own(const void *conn, uint16_t id);
/* The peer's region of the id; NULL: there is none, or it was withdrawn. */
const struct srdma_region_offer *srdma_regions_find_peer(const struct srdma_conn *conn, uint32_t id);
/* After a renewal: an error if a request that is to be repeated concerns a region that the peer has withdrawn. */
int srdma_regions_check_resume(const struct srdma_conn *conn);
/* region_windows.c */
/* Whether regions of this connection have windows, unless the memory gets none. */
bool srdma_regions_use_windows(const struct srdma_conn *conn);
/* Posts the bind of a new window of the region. */
int srdma_regions_post_bind(struct srdma_conn *conn, struct srdma_own_region *own);
/* Takes the regions further whose bind has completed. */
int srdma_regions_take_bound(struct srdma_conn *conn);
/* Whether a bind is under way; with `lease`, one that concerns it. */
bool srdma_regions_are_binding(const struct srdma_conn *conn, const struct srdma_lease *lease);
/* Frees all windows, before the queue pair goes. */
int srdma_regions_unbind(struct srdma_conn *conn);
/* Binds new windows to the new queue pair, which has nothing posted. */
int srdma_regions_bind_again(struct srdma_conn *conn);
/* Sends REGION_KEYS, unless there are none. */
int srdma_regions_send_keys(struct srdma_conn *conn);
/* Takes REGION_KEYS. */
int srdma_regions_take_keys(struct srdma_conn *conn);

static inline bool srdma_regions_have_changed(const struct srdma_regions *regions)
{
	return regions && regions->changes != regions->handled;
}

#endif
