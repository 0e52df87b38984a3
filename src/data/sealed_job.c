/* SPDX-License-Identifier: Apache-2.0 */
#include "sealed_job.h"

#include "log.h"

#include <errno.h>
#include <stdlib.h>

int srdma_sealed_jobs_init(struct srdma_sealed_jobs *jobs, uint32_t room)
{
	*jobs = (struct srdma_sealed_jobs){.slots = calloc(room, sizeof *jobs->slots), .ring = {.room = room}, .oldest = 1};
	return jobs->slots ? 0 : srdma_fail(-ENOMEM, "out of memory");
}

void srdma_sealed_jobs_release(struct srdma_sealed_jobs *jobs)
{
	free(jobs->slots);
	*jobs = (struct srdma_sealed_jobs){0};
}

bool srdma_sealed_jobs_add(struct srdma_sealed_jobs *jobs, const struct srdma_sealed_job *job)
{
	struct srdma_sealed_job *slot;
	uint64_t number;

	if (jobs->ring.count == jobs->ring.room)
		return false;
	number = jobs->oldest + jobs->ring.count;
	slot = &jobs->slots[srdma_ring_push(&jobs->ring)];
	*slot = *job;
	slot->number = number;
	slot->claimed = slot->settled = 0;
	slot->claims = 0;
	slot->all_claimed = false;
	return true;
}

bool srdma_sealed_jobs_claim(struct srdma_sealed_job *job, uint32_t length, struct srdma_sealed_claim *claim)
{
	if (job->all_claimed || length > job->length - job->claimed || (length == 0 && job->length > 0))
		return false;
	*claim = (struct srdma_sealed_claim){.job = job->number, .from = job->claimed, .length = length};
	job->claimed += length;
	job->claims++;
	job->all_claimed = job->claimed == job->length;
	return true;
}

/* Finds the job of an unsettled claim; NULL: there is none. Claims of a job are settled in their order. */
static struct srdma_sealed_job *find(const struct srdma_sealed_jobs *jobs, const struct srdma_sealed_claim *claim)
{
	struct srdma_sealed_job *job;

	if (claim->job < jobs->oldest || claim->job - jobs->oldest >= jobs->ring.count)
		return NULL;
	job = srdma_sealed_jobs_at(jobs, (uint32_t)(claim->job - jobs->oldest));
	if (job->claims == 0 || claim->from < job->settled || claim->from > job->claimed || claim->length > job->claimed - claim->from)
		return NULL;
	return job;
}

bool srdma_sealed_jobs_place(const struct srdma_sealed_jobs *jobs, const struct srdma_sealed_claim *claim, char **place)
{
	const struct srdma_sealed_job *job = find(jobs, claim);

	if (!job)
		return false;
	/* A job of no bytes may have no memory. */
	*place = job->length > 0 ? job->local + claim->from : job->local;
	return true;
}

bool srdma_sealed_jobs_settle(struct srdma_sealed_jobs *jobs, const struct srdma_sealed_claim *claim)
{
	struct srdma_sealed_job *job = find(jobs, claim);

	if (!job || claim->from != job->settled)
		return false;
	job->settled += claim->length;
	job->claims--;
	return true;
}

bool srdma_sealed_jobs_use(const struct srdma_sealed_jobs *jobs, const void *owner)
{
	for (uint32_t i = 0; i < jobs->ring.count; i++)
		if (srdma_sealed_jobs_at(jobs, i)->owner == owner)
			return true;
	return false;
}

bool srdma_sealed_jobs_concern(const struct srdma_sealed_jobs *jobs, uint16_t region)
{
	for (uint32_t i = 0; i < jobs->ring.count; i++)
		if (srdma_sealed_jobs_at(jobs, i)->region == region)
			return true;
	return false;
}

const struct srdma_sealed_job *srdma_sealed_jobs_over(const struct srdma_sealed_jobs *jobs)
{
	const struct srdma_sealed_job *oldest = jobs->ring.count > 0 ? srdma_sealed_jobs_at(jobs, 0) : NULL;

	return oldest && oldest->all_claimed && oldest->claims == 0 ? oldest : NULL;
}

bool srdma_sealed_jobs_take(struct srdma_sealed_jobs *jobs, struct srdma_sealed_job *job)
{
	struct srdma_sealed_job *oldest;

	if (!srdma_sealed_jobs_over(jobs))
		return false;
	oldest = srdma_sealed_jobs_at(jobs, 0);
	*job = *oldest;
	oldest->local = NULL;
	srdma_ring_pop(&jobs->ring);
	jobs->oldest++;
	return true;
}

void srdma_sealed_jobs_drop(struct srdma_sealed_jobs *jobs)
{
	for (uint32_t i = 0; i < jobs->ring.count; i++)
		srdma_sealed_jobs_at(jobs, i)->local = NULL;
	jobs->oldest += jobs->ring.count;
	jobs->ring.count = 0;
}
