/* SPDX-License-Identifier: Apache-2.0 */
/* The responder of a connected queue pair: executes requests in the order of their PSNs, once, and answers.
 *
 * Nothing in a packet is believed: every access goes through memory_remote, packet by packet. READ and atomic requests, and
 * those that count as such, are kept until max_dest_rd_atomic newer ones have come, so that they can be answered again. */
#include "responder.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "active.h"
#include "gather.h"
#include "guard.h"
#include "hold.h"
#include "outgoing.h"
#include "placement.h"
#include "qp_state.h"
#include "response.h"
#include "tag.h"

int responder_start(struct qp *qp)
{
	struct responder *resp = &qp->resp;
	struct recv_taken *receive = resp->receive;
	uint32_t size = 0;
	struct read_atomic *reads = NULL;

	if (qp->type == IBV_QPT_RC && qp->attr.max_dest_rd_atomic > 0) {
		size = ring_size(qp->attr.max_dest_rd_atomic);
		reads = calloc(size, sizeof *reads);
		if (!reads)
			return -ENOMEM;
	}
	*resp = (struct responder){
		.expected = qp->attr.rq_psn & WIRE_PSN_MASK,
		.reads = reads,
		.read_size = size,
		.receive = receive,
	};
	qp->tag = (struct tag){ .own = 0 };
	qp->cnp_due = false;
	return 0;
}

/* ---- refusals ---- */

/* A request was refused: the NAK goes out in its turn, and the queue pair ends. */
static void refuse_at(struct qp *qp, uint32_t psn, uint8_t syndrome, int event)
{
	struct responder *resp = &qp->resp;
	if (qp->type == IBV_QPT_UC) {
		resp->in_message = false;
		return; /* unreliable: the message is dropped, IBTA vol 1, 9.8.3 */
	}
	resp->nak_due = syndrome;
	resp->nak_psn = psn;
	qp_fail(qp, event); /* response_stop sends it, after the answers to earlier READs */
}

static void refuse(struct qp *qp, uint8_t syndrome, int event)
{
	if (syndrome == AETH_NAK_ACCESS)
		counter_add(&qp->device->counters->remote_access_errors, 1);
	refuse_at(qp, qp->resp.expected, syndrome, event);
}

/* No receive is posted. */
static void not_ready(struct qp *qp)
{
	struct responder *resp = &qp->resp;
	if (qp->type == IBV_QPT_UC) {
		counter_add(&qp->device->counters->drop_no_receive, 1);
		resp->in_message = false;
		return;
	}
	resp->nak_due = (uint8_t)(AETH_TYPE_RNR | (qp->attr.min_rnr_timer & 0x1f));
	resp->nak_psn = resp->expected;
	resp->nak_sent = true; /* later packets are not answered until it comes again */
	resp->not_ready = true;
	hold_clear(qp); /* the requester sends them again */
	active_add(qp);
}

bool responder_pump(struct qp *qp, unsigned budget)
{
	uint32_t psn;
	bool more = false;
	if (!response_pump(qp, budget, &more, &psn)) {
		bool ended = qp->state == IBV_QPS_ERR; /* and sends the rest of its answers */
		refuse_at(qp, psn, AETH_NAK_ACCESS, IBV_EVENT_QP_ACCESS_ERR);
		more = more || ended;
	}
	return more;
}

/* ---- execution ---- */

static void complete_receive(struct qp *qp, enum ibv_wc_status status, enum ibv_wc_opcode opcode, uint32_t length,
			     const struct packet *packet)
{
	struct responder *resp = &qp->resp;
	uint32_t traits = packet ? wire_traits(packet->opcode) : 0;
	struct cqe cqe = {
		.wc = {
			.wr_id = resp->receive->wr_id,
			.status = status,
			.opcode = opcode,
			.byte_len = length,
			.qp_num = qp->qpn,
			.src_qp = qp->attr.dest_qp_num,
		},
	};
	if (traits & T_IMM) {
		cqe.wc.imm_data = packet->imm;
		cqe.wc.wc_flags = IBV_WC_WITH_IMM;
	} else if (traits & T_IETH) {
		cqe.wc.invalidated_rkey = packet->invalidate;
		cqe.wc.wc_flags = IBV_WC_WITH_INV;
	}
	resp->has_receive = false;
	cq_push(qp->recv_cq, &cqe, packet && packet->solicited);
}

/* Whether the packet is as long as its place in the message says, IBTA vol 1, 9.7.4.1.6. */
static bool length_fits(const struct qp *qp, uint32_t traits, const struct packet *packet)
{
	uint32_t length = packet->payload_length, longest = packet->local ? RING_PAYLOAD : qp->mtu;
	if ((traits & T_START) && (traits & T_END))
		return length <= longest;
	if (traits & T_END)
		return length >= 1 && length <= longest;
	return length == qp->mtu || (packet->local && length > 0 && length % qp->mtu == 0);
}

/* All three return false when the request was refused, or must come again. */

static bool execute_send(struct qp *qp, const struct packet *packet, uint32_t traits)
{
	struct responder *resp = &qp->resp;
	if (traits & T_START) {
		if (!resp->has_receive && !recv_queue_take(qp_recv_queue(qp), resp->receive)) {
			not_ready(qp);
			return false;
		}
		resp->has_receive = true;
		resp->received = 0;
	}
	enum ibv_wc_status status =
		receive_scatter(qp_recv_queue(qp), resp->receive, resp->received, packet->payload,
				packet->payload_length);
	uint8_t syndrome = status == IBV_WC_LOC_LEN_ERR ? AETH_NAK_INVALID : AETH_NAK_OPERATION;
	if (status == IBV_WC_SUCCESS && (traits & T_IETH) && window_invalidate(qp->pd, qp->qpn, packet->invalidate, true) != 0) {
		status = IBV_WC_LOC_PROT_ERR;
		syndrome = AETH_NAK_ACCESS;
	}
	if (status == IBV_WC_LOC_LEN_ERR && qp->type == IBV_QPT_UC) {
		/* The receive is there for the next message: class D of IBTA vol 1, 9.9.3.1, as rdma_rxe has it. */
		counter_add(&qp->device->counters->drop_too_long, 1);
		resp->in_message = false;
		return false;
	}
	if (status != IBV_WC_SUCCESS) {
		/* In the order that the consumer sees them: its own completion, then the flushed ones. */
		complete_receive(qp, status, IBV_WC_RECV, 0, NULL);
		refuse(qp, syndrome, -1);
		if (qp->type == IBV_QPT_UC)
			qp_fail(qp, -1);
		return false;
	}
	resp->received += packet->payload_length;
	if (traits & T_END)
		complete_receive(qp, IBV_WC_SUCCESS, IBV_WC_RECV, resp->received, packet);
	return true;
}

/* Memory of a WRITE may not be written to. The receive that its immediate data uses ends with the status that is for this case,
 * IBTA vol 1, 11.6.2, "local access error"; the others are flushed. */
static void refuse_write(struct qp *qp)
{
	if (qp->type == IBV_QPT_RC && qp->resp.has_receive)
		complete_receive(qp, IBV_WC_LOC_ACCESS_ERR, IBV_WC_RECV_RDMA_WITH_IMM, 0, NULL);
	refuse(qp, AETH_NAK_ACCESS, IBV_EVENT_QP_ACCESS_ERR);
}

/* The first or only packet: what it says of the message. */
static bool start_write(struct qp *qp, const struct packet *packet)
{
	struct responder *resp = &qp->resp;
	if (packet->length > MAX_MESSAGE) {
		refuse(qp, AETH_NAK_INVALID, IBV_EVENT_QP_REQ_ERR);
		return false;
	}
	resp->write_va = packet->va;
	resp->write_rkey = packet->rkey;
	resp->write_left = packet->length;
	resp->written = 0;
	if (packet->length > 0 &&
	    !memory_remote(qp->pd, qp->qpn, packet->rkey, packet->va, packet->length, IBV_ACCESS_REMOTE_WRITE)) {
		refuse_write(qp);
		return false;
	}
	return true;
}

/* In the order of IBTA vol 1, 9.7.4.1: operation, receive, length, key. */
static bool execute_write(struct qp *qp, const struct packet *packet, uint32_t traits)
{
	struct responder *resp = &qp->resp;
	if ((traits & T_START) && !(qp->attr.qp_access_flags & IBV_ACCESS_REMOTE_WRITE)) {
		refuse(qp, AETH_NAK_INVALID, IBV_EVENT_QP_REQ_ERR);
		return false;
	}
	if ((traits & T_IMM) && !resp->has_receive) {
		if (!recv_queue_take(qp_recv_queue(qp), resp->receive)) {
			not_ready(qp);
			return false;
		}
		resp->has_receive = true;
	}
	if ((traits & T_START) && !start_write(qp, packet))
		return false;
	uint32_t length = packet->payload_length;
	if (length > resp->write_left || ((traits & T_END) && length != resp->write_left)) {
		refuse(qp, AETH_NAK_INVALID, IBV_EVENT_QP_REQ_ERR);
		return false;
	}
	if (length > 0) {
		uint8_t *to = memory_remote(qp->pd, qp->qpn, resp->write_rkey, resp->write_va, length, IBV_ACCESS_REMOTE_WRITE);
		if (!to || !guard_copy(to, packet->payload, length)) {
			refuse_write(qp);
			return false;
		}
	}
	resp->write_va += length;
	resp->write_left -= length;
	resp->written += length;
	if (traits & T_IMM)
		complete_receive(qp, IBV_WC_SUCCESS, IBV_WC_RECV_RDMA_WITH_IMM, resp->written, packet);
	return true;
}

/* False: the memory is not there, or may not be written. */
static bool perform_atomic(uint8_t *memory, const struct packet *packet, uint64_t *original)
{
	const struct iovec piece = { .iov_base = memory, .iov_len = sizeof(uint64_t) };
	uint64_t *word = (uint64_t *)(void *)memory;
	if (GUARD_SET(*guard_begin(&piece, 1)) != 0)
		return false;
	*original = packet->compare;
	if (packet->opcode == OP_FETCH_ADD)
		*original = __atomic_fetch_add(word, packet->swap_add, __ATOMIC_SEQ_CST);
	else
		__atomic_compare_exchange_n(word, original, packet->swap_add, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
	guard_end();
	return true;
}

/* The three return 0, or the syndrome of the NAK. */

/* Its memory is looked up again for each packet of the answer. */
static uint8_t execute_read(const struct qp *qp, const struct packet *packet)
{
	if (!(qp->attr.qp_access_flags & IBV_ACCESS_REMOTE_READ) || packet->length > MAX_MESSAGE)
		return AETH_NAK_INVALID;
	bool allowed = packet->length == 0 ||
		       memory_remote(qp->pd, qp->qpn, packet->rkey, packet->va, packet->length, IBV_ACCESS_REMOTE_READ);
	return allowed ? 0 : AETH_NAK_ACCESS;
}

static uint8_t execute_atomic(const struct qp *qp, const struct packet *packet, uint64_t *original)
{
	if (!(qp->attr.qp_access_flags & IBV_ACCESS_REMOTE_ATOMIC) || packet->va % sizeof *original != 0)
		return AETH_NAK_INVALID;
	uint8_t *memory =
		memory_remote(qp->pd, qp->qpn, packet->rkey, packet->va, sizeof *original, IBV_ACCESS_REMOTE_ATOMIC);
	/* A region with an odd start makes an aligned remote address an odd one here. */
	if (!memory || (uintptr_t)memory % sizeof *original != 0)
		return AETH_NAK_ACCESS;
	return perform_atomic(memory, packet, original) ? 0 : AETH_NAK_ACCESS;
}

static uint8_t execute_question(const struct qp *qp, const struct packet *packet, uint64_t *original)
{
	switch (packet->opcode) {
	case OP_READ_REQUEST: return execute_read(qp, packet);
	case OP_FLUSH: return placement_flush(qp, packet);
	case OP_ATOMIC_WRITE: return placement_atomic_write(qp, packet);
	default: return execute_atomic(qp, packet, original);
	}
}

/* Repeated responses give way to a new request: its sender has had them, since only late copies ask for them again. */
static void make_read_room(struct responder *resp, uint32_t limit)
{
	while (resp->read_tail - resp->read_head >= limit && resp->read_head != resp->read_tail) {
		const struct read_atomic *oldest = response_at(resp, resp->read_head);

		if (oldest->pending && !oldest->repeated)
			break;
		resp->read_head++;
	}
}

/* What is answered by more than an acknowledgement: READs, atomics, FLUSH, ATOMIC WRITE. */
static bool execute_answered(struct qp *qp, const struct packet *packet)
{
	struct responder *resp = &qp->resp;
	bool read = packet->opcode == OP_READ_REQUEST;
	uint64_t original = 0;

	make_read_room(resp, qp->attr.max_dest_rd_atomic);
	uint8_t syndrome = resp->read_tail - resp->read_head >= qp->attr.max_dest_rd_atomic ?
		AETH_NAK_INVALID : execute_question(qp, packet, &original);
	if (syndrome != 0) {
		refuse(qp, syndrome, syndrome == AETH_NAK_ACCESS ? IBV_EVENT_QP_ACCESS_ERR : IBV_EVENT_QP_REQ_ERR);
		return false;
	}
	struct read_atomic *entry = response_at(resp, resp->read_tail++);
	if (resp->read_kept < resp->read_size)
		resp->read_kept++;
	*entry = (struct read_atomic){
		.first_psn = packet->psn,
		.packets = read ? packets_of(qp, packet->length) : 1,
		.opcode = packet->opcode,
		.pending = true,
		.rkey = packet->rkey,
		.va = packet->va,
		.length = read ? packet->length : 0,
		.original = original,
		.arrived_us = (uint32_t)(qp->device->arrived / 1000),
		.msn = (resp->msn + 1) & WIRE_PSN_MASK,
	};
	resp->expected = psn_add(resp->expected, entry->packets);
	return true;
}

/* Whether this packet may come after those before it. */
static bool in_order(const struct responder *resp, uint32_t traits)
{
	uint32_t kind = traits & (T_SEND | T_WRITE);
	if (traits & T_START)
		return !resp->in_message;
	return resp->in_message && kind == resp->message_kind;
}

static void execute(struct qp *qp, const struct packet *packet, uint32_t traits)
{
	struct responder *resp = &qp->resp;
	bool data = traits & (T_SEND | T_WRITE);
	if (!data)
		traits |= T_START | T_END;
	if (!in_order(resp, traits) || (data && !length_fits(qp, traits, packet))) {
		refuse(qp, AETH_NAK_INVALID, IBV_EVENT_QP_REQ_ERR);
		return;
	}
	bool done = traits & T_SEND ? execute_send(qp, packet, traits) :
		    traits & T_WRITE ? execute_write(qp, packet, traits) : execute_answered(qp, packet);
	if (!done)
		return;
	if (data) {
		resp->in_message = !(traits & T_END);
		resp->message_kind = traits & (T_SEND | T_WRITE);
		resp->expected = psn_add(resp->expected, packets_in(qp, packet));
	}
	if (traits & T_END)
		resp->msn = (resp->msn + 1) & WIRE_PSN_MASK;
	resp->nak_sent = resp->not_ready = false;
	if (!data) {
		active_add(qp);
	} else if (packet->ack_req && qp->type == IBV_QPT_RC) {
		resp->ack_due = true;
		active_add_lazily(qp);
	}
}

/* ---- repetition ---- */

/* A READ or atomic request that was executed before: its entry's position. */
static bool find_saved(const struct responder *resp, const struct packet *packet, uint32_t *position)
{
	for (uint32_t at = resp->read_tail - resp->read_kept; at != resp->read_tail; at++) {
		const struct read_atomic *entry = response_at(resp, at);
		int32_t into = psn_diff(packet->psn, entry->first_psn);
		if (entry->opcode == packet->opcode && into >= 0 && into < (int32_t)entry->packets) {
			*position = at;
			return true;
		}
	}
	return false;
}

/* A piece of a READ: what is not asked for has arrived, or is still being sent. */
static void ask_again(struct qp *qp, const struct read_atomic *entry, const struct packet *packet, uint32_t packets)
{
	struct responder *resp = &qp->resp;
	if (!resp->again)
		resp->again = calloc(AGAIN, sizeof *resp->again);
	if (!resp->again || resp->again_tail - resp->again_head == AGAIN)
		return; /* it is asked for once more */
	struct read_atomic *piece = &resp->again[resp->again_tail++ % AGAIN];
	*piece = *entry;
	piece->first_psn = packet->psn;
	piece->packets = packets;
	piece->va = packet->va;
	piece->rkey = packet->rkey;
	piece->length = packet->length;
	piece->begin = piece->sent = 0;
	piece->asked_again = piece->repeated = piece->pending = true;
	active_add(qp);
}

static void answer_again(struct qp *qp, const struct packet *packet)
{
	struct responder *resp = &qp->resp;
	uint32_t position;
	if (!find_saved(resp, packet, &position))
		return; /* too old to be known: the requester has had the answer */

	struct read_atomic *entry = response_at(resp, position);
	if (entry->opcode == OP_READ_REQUEST) {
		/* It may ask for a part that is missing; the key is checked when it is read. */
		uint32_t into = (uint32_t)psn_diff(packet->psn, entry->first_psn);
		uint32_t packets = packets_of(qp, packet->length);
		if (packets > entry->packets - into)
			return;
		if (packets < entry->packets - into || packet->rkey != entry->rkey || packet->va != entry->va + into * qp->mtu) {
			ask_again(qp, entry, packet, packets);
			return;
		}
		entry->begin = entry->sent = into * qp->mtu;
	}
	entry->asked_again = true;
	entry->repeated = entry->repeated || !entry->pending;
	entry->pending = true;
	if ((int32_t)(position - resp->read_head) < 0)
		resp->read_head = position;
	active_add(qp);
}

static void receive_duplicate(struct qp *qp, const struct packet *packet, uint32_t traits)
{
	struct responder *resp = &qp->resp;
	counter_add(&qp->device->counters->duplicates, 1);
	if (traits & (T_SEND | T_WRITE)) {
		resp->ack_due = true;
		active_add(qp);
	} else {
		answer_again(qp, packet);
	}
}

/* ---- unreliable connections ---- */

/* A gap loses the message that it is in; the next one starts afresh, IBTA vol 1, 9.8.2. */
static void receive_unreliable(struct qp *qp, const struct packet *packet, uint32_t traits)
{
	struct responder *resp = &qp->resp;
	if (packet->psn != resp->expected) {
		counter_add(&qp->device->counters->out_of_sequence, 1);
		resp->in_message = false;
		resp->expected = packet->psn;
	}
	if (traits & T_START)
		resp->in_message = false; /* the one before never ended */
	else if (!resp->in_message) {
		resp->expected = psn_add(packet->psn, packets_in(qp, packet));
		return;
	}
	execute(qp, packet, traits);
	resp->expected = psn_add(packet->psn, packets_in(qp, packet));
}

/* What waited for the packet that has just come. */
static void execute_held(struct qp *qp)
{
	struct responder *resp = &qp->resp;
	struct held *held;
	if (hold_empty(qp))
		return;
	while ((held = hold_take(qp, resp->expected)) != NULL) {
		execute(qp, &held->packet, wire_traits(held->packet.opcode));
		hold_release(held);
	}
	hold_settle(qp);
	if (!hold_empty(qp)) {
		resp->gaps_due = true; /* there is another gap */
		active_add(qp);
	}
}

void responder_receive(struct qp *qp, const struct packet *packet)
{
	struct responder *resp = &qp->resp;
	uint32_t traits = wire_traits(packet->opcode);

	if (qp->type == IBV_QPT_UC) {
		receive_unreliable(qp, packet, traits);
		return;
	}
	int32_t ahead = psn_diff(packet->psn, resp->expected);
	bool copy = packet->opcode == OP_READ_REQUEST && !packet->ack_req && qp->tag.peer != 0;
	if (ahead < 0 && copy)
		return; /* of one that has come: requester.c's send_copy */
	if (ahead < 0) {
		receive_duplicate(qp, packet, traits);
	} else if (ahead > 0) {
		counter_add(&qp->device->counters->out_of_sequence, 1);
		if (resp->not_ready)
			return;
		bool news = false;
		if (qp->tag.peer != 0)
			hold_put(qp, packet, (uint32_t)ahead, &news);
		else if (!resp->nak_sent)
			tag_ask(qp);
		if (news) {
			response_note_asked(qp, packet);
			resp->gaps_due = true;
			active_add(qp);
		}
		if (resp->nak_sent)
			return;
		resp->nak_sent = true;
		resp->nak_due = AETH_NAK_SEQUENCE;
		resp->nak_psn = resp->expected;
		active_add(qp);
	} else {
		tag_look(qp, packet);
		response_note_asked(qp, packet);
		execute(qp, packet, traits);
		execute_held(qp);
	}
}
