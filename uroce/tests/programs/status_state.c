/* SPDX-License-Identifier: Apache-2.0 */
/* Ways to be wrong about states: of the queue pair that sends, of its peer, of a completion queue. */
#include <errno.h>

#include "status.h"

/* ---- the peer ---- */

/* 17 ms, twice. */
static void impatient(struct trial *trial, enum operation op)
{
	(void)op;
	trial->timeout = 12;
	trial->retry_cnt = 1;
	trial->arrivals = 0;
}

static void destroy_peer(struct trial *trial, enum operation op)
{
	(void)op;
	must(!ibv_destroy_qp(trial->target.qp), "ibv_destroy_qp");
	trial->target.qp = NULL;
}

static void reset_peer(struct trial *trial, enum operation op)
{
	(void)op;
	pair_set_state(trial->target.qp, IBV_QPS_RESET);
}

static void fail_peer(struct trial *trial, enum operation op)
{
	(void)op;
	pair_set_state(trial->target.qp, IBV_QPS_ERR);
}

static void peer_in_init(struct trial *trial, enum operation op)
{
	impatient(trial, op);
	trial->target_state = IBV_QPS_INIT;
}

/* ---- the queue pair that sends ---- */

static void in_reset(struct trial *trial, enum operation op)
{
	(void)op;
	trial->requester_state = IBV_QPS_RESET;
}

static void in_init(struct trial *trial, enum operation op)
{
	(void)op;
	trial->requester_state = IBV_QPS_INIT;
}

static void in_rtr(struct trial *trial, enum operation op)
{
	(void)op;
	trial->requester_state = IBV_QPS_RTR;
}

static void in_error(struct trial *trial, enum operation op)
{
	(void)op;
	pair_set_state(trial->requester.qp, IBV_QPS_ERR);
	watch_ms(trial, 20); /* what was posted before has been flushed */
}

/* By a SEND whose lkey is bad. */
static void in_sqe(struct trial *trial, enum operation op)
{
	(void)op;
	trial->sge[0].lkey ^= 0x5a5a00;
	post_one(trial);
	watch(trial);
	trial->sge[0].lkey ^= 0x5a5a00;
	trial->requester.count = trial->requester.posted = 0;
}

static void post_receive_here(struct trial *trial, enum operation op)
{
	(void)op;
	trial->refused = post_receive(trial, &trial->requester);
}

/* Posted in SQD, it waits; back in RTS it must leave, without another post. */
static void in_sqd(struct trial *trial, enum operation op)
{
	(void)op;
	pair_set_state(trial->requester.qp, IBV_QPS_SQD);
	post_one(trial);
	watch_ms(trial, 30);
	if (trial->requester.count > 0) {
		trial->note = "not held back:";
		return;
	}
	struct ibv_qp_attr attr = {.qp_state = IBV_QPS_RTS};
	must(!ibv_modify_qp(trial->requester.qp, &attr, IBV_QP_STATE), "SQD to RTS");
	for (int i = 0; i < lab.patience / 100 && trial->requester.count == 0; i++)
		watch_ms(trial, 10);
	if (trial->requester.count == 0) {
		trial->note = "waits for another post:";
		trial->refused = post_right(trial, &trial->requester);
	}
}

/* ---- completion queues ---- */

/* One completion more than there is room for, at this end; the other end's queue tells that all have come. */
static void overrun(struct trial *trial, struct end *end, struct end *other)
{
	int room = end->cq->cqe, taken = 0;
	struct ibv_wc wc;

	for (int i = 0; i < room + 1; i++) {
		errno = post_receive(trial, &trial->target);
		must(errno == 0, "ibv_post_recv");
		errno = post_right(trial, &trial->requester);
		must(errno == 0, "ibv_post_send");
	}
	watch_end(other, room + 1);
	watch_for_event(trial, end);
	while (ibv_poll_cq(end->cq, 1, &wc) > 0)
		taken++;
	trial->note = taken > room ? "all are there" : taken == room ? "one is lost" : "several are lost";
	trial->requester.posted = trial->target.posted = 0;
}

static void overrun_requester(struct trial *trial, enum operation op)
{
	(void)op;
	overrun(trial, &trial->requester, &trial->target);
}

static void overrun_target(struct trial *trial, enum operation op)
{
	(void)op;
	overrun(trial, &trial->target, &trial->requester);
}

static void small_queue(struct trial *trial, enum operation op)
{
	struct end *end = op == RECV ? &trial->target : &trial->requester;

	end->room = 3;
	trial->receives = 0;
}

const struct way state_ways[] = {
	{"peer destroyed", 1 << SEND | 1 << WRITE | 1 << READ | 1 << FETCH_ADD | PLACEMENTS, RC, impatient, destroy_peer, NULL},
	{"peer destroyed", 1 << SEND | 1 << WRITE, UC, impatient, destroy_peer, NULL},
	{"peer in RESET", 1 << SEND | 1 << WRITE | 1 << READ | 1 << FETCH_ADD | PLACEMENTS, RC, impatient, reset_peer, NULL},
	{"peer in INIT", 1 << SEND | 1 << WRITE | 1 << READ | 1 << FETCH_ADD | PLACEMENTS, RC, peer_in_init, NULL, NULL},
	{"peer in ERROR", 1 << SEND | 1 << WRITE | 1 << READ | 1 << FETCH_ADD | PLACEMENTS, RC, impatient, fail_peer, NULL},
	{"in RESET", 1 << SEND | 1 << READ | PLACEMENTS, RC, in_reset, NULL, NULL},
	{"in INIT", 1 << SEND | 1 << READ | PLACEMENTS, RC, in_init, NULL, NULL},
	{"in RTR", 1 << SEND | 1 << READ | PLACEMENTS, RC, in_rtr, NULL, NULL},
	{"in ERROR", SENDS | REMOTES | PLACEMENTS, RC, NULL, in_error, NULL},
	{"in SQE", 1 << SEND, UC | UD, NULL, in_sqe, NULL},
	{"in SQD, then in RTS", 1 << SEND | 1 << READ, RC, NULL, NULL, in_sqd},
	{"in RESET", 1 << RECV, RC, in_reset, NULL, post_receive_here},
	{"in ERROR", 1 << RECV, RC, NULL, in_error, post_receive_here},
	{"completion queue overrun", 1 << SEND, RC, small_queue, NULL, overrun_requester},
	{"completion queue overrun", 1 << RECV, RC, small_queue, NULL, overrun_target},
	{NULL, 0, 0, NULL, NULL, NULL},
};
