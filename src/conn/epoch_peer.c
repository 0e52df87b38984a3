/* SPDX-License-Identifier: Apache-2.0 */
/* What the peer says in the change to a new epoch: each frame must be due. */
#include "epoch.h"

#include "conn.h"
#include "log.h"
#include "psn.h"

static int refuse_frame(const char *what)
{
	return srdma_fail(SRDMA_EPROTOCOL, "the peer sent an epoch frame that was not due (%s)", what);
}

static void take_request(struct srdma_epoch_change *change, const struct srdma_epoch_frame *frame, bool spent)
{
	if (change->phase == SRDMA_PHASE_GOING && change->peer_phase == SRDMA_PHASE_GOING)
		change->reason = frame->reason;
	/* If the peer has begun already, the request changes nothing, so a failed step is no error. */
	srdma_epoch_advance(&change->peer_phase, SRDMA_FRAME_EPOCH_REQUEST);
	change->peer_spent = spent;
}

static int take_begin(struct srdma_epoch_change *change, const struct srdma_epoch_frame *frame)
{
	bool first = change->phase == SRDMA_PHASE_GOING && change->peer_phase == SRDMA_PHASE_GOING;

	/* An end that wants an epoch asks, unless its queue pair has failed. */
	if (change->peer_phase < SRDMA_PHASE_BEGUN && change->phase == SRDMA_PHASE_GOING && !frame->broken)
		return refuse_frame("BEGIN that this end has not requested");
	if (!srdma_epoch_advance(&change->peer_phase, SRDMA_FRAME_EPOCH_BEGIN))
		return refuse_frame("BEGIN twice");
	change->peer_broken = frame->broken;
	change->peer_reason = frame->reason;
	change->peer_sends = frame->sends;
	if (first)
		change->reason = frame->reason;
	return 0;
}

static int take_parameters(struct srdma_epoch_change *change, const struct srdma_epoch_frame *frame)
{
	if (change->phase < SRDMA_PHASE_BEGUN || !srdma_epoch_advance(&change->peer_phase, SRDMA_FRAME_EPOCH_PARAMETERS))
		return refuse_frame("PARAMETERS");
	change->peer_broken = change->peer_broken || frame->broken;
	change->peer = *frame;
	return 0;
}

/* `has_rkey`: the peer offers a region that the device knows. */
static int take_ready(struct srdma_epoch_change *change, const struct srdma_epoch_frame *frame, bool has_rkey)
{
	if (frame->rkey != 0 && !has_rkey)
		return refuse_frame("READY with an rkey, and the peer offers no region that has one");
	if (change->phase < SRDMA_PHASE_TOLD || !srdma_epoch_advance(&change->peer_phase, SRDMA_FRAME_EPOCH_READY))
		return refuse_frame("READY");
	change->peer.rkey = frame->rkey;
	return 0;
}

/* Whether the peer has used up its PSNs, as counted by this end's queue pair. The two ends may have different limits, so half of
 * this end's limit is enough. Where the device does not count, the peer waits for SHORTEST_US. */
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
		/* A request can cross the change that it asks for. */
		if (frame.number < next || epoch->change.phase >= SRDMA_PHASE_BEGUN)
			return 0;
	}
	if (frame.number != next)
		return refuse_frame("another number");
	switch (type) {
	case SRDMA_FRAME_EPOCH_REQUEST:
		take_request(&epoch->change, &frame, frame.reason == SRDMA_EPOCH_COUNT && has_spent_psns(conn));
		break;
	case SRDMA_FRAME_EPOCH_BEGIN: ret = take_begin(&epoch->change, &frame); break;
	case SRDMA_FRAME_EPOCH_PARAMETERS: ret = take_parameters(&epoch->change, &frame); break;
	default: ret = take_ready(&epoch->change, &frame, conn->peer.region_size > 0 && !conn->sealed); break;
	}
	/* The next frame may belong to the next phase. */
	return ret == 0 ? srdma_epoch_step(conn, false) : ret;
}

int srdma_epoch_take_keys(struct srdma_conn *conn)
{
	struct srdma_epoch_change *change = &conn->epoch.change;

	if (change->phase < SRDMA_PHASE_TOLD || change->peer_phase != SRDMA_PHASE_TOLD)
		return srdma_fail(SRDMA_EPROTOCOL, "the peer sent REGION_KEYS outside of a renewal: it is due between EPOCH_PARAMETERS and EPOCH_READY");
	if (change->peer_keys)
		return srdma_fail(SRDMA_EPROTOCOL, "the peer sent REGION_KEYS twice in a renewal");
	change->peer_keys = true;
	return 0;
}
