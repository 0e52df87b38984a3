/* SPDX-License-Identifier: Apache-2.0 */
#include "hold.h"

#include <stdlib.h>
#include <string.h>

#include "outgoing.h"
#include "wipe.h"

enum {
	SLOTS = 8192, /* PSNs ahead: a power of two */
	GAPS_A_PACKET = 128, /* that a report lists for each packet since the last one */
	QP_BYTES = 16 << 20,
	DEVICE_BYTES = 128 << 20,
};

struct hold {
	uint32_t count;
	size_t bytes;
	uint32_t end; /* one past the newest PSN that is kept */
	uint32_t gaps;     /* in the last report */
	uint32_t unreported; /* packets that were kept since */
	uint8_t report[WIRE_GAPS * WIRE_GAP];
	struct held *slot[SLOTS];
};

static size_t size_of(const struct held *held)
{
	return sizeof *held + held->packet.payload_length;
}

static struct held **slot_of(struct hold *hold, uint32_t psn)
{
	return &hold->slot[psn & (SLOTS - 1)];
}

/* PSNs that a request takes. */
static uint32_t span(const struct qp *qp, const struct packet *packet)
{
	return packet->opcode == OP_READ_REQUEST ? packets_of(qp, packet->length) : packets_in(qp, packet);
}

static struct hold *hold_of(struct qp *qp)
{
	if (!qp->resp.hold)
		qp->resp.hold = calloc(1, sizeof *qp->resp.hold);
	return qp->resp.hold;
}

void hold_put(struct qp *qp, const struct packet *packet, uint32_t ahead, bool *news)
{
	size_t size = sizeof(struct held) + packet->payload_length;
	struct hold *hold = hold_of(qp);
	*news = false;
	if (!hold || ahead >= SLOTS || span(qp, packet) > SLOTS)
		return;
	struct held **slot = slot_of(hold, packet->psn);
	if (*slot && psn_diff((*slot)->packet.psn, qp->resp.expected) < 0)
		hold_release(hold_take(qp, (*slot)->packet.psn));
	if (*slot || hold->bytes + size > QP_BYTES || qp->device->held_bytes + size > DEVICE_BYTES)
		return;
	struct held *held = malloc(size);
	if (!held)
		return;
	held->packet = *packet;
	held->packet.payload = held->payload;
	memcpy(held->payload, packet->payload, packet->payload_length);
	*slot = held;
	hold->bytes += size;
	qp->device->held_bytes += size;
	/* Each new gap is news, and so is what is there when the peer asks. Where there are many gaps, not each one is worth a report that
	 * lists all of them: the next packet with an AckReq comes soon. */
	bool gap = psn_diff(packet->psn, hold->end) > 0 && ++hold->unreported > hold->gaps / GAPS_A_PACKET;
	*news = hold->count == 0 || gap || packet->ack_req;
	uint32_t end = psn_add(packet->psn, span(qp, packet));
	if (hold->count++ == 0 || psn_diff(end, hold->end) > 0)
		hold->end = end;
	counter_add(&qp->device->counters->held, 1);
}

struct held *hold_take(struct qp *qp, uint32_t psn)
{
	struct hold *hold = qp->resp.hold;
	if (!hold || hold->count == 0)
		return NULL;
	struct held **slot = slot_of(hold, psn), *held = *slot;
	if (!held || held->packet.psn != psn)
		return NULL;
	*slot = NULL;
	hold->count--;
	hold->bytes -= size_of(held);
	qp->device->held_bytes -= size_of(held);
	return held;
}

void hold_release(struct held *held)
{
	wipe_free(held, size_of(held));
}

bool hold_empty(const struct qp *qp)
{
	return !qp->resp.hold || qp->resp.hold->count == 0;
}

void hold_clear(struct qp *qp)
{
	struct hold *hold = qp->resp.hold;
	for (uint32_t i = 0; hold && hold->count > 0 && i < SLOTS; i++)
		if (hold->slot[i])
			hold_release(hold_take(qp, hold->slot[i]->packet.psn));
}

void hold_settle(struct qp *qp)
{
	if (!hold_empty(qp) && psn_diff(qp->resp.hold->end, qp->resp.expected) <= 0)
		hold_clear(qp);
}

void hold_free(struct qp *qp)
{
	hold_clear(qp);
	wipe_free(qp->resp.hold, sizeof *qp->resp.hold);
	qp->resp.hold = NULL;
}

/* ---- reports ---- */

/* Gaps from `expected` on, each an offset from there and a length; the last one is empty and says how far the report goes. */
static uint32_t list_gaps(struct qp *qp, struct hold *hold)
{
	uint32_t expected = qp->resp.expected, end = (uint32_t)psn_diff(hold->end, expected), at = 0;
	uint32_t most = qp->mtu / WIRE_GAP < WIRE_GAPS ? qp->mtu / WIRE_GAP : WIRE_GAPS;
	uint8_t *to = hold->report;

	hold->unreported = 0;
	for (hold->gaps = 0; at < end && hold->gaps < most - 1; hold->gaps++) {
		uint32_t start = at;
		while (at < end && !*slot_of(hold, psn_add(expected, at)))
			at++;
		to = wire_put16(wire_put16(to, start), at - start);
		for (const struct held *held; at < end && (held = *slot_of(hold, psn_add(expected, at)));)
			at += span(qp, &held->packet);
	}
	to = wire_put16(wire_put16(to, at), 0);
	return (uint32_t)(to - hold->report);
}

void hold_report(struct qp *qp)
{
	struct hold *hold = qp->resp.hold;
	if (hold_empty(qp) || psn_diff(hold->end, qp->resp.expected) <= 0)
		return;
	uint32_t length = list_gaps(qp, hold);
	struct packet packet = { .opcode = OP_GAPS, .psn = qp->resp.expected, .payload_length = length };
	send_own(qp, &packet, hold->report);
}
