/* SPDX-License-Identifier: Apache-2.0 */
/* Regions with names: those that this end offers, and those of the peer. docs/PROTOCOL.md, "Regions with names". */
#ifndef SRDMA_REGIONS_H
#define SRDMA_REGIONS_H

#include "memory.h"
#include "region_frames.h"

struct srdma_conn;

enum srdma_offer_state {
	SRDMA_OFFER_NONE,
	SRDMA_OFFER_NEW,         /* REGION_OFFER is due */
	SRDMA_OFFER_TOLD,
	SRDMA_OFFER_WITHDRAWN,   /* REGION_WITHDRAW is due */
	SRDMA_OFFER_UNCONFIRMED, /* the peer is to send REGION_RELEASED */
};

/* A region that this end offers, or has withdrawn. */
struct srdma_own_region {
	enum srdma_offer_state state;
	struct srdma_region_offer facts;
	struct srdma_region region; /* while it is offered */
	struct srdma_lease *lease;  /* likewise */
};

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
	bool due;         /* a frame is */
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
static inline bool srdma_regions_have_changed(const struct srdma_regions *regions)
{
	return regions && regions->changes != regions->handled;
}

#endif
