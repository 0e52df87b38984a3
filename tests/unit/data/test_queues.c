/* SPDX-License-Identifier: Apache-2.0 */
/* A record that breaks a rule of a sealed stream is a forgery, or the peer's own; the library must tell them apart. The test is the
 * device and the peer. */
#include "test.h"

#include "queues.h"

#include "log.h"

#include <arpa/inet.h>
enum { DEPTH = 4, MESSAGE = 64, RECEIVES = 64 };
/* Of the immediate data: docs/PROTOCOL.md, "Messages". */
enum { KIND_MESSAGE = 1, KIND_CREDIT = 2, KIND_CONTROL = 3, KIND_SHIFT = 24 };

/* A receive that is posted. */
struct receive {
	uint64_t id, address;
	uint32_t length;
};

static struct rig {
	struct srdma_queues queues;
	struct srdma_sealer *peer; /* the end that sends */
	struct ibv_context context;
	struct ibv_qp verbs;
	struct srdma_qp qp;
	struct ibv_cq send_cq, recv_cq;
	struct receive receives[RECEIVES];
	unsigned first, count;
	struct ibv_wc wc; /* the completion in the receive queue */
	bool completed;
} rig;

/* ---- the device ------------------------------------------------------------------------------------------------ */

static int post_recv(struct ibv_qp *qp, struct ibv_recv_wr *wr, struct ibv_recv_wr **bad)
{
	assert_true(rig.count < RECEIVES);
	rig.receives[(rig.first + rig.count++) % RECEIVES] = (struct receive){wr->wr_id, wr->sg_list[0].addr, wr->sg_list[0].length};
	return 0;
}

static int post_send(struct ibv_qp *qp, struct ibv_send_wr *wr, struct ibv_send_wr **bad)
{
	return 0;
}

static int poll_cq(struct ibv_cq *cq, int most, struct ibv_wc *wc)
{
	if (cq != &rig.recv_cq || most < 1 || !rig.completed)
		return 0;
	*wc = rig.wc;
	rig.completed = false;
	return 1;
}

/* ---- the queues and its peer ----------------------------------------------------------------------------------- */

static uint16_t depth = DEPTH;

static int end(void **state)
{
	srdma_sealer_delete(&rig.peer);
	srdma_queues_release(&rig.queues);
	memset(&rig, 0, sizeof rig);
	return 0;
}

/* In the place of the queues before. */
static void make(bool sealed)
{
	const struct srdma_queues_shape shape = {.message_size = 2 * MESSAGE, .depth = depth, .rdma_depth = 1, .sealed = sealed};
	const uint8_t secret[SRDMA_SEAL_SECRET] = {1, 2, 3}, other[SRDMA_SEAL_SECRET] = {4};
	struct srdma_sealer *sealer = NULL;
	struct srdma_opener *opener = NULL;

	end(NULL);
	rig.context.ops.post_recv = post_recv;
	rig.context.ops.post_send = post_send;
	rig.context.ops.poll_cq = poll_cq;
	rig.verbs.context = rig.send_cq.context = rig.recv_cq.context = &rig.context;
	rig.qp.verbs = &rig.verbs;
	assert_int_equal(srdma_queues_new(&rig.queues, NULL, &rig.qp, &rig.send_cq, &rig.recv_cq, &shape), 0);
	/* The peer wants shorter ones than there is room for. */
	srdma_queues_agree(&rig.queues, MESSAGE, depth, 1024);
	if (!sealed)
		return;
	assert_int_equal(srdma_sealer_new(SRDMA_CIPHER_AES_256_GCM, secret, &rig.peer), 0);
	assert_int_equal(srdma_sealer_new(SRDMA_CIPHER_AES_256_GCM, other, &sealer), 0);
	assert_int_equal(srdma_opener_new(SRDMA_CIPHER_AES_256_GCM, secret, &opener), 0);
	srdma_queues_seal(&rig.queues, sealer, opener);
}

static char *next_receive(void)
{
	assert_true(rig.count > 0);
	return (char *)(uintptr_t)rig.receives[rig.first].address;
}

static int take(uint32_t imm, uint32_t length, enum ibv_wc_opcode opcode, unsigned flags)
{
	const struct receive *receive = &rig.receives[rig.first];

	assert_true(length <= receive->length);
	rig.wc = (struct ibv_wc){.wr_id = receive->id, .opcode = opcode, .byte_len = length, .imm_data = htonl(imm), .wc_flags = flags};
	rig.completed = true;
	rig.first = (rig.first + 1) % RECEIVES;
	rig.count--;
	return srdma_queues_poll(&rig.queues);
}

static int forge(uint32_t imm, uint32_t length)
{
	memset(next_receive(), 'f', length);
	return take(imm, length, IBV_WC_RECV, IBV_WC_WITH_IMM);
}

/* A record of the peer's, which alone has its keys. */
static int send_own(uint32_t imm, uint32_t length)
{
	char data[2 * MESSAGE] = "what the peer says";
	uint32_t header = htonl(imm);

	if (!rig.peer)
		memcpy(next_receive(), data, length);
	else
		assert_int_equal(srdma_sealer_seal(rig.peer, &header, sizeof header, data, length, next_receive()), 0);
	return take(imm, length + (rig.peer ? SRDMA_SEAL_OVERHEAD : 0), IBV_WC_RECV, IBV_WC_WITH_IMM);
}

/* Messages that a program could take, taken. */
static unsigned count_messages(void)
{
	unsigned count = 0;

	for (; srdma_queues_has_message(&rig.queues); count++)
		srdma_queues_drop(&rig.queues);
	return count;
}

#define IMM(kind, credits) ((uint32_t)(kind) << KIND_SHIFT | (credits))

static const struct {
	uint32_t imm, length; /* of the data */
	const char *rule;
} breaches[] = {
	{IMM(9, 0), 8, "unknown kind 9"},
	{IMM(KIND_CONTROL, 0), 28, "unknown kind 3"}, /* where nothing takes them */
	{IMM(KIND_CREDIT, 0), 1, "unknown kind 2"},
	{IMM(KIND_MESSAGE, 1), 8, "more than it was owed"},
	{IMM(KIND_CREDIT, 0xffffffu), 0, "more than it was owed"},
	{IMM(KIND_MESSAGE, 0), MESSAGE + 1, "65 bytes; the ends agreed on 64 at most"},
};
#define EACH_BREACH(i) for (size_t i = 0; i < COUNT(breaches); i++)

TEST(breach_that_does_not_authenticate_is_a_forgery)
{
	EACH_BREACH(i)
	{
		make(true);
		assert_int_equal(forge(breaches[i].imm, breaches[i].length + SRDMA_SEAL_OVERHEAD), SRDMA_ESEAL);
		assert_int_equal(count_messages(), 0);
	}
}

/* In a sealed queues, and in a plain one. */
TEST(breach_that_authenticates_is_the_peers)
{
	EACH_BREACH(i)
	{
		for (int sealed = 0; sealed < 2; sealed++) {
			make(sealed);
			assert_int_equal(send_own(breaches[i].imm, breaches[i].length), SRDMA_EPROTOCOL);
			assert_error_says(breaches[i].rule);
		}
	}
}

static int fill(void)
{
	for (int i = 0; i < DEPTH; i++)
		if (send_own(IMM(KIND_MESSAGE, 0), 8) != 0)
			return -1;
	return 0;
}

TEST(message_beyond_the_credits_is_told_by_whose_it_is)
{
	make(true);
	assert_int_equal(fill(), 0);
	assert_int_equal(forge(IMM(KIND_MESSAGE, 0), 8 + SRDMA_SEAL_OVERHEAD), SRDMA_ESEAL);
	assert_int_equal(count_messages(), DEPTH);
	make(true);
	assert_int_equal(fill(), 0);
	assert_int_equal(send_own(IMM(KIND_MESSAGE, 0), 8), SRDMA_EPROTOCOL);
}

TEST(message_without_the_form_of_a_record_is_a_forgery)
{
	make(true);
	assert_int_equal(take(0, 32, IBV_WC_RECV, 0), SRDMA_ESEAL);
	assert_int_equal(take(IMM(KIND_MESSAGE, 0), 0, IBV_WC_RECV_RDMA_WITH_IMM, IBV_WC_WITH_IMM), SRDMA_ESEAL);
	for (uint32_t length = 0; length < SRDMA_SEAL_OVERHEAD; length++)
		assert_int_equal(forge(IMM(KIND_MESSAGE, 0), length), SRDMA_ESEAL);
	make(false);
	assert_int_equal(take(0, 32, IBV_WC_RECV, 0), SRDMA_EPROTOCOL);
}

/* The data of a control record that authenticated, and is wrong all the same. */
static int refuse_control(void *arg, const void *data, uint32_t length)
{
	assert_memory_equal(data, "what the peer says", 18);
	assert_int_equal(length, 28);
	return srdma_fail(SRDMA_EPROTOCOL, "refused by %s", (const char *)arg);
}

TEST(control_record_that_is_refused_is_not_taken_for_a_forgery)
{
	char name[] = "its taker";

	make(true);
	rig.queues.on_control = refuse_control;
	rig.queues.arg = name;
	assert_int_equal(send_own(IMM(KIND_CONTROL, 0), 28), SRDMA_EPROTOCOL);
	assert_string_equal(srdma_error_text(), "refused by its taker");
	assert_int_equal(forge(IMM(KIND_CONTROL, 0), 28 + SRDMA_SEAL_OVERHEAD), SRDMA_ESEAL);
}

TEST(records_that_keep_the_rules_are_taken)
{
	char out[MESSAGE];

	make(true);
	for (unsigned i = 0; i < 2; i++)
		assert_int_equal(srdma_queues_send(&rig.queues, "x", 1), 0);
	assert_int_equal(rig.queues.credits, DEPTH - 2);
	assert_int_equal(send_own(IMM(KIND_CREDIT, 1), 0), 0);
	assert_int_equal(send_own(IMM(KIND_MESSAGE, 1), MESSAGE), 0);
	assert_int_equal(rig.queues.credits, DEPTH);
	assert_int_equal(srdma_queues_read(&rig.queues, out), 0);
	assert_string_equal(out, "what the peer says");
}

/* ---- a peer that goes on and on -------------------------------------------------------------------------------- */

static unsigned flood_left; /* messages that return no credits */

static int poll_flood(struct ibv_cq *cq, int most, struct ibv_wc *wc)
{
	int n = 0;

	for (; n < most && flood_left > 0 && rig.count > 0; n++, flood_left--, rig.count--) {
		wc[n] = (struct ibv_wc){.wr_id = rig.receives[rig.first].id, .opcode = IBV_WC_RECV, .imm_data = htonl(KIND_CREDIT << KIND_SHIFT),
					.wc_flags = IBV_WC_WITH_IMM};
		rig.first = (rig.first + 1) % RECEIVES;
	}
	return n;
}

TEST(flood_is_taken_in_turns_and_what_is_left_is_known)
{
	unsigned turns = 0;

	depth = 40; /* more receives than one look takes completions */
	make(false);
	depth = DEPTH;
	rig.context.ops.poll_cq = poll_flood;
	flood_left = 100000;
	do {
		unsigned before = flood_left;

		assert_int_equal(srdma_queues_poll_receives(&rig.queues), 0);
		assert_true(before - flood_left <= 2 * rig.queues.recv_slots);
		turns++;
	} while (rig.queues.receives_left);
	assert_int_equal(flood_left, 0);
	assert_true(turns > 100);
	assert_int_equal(rig.queues.sends_arrived, 100000);
}

RUN_TESTS_EACH(NULL, end)
