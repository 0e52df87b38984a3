/* SPDX-License-Identifier: Apache-2.0 */
/* Ways to be wrong about receives, limits of a connection, operations of a service, and datagrams. */
#include <errno.h>
#include <string.h>

#include "status.h"

/* ---- receives ---- */

static void longer_than_receive(struct trial *trial, enum operation op)
{
	(void)op;
	trial->sge[0].length = MESSAGE + 1;
}

/* Of several packets, and the receive ends within the second. */
static void much_longer_than_receive(struct trial *trial, enum operation op)
{
	(void)op;
	trial->sge[0].length = 5000;
	trial->receive_sge[0].length = 2000;
}

static void no_receive(struct trial *trial, enum operation op)
{
	(void)op;
	trial->receives = 0;
	trial->arrivals = 0;
	trial->rnr_retry = 0;
}

static void no_receive_one_retry(struct trial *trial, enum operation op)
{
	no_receive(trial, op);
	trial->rnr_retry = 1;
}

static void receive_bad_lkey(struct trial *trial, enum operation op)
{
	(void)op;
	trial->receive_sge[0].lkey ^= 0x5a5a00;
}

static void receive_of_another_pd(struct trial *trial, enum operation op)
{
	(void)op;
	trial->receive_sge[0].lkey = lab.region[LOCAL_FOREIGN]->lkey;
}

static void receive_without_local_write(struct trial *trial, enum operation op)
{
	(void)op;
	trial->receive_sge[0].lkey = lab.region[LOCAL_CONST]->lkey;
}

static void receive_out_of_bounds(struct trial *trial, enum operation op)
{
	(void)op;
	trial->receive_sge[0].addr = address(lab.local + lab.region[LOCAL]->length - 8);
}

static void receive_too_many_entries(struct trial *trial, enum operation op)
{
	(void)op;
	int count = (int)trial->cap.max_recv_sge + 1;

	must(count <= MAX_SGES, "room for entries");
	for (int i = 1; i < count; i++)
		trial->receive_sge[i] = trial->receive_sge[0];
	trial->receive.num_sge = count;
}

static void post_receive_here(struct trial *trial, enum operation op)
{
	(void)op;
	trial->refused = post_receive(trial, &trial->requester);
}

/* ---- READs and atomics outstanding ---- */

static void no_reads_at_all(struct trial *trial, enum operation op)
{
	(void)op;
	trial->max_rd_atomic = 0;
}

static void peer_takes_no_reads(struct trial *trial, enum operation op)
{
	(void)op;
	trial->max_dest_rd_atomic = 0;
}

enum { TOO_MANY = 4, LONG_READ = 131072 };

static void peer_takes_one_read(struct trial *trial, enum operation op)
{
	(void)op;
	trial->max_rd_atomic = TOO_MANY;
	trial->max_dest_rd_atomic = 1;
}

/* How many the peer answers before it sees that there are too many is a matter of time, and left out. */
static void many_reads(struct trial *trial, enum operation op)
{
	(void)op;
	struct end *requester = &trial->requester;
	struct ibv_send_wr wr[TOO_MANY], *bad;

	trial->sge[0].length = LONG_READ;
	for (int i = 0; i < TOO_MANY; i++) {
		wr[i] = trial->wr;
		wr[i].next = i + 1 < TOO_MANY ? &wr[i + 1] : NULL;
	}
	trial->refused = ibv_post_send(requester->qp, wr, &bad);
	requester->posted = TOO_MANY;
	watch(trial);
	for (int i = 0; i < requester->count; i++)
		if (requester->seen[i] != IBV_WC_SUCCESS)
			requester->seen[0] = requester->seen[i], i = requester->count;
	requester->count = requester->posted = requester->count > 0;
}

/* ---- datagrams ---- */

static void wrong_qkey(struct trial *trial, enum operation op)
{
	(void)op;
	trial->wr.wr.ud.remote_qkey ^= 1;
}

static void no_such_queue_pair(struct trial *trial, enum operation op)
{
	(void)op;
	trial->wr.wr.ud.remote_qpn ^= 0x2000;
}

static void longer_than_mtu(struct trial *trial, enum operation op)
{
	(void)op;
	trial->sge[0].length = (128u << lab.mtu) + 1;
}

static void ah_of_another_pd(struct trial *trial, enum operation op)
{
	(void)op;
	struct ibv_ah_attr attr = {
		.is_global = 1,
		.port_num = 1,
		.grh = {.dgid = lab.gid, .sgid_index = (uint8_t)lab.gid_index, .hop_limit = 64},
	};

	trial->ah = ibv_create_ah(lab.foreign, &attr);
	must(trial->ah != NULL, "ibv_create_ah");
	trial->wr.wr.ud.ah = trial->ah;
}

/* Makes the address handle that an attribute says, and uses it if there is one. */
static void send_to(struct trial *trial, struct ibv_ah_attr *attr)
{
	attr->port_num = 1;
	errno = 0;
	trial->ah = ibv_create_ah(lab.pd, attr);
	if (!trial->ah) {
		trial->refused = errno;
		return;
	}
	trial->wr.wr.ud.ah = trial->ah;
	post_both(trial);
}

static void ah_without_grh(struct trial *trial, enum operation op)
{
	(void)op;
	struct ibv_ah_attr attr = {.dlid = 1};

	send_to(trial, &attr);
}

static void ah_bad_gid_index(struct trial *trial, enum operation op)
{
	(void)op;
	struct ibv_ah_attr attr = {.is_global = 1, .grh = {.dgid = lab.gid, .sgid_index = 200, .hop_limit = 64}};

	send_to(trial, &attr);
}

/* 203.0.113.1, an address for examples, to which there is no route. */
static void ah_no_route(struct trial *trial, enum operation op)
{
	(void)op;
	struct ibv_ah_attr attr = {.is_global = 1, .grh = {.sgid_index = (uint8_t)lab.gid_index, .hop_limit = 64}};
	static const uint8_t gid[16] = {[10] = 0xff, 0xff, 203, 0, 113, 1};

	memcpy(attr.grh.dgid.raw, gid, sizeof gid);
	send_to(trial, &attr);
}

const struct way message_ways[] = {
	{"longer than its receive", SENDS, RC, longer_than_receive, NULL, NULL},
	{"longer than its receive", 1 << SEND, UC | UD, longer_than_receive, NULL, NULL},
	{"three packets longer than their receive", 1 << SEND, RC | UC, much_longer_than_receive, NULL, NULL},
	{"no receive, rnr_retry 0", SENDS | 1 << WRITE_IMM, RC, no_receive, NULL, NULL},
	{"no receive, rnr_retry 1", SENDS | 1 << WRITE_IMM, RC, no_receive_one_retry, NULL, NULL},
	{"no receive", 1 << SEND | 1 << WRITE_IMM, UC, no_receive, NULL, NULL},
	{"no receive", 1 << SEND, UD, no_receive, NULL, NULL},
	{"receive: bad lkey", SENDS | 1 << WRITE_IMM, RC, receive_bad_lkey, NULL, NULL},
	{"receive: bad lkey", 1 << SEND, UC | UD, receive_bad_lkey, NULL, NULL},
	{"receive: lkey of another PD", 1 << SEND, RC, receive_of_another_pd, NULL, NULL},
	{"receive: lkey without local write", 1 << SEND, RC, receive_without_local_write, NULL, NULL},
	{"receive: ends beyond its region", 1 << SEND, RC, receive_out_of_bounds, NULL, NULL},
	{"too many entries", 1 << RECV, RC, NULL, receive_too_many_entries, post_receive_here},
	{"max_rd_atomic 0", TARGETS | PLACEMENTS, RC, no_reads_at_all, NULL, NULL},
	{"max_dest_rd_atomic 0", TARGETS, RC, peer_takes_no_reads, NULL, NULL},
	{"4 outstanding, max_dest_rd_atomic 1", 1 << READ, RC, peer_takes_one_read, NULL, many_reads},
	{"not of this service", 1 << SEND_INV | TARGETS, UC, NULL, NULL, NULL},
	{"not of this service", 1 << SEND_INV | REMOTES | 1 << LOCAL_INV, UD, NULL, NULL, NULL},
	{"wrong Q_Key", 1 << SEND | 1 << SEND_IMM, UD, NULL, wrong_qkey, NULL},
	{"no such queue pair", 1 << SEND, UD, NULL, no_such_queue_pair, NULL},
	{"longer than the MTU", 1 << SEND, UD, longer_than_mtu, NULL, NULL},
	{"AH of another PD", 1 << SEND, UD, NULL, ah_of_another_pd, NULL},
	{"AH without GRH", 1 << SEND, UD, NULL, NULL, ah_without_grh},
	{"AH with a GID index that is not there", 1 << SEND, UD, NULL, NULL, ah_bad_gid_index},
	{"AH to where no route leads", 1 << SEND, UD, NULL, NULL, ah_no_route},
	{NULL, 0, 0, NULL, NULL, NULL},
};
