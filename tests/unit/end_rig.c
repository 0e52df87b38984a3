/* SPDX-License-Identifier: Apache-2.0 */
#include "end_rig.h"

#include "log.h"
#include "seal_pool.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* As in test.h, which the fuzz target that has this rig does without. */
#pragma GCC diagnostic ignored "-Wunused-parameter"
#pragma GCC diagnostic ignored "-Wmissing-prototypes"

#undef ibv_reg_mr
#undef ibv_reg_mr_iova

#define KIND_SHIFT 24

/* One thread has one rig at a time, and the verbs below no other way to it. */
static struct end_rig *rig_now;
static struct ibv_mr regions[RIG_REGIONS];
static uint8_t staging[SRDMA_SEALED_RING];

static void require(bool condition, const char *what)
{
	if (condition)
		return;
	fprintf(stderr, "end_rig: %s\n", what);
	abort();
}

/* ---- verbs ----------------------------------------------------------------------------------------------------- */

static void complete(struct rig_queue *queue, uint64_t id, enum ibv_wc_status status, uint32_t length, uint32_t imm)
{
	struct ibv_wc wc = {.wr_id = id, .status = status, .byte_len = length, .opcode = IBV_WC_RECV, .wc_flags = IBV_WC_WITH_IMM};

	wc.imm_data = imm;
	require(queue->count < RIG_COMPLETIONS, "a completion queue is full");
	queue->wc[(queue->first + queue->count++) % RIG_COMPLETIONS] = wc;
}

static int poll_cq(struct ibv_cq *cq, int most, struct ibv_wc *wc)
{
	struct rig_queue *queue = cq == &rig_now->send_cq ? &rig_now->sent : &rig_now->received;
	int n = 0;

	for (; n < most && queue->count > 0; n++, queue->count--) {
		wc[n] = queue->wc[queue->first];
		queue->first = (queue->first + 1) % RIG_COMPLETIONS;
	}
	return n;
}

static int req_notify_cq(struct ibv_cq *cq, int solicited_only)
{
	return 0;
}

static void tell_of_record(const struct rig_request *request)
{
	static uint8_t plain[RIG_MESSAGE_SIZE + SRDMA_SEAL_OVERHEAD];

	require(request->length >= SRDMA_SEAL_OVERHEAD && request->length <= sizeof plain, "a record of a length that can't be");
	require(srdma_opener_open(rig_now->messages_in, rig_now->messages_opened++, &request->imm, sizeof request->imm,
				  (const void *)(uintptr_t)request->local, request->length, plain) == 0,
		"the end's own record does not authenticate");
	if (rig_now->on_record)
		rig_now->on_record(rig_now->arg, (enum rig_kind)(ntohl(request->imm) >> KIND_SHIFT), plain,
				   request->length - SRDMA_SEAL_OVERHEAD);
}

static int post_send(struct ibv_qp *qp, struct ibv_send_wr *wr, struct ibv_send_wr **bad)
{
	for (; wr; wr = wr->next) {
		struct rig_request request = {
			.read = wr->opcode == IBV_WR_RDMA_READ,
			.signaled = wr->send_flags & IBV_SEND_SIGNALED,
			.id = wr->wr_id,
			.local = wr->num_sge > 0 ? wr->sg_list[0].addr : 0,
			.length = wr->num_sge > 0 ? wr->sg_list[0].length : 0,
		};

		require(request.read || wr->opcode == IBV_WR_SEND_WITH_IMM, "a request that a sealed end has no use for");
		require(rig_now->request_count < RIG_REQUESTS, "the send queue is full");
		require(!rig_now->failed, "a request for a queue pair that has failed");
		if (request.read) {
			request.remote = wr->wr.rdma.remote_addr;
			request.rkey = wr->wr.rdma.rkey;
		} else {
			request.imm = wr->imm_data;
			tell_of_record(&request);
		}
		rig_now->requests[(rig_now->request_first + rig_now->request_count++) % RIG_REQUESTS] = request;
	}
	return 0;
}

static int post_recv(struct ibv_qp *qp, struct ibv_recv_wr *wr, struct ibv_recv_wr **bad)
{
	require(rig_now->receive_count < RIG_RECEIVES, "the receive queue is full");
	rig_now->receives[(rig_now->receive_first + rig_now->receive_count++) % RIG_RECEIVES] =
		(struct rig_receive){wr->wr_id, wr->sg_list[0].addr, wr->sg_list[0].length};
	return 0;
}

/* The library changes the state only to ERROR here: the device flushes all posted receives. */
int ibv_modify_qp(struct ibv_qp *qp, struct ibv_qp_attr *attr, int mask)
{
	if (rig_now->failed)
		return 0;
	rig_now->failed = true;
	for (; rig_now->receive_count > 0; rig_now->receive_count--) {
		complete(&rig_now->received, rig_now->receives[rig_now->receive_first].id, IBV_WC_WR_FLUSH_ERR, 0, 0);
		rig_now->receive_first = (rig_now->receive_first + 1) % RIG_RECEIVES;
	}
	return 0;
}

static struct ibv_mr *reg_mr(void *address, size_t length)
{
	for (uint32_t i = 0; i < RIG_REGIONS; i++) {
		if (regions[i].addr)
			continue;
		regions[i] = (struct ibv_mr){.addr = address, .length = length, .lkey = i + 1, .rkey = i + 1};
		return &regions[i];
	}
	return NULL;
}

struct ibv_mr *ibv_reg_mr(struct ibv_pd *pd, void *address, size_t length, int access)
{
	return reg_mr(address, length);
}

struct ibv_mr *ibv_reg_mr_iova(struct ibv_pd *pd, void *address, size_t length, uint64_t iova, int access)
{
	return reg_mr(address, length);
}

struct ibv_mr *ibv_reg_mr_iova2(struct ibv_pd *pd, void *address, size_t length, uint64_t iova, unsigned access)
{
	return reg_mr(address, length);
}

int ibv_dereg_mr(struct ibv_mr *mr)
{
	*mr = (struct ibv_mr){0};
	return 0;
}

int ibv_destroy_qp(struct ibv_qp *qp)
{
	return 0;
}

int ibv_destroy_cq(struct ibv_cq *cq)
{
	return 0;
}

const uint8_t *rig_remote(uint32_t rkey, uint64_t address, uint32_t length)
{
	if (rkey == 0 || rkey > RIG_REGIONS || !regions[rkey - 1].addr || address > regions[rkey - 1].length ||
	    length > regions[rkey - 1].length - address)
		return NULL;
	return (const uint8_t *)regions[rkey - 1].addr + address;
}

/* ---- the TLS channel ------------------------------------------------------------------------------------------- */

int __wrap_srdma_control_receive(struct srdma_tls *tls, struct srdma_inbox *inbox, unsigned *reads)
{
	rig_now->late_looks += rig_now->conn && rig_now->conn->status != 0;
	if (rig_now->frame_length > 0) {
		memcpy(inbox->bytes, rig_now->frame, rig_now->frame_length);
		rig_now->frame_length = 0;
		return srdma_frame_header_decode(inbox->bytes, &inbox->header);
	}
	return rig_now->tls == -EAGAIN ? -EAGAIN : srdma_fail(rig_now->tls, "the channel is closed");
}

int __wrap_srdma_outbox_send(struct srdma_tls *tls, struct srdma_outbox *outbox, const uint8_t *frame, size_t length)
{
	if (rig_now->on_frame)
		rig_now->on_frame(rig_now->arg, frame, length);
	return 0;
}

int __wrap_srdma_outbox_flush(struct srdma_tls *tls, struct srdma_outbox *outbox)
{
	return 0;
}

bool __wrap_srdma_tls_read_needs_room(const struct srdma_tls *tls)
{
	return false;
}

int __wrap_srdma_tls_fd(const struct srdma_tls *tls)
{
	return -1;
}

/* ---- life ------------------------------------------------------------------------------------------------------ */

/* It polls. */
static void rest(void *arg)
{
}

static void make_keys(struct end_rig *rig)
{
	const uint8_t own[SRDMA_SEAL_SECRET] = {1}, own_chunks[SRDMA_SEAL_SECRET] = {2};
	const uint8_t peer[SRDMA_SEAL_SECRET] = {3}, peer_chunks[SRDMA_SEAL_SECRET] = {4};
	struct srdma_sealer *messages = NULL, *chunks = NULL;
	struct srdma_opener *messages_in = NULL, *chunks_in = NULL;

	require(srdma_sealer_new(SRDMA_CIPHER_AES_256_GCM, own, &messages) == 0 &&
			srdma_sealer_new(SRDMA_CIPHER_AES_256_GCM, own_chunks, &chunks) == 0 &&
			srdma_opener_new(SRDMA_CIPHER_AES_256_GCM, peer, &messages_in) == 0 &&
			srdma_opener_new(SRDMA_CIPHER_AES_256_GCM, peer_chunks, &chunks_in) == 0 &&
			srdma_sealer_new(SRDMA_CIPHER_AES_256_GCM, peer, &rig->messages_out) == 0 &&
			srdma_sealer_new(SRDMA_CIPHER_AES_256_GCM, peer_chunks, &rig->chunks_out) == 0 &&
			srdma_opener_new(SRDMA_CIPHER_AES_256_GCM, own, &rig->messages_in) == 0 &&
			srdma_opener_new(SRDMA_CIPHER_AES_256_GCM, own_chunks, &rig->chunks_in) == 0,
		"no keys");
	srdma_queues_seal(&rig->conn->queues, messages, messages_in);
	rig->conn->sealed_rdma = (struct srdma_sealed_rdma){
		.queues = &rig->conn->queues, .region = &rig->conn->region, .rate = &rig->conn->rate, .pd = rig->conn->pd};
	require(srdma_sealed_rdma_start(&rig->conn->sealed_rdma, chunks, chunks_in) == 0, "no sealed writes and reads");
	if (!getenv("SECURDMA_TEST_SEAL_THREADS"))
		return;
	rig->conn->options.seal_threads = (unsigned)atoi(getenv("SECURDMA_TEST_SEAL_THREADS"));
	require(srdma_seal_pool_share(rig->conn->options.seal_threads, &rig->conn->seal_pool) == 0, "no seal threads");
	rig->conn->shares_seal_pool = true;
	require(srdma_sealed_rdma_share(&rig->conn->sealed_rdma, rig->conn->seal_pool, rest, NULL) == 0 &&
			srdma_queues_share(&rig->conn->queues, rig->conn->seal_pool, rest, NULL) == 0,
		"no lanes");
}

void rig_new(struct end_rig *rig, size_t region_size, size_t peer_region_size)
{
	const struct srdma_queues_shape shape = {.message_size = RIG_MESSAGE_SIZE, .depth = RIG_DEPTH, .rdma_depth = RIG_RDMA_DEPTH, .sealed = true};
	struct srdma_conn *conn = calloc(1, sizeof *conn);

	*rig = (struct end_rig){.conn = conn, .tls = -EAGAIN, .staging = staging};
	require(conn != NULL, "out of memory");
	rig_now = rig;
	rig->context.ops.poll_cq = poll_cq;
	rig->context.ops.req_notify_cq = req_notify_cq;
	rig->context.ops.post_send = post_send;
	rig->context.ops.post_recv = post_recv;
	rig->qp.context = rig->send_cq.context = rig->recv_cq.context = &rig->context;
	srdma_conn_options_init(&conn->options);
	conn->options.seal = SRDMA_SEAL_REQUIRED;
	conn->options.spin = 0;
	conn->qp = (struct srdma_qp){.verbs = &rig->qp, .max_inline = 220};
	conn->send_cq = &rig->send_cq;
	conn->recv_cq = &rig->recv_cq;
	conn->wake_fd = conn->wait_fd = -1;
	require(srdma_watch_open(&conn->watch) == 0, "no descriptor");
	require(srdma_region_private(region_size, &conn->region) == 0, "no region");
	conn->region.rights = conn->own.region_access = conn->peer.region_access = IBV_ACCESS_REMOTE_WRITE | IBV_ACCESS_REMOTE_READ;
	conn->own.region_size = region_size;
	conn->peer.region_size = peer_region_size;
	conn->peer.rd_responder = 16;
	conn->sealed = true;
	require(srdma_queues_new(&conn->queues, NULL, &conn->qp, conn->send_cq, conn->recv_cq, &shape) == 0, "no queues");
	srdma_queues_agree(&conn->queues, RIG_MESSAGE_SIZE, RIG_DEPTH, 1024);
	make_keys(rig);
}

void rig_delete(struct end_rig *rig)
{
	srdma_conn_free(&rig->conn);
	srdma_sealer_delete(&rig->messages_out);
	srdma_sealer_delete(&rig->chunks_out);
	srdma_opener_delete(&rig->messages_in);
	srdma_opener_delete(&rig->chunks_in);
}

/* ---- the peer, the device -------------------------------------------------------------------------------------- */

bool rig_deliver(struct end_rig *rig, enum rig_kind kind, const void *data, uint32_t length)
{
	uint32_t imm = htonl((uint32_t)kind << KIND_SHIFT);
	struct rig_receive *receive = &rig->receives[rig->receive_first];

	if (rig->failed || rig->receive_count == 0)
		return false;
	require(length + SRDMA_SEAL_OVERHEAD <= receive->length, "a record that is longer than a receive");
	require(srdma_sealer_seal(rig->messages_out, &imm, sizeof imm, data, length, (void *)(uintptr_t)receive->address) == 0,
		"cannot seal");
	complete(&rig->received, receive->id, IBV_WC_SUCCESS, length + SRDMA_SEAL_OVERHEAD, imm);
	rig->receive_first = (rig->receive_first + 1) % RIG_RECEIVES;
	rig->receive_count--;
	return true;
}

/* The peer decides what bytes are beyond its ring, or behind another key. */
static void fetch(struct end_rig *rig, const struct rig_request *request)
{
	void *local = (void *)(uintptr_t)request->local;

	if (request->rkey == RIG_KEY && request->remote <= SRDMA_SEALED_RING && request->length <= SRDMA_SEALED_RING - request->remote)
		memcpy(local, rig->staging + request->remote, request->length);
	else
		memset(local, 0xee, request->length);
	if (rig->on_fetched)
		rig->on_fetched(rig->arg, request->remote, request->rkey, request->length);
}

bool rig_execute(struct end_rig *rig)
{
	struct rig_request request = rig->requests[rig->request_first];

	if (rig->request_count == 0)
		return false;
	rig->request_first = (rig->request_first + 1) % RIG_REQUESTS;
	rig->request_count--;
	if (rig->failed) {
		complete(&rig->sent, request.id, IBV_WC_WR_FLUSH_ERR, 0, 0);
		return true;
	}
	if (request.read)
		fetch(rig, &request);
	if (request.signaled)
		complete(&rig->sent, request.id, IBV_WC_SUCCESS, request.length, 0);
	return true;
}

void rig_settle(struct end_rig *rig)
{
	do {
		rig->conn->rounds = 0; /* the TLS channel has its own turn */
		srdma_conn_progress(rig->conn, false);
		srdma_sealed_rdma_settle(&rig->conn->sealed_rdma);
	} while (rig->conn->status == 0 && srdma_sealed_rdma_has_work(&rig->conn->sealed_rdma));
}
