/* SPDX-License-Identifier: Apache-2.0 */
/* Unreliable datagrams: one packet a message, an address handle a work request, no answer. */
#include "datagram.h"

#include <arpa/inet.h>
#include <netinet/ip.h>
#include <netinet/ip6.h>
#include <string.h>

#include "active.h"
#include "gather.h"
#include "outgoing.h"
#include "qp_state.h"

/* The way to where a datagram goes, through shared memory; NULL: there is none. */
static struct shm_path *path_for(struct qp *qp, const struct send_wqe *wqe)
{
	struct shm *shm = qp->device->shm;
	/* A multicast packet is for all processes that have joined: the kernel knows them. */
	return shm && wqe->remote_qpn != WIRE_MULTICAST_QPN ? shm_path_to(shm, &wqe->av.dgid, wqe->remote_qpn) : NULL;
}

/* False: memory of the payload is not there. */
static bool put_datagram(struct qp *qp, struct shm_path *path, struct send_wqe *wqe, struct packet_out *out)
{
	struct requester *req = &qp->req;
	struct packet packet = {
		.opcode = (uint8_t)(WIRE_UD | (wqe->opcode == IBV_WR_SEND_WITH_IMM ? OP_SEND_ONLY_IMM : OP_SEND_ONLY)),
		.solicited = (wqe->flags & IBV_SEND_SOLICITED) != 0,
		.pad = (uint8_t)(-wqe->length & 3),
		.psn = req->next,
		/* The top bit of the request's Q_Key asks for the queue pair's own, IBTA vol 1, 10.2.5. */
		.qkey = wqe->remote_qkey & 0x80000000u ? qp->attr.qkey : wqe->remote_qkey,
		.src_qpn = qp->qpn,
		.imm = wqe->imm,
		.payload_length = wqe->length,
	};
	out->may_change = false;
	if (send_gather(qp, wqe, 0, wqe->length, out) != 0 || !send_packet(qp, path, &wqe->av, wqe->remote_qpn, &packet, out))
		return false;
	req->next = psn_add(req->next, 1);
	return true;
}

/* As on a network whose switches hold senders back, a datagram waits for room; but not for a process that is stopped, behind which
 * datagrams to others would wait too: those to it are lost. */
static bool must_wait(struct qp *qp, struct shm_path *path)
{
	uint64_t until;
	if (shm_is_stuck(path, qp->device->now, &until))
		return false;
	shm_hold(path);
	qp->path = path;
	timer_set(&qp->device->timers, &qp->req.send_timer, until);
	active_park(qp);
	return true;
}

/* It waits for none. */
static void leave_path(struct qp *qp)
{
	timer_cancel(&qp->device->timers, &qp->req.send_timer);
	shm_release(qp->path);
	qp->path = NULL;
}

static void complete(struct qp *qp)
{
	while (qp->sq.head != qp->sq.next)
		qp_complete_send(qp, IBV_WC_SUCCESS);
}

bool datagram_pump(struct qp *qp, unsigned budget)
{
	struct send_queue *sq = &qp->sq;
	enum ibv_wc_status status = IBV_WC_SUCCESS;
	struct packet_out out;
	bool more = false;

	if (path_of(qp))
		leave_path(qp);
	while (qp->state == IBV_QPS_RTS && !qp->draining && sq->next != sq->tail && status == IBV_WC_SUCCESS) {
		more = budget == 0 || !link_ready(qp->device->link);
		if (more)
			break;
		budget--;
		struct send_wqe *wqe = send_queue_at(sq, sq->next);
		struct shm_path *path = path_for(qp, wqe);
		bool full = path && !shm_ready(path);
		if (full && must_wait(qp, path))
			break;
		if (full)
			counter_add(&qp->device->counters->tx_errors, 1);
		else if (!put_datagram(qp, path, wqe, &out)) {
			status = IBV_WC_LOC_PROT_ERR;
			break;
		}
		sq->next++;
	}
	/* Before the application hears of it, and uses the memory again, the link must have read it. */
	if (sq->head != sq->next)
		send_queued(qp->device);
	complete(qp);
	if (status != IBV_WC_SUCCESS) {
		sq->next++;
		qp_complete_send(qp, status);
		qp_fail_send(qp);
	}
	qp_check_drained(qp);
	return more;
}

bool datagram_express(struct qp *qp)
{
	struct send_queue *sq = &qp->sq;
	struct packet_out out;
	for (; sq->next != sq->tail; sq->next++) {
		struct send_wqe *wqe = send_queue_at(sq, sq->next);
		struct shm_path *path = shm_known_path(qp->device->shm, &wqe->av.dgid, wqe->remote_qpn);
		if (!path || !shm_ready(path) || !put_datagram(qp, path, wqe, &out))
			break;
	}
	complete(qp);
	return sq->next == sq->tail;
}

/* The kind of the packet's header, in the field that means nothing else for RoCE: annex A17, 17.4.5.1, wants it told, and
 * verbs have no field for it. mlx5 tells it so, and UCX looks for it there. */
enum { SL_ROCEV2_IPV6 = 0x9, SL_ROCEV2_IPV4 = 0xa };

/* The 40 bytes before a datagram: an IPv6 header, or an IPv4 header in the last 20 (annex A17, 17.4.5). */
static void make_grh(uint8_t grh[WIRE_GRH], const struct packet_path *path, size_t length)
{
	memset(grh, 0, WIRE_GRH);
	uint16_t udp_length = (uint16_t)(8 + length + WIRE_ICRC);
	if (gid_is_v4(&path->sgid)) {
		struct iphdr ip = {
			.version = 4,
			.ihl = 5,
			.tos = path->tclass,
			.tot_len = htons((uint16_t)(sizeof ip + udp_length)),
			.frag_off = htons(IP_DF),
			.ttl = path->hop_limit,
			.protocol = IPPROTO_UDP,
		};
		memcpy(&ip.saddr, path->sgid.raw + 12, 4);
		memcpy(&ip.daddr, path->dgid.raw + 12, 4);
		memcpy(grh + WIRE_GRH - sizeof ip, &ip, sizeof ip);
	} else {
		struct ip6_hdr ip = {
			.ip6_flow = htonl(6u << 28 | (uint32_t)path->tclass << 20),
			.ip6_plen = htons(udp_length),
			.ip6_nxt = IPPROTO_UDP,
			.ip6_hlim = path->hop_limit,
		};
		memcpy(&ip.ip6_src, path->sgid.raw, 16);
		memcpy(&ip.ip6_dst, path->dgid.raw, 16);
		memcpy(grh, &ip, sizeof ip);
	}
}

void datagram_receive(struct qp *qp, const struct packet *packet, const struct packet_path *path)
{
	struct counters *counters = qp->device->counters;
	struct recv_queue *rq = qp_recv_queue(qp);
	struct recv_taken receive;
	uint8_t grh[WIRE_GRH];

	if (packet->qkey != qp->attr.qkey) {
		counter_add(&counters->drop_qkey, 1);
		return;
	}
	/* Anyone with the Q_Key may send one: it must cost neither the receive nor the queue pair. */
	enum recv_answer answer = recv_queue_take_for(rq, WIRE_GRH + packet->payload_length, &receive);
	if (answer != RECV_TAKEN) {
		counter_add(answer == RECV_NONE ? &counters->drop_no_receive : &counters->drop_too_long, 1);
		return;
	}
	struct cqe cqe = {
		.wc = {
			.wr_id = receive.wr_id,
			.status = IBV_WC_SUCCESS,
			.opcode = IBV_WC_RECV,
			.byte_len = WIRE_GRH + packet->payload_length,
			.qp_num = qp->qpn,
			.src_qp = packet->src_qpn,
			.wc_flags = IBV_WC_GRH,
			.sl = gid_is_v4(&path->sgid) ? SL_ROCEV2_IPV4 : SL_ROCEV2_IPV6,
		},
	};
	if (wire_traits(packet->opcode) & T_IMM) {
		cqe.wc.imm_data = packet->imm;
		cqe.wc.wc_flags |= IBV_WC_WITH_IMM;
	}
	make_grh(grh, path, wire_header_length(packet->opcode) + packet->payload_length + packet->pad);
	cqe.wc.status = receive_scatter(rq, &receive, 0, grh, sizeof grh);
	if (cqe.wc.status == IBV_WC_SUCCESS)
		cqe.wc.status = receive_scatter(rq, &receive, WIRE_GRH, packet->payload, packet->payload_length);
	cq_push(qp->recv_cq, &cqe, packet->solicited);
	if (cqe.wc.status != IBV_WC_SUCCESS)
		qp_fail(qp, -1);
}
