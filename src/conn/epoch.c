/* SPDX-License-Identifier: Apache-2.0 */
#include "epoch.h"

#include "sealed_rdma.h"
#include "clock.h"
#include "conn.h"
#include "device.h"
#include "log.h"
#include "psn.h"

#include <errno.h>
#include <openssl/crypto.h>
#include <string.h>

#define MINUTE_US 60000000u
/* How long before its end an epoch's successor is asked for: a part of its PSNs. */
#define EARLY 8
#define TICK_MS 250
#define CHANGING_TICK_MS 20
/* An epoch that the peer wants to end, unless its PSNs are used up. */
#define SHORTEST_US 5000

static const char *reason_name(enum srdma_epoch_reason reason)
{
	switch (reason) {
	case SRDMA_EPOCH_COUNT: return "its PSNs are used up";
	case SRDMA_EPOCH_ASKED: return "an end asked for it";
	case SRDMA_EPOCH_TIME: return "its time is over";
	case SRDMA_EPOCH_SWEEP: return "somebody is trying PSNs";
	case SRDMA_EPOCH_BROKEN: return "the queue pair failed";
	}
	return "unknown";
}

/* ---- life ------------------------------------------------------------------------------------------------------ */

void srdma_epoch_start(struct srdma_conn *conn)
{
	struct srdma_epoch *epoch = &conn->epoch;

	epoch->agreed = (conn->own.features & conn->peer.features & SRDMA_FEATURE_EPOCHS) != 0;
	epoch->began = srdma_clock_us();
	epoch->sweeps_seen = srdma_device_sweeps(conn->device);
	if (!epoch->agreed)
		return;
	conn->stream.psn_limit = conn->options.epoch_psns;
	/* Without one the next epoch makes its own, which takes longer. */
	if (conn->options.epoch_ms > 0 && srdma_qp_pool_fill(&epoch->pool, &conn->qp) != 0)
		srdma_log(SRDMA_LOG_WARN, "cannot make a spare queue pair, so the next renewal takes longer: %s", srdma_error_text());
}

void srdma_epoch_release(struct srdma_conn *conn)
{
	srdma_qp_release(&conn->epoch.fresh);
	srdma_qp_pool_release(&conn->epoch.pool);
}

bool srdma_epoch_is_changing(const struct srdma_conn *conn)
{
	return !srdma_conn_has_parted(conn) && (conn->epoch.begun || conn->epoch.peer_asked);
}

int srdma_conn_renew(struct srdma_conn *conn)
{
	if (!conn->epoch.agreed)
		return srdma_fail(-EOPNOTSUPP, "the two ends did not agree on epochs, so the queue pair cannot be renewed (epoch-psns)");
	atomic_store(&conn->epoch.wanted, true);
	srdma_conn_nudge(conn);
	return 0;
}

/* ---- frames ---------------------------------------------------------------------------------------------------- */

static int send_frame(struct srdma_conn *conn, enum srdma_frame_type type, struct srdma_epoch_frame *body)
{
	uint8_t frame[SRDMA_FRAME_MAX];
	size_t length;
	int ret;

	body->number = atomic_load(&conn->epoch.number) + 1;
	length = srdma_epoch_encode(frame, type, body);
	ret = srdma_outbox_send(conn->tls, &conn->outbox, frame, length);
	OPENSSL_cleanse(frame, sizeof frame);
	return ret;
}

static int refuse_frame(const char *what)
{
	return srdma_fail(SRDMA_EPROTOCOL, "the peer sent an epoch frame that was not due (%s)", what);
}

static int take_begin(struct srdma_epoch *epoch, const struct srdma_epoch_frame *frame)
{
	if (epoch->peer_begun)
		return refuse_frame("BEGIN twice");
	/* An end that wants an epoch asks for it, unless its queue pair has failed. */
	if (!epoch->begun && !epoch->requested && !frame->broken)
		return refuse_frame("BEGIN that nobody has asked for");
	epoch->peer_begun = true;
	epoch->peer_broken = frame->broken;
	epoch->peer_reason = frame->reason;
	epoch->peer_sends = frame->sends;
	if (!epoch->begun && !epoch->requested && !epoch->peer_asked)
		epoch->reason = frame->reason;
	return 0;
}

static int take_parameters(struct srdma_epoch *epoch, const struct srdma_epoch_frame *frame)
{
	if (!epoch->begun || !epoch->peer_begun || epoch->peer_told)
		return refuse_frame("PARAMETERS");
	epoch->peer_told = true;
	epoch->peer_broken = epoch->peer_broken || frame->broken;
	epoch->peer = *frame;
	return 0;
}

/* The PSNs that the peer has used since the epoch began, as the own queue pair has seen them: half of what this end would use up are
 * believed to be as many as the peer may use. A device that does not count them on makes the peer wait for SHORTEST_US. */
static bool has_spent_psns(const struct srdma_conn *conn)
{
	enum ibv_qp_state state;
	uint32_t expected;

	if (srdma_qp_query(&conn->qp, &state, &expected, NULL) != 0)
		return false;
	return ((expected - conn->peer.psn) & SRDMA_PSN_MASK) >= conn->options.epoch_psns / 2;
}

int srdma_epoch_take(struct srdma_conn *conn)
{
	struct srdma_epoch *epoch = &conn->epoch;
	enum srdma_frame_type type = conn->inbox.header.type;
	uint32_t next = atomic_load(&epoch->number) + 1;
	struct srdma_epoch_frame frame;
	int ret;

	if (!epoch->agreed)
		return refuse_frame("no epochs were agreed on");
	ret = srdma_epoch_decode(type, srdma_inbox_body(&conn->inbox), conn->inbox.header.length, &frame);
	if (ret != 0)
		return ret;
	if (type == SRDMA_FRAME_EPOCH_REQUEST) {
		if (frame.number <= epoch->last_request)
			return refuse_frame("REQUEST twice");
		if (frame.number <= next)
			epoch->last_request = frame.number;
		/* It can cross the change that it asks for. */
		if (frame.number < next || epoch->begun)
			return 0;
	}
	if (frame.number != next)
		return refuse_frame("another number");
	switch (type) {
	case SRDMA_FRAME_EPOCH_REQUEST:
		if (!epoch->requested && !epoch->peer_asked)
			epoch->reason = frame.reason;
		epoch->peer_asked = true;
		epoch->peer_spent = frame.reason == SRDMA_EPOCH_COUNT && has_spent_psns(conn);
		break;
	case SRDMA_FRAME_EPOCH_BEGIN: ret = take_begin(epoch, &frame); break;
	case SRDMA_FRAME_EPOCH_PARAMETERS: ret = take_parameters(epoch, &frame); break;
	default:
		if (!epoch->told || !epoch->peer_told || epoch->peer_ready)
			return refuse_frame("READY");
		if (frame.rkey != 0 && (conn->peer.region_size == 0 || conn->sealed))
			return refuse_frame("READY with an rkey, and the peer offers no region that has one");
		epoch->peer_ready = true;
		epoch->peer.rkey = frame.rkey;
		break;
	}
	/* The next frame may belong to the next state. */
	return ret == 0 ? srdma_epoch_step(conn, false) : ret;
}

/* ---- when ------------------------------------------------------------------------------------------------------ */

/* Costs next to nothing. */
static enum srdma_epoch_reason due_at_once(const struct srdma_conn *conn)
{

	if (conn->stream.psns_used >= conn->stream.psn_limit - conn->stream.psn_limit / EARLY)
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

/* An end that leaves needs no new epoch. */
static bool is_leaving(const struct srdma_conn *conn)
{
	return conn->closing.requested || conn->closing.peer_requested;
}

bool srdma_epoch_is_due(struct srdma_conn *conn, uint64_t now)
{
	const struct srdma_epoch *epoch = &conn->epoch;

	if (!epoch->agreed || conn->status != 0 || srdma_conn_has_parted(conn))
		return false;
	if (epoch->begun || epoch->peer_asked)
		return true;
	return !epoch->requested && !is_leaving(conn) && due(conn, now) != 0;
}

int srdma_epoch_tick_ms(const struct srdma_conn *conn)
{
	if (!conn->epoch.agreed)
		return -1;
	if (conn->epoch.begun || conn->epoch.peer_asked)
		return CHANGING_TICK_MS;
	return conn->options.epoch_ms > 0 || srdma_device_watches(conn->device) ? TICK_MS : -1;
}

/* ---- the change ------------------------------------------------------------------------------------------------ */

static int ask(struct srdma_conn *conn, bool thorough)
{
	struct srdma_epoch *epoch = &conn->epoch;
	struct srdma_epoch_frame frame = {0};

	epoch->reason = thorough ? due(conn, srdma_clock_us()) : due_at_once(conn);
	if (epoch->reason == 0)
		return 0;
	frame.reason = (uint8_t)epoch->reason;
	epoch->requested = true;
	return send_frame(conn, SRDMA_FRAME_EPOCH_REQUEST, &frame);
}

static int begin(struct srdma_conn *conn)
{
	struct srdma_epoch *epoch = &conn->epoch;
	struct srdma_epoch_frame frame = {.reason = (uint8_t)epoch->reason, .broken = epoch->broken};
	bool quiet = true;
	int ret = 0;

	if (epoch->held_since == 0)
		epoch->held_since = srdma_clock_us();
	if (!epoch->broken)
		ret = srdma_stream_quiesce(&conn->stream, &quiet);
	if (ret != 0 || !quiet)
		return ret;
	epoch->begun = true;
	epoch->begun_reason = epoch->reason;
	epoch->deadline = srdma_deadline(conn->options.setup_timeout_ms);
	frame.sends = conn->stream.sends_posted;
	return send_frame(conn, SRDMA_FRAME_EPOCH_BEGIN, &frame);
}

static void stop_queue_pair(struct srdma_conn *conn)
{
	srdma_stream_stop(&conn->stream);
	srdma_qp_fail(&conn->qp);
}

/* A packet bears the number of the queue pair that it is for, and no other. So it is the peer's queue pair, the same or a fresh one,
 * that says whether what was captured from here could match again. One that stays does so once: a third epoch on it would use PSNs
 * of the first. Both ends have read both reasons by now, so they agree; a queue pair that has failed since then is replaced all the
 * same, but its peer's may not be. */
static bool both_are_fresh(const struct srdma_epoch *epoch)
{
	return epoch->stayed || epoch->begun_reason != SRDMA_EPOCH_COUNT || epoch->peer_reason != SRDMA_EPOCH_COUNT;
}

static int draw_psn(struct srdma_conn *conn)
{
	struct srdma_epoch *epoch = &conn->epoch;
	const struct srdma_psn_range last = {conn->own.psn, (uint32_t)conn->stream.psns_used};

	epoch->psn_limit = conn->options.epoch_psns;
	return both_are_fresh(epoch) ? srdma_psn_generate(&epoch->psn) : srdma_psn_generate_apart(&last, &epoch->psn, &epoch->psn_limit);
}

/* All is quiet here, or all is over: tells the new parameters. */
static int tell(struct srdma_conn *conn)
{
	struct srdma_epoch *epoch = &conn->epoch;
	struct srdma_stream *stream = &conn->stream;
	bool fresh = both_are_fresh(epoch) || epoch->broken;
	struct srdma_epoch_frame frame = {.broken = epoch->broken, .sends = stream->sends_arrived};
	int ret = draw_psn(conn);

	if (ret == 0 && fresh)
		ret = srdma_qp_pool_take(&epoch->pool, &conn->qp, &epoch->fresh);
	if (ret != 0)
		return ret;
	frame.qpn = fresh ? epoch->fresh.verbs->qp_num : conn->qp.verbs->qp_num;
	frame.psn = epoch->psn;
	frame.consumed = srdma_counter_read(&stream->counters.messages_received);
	stream->owed = 0; /* that says it all */
	epoch->told = true;
	return send_frame(conn, SRDMA_FRAME_EPOCH_PARAMETERS, &frame);
}

static int replace_queue_pair(struct srdma_conn *conn)
{
	struct srdma_epoch *epoch = &conn->epoch;
	int ret = srdma_region_unbind(&conn->region);

	if (ret != 0)
		return ret;
	if (epoch->fresh.verbs) {
		srdma_qp_release(&conn->qp);
		conn->qp = epoch->fresh;
		epoch->fresh = (struct srdma_qp){0};
	} else {
		ret = srdma_qp_reset(&conn->qp);
	}
	conn->own.qpn = conn->qp.verbs->qp_num;
	conn->own.psn = epoch->psn;
	conn->stream.psn_limit = epoch->psn_limit;
	conn->peer.qpn = epoch->peer.qpn;
	conn->peer.psn = epoch->peer.psn;
	conn->stream.stale_sends = epoch->peer_sends;
	return ret == 0 ? srdma_stream_restart(&conn->stream) : ret;
}

/* Both ends have told, and the old queue pair has nothing more to say. */
static int connect_again(struct srdma_conn *conn)
{
	struct srdma_epoch *epoch = &conn->epoch;
	struct srdma_epoch_frame ready = {0};
	int ret = srdma_stream_settle(&conn->stream, epoch->peer.sends, epoch->peer.consumed);

	if (ret == 0)
		ret = replace_queue_pair(conn);
	if (ret == 0)
		ret = srdma_conn_connect_queue_pair(conn);
	ready.rkey = conn->own.region_rkey;
	epoch->connected = ret == 0;
	return ret == 0 ? send_frame(conn, SRDMA_FRAME_EPOCH_READY, &ready) : ret;
}

static void account(struct srdma_conn *conn, uint64_t now)
{
	struct srdma_epoch *epoch = &conn->epoch;
	uint64_t pause = now - epoch->held_since;
	unsigned shown = pause < UINT32_MAX ? (unsigned)pause : UINT32_MAX;

	atomic_store(&epoch->pause_us, shown);
	if (shown > atomic_load(&epoch->pause_max_us))
		atomic_store(&epoch->pause_max_us, shown);
	if (epoch->broken || epoch->peer_broken)
		atomic_fetch_add(&epoch->recoveries, 1);
	atomic_fetch_add(&epoch->number, 1);
	srdma_log(SRDMA_LOG_INFO, "connection with %s: epoch %u began because %s, after a pause of %u us",
		  conn->names.identity[0] ? conn->names.identity : "an anonymous peer", atomic_load(&epoch->number),
		  reason_name(epoch->broken || epoch->peer_broken ? SRDMA_EPOCH_BROKEN : epoch->reason), shown);
}

static int finish(struct srdma_conn *conn)
{
	struct srdma_epoch *epoch = &conn->epoch;
	uint64_t now = srdma_clock_us();
	bool broken_again = epoch->broken_again;
	int ret;

	conn->peer.region_rkey = conn->stream.region_rkey = conn->peer.region_size ? epoch->peer.rkey : 0;
	account(conn, now);
	epoch->stayed = !both_are_fresh(epoch);
	epoch->reason = epoch->begun_reason = epoch->peer_reason = 0;
	epoch->requested = epoch->begun = epoch->broken = epoch->told = epoch->connected = epoch->broken_again = false;
	epoch->peer_begun = epoch->peer_broken = epoch->peer_told = epoch->peer_ready = epoch->peer_asked = epoch->peer_spent = false;
	epoch->peer = (struct srdma_epoch_frame){0};
	epoch->psn = 0;
	epoch->began = now;
	epoch->held_since = 0;
	epoch->sweeps_seen = srdma_device_sweeps(conn->device);
	atomic_store(&epoch->wanted, false);
	if (broken_again)
		return srdma_epoch_break(conn, srdma_fail(SRDMA_EVERBS, "the new queue pair failed at once"));
	ret = srdma_stream_resume(&conn->stream);
	/* What could not be posted meanwhile: no event will call for it. */
	if (ret == 0)
		ret = srdma_sealed_rdma_step(&conn->sealed_rdma);
	if (ret == 0 && conn->options.epoch_ms > 0)
		ret = srdma_qp_pool_fill(&epoch->pool, &conn->qp);
	return ret;
}

/* A peer, or an attacker who forges packets in its name, must not keep this end busy with nothing else. */
static bool may_recover(struct srdma_conn *conn)
{
	struct srdma_epoch *epoch = &conn->epoch;
	uint64_t now = srdma_clock_us();

	if (epoch->minute_recoveries == 0 || now - epoch->minute_began >= MINUTE_US) {
		epoch->minute_began = now;
		epoch->minute_recoveries = 0;
	}
	return epoch->minute_recoveries++ < conn->options.recoveries;
}

static int too_many_recoveries(const struct srdma_conn *conn)
{
	return srdma_fail(SRDMA_EVERBS, "the queue pair failed more than %u times in a minute", conn->options.recoveries);
}

static bool is_quiet(const struct srdma_conn *conn)
{
	return conn->stream.op_count == 0 && conn->epoch.peer_begun && conn->stream.sends_arrived == conn->epoch.peer_sends;
}

static int go_on(struct srdma_conn *conn)
{
	struct srdma_epoch *epoch = &conn->epoch;
	struct srdma_stream *stream = &conn->stream;
	int ret = 0;

	if (!epoch->told && epoch->peer_broken && !epoch->broken) {
		if (!may_recover(conn))
			return too_many_recoveries(conn);
		epoch->broken = true;
		stop_queue_pair(conn);
		ret = srdma_stream_poll(stream);
	}
	if (ret == 0 && !epoch->told && (epoch->broken ? epoch->peer_begun && srdma_stream_is_drained(stream) : is_quiet(conn)))
		ret = tell(conn);
	if (ret == 0 && epoch->told && epoch->peer_told && !epoch->connected) {
		if (!stream->stopped) {
			stop_queue_pair(conn);
			ret = srdma_stream_poll(stream);
		}
		if (ret == 0 && srdma_stream_is_drained(stream))
			ret = connect_again(conn);
	}
	if (ret == 0 && epoch->connected && epoch->peer_ready)
		return finish(conn);
	if (ret == 0 && srdma_deadline_left_ms(epoch->deadline) == 0)
		ret = srdma_fail(-ETIMEDOUT, "timed out waiting for the peer to renew the queue pair (%s)",
				 reason_name(epoch->reason));
	return ret;
}

/* A peer that asks again and again must not keep this end busy with making queue pairs. */
static bool is_old_enough(const struct srdma_epoch *epoch)
{
	return epoch->peer_spent || srdma_clock_us() - epoch->began >= SHORTEST_US;
}

int srdma_epoch_step(struct srdma_conn *conn, bool thorough)
{
	struct srdma_epoch *epoch = &conn->epoch;
	int ret = 0;

	/* What crossed a DISCONNECT, a BEGIN of either end even, is for nothing. */
	if (!epoch->agreed || conn->status != 0 || srdma_conn_has_parted(conn))
		return 0;
	if (!epoch->begun && !epoch->requested && !epoch->peer_asked && !epoch->peer_begun && !is_leaving(conn))
		ret = ask(conn, thorough);
	/* The end that asked waits for the other one to begin. The other program may be busy elsewhere, and until then work goes on. */
	if (ret == 0 && !epoch->begun && (epoch->peer_begun || (epoch->peer_asked && is_old_enough(epoch))))
		ret = begin(conn);
	return ret == 0 && epoch->begun ? go_on(conn) : ret;
}

/* ---- recovery -------------------------------------------------------------------------------------------------- */

int srdma_epoch_break(struct srdma_conn *conn, int error)
{
	struct srdma_epoch *epoch = &conn->epoch;

	if (!epoch->agreed || conn->options.recoveries == 0 || error != SRDMA_EVERBS || conn->stream.failed_here)
		return error;
	if (srdma_conn_has_parted(conn))
		return error;
	if (epoch->connected) {
		epoch->broken_again = true;
		return 0;
	}
	/* What was told is final, and holds without the old queue pair. */
	if (epoch->told || epoch->broken)
		return 0;
	if (!may_recover(conn))
		return too_many_recoveries(conn);
	/* Whatever it was, it could have been a forged packet: one that matches is enough. */
	srdma_conn_log_security(conn, "connection.recovering", "getting a new queue pair, nothing is lost");
	epoch->broken = true;
	epoch->reason = SRDMA_EPOCH_BROKEN;
	if (epoch->held_since == 0)
		epoch->held_since = srdma_clock_us();
	stop_queue_pair(conn);
	return epoch->begun ? 0 : begin(conn);
}
