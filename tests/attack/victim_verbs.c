/* SPDX-License-Identifier: Apache-2.0 */
#include "victim.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

void victim_die(const char *what)
{
	fprintf(stderr, "victim: %s: %s\n", what, strerror(errno));
	exit(2);
}

static void find_gid(struct victim *victim)
{
	uint8_t wanted[16] = {[10] = 0xff, [11] = 0xff};
	struct ibv_port_attr port;

	if (inet_pton(AF_INET, victim->address, wanted + 12) != 1 && inet_pton(AF_INET6, victim->address, wanted) != 1)
		victim_die("address");
	if (ibv_query_port(victim->context, 1, &port) != 0)
		victim_die("ibv_query_port");
	for (int i = 0; i < port.gid_tbl_len; i++) {
		if (ibv_query_gid(victim->context, 1, i, &victim->gid) == 0 &&
		    memcmp(victim->gid.raw, wanted, 16) == 0) {
			victim->gid_index = (uint8_t)i;
			return;
		}
	}
	errno = EADDRNOTAVAIL;
	victim_die(victim->address);
}

void victim_open(struct victim *victim)
{
	int count;
	struct ibv_device **list = ibv_get_device_list(&count);

	for (int i = 0; list != NULL && i < count && victim->context == NULL; i++)
		if (victim->device == NULL || strcmp(ibv_get_device_name(list[i]), victim->device) == 0)
			victim->context = ibv_open_device(list[i]);
	if (victim->context == NULL)
		victim_die("no RDMA device");
	ibv_free_device_list(list);
	find_gid(victim);
	victim->pd = ibv_alloc_pd(victim->context);
	victim->cq = ibv_create_cq(victim->context, 4096, NULL, NULL, 0);
	if (victim->pd == NULL || victim->cq == NULL)
		victim_die("completion queue");
}

static struct ibv_mr *memory(struct ibv_pd *pd, uint8_t **out, size_t size, int access)
{
	*out = aligned_alloc(4096, (size + 4095) / 4096 * 4096);
	if (*out == NULL)
		victim_die("memory");
	memset(*out, 0, size);
	struct ibv_mr *mr = ibv_reg_mr(pd, *out, size, access);
	if (mr == NULL)
		victim_die("ibv_reg_mr");
	return mr;
}

void victim_make(struct victim *victim, unsigned index)
{
	struct end *end = &victim->end[index];
	struct ibv_qp_init_attr attr = {
		.send_cq = victim->cq,
		.recv_cq = victim->cq,
		.cap = {.max_send_wr = 64, .max_recv_wr = RECEIVES, .max_send_sge = 1, .max_recv_sge = 1},
		.qp_type = IBV_QPT_RC,
		.sq_sig_all = 1,
	};
	int access = IBV_ACCESS_LOCAL_WRITE |
		     (victim->windows ? IBV_ACCESS_MW_BIND : IBV_ACCESS_REMOTE_WRITE | IBV_ACCESS_REMOTE_READ);

	end->tcp = -1;
	end->pd = victim->shared_pd ? victim->pd : ibv_alloc_pd(victim->context);
	if (end->pd == NULL)
		victim_die("ibv_alloc_pd");
	end->buffers_mr = memory(end->pd, &end->buffers, (RECEIVES + 2) * MESSAGE, IBV_ACCESS_LOCAL_WRITE);
	end->region_mr = memory(end->pd, &end->region, victim->region_size, access);
	end->qp = ibv_create_qp(end->pd, &attr);
	if (end->qp == NULL)
		victim_die("ibv_create_qp");
	if (victim->windows && (end->window = ibv_alloc_mw(end->pd, IBV_MW_TYPE_2)) == NULL)
		victim_die("ibv_alloc_mw");
	snprintf((char *)end->region, victim->region_size, "secret of %u", index);
}

void victim_renew(struct victim *victim, unsigned index)
{
	struct end *end = &victim->end[index];
	struct ibv_qp_attr attr = {.qp_state = IBV_QPS_RESET};
	struct ibv_wc wc;

	if (ibv_modify_qp(end->qp, &attr, IBV_QP_STATE) != 0)
		victim_die("ibv_modify_qp to RESET");
	while (ibv_poll_cq(victim->cq, 1, &wc) > 0) {
	}
	end->broken = false;
	end->own = (struct numbers){
		.qpn = end->qp->qp_num,
		.rkey = end->region_mr->rkey,
		.va = (uintptr_t)end->region,
		.gid = victim->gid,
	};
	if (victim->random_psn && getrandom(&end->own.psn, 3, 0) != 3)
		victim_die("getrandom");
	attr = (struct ibv_qp_attr){
		.qp_state = IBV_QPS_INIT,
		.port_num = 1,
		.qp_access_flags = IBV_ACCESS_REMOTE_WRITE | IBV_ACCESS_REMOTE_READ,
	};
	if (ibv_modify_qp(end->qp, &attr, IBV_QP_STATE | IBV_QP_PKEY_INDEX | IBV_QP_PORT | IBV_QP_ACCESS_FLAGS) != 0)
		victim_die("ibv_modify_qp to INIT");
	for (uint32_t i = 0; i < RECEIVES; i++)
		victim_receive(end, i);
	/* A type 2 window is bound by a work request, which needs RTS: its key is made up here, and bound in
	 * victim_connect. */
	if (end->window != NULL)
		end->own.rkey = ibv_inc_rkey(end->window->rkey);
}

static void bind_window(struct victim *victim, struct end *end)
{
	struct ibv_send_wr wr = {.opcode = IBV_WR_BIND_MW, .send_flags = IBV_SEND_SIGNALED}, *bad;
	struct ibv_wc wc;

	wr.bind_mw.mw = end->window;
	wr.bind_mw.rkey = end->own.rkey;
	wr.bind_mw.bind_info = (struct ibv_mw_bind_info){
		.mr = end->region_mr,
		.addr = (uintptr_t)end->region,
		.length = victim->region_size,
		.mw_access_flags = IBV_ACCESS_REMOTE_WRITE | IBV_ACCESS_REMOTE_READ,
	};
	wr.wr_id = SEND_ID;
	if (ibv_post_send(end->qp, &wr, &bad) != 0)
		victim_die("binding a window");
	while (ibv_poll_cq(victim->cq, 1, &wc) == 0) {
	}
	end->window->rkey = end->own.rkey;
	if (wc.status != IBV_WC_SUCCESS)
		victim_die(ibv_wc_status_str(wc.status));
}

void victim_connect(struct victim *victim, unsigned index)
{
	struct end *end = &victim->end[index];
	struct ibv_qp_attr attr = {
		.qp_state = IBV_QPS_RTR,
		.path_mtu = victim->mtu == 256 ? IBV_MTU_256 : IBV_MTU_1024,
		.dest_qp_num = end->peer.qpn,
		.rq_psn = end->peer.psn,
		.max_dest_rd_atomic = 1,
		.min_rnr_timer = 12,
		.ah_attr = {.is_global = 1,
			    .port_num = 1,
			    .grh = {.dgid = end->peer.gid, .sgid_index = victim->gid_index, .hop_limit = 64}},
	};

	if (ibv_modify_qp(end->qp, &attr,
			  IBV_QP_STATE | IBV_QP_AV | IBV_QP_PATH_MTU | IBV_QP_DEST_QPN | IBV_QP_RQ_PSN |
				  IBV_QP_MAX_DEST_RD_ATOMIC | IBV_QP_MIN_RNR_TIMER) != 0)
		victim_die("ibv_modify_qp to RTR");
	attr = (struct ibv_qp_attr){
		.qp_state = IBV_QPS_RTS,
		.sq_psn = end->own.psn,
		.timeout = 14,
		.retry_cnt = 7,
		.rnr_retry = 7,
		.max_rd_atomic = 1,
	};
	if (ibv_modify_qp(end->qp, &attr,
			  IBV_QP_STATE | IBV_QP_SQ_PSN | IBV_QP_TIMEOUT | IBV_QP_RETRY_CNT | IBV_QP_RNR_RETRY |
				  IBV_QP_MAX_QP_RD_ATOMIC) != 0)
		victim_die("ibv_modify_qp to RTS");
	if (end->window != NULL)
		bind_window(victim, end);
}

void victim_receive(struct end *end, uint32_t slot)
{
	struct ibv_sge sge = {(uintptr_t)(end->buffers + slot * MESSAGE), MESSAGE, end->buffers_mr->lkey};
	struct ibv_recv_wr wr = {.wr_id = slot, .sg_list = &sge, .num_sge = 1}, *bad;

	if (ibv_post_recv(end->qp, &wr, &bad) != 0)
		end->broken = true;
}

uint8_t *victim_out(struct end *end)
{
	return end->buffers + RECEIVES * MESSAGE;
}

static bool post(struct end *end, enum ibv_wr_opcode opcode, struct ibv_sge sge, uint64_t id, uint32_t rkey, uint64_t va)
{
	struct ibv_send_wr wr = {.wr_id = id,
				 .sg_list = &sge,
				 .num_sge = 1,
				 .opcode = opcode,
				 .send_flags = IBV_SEND_SIGNALED,
				 .wr.rdma = {.remote_addr = va, .rkey = rkey}},
			   *bad;

	return ibv_post_send(end->qp, &wr, &bad) == 0;
}

bool victim_post(struct end *end, enum ibv_wr_opcode opcode, uint32_t length, uint32_t rkey, uint64_t va)
{
	struct ibv_sge sge = {(uintptr_t)victim_out(end), length, end->buffers_mr->lkey};

	return post(end, opcode, sge, SEND_ID + opcode, rkey, va);
}

bool victim_spend(struct end *end, uint32_t length)
{
	struct ibv_sge sge = {(uintptr_t)end->region, length, end->region_mr->lkey};

	return post(end, IBV_WR_RDMA_WRITE, sge, SEND_ID, end->peer.rkey, end->peer.va);
}
