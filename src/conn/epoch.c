/* SPDX-License-Identifier: Apache-2.0 */
#include "epoch.h"

#include "sealed_rdma.h"
#include "clock.h"
#include "conn.h"
#include "device.h"
#include "log.h"
#include "psn.h"
#include "psn_watch.h"
#include "watch.h"

#include <errno.h>
#include <openssl/crypto.h>

#define MINUTE_US 60000000u
/* An end asks for the next epoch when this part of the present one's PSNs is left. */
#define EARLY 8
#define CHANGING_TICK_MS 20
/* An epoch younger than this ends at the peer's request only if the peer's PSNs are used up. */
#define SHORTEST_US 5000

static const char *const reason_names[SRDMA_EPOCH_REASONS] = {
	[SRDMA_EPOCH_COUNT] = "its PSNs are used up",      [SRDMA_EPOCH_ASKED] = "an end asked for it",
	[SRDMA_EPOCH_TIME] = "its time limit has passed",           [SRDMA_EPOCH_SWEEP] = "an attacker may be trying PSNs",
	[SRDMA_EPOCH_BROKEN] = "the queue pair failed",
};

/* ---- life ------------------------------------------------------------------------------------------------------ */

void srdma_epoch_start(struct srdma_conn *conn)
{
	struct srdma_epoch *epoch = &conn->epoch;

	epoch->agreed = (conn->own.features & conn->peer.features & SRDMA_FEATURE_EPOCHS) != 0;
	epoch->began = srdma_clock_us();
	epoch->sweeps_seen = srdma_device_sweeps(conn->device);
	if (!epoch->agreed)
		return;
	conn->queues.psn_limit = conn->options.epoch_psns;
	/* Without a spare queue pair the next epoch makes one, which takes longer. */
	if (conn->options.epoch_ms > 0 && srdma_qp_pool_fill(&epoch->pool, &conn->qp) != 0)
		srdma_log(SRDMA_LOG_WARN, "cannot make a spare queue pair, so the next renewal takes longer: %s", srdma_error_text());
}

void srdma_epoch_release(struct srdma_conn *conn)
{
	srdma_qp_release(&conn->epoch.change.fresh);
	srdma_qp_pool_release(&conn->epoch.pool);
}

/* Whether either end has stopped, or the peer waits for this end to stop. */
static bool is_under_way(const struct srdma_epoch_change *change)
{
	return change->phase >= SRDMA_PHASE_BEGUN || change->peer_phase >= SRDMA_PHASE_ASKED;
}

bool srdma_epoch_is_changing(const struct srdma_conn *conn)
{
	return !srdma_conn_has_parted(conn) && is_under_way(&conn->epoch.change);
}

int srdma_conn_renew(struct srdma_conn *conn)
{
	if (!conn->epoch.agreed)
		return srdma_conn_fail_unagreed(conn, SRDMA_FEATURE_EPOCHS, "epochs, so the queue pair cannot be renewed", "epoch-psns above 0");
	atomic_store(&conn->epoch.wanted, true);
	srdma_conn_nudge(conn);
	return 0;
}

/* ---- when ------------------------------------------------------------------------------------------------------ */

/* Needs neither the clock nor the device. */
static enum srdma_epoch_reason due_at_once(const struct srdma_conn *conn)
{
	if (conn->queues.psns_used >= conn->queues.psn_limit - conn->queues.psn_limit / EARLY)
		return SRDMA_EPOCH_COUNT;
	return atomic_load_explicit(&conn->epoch.wanted, memory_order_relaxed) ? SRDMA_EPOCH_ASKED : 0;
}

static enum srdma_epoch_reason due(struct srdma_conn *conn, uint64_t now)
{
	struct srdma_epoch *epoch = &conn->epoch;
	enum srdma_epoch_reason reason = due_at_once(conn);

	if (reason != 0)
		return reason;
	if (conn->options.epoch_ms > 0 && now - epoch->began >= (uint64_t)conn->options.epoch_ms * 1000)
		return SRDMA_EPOCH_TIME;
	if (srdma_device_sweeps(conn->device) != epoch->sweeps_seen)
		return SRDMA_EPOCH_SWEEP;
	return 0;
}

/* A disconnecting end needs no new epoch. */
static bool is_leaving(const struct srdma_conn *conn)
{
	return conn->closing.requested || conn->closing.peer_requested;
}

bool srdma_epoch_is_due(struct srdma_conn *conn, uint64_t now)
{
	const struct srdma_epoch *epoch = &conn->epoch;

	if (!epoch->agreed || conn->status != 0 || srdma_conn_has_parted(conn))
		return false;
	if (is_under_way(&epoch->change))
		return true;
	return epoch->change.phase == SRDMA_PHASE_GOING && !is_leaving(conn) && due(conn, now) != 0;
}

uint64_t srdma_epoch_next_by_time(const struct srdma_conn *conn, uint64_t now)
{
	const struct srdma_epoch *epoch = &conn->epoch;
	uint64_t length = (uint64_t)conn->options.epoch_ms * 1000, soon = now + CHANGING_TICK_MS * 1000;

	if (!epoch->agreed || length == 0 || conn->status != 0)
		return SRDMA_NEVER;
	/* Frames tell of the steps of a change that this end has asked for. The next epoch begins later than now. */
	if (epoch->change.phase != SRDMA_PHASE_GOING || is_leaving(conn))
		return now + length;
	return epoch->began + length > soon ? epoch->began + length : soon;
}

uint64_t srdma_epoch_next(const struct srdma_conn *conn, uint64_t now)
{
	uint64_t look = srdma_device_watches(conn->device) ? srdma_psn_watch_next(now) : SRDMA_NEVER, due;

	if (!conn->epoch.agreed)
		return SRDMA_NEVER;
	if (is_under_way(&conn->epoch.change))
		return now + CHANGING_TICK_MS * 1000;
	due = srdma_epoch_next_by_time(conn, now);
	return due < look ? due : look;
}

/* ---- the change ------------------------------------------------------------------------------------------------ */

/* Sends a frame, and takes the step that goes with it. */
static int send_frame(struct srdma_conn *conn, enum srdma_frame_type type, struct srdma_epoch_frame *body)
{
	uint8_t frame[SRDMA_FRAME_MAX];
	size_t length;
	int ret;

	if (!srdma_epoch_advance(&conn->epoch.change.phase, type))
		return srdma_fail(-EINVAL, "cannot send an epoch frame of type %u in phase %s", type,
				  srdma_epoch_phase_name(conn->epoch.change.phase));
	body->number = atomic_load(&conn->epoch.number) + 1;
	length = srdma_epoch_encode(frame, type, body);
	ret = srdma_outbox_send(conn->tls, &conn->outbox, frame, length);
	OPENSSL_cleanse(frame, sizeof frame);
	return ret;
}

static int ask(struct srdma_conn *conn, bool thorough)
{
	struct srdma_epoch_change *change = &conn->epoch.change;
	struct srdma_epoch_frame frame = {0};

	change->reason = thorough ? due(conn, srdma_clock_us()) : due_at_once(conn);
	if (change->reason == 0)
		return 0;
	frame.reason = (uint8_t)change->reason;
	return send_frame(conn, SRDMA_FRAME_EPOCH_REQUEST, &frame);
}

static int begin(struct srdma_conn *conn)
{
	struct srdma_epoch_change *change = &conn->epoch.change;
	struct srdma_epoch_frame frame = {.reason = (uint8_t)change->reason, .broken = change->broken};
	bool quiet = true;
	int ret = 0;

	if (change->held_since == 0)
		change->held_since = srdma_clock_us();
	if (!change->broken)
		ret = srdma_queues_quiesce(&conn->queues, &quiet);
	if (ret != 0 || !quiet)
		return ret;
	change->begun_reason = change->reason;
	change->deadline = srdma_deadline(conn->options.setup_timeout_ms);
	frame.sends = conn->queues.sends_posted;
	return send_frame(conn, SRDMA_FRAME_EPOCH_BEGIN, &frame);
}

static void stop_queue_pair(struct srdma_conn *conn)
{
	srdma_queues_stop(&conn->queues);
	srdma_qp_fail(&conn->qp);
}

/* A packet names only its destination queue pair. So a packet captured from this end could match again only if the peer keeps its
 * queue pair. A queue pair may stay for one change only: a third epoch on it would reuse PSNs of the first. Both ends have read both
 * reasons by now, so they decide alike. An end replaces a queue pair that has failed since then in any case, but the peer may not. */
static bool both_are_fresh(const struct srdma_epoch *epoch)
{
	const struct srdma_epoch_change *change = &epoch->change;

	return epoch->stayed || change->begun_reason != SRDMA_EPOCH_COUNT || change->peer_reason != SRDMA_EPOCH_COUNT;
}

static int draw_psn(struct srdma_conn *conn)
{
	struct srdma_epoch_change *change = &conn->epoch.change;
	const struct srdma_psn_range last = {conn->own.psn, (uint32_t)conn->queues.psns_used};

	change->psn_limit = conn->options.epoch_psns;
	return both_are_fresh(&conn->epoch) ? srdma_psn_generate(&change->psn) : srdma_psn_generate_apart(&last, &change->psn, &change->psn_limit);
}

/* Sends the peer the new parameters. The old queue pair is quiet, or has failed and is drained. */
static int tell(struct srdma_conn *conn)
{
	struct srdma_epoch *epoch = &conn->epoch;
	struct srdma_epoch_change *change = &epoch->change;
	struct srdma_queues *queues = &conn->queues;
	bool fresh = both_are_fresh(epoch) || change->broken;
	struct srdma_epoch_frame frame = {.broken = change->broken, .sends = queues->sends_arrived};
	int ret = draw_psn(conn);

	if (ret == 0 && fresh)
		ret = srdma_qp_pool_take(&epoch->pool, &conn->qp, &change->fresh);
	if (ret != 0)
		return ret;
	frame.qpn = fresh ? change->fresh.verbs->qp_num : conn->qp.verbs->qp_num;
	frame.psn = change->psn;
	frame.consumed = srdma_counter_read(&queues->counters.messages_received);
	queues->owed = 0; /* `consumed` has reported these credits */
	return send_frame(conn, SRDMA_FRAME_EPOCH_PARAMETERS, &frame);
}

static int replace_queue_pair(struct srdma_conn *conn)
{
	struct srdma_epoch_change *change = &conn->epoch.change;
	int ret = srdma_region_unbind(&conn->region);

	if (ret == 0)
		ret = srdma_regions_unbind(conn);
	if (ret != 0)
		return ret;
	if (change->fresh.verbs) {
		srdma_qp_release(&conn->qp);
		conn->qp = change->fresh;
		change->fresh = (struct srdma_qp){0};
	} else {
		ret = srdma_qp_reset(&conn->qp);
	}
	conn->own.qpn = conn->qp.verbs->qp_num;
	conn->own.psn = change->psn;
	conn->queues.psn_limit = change->psn_limit;
	conn->peer.qpn = change->peer.qpn;
	conn->peer.psn = change->peer.psn;
	conn->queues.stale_sends = change->peer_sends;
	return ret == 0 ? srdma_queues_restart(&conn->queues) : ret;
}

/* Both ends have sent their parameters, and the old queue pair is drained. */
static int connect_again(struct srdma_conn *conn)
{
	struct srdma_epoch_change *change = &conn->epoch.change;
	struct srdma_epoch_frame ready = {0};
	int ret = srdma_queues_settle(&conn->queues, change->peer.sends, change->peer.consumed);

	if (ret == 0)
		ret = replace_queue_pair(conn);
	if (ret == 0)
		ret = srdma_conn_connect_queue_pair(conn);
	if (ret == 0)
		ret = srdma_regions_send_keys(conn);
	ready.rkey = conn->own.region_rkey;
	return ret == 0 ? send_frame(conn, SRDMA_FRAME_EPOCH_READY, &ready) : ret;
}

static void account(struct srdma_conn *conn, uint64_t now)
{
	struct srdma_epoch *epoch = &conn->epoch;
	const struct srdma_epoch_change *change = &epoch->change;
	uint64_t pause = now - change->held_since;
	unsigned shown = pause < UINT32_MAX ? (unsigned)pause : UINT32_MAX;

	atomic_store(&epoch->pause_us, shown);
	if (shown > atomic_load(&epoch->pause_max_us))
		atomic_store(&epoch->pause_max_us, shown);
	if (change->broken || change->peer_broken)
		atomic_fetch_add(&epoch->recoveries, 1);
	atomic_fetch_add(&epoch->number, 1);
	srdma_log(SRDMA_LOG_INFO, "connection with %s: epoch %u began because %s, after a pause of %u us",
		  conn->names.identity[0] ? conn->names.identity : "an anonymous peer", atomic_load(&epoch->number),
		  reason_names[change->broken || change->peer_broken ? SRDMA_EPOCH_BROKEN : change->reason], shown);
}

static int finish(struct srdma_conn *conn)
{
	struct srdma_epoch *epoch = &conn->epoch;
	struct srdma_epoch_change *change = &epoch->change;
	uint64_t now = srdma_clock_us();
	bool broken_again = change->broken_again;
	int ret;

	conn->peer.region_rkey = conn->queues.region_rkey = conn->peer.region_size ? change->peer.rkey : 0;
	account(conn, now);
	epoch->stayed = !both_are_fresh(epoch);
	epoch->change = (struct srdma_epoch_change){0};
	epoch->began = now;
	epoch->sweeps_seen = srdma_device_sweeps(conn->device);
	atomic_store(&epoch->wanted, false);
	if (broken_again)
		return srdma_epoch_break(conn, srdma_fail(SRDMA_EVERBS, "the new queue pair failed at once"));
	ret = srdma_regions_check_resume(conn);
	if (ret == 0)
		ret = srdma_queues_resume(&conn->queues);
	/* Posts the requests that had to wait, since no event will trigger that. */
	if (ret == 0)
		ret = srdma_sealed_rdma_step(&conn->sealed_rdma);
	if (ret == 0 && conn->options.epoch_ms > 0)
		ret = srdma_qp_pool_fill(&epoch->pool, &conn->qp);
	return ret;
}

/* Neither a peer nor an attacker that forges the peer's packets may keep this end busy with recoveries alone. */
static int count_recovery(struct srdma_conn *conn)
{
	struct srdma_epoch *epoch = &conn->epoch;
	uint64_t now = srdma_clock_us();

	if (epoch->minute_recoveries == 0 || now - epoch->minute_began >= MINUTE_US) {
		epoch->minute_began = now;
		epoch->minute_recoveries = 0;
	}
	if (epoch->minute_recoveries++ < conn->options.recoveries)
		return 0;
	return srdma_fail(SRDMA_EVERBS, "the queue pair failed more than %u time%s in a minute", conn->options.recoveries,
			  SRDMA_S(conn->options.recoveries));
}

static bool is_quiet(const struct srdma_conn *conn)
{
	return conn->queues.op_ring.count == 0 && conn->queues.sends_arrived == conn->epoch.change.peer_sends;
}

static int go_on(struct srdma_conn *conn)
{
	struct srdma_epoch_change *change = &conn->epoch.change;
	struct srdma_queues *queues = &conn->queues;
	int ret = 0;

	if (change->phase == SRDMA_PHASE_BEGUN && change->peer_broken && !change->broken) {
		ret = count_recovery(conn);
		if (ret != 0)
			return ret;
		change->broken = true;
		stop_queue_pair(conn);
		ret = srdma_queues_poll(queues);
	}
	if (ret == 0 && change->phase == SRDMA_PHASE_BEGUN && change->peer_phase >= SRDMA_PHASE_BEGUN &&
	    (change->broken ? srdma_queues_is_drained(queues) : is_quiet(conn)))
		ret = tell(conn);
	if (ret == 0 && change->phase == SRDMA_PHASE_TOLD && change->peer_phase >= SRDMA_PHASE_TOLD) {
		if (!queues->stopped) {
			stop_queue_pair(conn);
			ret = srdma_queues_poll(queues);
		}
		if (ret == 0 && srdma_queues_is_drained(queues))
			ret = connect_again(conn);
	}
	if (ret == 0 && change->phase == SRDMA_PHASE_CONNECTED && change->peer_phase == SRDMA_PHASE_CONNECTED)
		return finish(conn);
	if (ret == 0 && srdma_deadline_left_ms(change->deadline) == 0)
		ret = srdma_fail(-ETIMEDOUT, "timed out waiting for the peer to renew the queue pair (%s)",
				 reason_names[change->reason]);
	return ret;
}

/* A peer that asks again and again must not keep this end busy with new queue pairs. */
static bool is_old_enough(const struct srdma_epoch *epoch)
{
	return epoch->change.peer_spent || srdma_clock_us() - epoch->began >= SHORTEST_US;
}

int srdma_epoch_step(struct srdma_conn *conn, bool thorough)
{
	struct srdma_epoch *epoch = &conn->epoch;
	struct srdma_epoch_change *change = &epoch->change;
	int ret = 0;

	/* A frame that crossed a DISCONNECT, even a BEGIN of either end, has no effect. */
	if (!epoch->agreed || conn->status != 0 || srdma_conn_has_parted(conn))
		return 0;
	if (change->phase == SRDMA_PHASE_GOING && change->peer_phase == SRDMA_PHASE_GOING && !is_leaving(conn))
		ret = ask(conn, thorough);
	/* The end that asked sets no deadline for the peer to begin: the peer's program may be busy, and work goes on meanwhile. */
	if (ret == 0 && change->phase < SRDMA_PHASE_BEGUN &&
	    (change->peer_phase >= SRDMA_PHASE_BEGUN || (change->peer_phase == SRDMA_PHASE_ASKED && is_old_enough(epoch))))
		ret = begin(conn);
	return ret == 0 && change->phase >= SRDMA_PHASE_BEGUN ? go_on(conn) : ret;
}

/* ---- recovery -------------------------------------------------------------------------------------------------- */

int srdma_epoch_break(struct srdma_conn *conn, int error)
{
	struct srdma_epoch *epoch = &conn->epoch;
	struct srdma_epoch_change *change = &epoch->change;
	int ret;

	if (!epoch->agreed || conn->options.recoveries == 0 || error != SRDMA_EVERBS || conn->queues.failed_here ||
	    srdma_conn_has_parted(conn))
		return error;
	if (change->phase == SRDMA_PHASE_CONNECTED) {
		change->broken_again = true;
		return 0;
	}
	/* The parameters that were told stay valid without the old queue pair. */
	if (change->phase == SRDMA_PHASE_TOLD || change->broken)
		return 0;
	ret = count_recovery(conn);
	if (ret != 0)
		return ret;
	/* One forged packet that matches is enough to cause such a failure. */
	srdma_conn_log_security(conn, "connection.recovering", "replacing the queue pair, without loss of data if the peer is still there");
	change->broken = true;
	change->reason = SRDMA_EPOCH_BROKEN;
	stop_queue_pair(conn);
	return change->phase >= SRDMA_PHASE_BEGUN ? 0 : begin(conn);
}
