#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# rdma_rxe's driver in rdma-core: a request that ibv_wr_start builds of two entries has another length than the two together.
#
# Guess: ibv_wr_set_inline_data_list and ibv_wr_set_sge_list send the entries one after the other, as ibv_post_send does.
# True:  of inline data nothing is sent, and of scatter/gather entries as many times the first one's length as there are entries;
#        both requests complete with success. A single entry (ibv_wr_set_inline_data, ibv_wr_set_sge) is right.
# Version: libibverbs and ibverbs-providers 44.0 of Debian 12, Linux 6.1.176.
#
# Output seen:
#   10 and 20 bytes: by ibv_post_send 30, inline by the builder 0, entries by the builder 20
. "$(dirname "$0")/lib/vm.sh"
try_on_dummy <<'END'
#include "rc.h"

static struct end a, b;
static struct ibv_qp_ex *builder;

static void create_builder(void)
{
	struct ibv_qp_init_attr_ex init = {
		.qp_type = IBV_QPT_RC,
		.cap = {8, 8, 2, 1, 64},
		.comp_mask = IBV_QP_INIT_ATTR_PD | IBV_QP_INIT_ATTR_SEND_OPS_FLAGS,
		.pd = pd,
		.send_ops_flags = IBV_QP_EX_WITH_SEND,
	};

	must((a.cq = ibv_create_cq(device, 256, NULL, NULL, 0)) != NULL, "cq");
	init.send_cq = init.recv_cq = a.cq;
	must((a.qp = ibv_create_qp_ex(device, &init)) != NULL, "qp");
	must((builder = ibv_qp_to_qp_ex(a.qp)) != NULL, "builder");
}

/* The length of what arrives. */
static unsigned received(void)
{
	struct ibv_wc wc;
	int tries = 0;

	while (ibv_poll_cq(a.cq, 1, &wc) == 0 && tries++ < 5000)
		usleep(1000);
	must(wc.status == IBV_WC_SUCCESS, "send");
	for (tries = 0; ibv_poll_cq(b.cq, 1, &wc) == 0 && tries < 5000; tries++)
		usleep(1000);
	must(wc.status == IBV_WC_SUCCESS, "receive");
	return wc.byte_len;
}

int main(void)
{
	open_device();
	create_builder();
	create(&b, 8);
	to_init(&a), to_init(&b);
	to_rtr(&a, &b), to_rtr(&b, &a);
	to_rts(&a), to_rts(&b);

	struct ibv_sge place = {.addr = (uintptr_t)buffer + 1024, .length = 256, .lkey = mr->lkey};
	struct ibv_recv_wr receive = {.sg_list = &place, .num_sge = 1}, *bad_receive;
	struct ibv_sge entries[] = {{(uintptr_t)buffer, 10, mr->lkey}, {(uintptr_t)buffer + 100, 20, mr->lkey}};
	struct ibv_data_buf data[] = {{buffer, 10}, {buffer + 100, 20}};
	struct ibv_send_wr send = {.opcode = IBV_WR_SEND, .send_flags = IBV_SEND_SIGNALED, .sg_list = entries, .num_sge = 2}, *bad;
	unsigned length[3];

	for (int i = 0; i < 3; i++) {
		must(!ibv_post_recv(b.qp, &receive, &bad_receive), "post_recv");
		if (i == 0) {
			must(!ibv_post_send(a.qp, &send, &bad), "post_send");
		} else {
			ibv_wr_start(builder);
			builder->wr_id = 0;
			builder->wr_flags = IBV_SEND_SIGNALED;
			ibv_wr_send(builder);
			if (i == 1)
				ibv_wr_set_inline_data_list(builder, 2, data);
			else
				ibv_wr_set_sge_list(builder, 2, entries);
			must(!ibv_wr_complete(builder), "wr_complete");
		}
		length[i] = received();
	}
	printf("10 and 20 bytes: by ibv_post_send %u, inline by the builder %u, entries by the builder %u\n", length[0], length[1], length[2]);
	return !(length[0] == 30 && length[1] == 0 && length[2] == 20);
}
END
