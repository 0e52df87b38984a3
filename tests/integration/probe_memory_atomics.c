/* SPDX-License-Identifier: Apache-2.0 */
/* A program's own memory: atomic operations. */
#include "probe_memory.h"

#include <errno.h>
#include <string.h>

static uint64_t atomic_now(struct srdma_conn *conn, enum srdma_request_kind kind, uint32_t region, struct srdma_piece *piece,
			   uint64_t *result, uint64_t operand, uint64_t compare)
{
	struct srdma_request request;
	uint64_t cookie;
	int ret;

	srdma_request_init(&request);
	request.kind = kind;
	request.region = region;
	request.offset = 8;
	request.pieces = piece;
	request.piece_count = 1;
	request.operand = operand;
	request.compare = compare;
	while ((ret = srdma_conn_post(conn, &request)) == -EAGAIN)
		srdma_conn_wait(conn, 10);
	EXPECT(ret, 0);
	EXPECT(srdma_conn_complete(conn, &cookie, 1, -1), 1);
	return *result;
}

static void *serve_until_over(void *arg)
{
	struct offering *o = arg;
	struct srdma_peer_region region;

	while ((o->status = srdma_conn_find_region(o->conn, "none", 20, &region)) == -ETIMEDOUT)
		;
	return NULL;
}

/* Adds across renewals, so that each is executed once. */
void mode_memory_atomics(struct rig *rig, char **args)
{
	static uint64_t words[2], result;
	struct offering o = {.rig = rig};
	struct srdma_conn *conn;
	struct srdma_memory *there = memory_registered(rig, words, sizeof words, IBV_ACCESS_REMOTE_ATOMIC);
	struct srdma_memory *here = memory_registered(rig, &result, 8, IBV_ACCESS_LOCAL_WRITE);
	struct srdma_piece piece = memory_piece(here, 0, 8);
	struct srdma_conn_info info;
	struct srdma_peer_region region;
	uint64_t sum = 0;

	(void)args;
	memory_agree(rig);
	rig_pair(rig, &conn, &o.conn);
	EXPECT(srdma_conn_offer(o.conn, there, 0, sizeof words, IBV_ACCESS_REMOTE_ATOMIC, "words", &o.ids[0]), 0);
	EXPECT(pthread_create(&o.thread, NULL, serve_until_over, &o), 0);
	EXPECT(srdma_conn_find_region(conn, "words", -1, &region), 0);
	do {
		EXPECT(atomic_now(conn, SRDMA_REQUEST_FETCH_ADD, region.id, &piece, &result, 3, 0), sum);
		sum += 3;
		srdma_conn_get_info(conn, &info);
	} while (sum < 30 || info.epoch < 2);
	EXPECT(words[1], sum);
	EXPECT(atomic_now(conn, SRDMA_REQUEST_COMPARE_SWAP, region.id, &piece, &result, 5, sum), sum);
	EXPECT(atomic_now(conn, SRDMA_REQUEST_COMPARE_SWAP, region.id, &piece, &result, 9, sum), 5);
	CHECK(words[0] == 0 && words[1] == 5);
	rig_leave(&conn);
	EXPECT(pthread_join(o.thread, NULL), 0);
	srdma_conn_free(&o.conn);
	srdma_memory_unref(&there);
	srdma_memory_unref(&here);
}

/* The queue pair fails while an addition is under way: whether it was executed or not, it is not executed twice. */
static bool add_and_break(struct rig *rig, uint64_t *word)
{
	static uint64_t result;
	struct offering o = {.rig = rig};
	struct ibv_qp_attr error = {.qp_state = IBV_QPS_ERR};
	struct srdma_conn *conn;
	struct srdma_memory *there = memory_registered(rig, word, sizeof *word, IBV_ACCESS_REMOTE_ATOMIC);
	struct srdma_memory *here = memory_registered(rig, &result, 8, IBV_ACCESS_LOCAL_WRITE);
	struct srdma_piece piece = memory_piece(here, 0, 8);
	struct srdma_peer_region region;
	struct srdma_request request;
	uint64_t cookie;
	int ret;

	rig_pair(rig, &conn, &o.conn);
	EXPECT(srdma_conn_offer(o.conn, there, 0, sizeof *word, IBV_ACCESS_REMOTE_ATOMIC, "word", &o.ids[0]), 0);
	EXPECT(pthread_create(&o.thread, NULL, serve_until_over, &o), 0);
	EXPECT(srdma_conn_find_region(conn, "word", -1, &region), 0);
	srdma_request_init(&request);
	request.kind = SRDMA_REQUEST_FETCH_ADD;
	request.region = region.id;
	request.pieces = &piece;
	request.piece_count = 1;
	request.operand = 1;
	EXPECT(srdma_conn_post(conn, &request), 0);
	EXPECT(ibv_modify_qp(srdma_conn_qp(conn), &error, IBV_QP_STATE), 0);
	ret = srdma_conn_complete(conn, &cookie, 1, -1);
	CHECK(ret == 1 || (ret == SRDMA_EVERBS && strstr(srdma_error_text(), "it is not repeated")));
	srdma_conn_free(&conn);
	EXPECT(pthread_join(o.thread, NULL), 0);
	srdma_conn_free(&o.conn);
	srdma_memory_unref(&there);
	srdma_memory_unref(&here);
	return ret == SRDMA_EVERBS;
}

void mode_memory_broken(struct rig *rig, char **args)
{
	static uint64_t word;
	bool seen = false;

	(void)args;
	memory_agree(rig);
	for (int i = 0; i < 20 && !seen; i++) {
		word = 0;
		seen = add_and_break(rig, &word);
		CHECK(word <= 1);
	}
	CHECK(seen);
}
