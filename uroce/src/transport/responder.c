/* SPDX-License-Identifier: Apache-2.0 */
/* The responder of a connected queue pair: executes requests in the order of their PSNs, once, and answers.
 *
 * Nothing in a packet is believed: every access goes through memory_remote, packet by packet. READ and atomic requests
 * are kept until max_dest_rd_atomic newer ones have come, so that they can be answered again. */
#include "transport.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum {
	LAST_PACKETS = 1024, /* answers that a queue pair may still give when it ends */
};

static uint32_t packets_of(const struct qp *qp, uint32_t length)
{
	return length == 0 ? 1 : (uint32_t)(((uint64_t)length + qp->mtu - 1) / qp->mtu);
}

static struct read_atomic *saved(const struct responder *resp, uint32_t position)
{
	return &resp->reads[position & (resp->read_size - 1)];
}

int responder_start(struct qp *qp)
{
	struct responder *resp = &qp->resp;
	struct recv_taken *receive = resp->receive;
	uint32_t size = 0;
	struct read_atomic *reads = NULL;

	if (qp->type == IBV_QPT_RC && qp->attr.max_dest_rd_atomic > 0) {
		for (size = 1; size < qp->attr.max_dest_rd_atomic;)
			size *= 2;
		reads = calloc(size, sizeof(*reads));
		if (reads == NULL)
			return -ENOMEM;
	}
	*resp = (struct responder){
		.expected = qp->attr.rq_psn & WIRE_PSN_MASK,
		.reads = reads,
		.read_size = size,
		.receive = receive,
	};
	return 0;
}

void responder_stop(struct qp *qp)
{
	struct responder *resp = &qp->resp;
	/* What has been received is acknowledged, though the application is done with the queue pair: else its peer would
	 * send it again until it gives up. */
	if (resp->reads != NULL || resp->ack_due || resp->nak_due != 0) {
		bool more = responder_pump(qp, LAST_PACKETS);
		link_flush(qp->device->link);
		if (more && qp->state == IBV_QPS_ERR) {
			engine_activate_lazily(qp); /* the rest when the link is ready again */
			return;
		}
	}
	if (resp->reads != NULL)
		explicit_bzero(resp->reads, resp->read_size * sizeof(*resp->reads));
	free(resp->reads);
	resp->reads = NULL;
	resp->read_size = resp->read_kept = 0;
	resp->read_head = resp->read_tail = 0;
	resp->ack_due = false;
	resp->nak_due = 0;
}

/* ---- answers ---- */

static void put_response(struct qp *qp, struct packet *packet, struct packet_out *out)
{
	packet->qpn = qp->attr.dest_qp_num;
	packet->pkey = WIRE_PKEY;
	out->dgid = qp->av.dgid;
	out->sgid_index = qp->av.sgid_index;
	out->tclass = qp->av.tclass;
	out->hop_limit = qp->av.hop_limit;
	out->dqpn = packet->qpn;
	out->sqpn = qp->qpn;
	out->payload_length = packet->payload_length;
	out->header_length = wire_encode(packet, out->header);
	link_send(qp->device->link, out);
}

/* A request was refused: the NAK goes out in its turn, and the queue pair ends. */
static void refuse_at(struct qp *qp, uint32_t psn, uint8_t syndrome, int event)
{
	struct responder *resp = &qp->resp;
	if (syndrome == AETH_NAK_ACCESS)
		counter_add(&qp->device->counters->remote_access_errors, 1);
	if (qp->type == IBV_QPT_UC) {
		resp->in_message = false;
		return; /* unreliable: the message is dropped, IBTA vol 1, 9.8.3 */
	}
	resp->nak_due = syndrome;
	resp->nak_psn = psn;
	qp_fail(qp, event); /* responder_stop sends it, after the answers to earlier READs */
}

static void refuse(struct qp *qp, uint8_t syndrome, int event)
{
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
	resp->nak_sent = true; /* what follows it is not answered until it comes again */
	engine_activate(qp);
}

/* One packet of a READ's answer. False: refused, the queue pair has ended. */
static bool send_read_packet(struct qp *qp, struct read_atomic *read)
{
	uint32_t part = read->length - read->sent < qp->mtu ? read->length - read->sent : qp->mtu;
	bool first = read->sent == 0, last = read->sent + part == read->length;
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
	if (part > 0) {
		/* The region may have gone since the request came. */
		uint8_t *memory = memory_remote(qp, read->rkey, read->va + read->sent, part, IBV_ACCESS_REMOTE_READ);
		if (memory == NULL && read->repeated) {
			read->pending = false; /* the requester had its answer before the memory went */
			return true;
		}
		if (memory == NULL) {
			qp->resp.read_head = qp->resp.read_tail; /* the later ones have no answer either */
			refuse_at(qp, packet.psn, AETH_NAK_ACCESS, IBV_EVENT_QP_ACCESS_ERR);
			return false;
		}
		out.piece[0] = (struct iovec){ .iov_base = memory, .iov_len = part };
		out.pieces = 1;
	}
	put_response(qp, &packet, &out);
	read->sent += part;
	if (last)
		read->pending = false;
	return true;
}

static void send_atomic_answer(struct qp *qp, struct read_atomic *atomic)
{
	struct packet_out out;
	struct packet packet = {
		.opcode = OP_ATOMIC_ACK,
		.psn = atomic->first_psn,
		.syndrome = AETH_ACK,
		.msn = atomic->msn,
		.original = atomic->original,
	};
	out.may_change = false;
	out.pieces = 0;
	put_response(qp, &packet, &out);
	atomic->pending = false;
}

static void send_acknowledgement(struct qp *qp)
{
	struct responder *resp = &qp->resp;
	struct counters *counters = qp->device->counters;
	struct packet_out out;
	struct packet packet = {
		.opcode = OP_ACK,
		.psn = psn_add(resp->expected, WIRE_PSN_MASK),
		.syndrome = AETH_ACK,
		.msn = resp->msn,
	};
	if (resp->nak_due != 0) {
		packet.psn = resp->nak_psn;
		packet.syndrome = resp->nak_due;
		counter_add((resp->nak_due & AETH_TYPE_MASK) == AETH_TYPE_RNR ? &counters->rnr_sent : &counters->naks_sent, 1);
	} else {
		counter_add(&counters->acks_sent, 1);
	}
	resp->nak_due = 0;
	resp->ack_due = false;
	out.may_change = false;
	out.pieces = 0;
	put_response(qp, &packet, &out);
}

bool responder_pump(struct qp *qp, unsigned budget)
{
	struct responder *resp = &qp->resp;

	/* In the order of their PSNs: an acknowledgement would say that all READs before it have been answered. */
	while (resp->read_head != resp->read_tail) {
		struct read_atomic *entry = saved(resp, resp->read_head);
		if (!entry->pending) {
			resp->read_head++;
			continue;
		}
		if (budget == 0 || !link_ready(qp->device->link))
			return true;
		budget--;
		if (entry->opcode != OP_READ_REQUEST)
			send_atomic_answer(qp, entry);
		else if (!send_read_packet(qp, entry))
			return false;
	}
	if (resp->ack_due || resp->nak_due != 0) {
		if (!link_ready(qp->device->link))
			return true;
		send_acknowledgement(qp);
	}
	return false;
}

/* ---- execution ---- */

static void complete_receive(struct qp *qp, enum ibv_wc_status status, enum ibv_wc_opcode opcode, uint32_t length,
			     const struct packet *packet)
{
	struct responder *resp = &qp->resp;
	uint32_t traits = packet == NULL ? 0 : wire_traits(packet->opcode);
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
	cq_push(qp->recv_cq, &cqe, packet != NULL && packet->solicited);
}

/* Whether the packet is as long as its place in the message says, IBTA vol 1, 9.7.4.1.6. */
static bool length_fits(const struct qp *qp, uint32_t traits, uint32_t length)
{
	if ((traits & T_START) && (traits & T_END))
		return length <= qp->mtu;
	if (traits & T_END)
		return length >= 1 && length <= qp->mtu;
	return length == qp->mtu;
}

/* All three return false when the request was refused, or must come again. */

static bool execute_send(struct qp *qp, const struct packet *packet, uint32_t traits)
{
	struct responder *resp = &qp->resp;
	if (traits & T_START) {
		if (!resp->has_receive && !recv_queue_take(qp, resp->receive)) {
			not_ready(qp);
			return false;
		}
		resp->has_receive = true;
		resp->received = 0;
	}
	enum ibv_wc_status status =
		receive_scatter(qp->srq != NULL ? &qp->srq->rq : &qp->rq, resp->receive, resp->received, packet->payload,
				packet->payload_length);
	if (status == IBV_WC_SUCCESS && (traits & T_IETH) && memory_invalidate(qp, packet->invalidate, true) != 0)
		status = IBV_WC_LOC_PROT_ERR;
	if (status != IBV_WC_SUCCESS) {
		/* In the order that the consumer sees them: its own completion, then the flushed ones. */
		complete_receive(qp, status, IBV_WC_RECV, 0, NULL);
		refuse(qp, status == IBV_WC_LOC_LEN_ERR ? AETH_NAK_INVALID :
			   traits & T_IETH ? AETH_NAK_ACCESS : AETH_NAK_OPERATION, -1);
		if (qp->type == IBV_QPT_UC)
			qp_fail(qp, -1);
		return false;
	}
	resp->received += packet->payload_length;
	if (traits & T_END)
		complete_receive(qp, IBV_WC_SUCCESS, IBV_WC_RECV, resp->received, packet);
	return true;
}

static bool execute_write(struct qp *qp, const struct packet *packet, uint32_t traits)
{
	struct responder *resp = &qp->resp;
	if (traits & T_START) {
		if (!(qp->attr.qp_access_flags & IBV_ACCESS_REMOTE_WRITE) || packet->length > MAX_MESSAGE) {
			refuse(qp, AETH_NAK_INVALID, IBV_EVENT_QP_REQ_ERR);
			return false;
		}
		resp->write_va = packet->va;
		resp->write_rkey = packet->rkey;
		resp->write_left = packet->length;
		resp->written = 0;
		if (packet->length > 0 &&
		    memory_remote(qp, packet->rkey, packet->va, packet->length, IBV_ACCESS_REMOTE_WRITE) == NULL) {
			refuse(qp, AETH_NAK_ACCESS, IBV_EVENT_QP_ACCESS_ERR);
			return false;
		}
	}
	uint32_t length = packet->payload_length;
	if (length > resp->write_left || ((traits & T_END) && length != resp->write_left)) {
		refuse(qp, AETH_NAK_INVALID, IBV_EVENT_QP_REQ_ERR);
		return false;
	}
	if ((traits & T_IMM) && !resp->has_receive) {
		if (!recv_queue_take(qp, resp->receive)) {
			not_ready(qp);
			return false;
		}
		resp->has_receive = true;
	}
	if (length > 0) {
		uint8_t *to = memory_remote(qp, resp->write_rkey, resp->write_va, length, IBV_ACCESS_REMOTE_WRITE);
		if (to == NULL) {
			refuse(qp, AETH_NAK_ACCESS, IBV_EVENT_QP_ACCESS_ERR);
			return false;
		}
		memcpy(to, packet->payload, length);
	}
	resp->write_va += length;
	resp->write_left -= length;
	resp->written += length;
	if (traits & T_IMM)
		complete_receive(qp, IBV_WC_SUCCESS, IBV_WC_RECV_RDMA_WITH_IMM, resp->written, packet);
	return true;
}

static uint64_t perform_atomic(uint8_t *memory, const struct packet *packet)
{
	uint64_t *word = (uint64_t *)(void *)memory;
	if (packet->opcode == OP_FETCH_ADD)
		return __atomic_fetch_add(word, packet->swap_add, __ATOMIC_SEQ_CST);
	uint64_t original = packet->compare;
	__atomic_compare_exchange_n(word, &original, packet->swap_add, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
	return original;
}

/* Answers that are given again give way to a new request: who sends it has had them, they are for a late copy. */
static void make_room(struct responder *resp, uint32_t limit)
{
	while (resp->read_tail - resp->read_head >= limit && resp->read_head != resp->read_tail) {
		const struct read_atomic *oldest = saved(resp, resp->read_head);

		if (oldest->pending && !oldest->repeated)
			break;
		resp->read_head++;
	}
}

static bool execute_read_or_atomic(struct qp *qp, const struct packet *packet)
{
	struct responder *resp = &qp->resp;
	bool read = packet->opcode == OP_READ_REQUEST;
	int right = read ? IBV_ACCESS_REMOTE_READ : IBV_ACCESS_REMOTE_ATOMIC;
	uint32_t length = read ? packet->length : sizeof(uint64_t);

	make_room(resp, qp->attr.max_dest_rd_atomic);
	if (!(qp->attr.qp_access_flags & (unsigned)right) || resp->read_tail - resp->read_head >= qp->attr.max_dest_rd_atomic ||
	    length > MAX_MESSAGE || (!read && packet->va % sizeof(uint64_t) != 0)) {
		refuse(qp, AETH_NAK_INVALID, IBV_EVENT_QP_REQ_ERR);
		return false;
	}
	uint8_t *memory = NULL;
	if (length > 0) {
		memory = memory_remote(qp, packet->rkey, packet->va, length, right);
		/* A region with an odd start makes an aligned remote address an odd one here. */
		if (memory == NULL || (!read && (uintptr_t)memory % sizeof(uint64_t) != 0)) {
			refuse(qp, AETH_NAK_ACCESS, IBV_EVENT_QP_ACCESS_ERR);
			return false;
		}
	}
	struct read_atomic *entry = saved(resp, resp->read_tail++);
	if (resp->read_kept < resp->read_size)
		resp->read_kept++;
	*entry = (struct read_atomic){
		.first_psn = packet->psn,
		.packets = read ? packets_of(qp, length) : 1,
		.opcode = packet->opcode,
		.pending = true,
		.rkey = packet->rkey,
		.va = packet->va,
		.length = length,
		.msn = (resp->msn + 1) & WIRE_PSN_MASK,
	};
	if (!read)
		entry->original = perform_atomic(memory, packet);
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
	if (!in_order(resp, traits) || (data && !length_fits(qp, traits, packet->payload_length))) {
		refuse(qp, AETH_NAK_INVALID, IBV_EVENT_QP_REQ_ERR);
		return;
	}
	bool done = traits & T_SEND ? execute_send(qp, packet, traits) :
		    traits & T_WRITE ? execute_write(qp, packet, traits) : execute_read_or_atomic(qp, packet);
	if (!done)
		return;
	if (data) {
		resp->in_message = !(traits & T_END);
		resp->message_kind = traits & (T_SEND | T_WRITE);
		resp->expected = psn_add(resp->expected, 1);
	}
	if (traits & T_END)
		resp->msn = (resp->msn + 1) & WIRE_PSN_MASK;
	resp->nak_sent = false;
	if (!data) {
		engine_activate_lazily(qp);
	} else if (packet->ack_req && qp->type == IBV_QPT_RC) {
		resp->ack_due = true;
		engine_activate_lazily(qp);
	}
}

/* ---- repetition ---- */

/* A READ or atomic request that was executed before: its entry's position. */
static bool find_saved(const struct responder *resp, const struct packet *packet, uint32_t *position)
{
	for (uint32_t at = resp->read_tail - resp->read_kept; at != resp->read_tail; at++) {
		const struct read_atomic *entry = saved(resp, at);
		int32_t into = psn_diff(packet->psn, entry->first_psn);
		if (entry->opcode == packet->opcode && into >= 0 && into < (int32_t)entry->packets) {
			*position = at;
			return true;
		}
	}
	return false;
}

static void answer_again(struct qp *qp, const struct packet *packet)
{
	struct responder *resp = &qp->resp;
	uint32_t position;
	if (!find_saved(resp, packet, &position))
		return; /* too old to be known: the requester has had the answer */

	struct read_atomic *entry = saved(resp, position);
	if (entry->opcode == OP_READ_REQUEST) {
		/* It may ask for the missing rest only; the key is checked when it is read. */
		uint32_t into = (uint32_t)psn_diff(packet->psn, entry->first_psn);
		uint32_t packets = packets_of(qp, packet->length);
		if (packets > entry->packets - into)
			return;
		entry->first_psn = packet->psn;
		entry->packets -= into;
		entry->va = packet->va;
		entry->rkey = packet->rkey;
		entry->length = packet->length;
		entry->sent = 0;
	}
	entry->asked_again = true;
	entry->repeated = entry->repeated || !entry->pending;
	entry->pending = true;
	if ((int32_t)(position - resp->read_head) < 0)
		resp->read_head = position;
	engine_activate(qp);
}

static void receive_duplicate(struct qp *qp, const struct packet *packet, uint32_t traits)
{
	struct responder *resp = &qp->resp;
	counter_add(&qp->device->counters->duplicates, 1);
	if (traits & (T_SEND | T_WRITE)) {
		resp->ack_due = true;
		engine_activate(qp);
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
		resp->expected = psn_add(packet->psn, 1);
		return;
	}
	execute(qp, packet, traits);
	resp->expected = psn_add(packet->psn, 1);
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
	if (ahead < 0) {
		receive_duplicate(qp, packet, traits);
	} else if (ahead > 0) {
		counter_add(&qp->device->counters->out_of_sequence, 1);
		if (resp->nak_sent)
			return;
		resp->nak_sent = true;
		resp->nak_due = AETH_NAK_SEQUENCE;
		resp->nak_psn = resp->expected;
		engine_activate(qp);
	} else {
		execute(qp, packet, traits);
	}
}
