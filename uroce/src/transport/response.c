/* SPDX-License-Identifier: Apache-2.0 */
#include "response.h"

#include <string.h>

#include "active.h"
#include "hold.h"
#include "marking.h"
#include "outgoing.h"
#include "tag.h"
#include "wipe.h"

enum {
	LAST_PACKETS = 1024, /* responses that a queue pair may still send when it ends */
	WAITED_LEAST_NS = 20000, /* less is as good as nothing to a path between hosts, and is not told */
};

static void send_aeth(struct qp *qp, uint32_t psn, uint8_t syndrome)
{
	struct packet packet = { .opcode = OP_ACK, .psn = psn, .syndrome = syndrome, .msn = qp->resp.msn };

	send_own(qp, &packet, NULL);
}

/* ---- how long requests wait ---- */

/* The requester measures round trips of the path, and not of the programs at its ends, which may be busy, or have nobody who looks. A
 * packet before the answer has the time from the arrival of the request to now. Only uroce knows it, and has a tag. */
static void tell_waited(struct qp *qp, uint32_t psn, uint64_t waited)
{
	struct packet packet = { .opcode = OP_WAITED, .psn = psn, .waited = waited < UINT32_MAX ? (uint32_t)waited : UINT32_MAX };
	if (waited >= WAITED_LEAST_NS && qp->tag.peer != 0 && !path_of(qp))
		send_own(qp, &packet, NULL);
}

void response_note_asked(struct qp *qp, const struct packet *packet)
{
	if (!packet->ack_req || qp->tag.peer == 0 || packet->local)
		return;
	qp->resp.asked_psn = packet->psn;
	qp->resp.asked_at = qp->device->arrived;
}

static void tell_asked(struct qp *qp)
{
	struct responder *resp = &qp->resp;
	uint64_t now = resp->asked_at == 0 ? 0 : qp->device->clock();
	if (now > resp->asked_at)
		tell_waited(qp, resp->asked_psn, now - resp->asked_at);
	resp->asked_at = 0;
}

static void tell_read(struct qp *qp, const struct read_atomic *read)
{
	if (qp->tag.peer == 0)
		return;
	int32_t waited = (int32_t)((uint32_t)(qp->device->clock() / 1000) - read->arrived_us);
	if (waited > 0)
		tell_waited(qp, read->first_psn, (uint64_t)waited * 1000);
	qp->resp.asked_at = 0;
}

/* ---- what is sent ---- */

/* The memory of a READ that is answered again has gone. Either the requester has its answer, and does not heed this, or it learns
 * why there is none; whether the connection ends is then its decision. */
static void refuse_repetition(struct qp *qp, struct read_atomic *read)
{
	counter_add(&qp->device->counters->naks_sent, 1);
	send_aeth(qp, psn_add(read->first_psn, read->sent / qp->mtu), AETH_NAK_ACCESS);
	read->pending = false;
}

/* One packet of a READ's response. False: its memory may not be read any more. */
static bool send_read_packet(struct qp *qp, struct read_atomic *read)
{
	uint32_t longest = longest_payload(qp);
	uint32_t part = read->length - read->sent < longest ? read->length - read->sent : longest;
	bool first = read->sent == read->begin, last = read->sent + part == read->length;
	struct packet_out out;
	struct packet packet = {
		.opcode = first ? (last ? OP_READ_ONLY : OP_READ_FIRST) : (last ? OP_READ_LAST : OP_READ_MIDDLE),
		.pad = (uint8_t)(-part & 3),
		.psn = psn_add(read->first_psn, read->sent / qp->mtu),
		.syndrome = AETH_ACK,
		.msn = read->msn,
		.payload_length = part,
	};
	/* Memory that its owner writes to meanwhile makes a wrong ICRC, and the requester asks again: then it is a copy. */
	out.may_change = read->asked_again;
	out.pieces = 0;
	out.payload_length = part;
	/* The region may have gone since the request came, and so may its memory. */
	uint8_t *memory = part == 0 ? NULL : memory_remote(qp->pd, qp->qpn, read->rkey, read->va + read->sent, part,
							   IBV_ACCESS_REMOTE_READ);
	if (memory) {
		out.piece[0] = (struct iovec){ .iov_base = memory, .iov_len = part };
		out.pieces = 1;
	}
	if (first && !read->asked_again)
		tell_read(qp, read);
	if ((part > 0 && !memory) || !send_to_peer(qp, &packet, &out)) {
		if (read->repeated) {
			refuse_repetition(qp, read);
			return true;
		}
		counter_add(&qp->device->counters->remote_access_errors, 1);
		qp->resp.read_head = qp->resp.read_tail; /* the later ones have no response either */
		return false;
	}
	read->sent += part;
	if (last)
		read->pending = false;
	return true;
}

/* Of an atomic; of a FLUSH or ATOMIC WRITE, which have a READ's response without a byte. */
static void send_short_response(struct qp *qp, struct read_atomic *request)
{
	bool atomic = request->opcode == OP_COMPARE_SWAP || request->opcode == OP_FETCH_ADD;
	struct packet packet = {
		.opcode = atomic ? OP_ATOMIC_ACK : OP_READ_ONLY,
		.psn = request->first_psn,
		.syndrome = AETH_ACK,
		.msn = request->msn,
		.original = request->original,
	};
	send_own(qp, &packet, NULL);
	request->pending = false;
}

bool response_make_ack(struct qp *qp, uint8_t out[WIRE_MAX_HEADER])
{
	const struct responder *resp = &qp->resp;
	bool others = resp->nak_due != 0 || resp->again_head != resp->again_tail || resp->read_head != resp->read_tail;
	if (!resp->ack_due || others)
		return false;
	struct packet packet = {
		.opcode = OP_ACK,
		.qpn = qp->attr.dest_qp_num,
		.pkey = WIRE_PKEY,
		.tag = qp->tag.own,
		.psn = psn_add(resp->expected, WIRE_PSN_MASK),
		.syndrome = AETH_ACK,
		.msn = resp->msn,
	};
	return wire_encode(&packet, out) == WIRE_ACK;
}

void response_acked(struct qp *qp)
{
	counter_add(&qp->device->counters->acks_sent, 1);
	qp->resp.ack_due = false;
}

static void send_acknowledgement(struct qp *qp)
{
	struct responder *resp = &qp->resp;
	struct counters *counters = qp->device->counters;

	tell_asked(qp);
	if (resp->nak_due != 0) {
		counter_add((resp->nak_due & AETH_TYPE_MASK) == AETH_TYPE_RNR ? &counters->rnr_sent : &counters->naks_sent, 1);
		send_aeth(qp, resp->nak_psn, resp->nak_due);
	} else {
		counter_add(&counters->acks_sent, 1);
		send_aeth(qp, psn_add(resp->expected, WIRE_PSN_MASK), AETH_ACK);
	}
	resp->nak_due = 0;
	resp->ack_due = false;
}

bool response_pump(struct qp *qp, unsigned budget, bool *more, uint32_t *refused_psn)
{
	struct responder *resp = &qp->resp;

	while (resp->again_head != resp->again_tail) {
		struct read_atomic *piece = &resp->again[resp->again_head % AGAIN];
		if (!piece->pending) {
			resp->again_head++;
			continue;
		}
		*more = budget == 0 || !link_ready(qp->device->link);
		if (*more)
			return true;
		budget--;
		send_read_packet(qp, piece);
	}
	/* In the order of their PSNs: an acknowledgement would say that all READs before it have been answered. */
	while (resp->read_head != resp->read_tail) {
		struct read_atomic *entry = response_at(resp, resp->read_head);
		if (!entry->pending) {
			resp->read_head++;
			continue;
		}
		if (budget == 0 || !peer_ready(qp)) {
			*more = budget == 0 || active_park(qp);
			return true;
		}
		budget--;
		if (entry->opcode != OP_READ_REQUEST) {
			send_short_response(qp, entry);
		} else if (!send_read_packet(qp, entry)) {
			*refused_psn = psn_add(entry->first_psn, entry->sent / qp->mtu);
			return false;
		}
	}
	if (qp->tag.ask_due && peer_ready(qp))
		tag_pump(qp);
	if (qp->cnp_due && peer_ready(qp))
		marking_pump(qp);
	if (resp->gaps_due && peer_ready(qp)) {
		resp->gaps_due = false;
		tell_asked(qp);
		hold_report(qp);
	}
	if (resp->ack_due || resp->nak_due != 0) {
		if (peer_ready_for_short(qp))
			send_acknowledgement(qp);
		else
			*more = active_park(qp);
	}
	return true;
}

void response_stop(struct qp *qp)
{
	struct responder *resp = &qp->resp;
	hold_free(qp);
	resp->gaps_due = false;
	qp->tag.ask_due = qp->cnp_due = false;
	/* Received requests are acknowledged, though the application is done with the queue pair: else the peer would repeat
	 * them until it gives up. */
	if (resp->reads || resp->ack_due || resp->nak_due != 0) {
		bool more = false;
		uint32_t psn;
		if (!response_pump(qp, LAST_PACKETS, &more, &psn)) {
			/* Memory of a READ has gone: this is refused, before what may have been refused after it. */
			resp->nak_due = AETH_NAK_ACCESS;
			resp->nak_psn = psn;
			response_pump(qp, 0, &more, &psn);
		}
		send_queued(qp->device);
		if (qp->parked && qp->state == IBV_QPS_ERR)
			return;
		if (more && qp->state == IBV_QPS_ERR) {
			active_add_lazily(qp); /* the rest when the link is ready again */
			return;
		}
	}
	wipe_free(resp->again, AGAIN * sizeof *resp->again);
	resp->again = NULL;
	resp->again_head = resp->again_tail = 0;
	wipe_free(resp->reads, resp->read_size * sizeof *resp->reads);
	resp->reads = NULL;
	resp->read_size = resp->read_kept = 0;
	resp->read_head = resp->read_tail = 0;
	resp->ack_due = false;
	resp->nak_due = 0;
}
