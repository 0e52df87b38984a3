/* SPDX-License-Identifier: Apache-2.0 */
#include "sealed_rdma_parts.h"

#include "clock.h"
#include "log.h"

#include <errno.h>

/* A step ends after this many chunks, so that other clients get their turn. */
#define CHUNKS_PER_STEP 16
/* After a chunk, a waiting call polls for at least ACTIVE_US before it sleeps, since a wake-up costs more than the wait for the next chunk.
 * It polls a microsecond longer for each BYTES_PER_US of the chunk, since the next one is likely to be as long. */
#define ACTIVE_US 200
#define BYTES_PER_US 200

static void drop_lanes(struct srdma_sealed_rdma *rdma)
{
	if (rdma->seal_lane)
		srdma_seal_lane_drop(rdma->seal_lane);
	if (rdma->open_lane)
		srdma_seal_lane_drop(rdma->open_lane);
}

void srdma_sealed_rdma_end(struct srdma_sealed_rdma *rdma)
{
	rdma->over = true;
	drop_lanes(rdma);
	srdma_sealed_jobs_drop(&rdma->jobs);
	rdma->pull_ring.count = rdma->chunk_ring.count = rdma->answer_ring.count = 0;
	rdma->batch_count = rdma->batch_bytes = 0;
	rdma->acks_owed = 0;
	rdma->active_until = 0;
}

/* A queue pair that failed may be replaced, and then the transfers go on; every other error is final. */
static int end_unless_recoverable(struct srdma_sealed_rdma *rdma, int ret)
{
	if (ret < 0 && ret != SRDMA_EVERBS)
		srdma_sealed_rdma_end(rdma);
	return ret;
}

static int take_record(void *arg, const void *data, uint32_t length)
{
	struct srdma_sealed_rdma *rdma = arg;

	return rdma->over ? 0 : end_unless_recoverable(rdma, srdma_sealed_rdma_execute(rdma, data, length));
}

int srdma_sealed_rdma_start(struct srdma_sealed_rdma *rdma, struct srdma_sealer *sealer, struct srdma_opener *opener)
{
	int ret;

	rdma->sealer = sealer;
	rdma->opener = opener;
	ret = srdma_sealed_jobs_init(&rdma->jobs, rdma->queues->rdma_depth);
	if (ret != 0)
		return ret;
	rdma->chunk_ring.room = rdma->pull_ring.room = SRDMA_SEALED_CHUNKS;
	rdma->answer_ring.room = SRDMA_SEALED_ANSWERS;
	rdma->on = true;
	rdma->queues->on_control = take_record;
	rdma->queues->on_pulled = srdma_sealed_rdma_finish_pull;
	rdma->queues->arg = rdma;
	return 0;
}

int srdma_sealed_rdma_share(struct srdma_sealed_rdma *rdma, struct srdma_seal_pool *pool, void (*wake)(void *arg), void *arg)
{
	int ret = srdma_seal_lane_new(pool, true, wake, arg, &rdma->seal_lane);

	return ret == 0 ? srdma_seal_lane_new(pool, false, wake, arg, &rdma->open_lane) : ret;
}

void srdma_sealed_rdma_arm(struct srdma_sealed_rdma *rdma)
{
	if (rdma->seal_lane)
		srdma_seal_lane_arm(rdma->seal_lane);
	if (rdma->open_lane)
		srdma_seal_lane_arm(rdma->open_lane);
}

void srdma_sealed_rdma_settle(struct srdma_sealed_rdma *rdma)
{
	if (rdma->seal_lane)
		srdma_seal_lane_settle(rdma->seal_lane);
	if (rdma->open_lane)
		srdma_seal_lane_settle(rdma->open_lane);
}

void srdma_sealed_rdma_release(struct srdma_sealed_rdma *rdma)
{
	/* Before the memory and the keys that they use. */
	srdma_seal_lane_delete(&rdma->seal_lane);
	srdma_seal_lane_delete(&rdma->open_lane);
	srdma_region_release(&rdma->staging);
	srdma_region_release(&rdma->landing);
	srdma_sealer_delete(&rdma->sealer);
	srdma_opener_delete(&rdma->opener);
	srdma_sealed_jobs_release(&rdma->jobs);
	*rdma = (struct srdma_sealed_rdma){0};
}

bool srdma_sealed_rdma_is_idle(const struct srdma_sealed_rdma *rdma)
{
	return rdma->jobs.ring.count == 0;
}

bool srdma_sealed_rdma_is_active(const struct srdma_sealed_rdma *rdma)
{
	return rdma->on && srdma_clock_us() < rdma->active_until;
}

void srdma_sealed_rdma_note_activity(struct srdma_sealed_rdma *rdma, uint32_t length)
{
	rdma->active_until = srdma_clock_us() + ACTIVE_US + length / BYTES_PER_US;
	rdma->unpolled += length;
}

bool srdma_sealed_rdma_has_written(const struct srdma_sealed_rdma *rdma)
{
	for (uint32_t i = 0; i < rdma->jobs.ring.count; i++)
		if (srdma_sealed_jobs_at(&rdma->jobs, i)->write)
			return false;
	return true;
}

int srdma_sealed_rdma_post(struct srdma_sealed_rdma *rdma, const struct srdma_sealed_job *job)
{
	if (rdma->over || !srdma_sealed_jobs_add(&rdma->jobs, job))
		return srdma_fail(-EAGAIN, "no room for another write or read");
	rdma->queues->rdma_queued++;
	return 0;
}

const struct srdma_region *srdma_sealed_rdma_region(const struct srdma_sealed_rdma *rdma, uint16_t id)
{
	if (id == 0)
		return rdma->region->address ? rdma->region : NULL;
	return rdma->find_named ? rdma->find_named(rdma->named_arg, id) : NULL;
}

/* Whether the oldest job is over, and its notice can be sent now. */
static bool can_notify(const struct srdma_sealed_rdma *rdma)
{
	const struct srdma_sealed_job *job = srdma_sealed_jobs_over(&rdma->jobs);

	return job && job->notify && srdma_queues_can_send_notice(rdma->queues);
}

int srdma_sealed_rdma_complete_jobs(struct srdma_sealed_rdma *rdma)
{
	const struct srdma_sealed_job *over;
	struct srdma_sealed_job job;

	while ((over = srdma_sealed_jobs_over(&rdma->jobs)) && (!over->notify || can_notify(rdma))) {
		int ret = over->notify ? srdma_queues_send_notice(rdma->queues, over->notice, over->notice_length) : 0;

		if (ret != 0)
			return ret;
		srdma_sealed_jobs_take(&rdma->jobs, &job);
		rdma->reads_asked -= job.ends_record;
		srdma_queues_complete_rdma(rdma->queues, job.part ? SRDMA_OP_PART : job.waited ? SRDMA_OP_WAITED : SRDMA_OP_POSTED, job.cookie);
	}
	return 0;
}

int srdma_sealed_rdma_make_memory(struct srdma_sealed_rdma *rdma, int access, struct srdma_region *ring)
{
	return ring->mr ? 0 : srdma_region_new(rdma->pd, SRDMA_SEALED_RING, access, ring);
}

/* Guards an invariant: a job cannot be over while it has an unsettled claim. */
int srdma_sealed_rdma_fail_account(void)
{
	return srdma_fail(SRDMA_EPROTOCOL, "the peer's chunk belongs to a write or read that is over");
}

static bool can_help(const struct srdma_sealed_rdma *rdma)
{
	return (rdma->open_lane && srdma_seal_lane_can_help(rdma->open_lane)) || (rdma->seal_lane && srdma_seal_lane_can_help(rdma->seal_lane));
}

bool srdma_sealed_rdma_has_work(const struct srdma_sealed_rdma *rdma)
{
	return rdma->on && !rdma->over &&
	       (srdma_sealed_rdma_can_open(rdma) || srdma_sealed_rdma_can_send(rdma) || srdma_sealed_rdma_can_gather(rdma) || can_help(rdma) ||
		can_notify(rdma));
}

/* Opens the next chunk that has come, or else seals one or asks for reads. With lanes, these only hand it over; when there is nothing
 * to hand over any more, this thread does a chunk of them itself. 1; 0: there was nothing to do; or an error. */
static int work(struct srdma_sealed_rdma *rdma, bool help)
{
	int ret = srdma_sealed_rdma_open_next(rdma);

	if (ret == 0)
		ret = srdma_sealed_rdma_send_next(rdma);
	if (ret == 0 && help && rdma->open_lane)
		ret = srdma_seal_lane_help(rdma->open_lane);
	if (ret == 0 && help && rdma->seal_lane)
		ret = srdma_seal_lane_help(rdma->seal_lane);
	return ret;
}

static int step(struct srdma_sealed_rdma *rdma, bool help)
{
	int ret = 1;

	if (!rdma->on || rdma->over)
		return 0;
	/* The device gets its requests before this end works on chunks, and is polled in between, since a device in software may make
	 * progress only when it is polled. */
	for (int chunks = 0; ret == 1 && chunks < CHUNKS_PER_STEP; chunks++) {
		ret = can_notify(rdma) ? srdma_sealed_rdma_complete_jobs(rdma) : 0;
		if (ret == 0 && rdma->pull_ring.count > 0)
			ret = srdma_sealed_rdma_post_pulls(rdma);
		if (ret == 0)
			ret = srdma_sealed_rdma_send_acks(rdma);
		if (ret == 0)
			ret = srdma_sealed_rdma_gather(rdma);
		if (ret == 0)
			ret = srdma_sealed_rdma_announce(rdma);
		if (ret == 0)
			ret = work(rdma, help);
		if (ret == 1 && rdma->unpolled >= SRDMA_POLL_BYTES) {
			int polled = srdma_queues_poll(rdma->queues);

			rdma->unpolled = 0;
			ret = polled != 0 ? polled : 1;
		}
	}
	return ret > 0 ? 0 : end_unless_recoverable(rdma, ret);
}

int srdma_sealed_rdma_step(struct srdma_sealed_rdma *rdma)
{
	return step(rdma, true);
}

int srdma_sealed_rdma_push(struct srdma_sealed_rdma *rdma)
{
	int ret;

	if (!rdma->seal_lane)
		return step(rdma, true);
	ret = step(rdma, false);
	/* The program may sleep on the connection's descriptor next, so another thread must wake it. */
	return ret == 0 && (!srdma_seal_lane_leave(rdma->seal_lane) || !srdma_seal_lane_leave(rdma->open_lane)) ? step(rdma, true) : ret;
}
