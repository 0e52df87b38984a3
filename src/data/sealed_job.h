/* SPDX-License-Identifier: Apache-2.0 */
/* The sealed writes and reads of this end that are under way, and the account of each one's bytes.
 *
 * Whatever is to fill or fetch a part of a job, a chunk that was announced or one that is to be pulled, holds a claim on that part. A
 * claim names its job by a number, which no other job of the connection ever has, and not by an address: it leads to the job's
 * memory only while the job is under way. Each byte is claimed once, in order, and each claim is settled once. A job is over
 * when all its bytes were claimed and no claim is left; then, or when all jobs are dropped, its memory is the caller's again, and
 * nothing that still knows the number can reach it. */
#ifndef SRDMA_SEALED_JOB_H
#define SRDMA_SEALED_JOB_H

#include <stdbool.h>
#include <stdint.h>

struct srdma_sealed_job {
	bool write;
	bool waited;      /* a call waits for it; else the program collects it */
	bool asked;       /* READ: the request is out */
	bool ends_record; /* READ: the last one of the record that asked for it */
	char *local;
	uint64_t length, offset;
	uint64_t cookie;
	const void *owner; /* of `local`: a name for it, no more */

	/* The account, which srdma_sealed_jobs_* alone change. */
	uint64_t number;   /* from 1 */
	uint64_t claimed;  /* the bytes before were claimed */
	uint64_t settled;  /* the bytes before are where they belong */
	uint32_t claims;   /* that are not settled */
	bool all_claimed;  /* nothing is owed any more; one of no bytes owes one claim all the same */
};

/* A part of a job; of none when `job` is 0. */
struct srdma_sealed_claim {
	uint64_t job;
	uint64_t from;
	uint32_t length;
};

struct srdma_sealed_jobs {
	struct srdma_sealed_job *slots; /* ring of `room` */
	uint32_t room, first, count;
	uint64_t oldest; /* the number of the first one, or of the next one to come */
};

int srdma_sealed_jobs_init(struct srdma_sealed_jobs *jobs, uint32_t room);
void srdma_sealed_jobs_release(struct srdma_sealed_jobs *jobs);
/* Copies `job`; its account begins. False: there is no room. */
bool srdma_sealed_jobs_add(struct srdma_sealed_jobs *jobs, const struct srdma_sealed_job *job);
/* Counted from the oldest; index < count. */
static inline struct srdma_sealed_job *srdma_sealed_jobs_at(const struct srdma_sealed_jobs *jobs, uint32_t index)
{
	return &jobs->slots[(jobs->first + index) % jobs->room];
}

/* Claims the next `length` bytes of a job. False: they are not owed, or `length` is 0 where bytes are. */
bool srdma_sealed_jobs_claim(struct srdma_sealed_job *job, uint32_t length, struct srdma_sealed_claim *claim);
/* Where the claimed bytes lie in the caller's memory. False: there is no such claim, or not any more; its memory is the caller's. */
bool srdma_sealed_jobs_place(const struct srdma_sealed_jobs *jobs, const struct srdma_sealed_claim *claim, char **place);
/* The claimed bytes are where they belong. False: there is no such claim, or not any more, or an older one comes first; nothing is
 * credited then. */
bool srdma_sealed_jobs_settle(struct srdma_sealed_jobs *jobs, const struct srdma_sealed_claim *claim);
/* Whether a job that is under way has memory of this owner. */
bool srdma_sealed_jobs_use(const struct srdma_sealed_jobs *jobs, const void *owner);
/* Takes the oldest job out when it is over: jobs end in their order. */
bool srdma_sealed_jobs_take(struct srdma_sealed_jobs *jobs, struct srdma_sealed_job *job);
/* All are over, whatever is missing. */
void srdma_sealed_jobs_drop(struct srdma_sealed_jobs *jobs);

#endif
