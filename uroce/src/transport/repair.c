/* SPDX-License-Identifier: Apache-2.0 */
/* A packet that is missing may be late: it is waited for as long as packets have been late before. If it comes sooner after it was
 * sent again than any answer could, it was late, and the wait becomes longer. */
#include "repair.h"

#include <stdlib.h>
#include <string.h>

#include "active.h"
#include "flight.h"
#include "gather.h"
#include "outgoing.h"
#include "requester.h"
#include "tag.h"
#include "wipe.h"

enum {
	MISSING = 4096,
	WHOLE_COUNTS = 1, /* packets that a request without any answer counts as */
	ANSWERS = 16384, /* PSNs ahead for which it is kept whether they have come: a power of two */
	LEAST_WAIT_NS = 20000,
	LONGEST_WAIT_NS = 20000000,
	LEAST_PATIENCE_NS = 1000000,
};

struct missing {
	uint32_t psn;
	uint32_t times; /* sent again */
	uint64_t since;
	uint64_t sent;
};

struct repair {
	unsigned count;
	unsigned unsent; /* of them: not sent again yet */
	struct missing missing[MISSING]; /* in the order of their PSNs */
	uint32_t reported;  /* packets that the peer keeps */
	uint32_t taken;     /* answers that have come ahead */
	uint32_t taken_end; /* one past the newest of them, or of what is known to be missing */
	uint32_t looked;    /* up to here what is missing is in the list */
	uint64_t wait;      /* how late packets have been; 0: not yet known */
	bool probing;       /* the packet at `probe` was sent when nothing had been heard for long ... */
	uint32_t probe;
	uint32_t probe_end; /* ... of this packet, and those before it */
	uint64_t has[ANSWERS / 64];
};

static struct repair *repair_of(struct qp *qp)
{
	struct requester *req = &qp->req;
	if (!req->repair) {
		req->repair = calloc(1, sizeof *req->repair);
		if (req->repair)
			req->repair->taken_end = req->repair->looked = req->unacked;
	}
	return req->repair;
}

static uint64_t *word_of(struct repair *repair, uint32_t psn, uint64_t *bit)
{
	*bit = UINT64_C(1) << (psn % 64);
	return &repair->has[psn % ANSWERS / 64];
}

static bool has(struct repair *repair, uint32_t psn)
{
	uint64_t bit, word = *word_of(repair, psn, &bit);
	return word & bit;
}

uint32_t repair_landed(const struct requester *req)
{
	const struct repair *repair = req->repair;
	if (!repair)
		return 0;
	uint32_t landed = repair->reported + repair->taken + repair->unsent, size = flight_size(req);
	return landed < size ? landed : size;
}

/* The request that has this PSN, or NULL. */
static struct send_wqe *request_at(struct qp *qp, uint32_t psn)
{
	struct send_queue *sq = &qp->sq;
	for (uint32_t at = sq->head; at != sq->tail; at++) {
		struct send_wqe *wqe = send_queue_at(sq, at);
		if (wqe->state == SEND_POSTED || psn_diff(wqe->first_psn, psn) > 0)
			return NULL;
		if (psn_diff(psn, wqe->last_psn) <= 0)
			return wqe->state == SEND_DONE ? NULL : wqe;
	}
	return NULL;
}

/* ---- the list ---- */

/* The first one that is not before `psn`. */
static unsigned find(const struct repair *repair, uint32_t psn)
{
	unsigned low = 0, high = repair->count;
	while (low < high) {
		unsigned middle = (low + high) / 2;
		if (psn_diff(repair->missing[middle].psn, psn) < 0)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

/* Returns it, also when it was there; NULL: no room. */
static struct missing *add(struct repair *repair, uint32_t psn, uint64_t now)
{
	unsigned at = find(repair, psn);
	struct missing *missing = &repair->missing[at];
	if (at < repair->count && missing->psn == psn)
		return missing;
	if (repair->count == MISSING)
		return NULL;
	memmove(missing + 1, missing, (repair->count++ - at) * sizeof *missing);
	*missing = (struct missing){ .psn = psn, .since = now };
	repair->unsent++;
	return missing;
}

/* It has arrived. */
static void note_found(struct qp *qp, const struct missing *missing)
{
	struct requester *req = &qp->req;
	uint64_t now = qp->device->now;
	req->repair->unsent -= missing->times == 0;
	if (missing->times != 1 || now - missing->sent >= req->path.base - req->path.base / 8)
		return;
	/* What was sent again can't have been answered yet. */
	uint64_t late = now - missing->since;
	late += late / 4;
	if (late > LONGEST_WAIT_NS)
		late = LONGEST_WAIT_NS;
	if (late > req->repair->wait)
		req->repair->wait = late;
	congestion_undo(&req->path);
}

static void remove_range(struct qp *qp, unsigned from, unsigned to)
{
	struct repair *repair = qp->req.repair;
	for (unsigned i = from; i < to; i++)
		note_found(qp, &repair->missing[i]);
	memmove(&repair->missing[from], &repair->missing[to], (repair->count - to) * sizeof repair->missing[0]);
	repair->count -= to - from;
}

/* ---- what comes in ---- */

/* Notes answers to READs and atomics before the newest that has come, as far as there is room. */
static void miss_answers(struct qp *qp)
{
	struct requester *req = &qp->req;
	struct repair *repair = req->repair;
	const struct send_wqe *wqe = NULL;
	if (psn_diff(repair->looked, req->unacked) < 0)
		repair->looked = req->unacked;
	for (; psn_diff(repair->looked, repair->taken_end) < 0; repair->looked = psn_add(repair->looked, 1)) {
		uint32_t psn = repair->looked;
		if (!wqe || psn_diff(psn, wqe->last_psn) > 0)
			wqe = request_at(qp, psn);
		if (wqe && awaits_answer(wqe) && !has(repair, psn) && !add(repair, psn, qp->device->now))
			return;
	}
}

bool repair_miss_answers(struct qp *qp, uint32_t psn)
{
	struct repair *repair = repair_of(qp);
	uint32_t end = psn_add(psn, 1);
	if (!repair || psn_diff(psn, qp->req.unacked) >= ANSWERS)
		return false;
	if (psn_diff(end, repair->taken_end) > 0)
		repair->taken_end = end;
	miss_answers(qp);
	active_add(qp);
	return true;
}

bool repair_take_answer(struct qp *qp, const struct packet *packet)
{
	struct requester *req = &qp->req;
	struct send_wqe *wqe = request_at(qp, packet->psn);
	uint64_t bit;
	if (!wqe || qp->tag.peer == 0 || psn_diff(packet->psn, req->unacked) >= ANSWERS)
		return false;
	struct repair *repair = repair_of(qp);
	if (!repair)
		return false;
	if (wqe->opcode != IBV_WR_RDMA_READ || packet->opcode == OP_ATOMIC_ACK)
		return repair_miss_answers(qp, packet->psn); /* it is one of them: asked for again */
	uint32_t offset = (uint32_t)psn_diff(packet->psn, wqe->first_psn) * qp->mtu;
	uint32_t expected = wqe->length - offset < qp->mtu ? wqe->length - offset : qp->mtu;
	if (packet->payload_length != expected)
		return false;
	uint64_t *word = word_of(repair, packet->psn, &bit);
	if (*word & bit) {
		counter_add(&qp->device->counters->drop_stale, 1);
		return true;
	}
	if (!send_scatter(qp, wqe, offset, packet->payload, expected))
		return false;
	unsigned at = find(repair, packet->psn);
	if (at < repair->count && repair->missing[at].psn == packet->psn)
		remove_range(qp, at, at + 1);
	*word |= bit;
	repair->taken++;
	if (psn_diff(packet->psn, repair->taken_end) >= 0)
		repair->taken_end = psn_add(packet->psn, 1);
	miss_answers(qp);
	req->progress_at = qp->device->now;
	congestion_answered(&req->path, qp->device->now, 1, repair->taken_end, req->next, req->limited);
	if (repair->taken_end == psn_add(packet->psn, 1))
		flight_measure(qp, repair->taken_end, true);
	active_add(qp);
	return true;
}

bool repair_has_answer(struct qp *qp, uint32_t psn)
{
	struct repair *repair = qp->req.repair;
	uint64_t bit;
	if (!repair || repair->taken == 0)
		return false;
	uint64_t *word = word_of(repair, psn, &bit);
	if (!(*word & bit))
		return false;
	*word &= ~bit;
	repair->taken--;
	return true;
}

void repair_acknowledge(struct qp *qp)
{
	const struct requester *req = &qp->req;
	if (req->repair && psn_diff(req->repair->taken_end, req->unacked) > 0)
		flight_acknowledge(qp, psn_add(req->repair->taken_end, WIRE_PSN_MASK));
}

/* The probe has arrived, and was sent after all of these: what the peer keeps of them it tells at once, and the others are lost. */
static void end_probe(struct qp *qp)
{
	struct requester *req = &qp->req;
	struct repair *repair = req->repair;
	repair->probing = false;
	for (uint32_t psn = req->unacked; psn_diff(psn, repair->probe_end) < 0; psn = psn_add(psn, 1)) {
		const struct send_wqe *wqe = request_at(qp, psn);
		if (!wqe || awaits_answer(wqe) || !add(repair, psn, qp->device->now))
			break;
	}
	active_add(qp);
}

uint32_t repair_advance(struct qp *qp, uint32_t answered)
{
	struct requester *req = &qp->req;
	struct repair *repair = req->repair;
	if (!repair)
		return 0;
	if (psn_diff(req->unacked, repair->taken_end) > 0)
		repair->taken_end = req->unacked;
	unsigned gone = find(repair, req->unacked);
	if (gone > 0)
		remove_range(qp, 0, gone);
	miss_answers(qp);
	if (repair->probing && psn_diff(req->unacked, repair->probe) > 0)
		end_probe(qp);
	uint32_t known = answered > gone ? answered - gone : 0;
	if (known > repair->reported)
		known = repair->reported;
	repair->reported -= known;
	return known;
}

bool repair_miss(struct qp *qp, uint32_t psn)
{
	struct requester *req = &qp->req;
	if (!req->peer_reports || !req->repair || psn_diff(psn, req->unacked) < 0 || psn_diff(psn, req->next) >= 0)
		return false;
	add(req->repair, psn, qp->device->now);
	active_add(qp);
	return true;
}

/* ---- reports ---- */

static uint32_t get16(const uint8_t *at)
{
	return (uint32_t)at[0] << 8 | at[1];
}

/* Old entries that the report has an answer to and that are not in it: they have arrived. */
static void drop_reported(struct qp *qp, uint32_t from, uint32_t to)
{
	struct repair *repair = qp->req.repair;
	unsigned at = find(repair, from), end = find(repair, to);
	while (end > at) {
		end--;
		const struct send_wqe *wqe = request_at(qp, repair->missing[end].psn);
		/* That the request has arrived says nothing of its answer. */
		if (!wqe || !awaits_answer(wqe))
			remove_range(qp, end, end + 1);
	}
}

static void take_gaps(struct qp *qp, const struct packet *packet)
{
	struct requester *req = &qp->req;
	uint32_t at = 0, kept = 0;

	for (uint32_t i = 0; i + WIRE_GAP <= packet->payload_length; i += WIRE_GAP) {
		uint32_t offset = get16(packet->payload + i), length = get16(packet->payload + i + 2);
		if (offset < at || psn_diff(psn_add(packet->psn, offset + length), req->top) > 0)
			return; /* of packets that were never sent */
		drop_reported(qp, psn_add(packet->psn, at), psn_add(packet->psn, offset));
		kept += offset - at;
		at = offset + length;
		for (uint32_t n = 0; n < length; n++)
			if (psn_diff(psn_add(packet->psn, offset + n), req->unacked) >= 0)
				add(req->repair, psn_add(packet->psn, offset + n), qp->device->now);
	}
	if (kept > req->repair->reported)
		congestion_answered(&req->path, qp->device->now, kept - req->repair->reported, psn_add(packet->psn, at), req->next,
				    req->limited);
	if (kept != req->repair->reported)
		req->progress_at = qp->device->now;
	req->repair->reported = kept;
	flight_measure(qp, psn_add(packet->psn, at), true);
}

void repair_take_report(struct qp *qp, const struct packet *packet)
{
	struct requester *req = &qp->req;
	bool outstanding = psn_diff(packet->psn, req->unacked) >= 0 && psn_diff(packet->psn, req->next) < 0;
	if (!requester_may_send(qp) || req->refusal != IBV_WC_SUCCESS || !outstanding || !repair_of(qp))
		return;
	req->peer_reports = true;
	flight_acknowledge(qp, psn_add(packet->psn, WIRE_PSN_MASK));
	flight_complete(qp);
	if (!requester_may_send(qp))
		return;
	take_gaps(qp, packet);
	active_add(qp);
}

/* ---- sending again ---- */

static uint64_t wait_of(const struct requester *req)
{
	uint64_t wait = req->path.rtt / 4;
	if (wait < LEAST_WAIT_NS)
		wait = LEAST_WAIT_NS;
	if (wait > LEAST_PATIENCE_NS)
		wait = LEAST_PATIENCE_NS;
	return wait > req->repair->wait ? wait : req->repair->wait;
}

static uint64_t due_at(const struct requester *req, const struct missing *missing)
{
	if (missing->times == 0)
		return missing->since + (missing->since == 0 ? 0 : wait_of(req));
	uint64_t patience = congestion_patience(&req->path) + wait_of(req);
	if (patience < LEAST_PATIENCE_NS)
		patience = LEAST_PATIENCE_NS;
	return missing->sent + (patience << (missing->times > 6 ? 5 : missing->times - 1));
}

uint64_t repair_next(const struct qp *qp)
{
	const struct repair *repair = qp->req.repair;
	uint64_t next = UINT64_MAX;
	for (unsigned i = 0; repair && i < repair->count; i++) {
		uint64_t due = due_at(&qp->req, &repair->missing[i]);
		if (due < next)
			next = due;
	}
	return next;
}

/* The request among those to the peer that the PSN of a READ's answer is of. */
static bool asked_of(struct requester *req, const struct send_wqe *wqe, uint32_t psn, uint32_t *first, uint32_t *last)
{
	uint32_t start = wqe->first_psn;
	for (uint32_t at = req->asked_head; at != req->asked_next; at++) {
		const struct asked *asked = flight_asked_at(req, at);
		if (psn_diff(asked->last_psn, psn) >= 0) {
			*last = asked->last_psn;
			*first = psn_diff(start, wqe->first_psn) < 0 ? wqe->first_psn : start;
			return true;
		}
		start = psn_add(asked->last_psn, 1);
	}
	return false;
}

/* How many packets of a READ's answer, from that of the missing one on, are asked for: those that are missing in a row. If none of
 * the request's answer has come, the request itself may be lost: then all of it, as before. */
static uint32_t run_of(struct qp *qp, const struct send_wqe *wqe, unsigned index, uint32_t *from, bool *whole)
{
	struct requester *req = &qp->req;
	struct repair *repair = req->repair;
	uint32_t psn = repair->missing[index].psn, first, last, run = 1;
	*from = psn;
	if (!asked_of(req, wqe, psn, &first, &last))
		return 0;
	bool any = psn_diff(req->unacked, first) > 0;
	for (uint32_t at = first; !any && psn_diff(at, last) <= 0; at = psn_add(at, 1))
		any = has(repair, at);
	*whole = !any;
	if (!any) {
		*from = first;
		return (uint32_t)psn_diff(last, first) + 1;
	}
	while (index + run < repair->count && repair->missing[index + run].psn == psn_add(psn, run) &&
	       psn_diff(psn_add(psn, run), last) <= 0)
		run++;
	return run;
}

/* Sends the one at `index` again, and those behind it that the same request asks for. False: the flight must go back. */
static bool send_missing(struct qp *qp, unsigned index)
{
	struct requester *req = &qp->req;
	struct repair *repair = req->repair;
	uint32_t psn = repair->missing[index].psn, from = psn, run = 1, counted = 0;
	bool whole = false;
	struct send_wqe *wqe = request_at(qp, psn);
	if (!wqe)
		return false;
	if (wqe->opcode == IBV_WR_RDMA_READ)
		run = run_of(qp, wqe, index, &from, &whole);
	if (run == 0 || !requester_repeat(qp, wqe, from, run))
		return false;
	uint32_t end = psn_add(from, run);
	flight_forget_stamps(req, from, end);
	for (; index < repair->count && psn_diff(repair->missing[index].psn, end) < 0; index++) {
		struct missing *missing = &repair->missing[index];
		/* A probe is no sign of a loss; and perhaps one request was lost, and not all of its answer. */
		if (missing->since != 0 && (!whole || counted++ < WHOLE_COUNTS))
			congestion_lost(&req->path, qp->device->now, 1, missing->psn, req->next, missing->times > 0);
		repair->unsent -= missing->times++ == 0;
		missing->sent = qp->device->now;
	}
	return true;
}

bool repair_pump(struct qp *qp)
{
	struct requester *req = &qp->req;
	struct repair *repair = req->repair;
	if (!repair || repair->count == 0 || req->waiting_rnr || req->refusal != IBV_WC_SUCCESS || !requester_may_send(qp))
		return false;
	for (unsigned i = 0; i < repair->count; i++) {
		if (due_at(req, &repair->missing[i]) > qp->device->now)
			continue;
		if (requester_must_pace(qp))
			return false;
		if (!link_ready(qp->device->link))
			return true;
		if (!send_missing(qp, i)) {
			flight_lose(qp);
			return false;
		}
	}
	return false;
}

/* The oldest packet that is not answered is sent again: the answer tells what has become of the others. Of a READ, all that has not come
 * of the oldest request. */
bool repair_probe(struct qp *qp)
{
	struct requester *req = &qp->req;
	const struct send_wqe *wqe = request_at(qp, req->unacked);
	if (!wqe || (!awaits_answer(wqe) && !req->peer_reports) || !repair_of(qp))
		return false;
	uint32_t first = req->unacked, last = first;
	if (wqe->opcode == IBV_WR_RDMA_READ && !asked_of(req, wqe, req->unacked, &first, &last))
		return false;
	for (uint32_t psn = req->unacked; psn_diff(psn, last) <= 0; psn = psn_add(psn, 1)) {
		struct missing *missing = has(req->repair, psn) ? NULL : add(req->repair, psn, 0);
		if (missing && missing->times == 0)
			missing->since = 0;
	}
	if (psn_diff(last, req->repair->taken_end) >= 0)
		req->repair->taken_end = psn_add(last, 1);
	if (req->peer_reports && !awaits_answer(wqe)) {
		req->repair->probing = true;
		req->repair->probe = first;
		req->repair->probe_end = req->next;
	}
	active_add(qp);
	return true;
}

void repair_forget(struct qp *qp)
{
	struct repair *repair = qp->req.repair;
	if (!repair)
		return;
	repair->count = repair->unsent = repair->reported = repair->taken = 0;
	repair->taken_end = repair->looked = qp->req.unacked;
	repair->probing = false;
	memset(repair->has, 0, sizeof repair->has);
}

void repair_free(struct qp *qp)
{
	wipe_free(qp->req.repair, sizeof *qp->req.repair);
	qp->req.repair = NULL;
}
