/* SPDX-License-Identifier: Apache-2.0 */
/* This end's sealed writes and reads under way, and the account of each one's bytes.
 *
 * Each chunk that fetches or fills a part of a job, announced or still to be pulled, holds a claim on that part. A claim names its job
 * by a number that no other job of the connection ever has, and not by an address, so that it leads to the job's memory only while
 * the job is under way. Each byte is claimed once, in order, and each claim is settled once. A job is over when all its bytes were
 * claimed and no claim is left. Then, or when all jobs are dropped, the caller owns the memory again, and the number does not lead
 * to it any more. */
#ifndef SRDMA_SEALED_JOB_H
#define SRDMA_SEALED_JOB_H

#include "ring.h"

#include <stdbool.h>
#include <stdint.h>

struct srdma_sealed_job {
	bool write;
	bool waited;      /* a call waits for it; else the program collects it */
	bool asked;       /* READ: this end has sent the request */
	bool ends_record; /* READ: the last job in the record that asked for it */
	char *local;
	uint64_t length, offset;
	uint64_t cookie;
	uint16_t region;  /* the peer's, by its id; 0: the one that HELLO or WELCOME describes */
	bool part;        /* a later job completes for it */
	bool notify;      /* WRITE: the peer's program is to get a notice after it */
	uint32_t notice;
	uint64_t notice_length;
	const void *owner; /* identifies the owner of `local`; never dereferenced */

	/* The account, which only srdma_sealed_jobs_* may change. */
	uint64_t number;   /* from 1 */
	uint64_t claimed;  /* the bytes before this offset were claimed */
	uint64_t settled;  /* the bytes before this offset are in place */
	uint32_t claims;   /* claims that are not settled */
	bool all_claimed;  /* no claim is owed any more; a job of 0 bytes owes one claim */
};

/* A claim on a part of a job; `job` 0: on no job. */
struct srdma_sealed_claim {
	uint64_t job;
	uint64_t from;
	uint32_t length;
};

struct srdma_sealed_jobs {
	struct srdma_sealed_job *slots; /* by `ring` */
	struct srdma_ring ring;
	uint64_t oldest; /* the number of the oldest job, or of the next one to come */
};

int srdma_sealed_jobs_init(struct srdma_sealed_jobs *jobs, uint32_t room);
void srdma_sealed_jobs_release(struct srdma_sealed_jobs *jobs);
/* Copies `job` and begins its account. False: there is no room. */
bool srdma_sealed_jobs_add(struct srdma_sealed_jobs *jobs, const struct srdma_sealed_job *job);
/* Counted from the oldest; index < ring.count. */
static inline struct srdma_sealed_job *srdma_sealed_jobs_at(const struct srdma_sealed_jobs *jobs, uint32_t index)
{
	return &jobs->slots[srdma_ring_at(&jobs->ring, index)];
}

/* Claims the next `length` bytes of a job. False: the job owes fewer bytes, or `length` is 0 and the job owes bytes. */
bool srdma_sealed_jobs_claim(struct srdma_sealed_job *job, uint32_t length, struct srdma_sealed_claim *claim);
/* Finds the claimed bytes in the caller's memory. False: there is no such claim, or no longer; the memory is the caller's. */
bool srdma_sealed_jobs_place(const struct srdma_sealed_jobs *jobs, const struct srdma_sealed_claim *claim, char **place);
/* Settles a claim whose bytes are in place. False, without a credit: there is no such claim, or no longer, or an older claim comes
 * first. */
bool srdma_sealed_jobs_settle(struct srdma_sealed_jobs *jobs, const struct srdma_sealed_claim *claim);
/* Whether a job that is under way has memory of this owner. */
bool srdma_sealed_jobs_use(const struct srdma_sealed_jobs *jobs, const void *owner);
/* Whether a job that is under way concerns the peer's region of this id. */
bool srdma_sealed_jobs_concern(const struct srdma_sealed_jobs *jobs, uint16_t region);
/* The oldest job, if it is over; else NULL. */
const struct srdma_sealed_job *srdma_sealed_jobs_over(const struct srdma_sealed_jobs *jobs);
/* Takes the oldest job out when it is over: jobs end in their order. */
bool srdma_sealed_jobs_take(struct srdma_sealed_jobs *jobs, struct srdma_sealed_job *job);
/* Ends all jobs, complete or not. */
void srdma_sealed_jobs_drop(struct srdma_sealed_jobs *jobs);

#endif
