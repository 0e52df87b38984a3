/* SPDX-License-Identifier: Apache-2.0 */
#include "bulk_parts.h"

#include "clock.h"
#include "log.h"

#include <errno.h>

/* Then it is other clients' turn. */
#define CHUNKS_PER_STEP 16
/* Sealed or opened before the device is looked at again: a look costs several system calls on one in software. */
#define POLL_BYTES (SRDMA_BULK_CHUNK / 2)
/* Who waits for more sleeps no sooner than so long after the last chunk: to be woken costs more than it takes to come. And so many
 * bytes of it take a microsecond, at the slowest: the next one will be as long. */
#define ACTIVE_US 200
#define BYTES_PER_US 200

/* ---- life ------------------------------------------------------------------------------------------------------ */

void srdma_bulk_end(struct srdma_bulk *bulk)
{
	bulk->over = true;
	srdma_bulk_jobs_drop(&bulk->jobs);
	bulk->pull_count = bulk->chunk_count = bulk->answer_count = 0;
	bulk->batch_count = bulk->batch_bytes = 0;
	bulk->acks_owed = 0;
	bulk->active_until = 0;
}

/* A queue pair that failed may be replaced, and all goes on; nothing else is ever made good. */
static int end_unless_mendable(struct srdma_bulk *bulk, int ret)
{
	if (ret < 0 && ret != SRDMA_EVERBS)
		srdma_bulk_end(bulk);
	return ret;
}

static int take_record(void *arg, const void *data, uint32_t length)
{
	struct srdma_conn *conn = arg;

	return conn->bulk.over ? 0 : end_unless_mendable(&conn->bulk, srdma_bulk_execute(conn, data, length));
}

int srdma_bulk_start(struct srdma_conn *conn, struct srdma_sealer *sealer, struct srdma_opener *opener)
{
	struct srdma_bulk *bulk = &conn->bulk;
	int ret;

	bulk->sealer = sealer;
	bulk->opener = opener;
	ret = srdma_bulk_jobs_init(&bulk->jobs, conn->channel.rdma_depth);
	if (ret != 0)
		return ret;
	bulk->on = true;
	conn->channel.on_control = take_record;
	conn->channel.on_pulled = srdma_bulk_finish_pull;
	conn->channel.arg = conn;
	return 0;
}

void srdma_bulk_release(struct srdma_conn *conn)
{
	struct srdma_bulk *bulk = &conn->bulk;

	srdma_region_release(&bulk->staging);
	srdma_region_release(&bulk->landing);
	srdma_sealer_delete(&bulk->sealer);
	srdma_opener_delete(&bulk->opener);
	srdma_bulk_jobs_release(&bulk->jobs);
	*bulk = (struct srdma_bulk){0};
}

bool srdma_bulk_is_idle(const struct srdma_bulk *bulk)
{
	return bulk->jobs.count == 0;
}

bool srdma_bulk_is_active(const struct srdma_bulk *bulk)
{
	return bulk->on && srdma_clock_us() < bulk->active_until;
}

void srdma_bulk_note_activity(struct srdma_bulk *bulk, uint32_t length)
{
	bulk->active_until = srdma_clock_us() + ACTIVE_US + length / BYTES_PER_US;
	bulk->unpolled += length;
}

/* Writes and reads never overlap, so that the oldest one tells. */
bool srdma_bulk_has_written(const struct srdma_bulk *bulk)
{
	for (uint32_t i = 0; i < bulk->jobs.count; i++)
		if (srdma_bulk_jobs_at(&bulk->jobs, i)->write)
			return false;
	return true;
}

int srdma_bulk_post(struct srdma_conn *conn, const struct srdma_bulk_job *job)
{
	if (conn->bulk.over || !srdma_bulk_jobs_add(&conn->bulk.jobs, job))
		return srdma_fail(-EAGAIN, "no room for another write or read");
	conn->channel.rdma_queued++;
	return 0;
}

/* In the order of posting. */
void srdma_bulk_complete_jobs(struct srdma_conn *conn)
{
	struct srdma_bulk *bulk = &conn->bulk;
	struct srdma_bulk_job job;

	while (srdma_bulk_jobs_take(&bulk->jobs, &job)) {
		bulk->reads_asked -= job.ends_record;
		srdma_channel_complete_rdma(&conn->channel, job.waited ? SRDMA_OP_WAITED : SRDMA_OP_POSTED, job.cookie);
	}
}

int srdma_bulk_make_memory(struct srdma_conn *conn, int access, struct srdma_region *ring)
{
	return ring->mr ? 0 : srdma_region_new(conn->pd, SRDMA_BULK_RING, access, ring);
}

/* Can't be: what holds a claim keeps its job from being over. */
int srdma_bulk_fail_account(void)
{
	return srdma_fail(SRDMA_EPROTOCOL, "the peer's chunk belongs to a write or read that is over");
}

/* ---- progress -------------------------------------------------------------------------------------------------- */

bool srdma_bulk_has_work(const struct srdma_conn *conn)
{
	const struct srdma_bulk *bulk = &conn->bulk;

	return bulk->on && !bulk->over && (srdma_bulk_has_arrived(bulk) || srdma_bulk_can_send(conn));
}

/* One chunk is opened or sealed, those that came first, or reads are asked for. 1; 0: there was nothing; or an error. */
static int work(struct srdma_conn *conn)
{
	int ret = srdma_bulk_open_next(conn);

	return ret == 0 ? srdma_bulk_send_next(conn) : ret;
}

int srdma_bulk_step(struct srdma_conn *conn)
{
	struct srdma_bulk *bulk = &conn->bulk;
	int ret = 1;

	if (!bulk->on || bulk->over)
		return 0;
	/* In between the device is looked at: it may be moved on by that alone, and what it needs to go on comes first. */
	for (int chunks = 0; ret == 1 && chunks < CHUNKS_PER_STEP; chunks++) {
		ret = bulk->pull_count > 0 ? srdma_bulk_post_pulls(conn) : 0;
		if (ret == 0)
			ret = srdma_bulk_send_acks(conn);
		if (ret == 0)
			ret = srdma_bulk_announce(conn);
		if (ret == 0)
			ret = work(conn);
		if (ret == 1 && bulk->unpolled >= POLL_BYTES) {
			int polled = srdma_channel_poll(&conn->channel);

			bulk->unpolled = 0;
			ret = polled != 0 ? polled : 1;
		}
	}
	return ret > 0 ? 0 : end_unless_mendable(bulk, ret);
}
