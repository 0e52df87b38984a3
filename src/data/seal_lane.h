/* SPDX-License-Identifier: Apache-2.0 */
/* The records of one stream that are sealed or opened ahead, by its connection's thread (the owner) and by the threads of a pool
 * (seal_pool.h). The owner adds works in the order of their records, and takes their results in the same order. In between, any
 * thread may do any of them, each with a cipher context of its own. No lock guards a work: a thread claims several with one atomic
 * operation, and begins each with another. The owner never waits for a work that nobody has begun: it does the work itself.
 *
 * Only the owner may call the functions here, unless the comment says otherwise. */
#ifndef SRDMA_SEAL_LANE_H
#define SRDMA_SEAL_LANE_H

#include "seal_key.h"

/* A work's memory is in use from srdma_seal_lane_add until it is taken out, or dropped. */
struct srdma_seal_work {
	uint64_t number;        /* of the record */
	uint32_t length;        /* of the data, without the tag */
	uint32_t header_length; /* at most SRDMA_SEAL_LANE_HEADER */
	uint8_t header[28];
	const void *from;       /* to open: the ciphertext, and the tag behind it */
	void *to;               /* to seal: the tag goes behind the ciphertext. May be `from` */
};
#define SRDMA_SEAL_LANE_HEADER sizeof(((struct srdma_seal_work *)0)->header)

/* Works in a lane at a time. */
#define SRDMA_SEAL_LANE_ROOM 32u

enum srdma_seal_outcome {
	SRDMA_SEAL_NONE,    /* the lane is empty */
	SRDMA_SEAL_WAITING, /* nobody has begun */
	SRDMA_SEAL_BEGUN,   /* another thread is at it */
	SRDMA_SEAL_DONE,
	SRDMA_SEAL_FAILED,  /* not authentic, or OpenSSL failed; `to` is wiped */
};

/* Lanes of a connection: chunks to seal, chunks to open, messages to open. */
#define SRDMA_SEAL_LANES 3u

struct srdma_seal_pool;
struct srdma_seal_lane;

/* The most memory of a lane of a pool with this many threads. */
size_t srdma_seal_lane_memory(unsigned threads);

/* `seal`: else it opens. `wake` is called by another thread when it has done a work while the owner sleeps (srdma_seal_lane_arm). The
 * pool must outlive the lane. */
int srdma_seal_lane_new(struct srdma_seal_pool *pool, bool seal, void (*wake)(void *arg), void *arg, struct srdma_seal_lane **out);
/* Drops all works, waits for those that have begun, and wipes all keys. The memory of the works is then the caller's again. */
void srdma_seal_lane_delete(struct srdma_seal_lane **lane);

/* Sets the key of the works to come; the lane is empty. It wipes the contexts of the key before. */
void srdma_seal_lane_set_key(struct srdma_seal_lane *lane, const struct srdma_seal_key *key);
/* Whether the lane has this key. */
bool srdma_seal_lane_has_key(const struct srdma_seal_lane *lane, const struct srdma_seal_key *key);
/* Sets this key unless the lane has it. False: works with another key are in the lane. */
bool srdma_seal_lane_use_key(struct srdma_seal_lane *lane, const struct srdma_seal_key *key);

uint32_t srdma_seal_lane_count(const struct srdma_seal_lane *lane);
/* count < SRDMA_SEAL_LANE_ROOM. The work's record has the lane's key. */
void srdma_seal_lane_add(struct srdma_seal_lane *lane, const struct srdma_seal_work *work);
/* The state of the oldest work; `work`, unless it is NULL, leads to it until the work is taken out. */
enum srdma_seal_outcome srdma_seal_lane_look(const struct srdma_seal_lane *lane, const struct srdma_seal_work **work);
/* Takes the oldest work out, which is DONE or FAILED. */
void srdma_seal_lane_pop(struct srdma_seal_lane *lane);
/* Does the oldest work that nobody has begun. False: there is none. */
bool srdma_seal_lane_help(struct srdma_seal_lane *lane);
/* Whether there is a work that nobody has begun. */
bool srdma_seal_lane_can_help(const struct srdma_seal_lane *lane);
/* Takes the oldest work out without doing it, unless somebody has begun it. */
bool srdma_seal_lane_take_back(struct srdma_seal_lane *lane);
/* Waits while another thread is at the oldest work. */
void srdma_seal_lane_await(struct srdma_seal_lane *lane);
/* Returns when all works are DONE or FAILED; they stay to be taken out. */
void srdma_seal_lane_settle(struct srdma_seal_lane *lane);
/* Takes all works out; waits for those that others have begun. */
void srdma_seal_lane_drop(struct srdma_seal_lane *lane);
/* The owner is about to sleep: the next work that another thread does calls `wake`, once. Afterwards the owner must look again. */
void srdma_seal_lane_arm(struct srdma_seal_lane *lane);

/* As srdma_seal_lane_arm, and asks the pool's threads for every work that nobody has begun, also for a single one. False: the pool's
 * queue is full, so the owner must do the works. */
bool srdma_seal_lane_leave(struct srdma_seal_lane *lane);

/* For the pool's threads; `thread` is counted from 1. It does some of the works, and drops the queue's reference. */
void srdma_seal_lane_serve(struct srdma_seal_lane *lane, unsigned thread);
/* For the end of the pool: drops the queue's reference. */
void srdma_seal_lane_unref(struct srdma_seal_lane *lane);

#endif
