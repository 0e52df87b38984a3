/* SPDX-License-Identifier: Apache-2.0 */
/* The source itself is compiled in: an arrival is a completion, which here no device makes. What breaks a rule of a sealed stream
 * may come from somebody else, or from the peer; the two must not be taken for each other. */
#include "../../../src/data/stream.c"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

enum { DEPTH = 4, STRIDE = 256, MESSAGE = 64, SLOTS = DEPTH + 2 };

struct rig {
	struct srdma_stream stream;
	struct srdma_sealer *peer; /* the end that sends */
	struct ibv_mr mr;
	char memory[SLOTS * STRIDE];
	struct srdma_arrival arrivals[SLOTS];
	uint32_t slot;
};

/* All receives stay posted by themselves: a stopped channel posts none. */
static void make(struct rig *rig, bool sealed)
{
	const uint8_t secret[SRDMA_SEAL_SECRET] = {1, 2, 3};

	*rig = (struct rig){.stream = {.stride = STRIDE,
					.recv_slots = SLOTS,
					.message_size = MESSAGE,
					.depth = DEPTH,
					.credits = DEPTH,
					.stopped = true}};
	rig->stream.ring.address = rig->memory;
	rig->stream.ring.mr = &rig->mr;
	rig->stream.arrivals = rig->arrivals;
	if (!sealed)
		return;
	rig->stream.overhead = SRDMA_SEAL_OVERHEAD;
	assert_int_equal(srdma_sealer_new(SRDMA_CIPHER_AES_256_GCM, secret, &rig->peer), 0);
	assert_int_equal(srdma_opener_new(SRDMA_CIPHER_AES_256_GCM, secret, &rig->stream.opener), 0);
}

static void end(struct rig *rig)
{
	srdma_sealer_delete(&rig->peer);
	srdma_opener_delete(&rig->stream.opener);
}

static int take(struct rig *rig, uint32_t imm, uint32_t length, enum ibv_wc_opcode opcode, unsigned flags)
{
	struct ibv_wc wc = {.wr_id = rig->slot++, .opcode = opcode, .byte_len = length, .imm_data = htonl(imm)};

	wc.wc_flags = flags;
	return take_arrival(&rig->stream, &wc);
}

static int forge(struct rig *rig, uint32_t imm, uint32_t length)
{
	memset(rig->memory + rig->slot * STRIDE, 'f', STRIDE);
	return take(rig, imm, length, IBV_WC_RECV, IBV_WC_WITH_IMM);
}

/* What the peer itself sends, and who has its keys alone. */
static int send_own(struct rig *rig, uint32_t imm, uint32_t length)
{
	char data[STRIDE] = "what the peer says";
	uint32_t header = htonl(imm);
	char *slot = rig->memory + rig->slot * STRIDE;

	if (!rig->peer)
		memcpy(slot, data, length);
	else
		assert_int_equal(srdma_sealer_seal(rig->peer, &header, sizeof header, data, length, slot), 0);
	return take(rig, imm, length + rig->stream.overhead, IBV_WC_RECV, IBV_WC_WITH_IMM);
}

#define IMM(kind, credits) ((kind) << IMM_KIND_SHIFT | (credits))

static const struct {
	uint32_t imm, length; /* of the data */
	const char *rule;
} breaches[] = {
	{IMM(9u, 0), 8, "unknown kind 9"},
	{IMM(IMM_CONTROL, 0), 28, "unknown kind 3"}, /* where nothing takes them */
	{IMM(IMM_CREDIT, 0), 1, "unknown kind 2"},
	{IMM(IMM_MESSAGE, 1), 8, "more than it was owed"},
	{IMM(IMM_CREDIT, 0xffffffu), 0, "more than it was owed"},
	{IMM(IMM_MESSAGE, 0), MESSAGE + 1, "65 bytes; the ends agreed on 64 at most"},
};
#define EACH_BREACH(i) for (size_t i = 0; i < sizeof breaches / sizeof *breaches; i++)

static void breach_that_does_not_authenticate_is_a_forgery(void **state)
{
	struct rig rig;

	(void)state;
	EACH_BREACH(i)
	{
		make(&rig, true);
		assert_int_equal(forge(&rig, breaches[i].imm, breaches[i].length + SRDMA_SEAL_OVERHEAD), SRDMA_ESEAL);
		assert_int_equal(rig.stream.arrival_count, 0);
		end(&rig);
	}
}

static void breach_that_authenticates_is_the_peers(void **state)
{
	struct rig rig;

	(void)state;
	EACH_BREACH(i)
	{
		make(&rig, true);
		assert_int_equal(send_own(&rig, breaches[i].imm, breaches[i].length), SRDMA_EPROTOCOL);
		assert_non_null(strstr(srdma_error_text(), breaches[i].rule));
		end(&rig);
	}
}

static void breach_in_a_plain_channel_is_the_peers(void **state)
{
	struct rig rig;

	(void)state;
	EACH_BREACH(i)
	{
		make(&rig, false);
		assert_int_equal(send_own(&rig, breaches[i].imm, breaches[i].length), SRDMA_EPROTOCOL);
		assert_non_null(strstr(srdma_error_text(), breaches[i].rule));
		end(&rig);
	}
}

static int fill(struct rig *rig)
{
	for (int i = 0; i < DEPTH; i++)
		if (send_own(rig, IMM(IMM_MESSAGE, 0), 8) != 0)
			return -1;
	return 0;
}

static void message_beyond_the_credits_is_told_by_whose_it_is(void **state)
{
	struct rig rig;

	(void)state;
	make(&rig, true);
	assert_int_equal(fill(&rig), 0);
	assert_int_equal(forge(&rig, IMM(IMM_MESSAGE, 0), 8 + SRDMA_SEAL_OVERHEAD), SRDMA_ESEAL);
	assert_int_equal(rig.stream.arrival_count, DEPTH);
	end(&rig);
	make(&rig, true);
	assert_int_equal(fill(&rig), 0);
	assert_int_equal(send_own(&rig, IMM(IMM_MESSAGE, 0), 8), SRDMA_EPROTOCOL);
	end(&rig);
}

static void what_can_be_no_record_is_a_forgery(void **state)
{
	struct rig rig;

	(void)state;
	make(&rig, true);
	assert_int_equal(take(&rig, 0, 32, IBV_WC_RECV, 0), SRDMA_ESEAL);
	assert_int_equal(take(&rig, IMM(IMM_MESSAGE, 0), 0, IBV_WC_RECV_RDMA_WITH_IMM, IBV_WC_WITH_IMM), SRDMA_ESEAL);
	for (uint32_t length = 0; length < SRDMA_SEAL_OVERHEAD; length++) {
		rig.slot = 0;
		assert_int_equal(forge(&rig, IMM(IMM_MESSAGE, 0), length), SRDMA_ESEAL);
	}
	end(&rig);
	make(&rig, false);
	assert_int_equal(take(&rig, 0, 32, IBV_WC_RECV, 0), SRDMA_EPROTOCOL);
	end(&rig);
}

/* The data of a control record that authenticated, and is wrong all the same. */
static int refuse_control(void *arg, const void *data, uint32_t length)
{
	assert_memory_equal(data, "what the peer says", 18);
	assert_int_equal(length, 28);
	return srdma_fail(SRDMA_EPROTOCOL, "refused by %s", (const char *)arg);
}

static void control_record_that_is_refused_is_not_taken_for_a_forgery(void **state)
{
	struct rig rig;
	char name[] = "its taker";

	(void)state;
	make(&rig, true);
	rig.stream.on_control = refuse_control;
	rig.stream.arg = name;
	assert_int_equal(send_own(&rig, IMM(IMM_CONTROL, 0), 28), SRDMA_EPROTOCOL);
	assert_string_equal(srdma_error_text(), "refused by its taker");
	assert_int_equal(forge(&rig, IMM(IMM_CONTROL, 0), 28 + SRDMA_SEAL_OVERHEAD), SRDMA_ESEAL);
	end(&rig);
}

static void what_keeps_the_rules_goes_on(void **state)
{
	struct rig rig;
	char out[MESSAGE];

	(void)state;
	make(&rig, true);
	rig.stream.credits = DEPTH - 2;
	assert_int_equal(send_own(&rig, IMM(IMM_CREDIT, 1), 0), 0);
	assert_int_equal(send_own(&rig, IMM(IMM_MESSAGE, 1), MESSAGE), 0);
	assert_int_equal(rig.stream.credits, DEPTH);
	assert_int_equal(srdma_stream_read(&rig.stream, out), 0);
	assert_string_equal(out, "what the peer says");
	end(&rig);
}

/* ---- a peer that goes on and on -------------------------------------------------------------------------------- */

static unsigned flood_left; /* messages that return no credits */

static int poll_flood(struct ibv_cq *cq, int count, struct ibv_wc *wc)
{
	int n = flood_left < (unsigned)count ? (int)flood_left : count;

	(void)cq;
	for (int i = 0; i < n; i++)
		wc[i] = (struct ibv_wc){.opcode = IBV_WC_RECV, .imm_data = htonl(IMM(IMM_CREDIT, 0)), .wc_flags = IBV_WC_WITH_IMM};
	flood_left -= (unsigned)n;
	return n;
}

static void flood_is_taken_in_turns_and_what_is_left_is_known(void **state)
{
	struct ibv_context context = {.ops.poll_cq = poll_flood};
	struct ibv_cq cq = {.context = &context};
	unsigned turns = 0;
	struct rig rig;

	(void)state;
	make(&rig, false);
	rig.stream.recv_cq = &cq;
	flood_left = 100000;
	do {
		unsigned before = flood_left;

		assert_int_equal(srdma_stream_poll_receives(&rig.stream), 0);
		assert_true(before - flood_left <= SLOTS + POLL_BATCH);
		turns++;
	} while (rig.stream.receives_left);
	assert_int_equal(flood_left, 0);
	assert_true(turns > 1);
	assert_int_equal(rig.stream.sends_arrived, 100000);
	end(&rig);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(breach_that_does_not_authenticate_is_a_forgery),
		cmocka_unit_test(breach_that_authenticates_is_the_peers),
		cmocka_unit_test(breach_in_a_plain_channel_is_the_peers),
		cmocka_unit_test(message_beyond_the_credits_is_told_by_whose_it_is),
		cmocka_unit_test(what_can_be_no_record_is_a_forgery),
		cmocka_unit_test(control_record_that_is_refused_is_not_taken_for_a_forgery),
		cmocka_unit_test(what_keeps_the_rules_goes_on),
		cmocka_unit_test(flood_is_taken_in_turns_and_what_is_left_is_known),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
