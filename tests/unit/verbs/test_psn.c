/* SPDX-License-Identifier: Apache-2.0 */
/* Linked with --wrap=RAND_bytes: each call of the generator passes here, and can be made to fail.
 * The statistical bounds are so wide that chance exceeds them less than once in 10^9 runs. Whether PSNs are random numbers at all is
 * judged by tests/attack/psn_statistics.py. */
#include "test.h"

#include "psn.h"
#include "securdma.h"

#include <sys/wait.h>
#include <unistd.h>

#define PSN_SPACE        (1u << 24)

static enum { REAL, FAIL, CONSTANT } generator;
static int failure;         /* what FAIL returns */
static uint8_t constant[3]; /* what CONSTANT gives */
static int bytes_asked;

int __real_RAND_bytes(unsigned char *buffer, int length);

int __wrap_RAND_bytes(unsigned char *buffer, int length)
{
	switch (generator) {
	case FAIL:
		/* As a generator that broke down half-way would leave it. */
		memset(buffer, 0x5a, (size_t)length);
		return failure;
	case CONSTANT:
		bytes_asked = length;
		for (int i = 0; i < length; i++)
			buffer[i] = constant[i % 3];
		return 1;
	case REAL:
	default: return __real_RAND_bytes(buffer, length);
	}
}

static int use_real_generator(void **state)
{
	generator = REAL;
	return 0;
}

/* It fits into 24 bits. */
static uint32_t draw(void)
{
	uint32_t psn = UINT32_MAX;

	assert_int_equal(srdma_psn_generate(&psn), 0);
	assert_true(psn < PSN_SPACE);
	return psn;
}

TEST(psn_is_the_generators_three_bytes)
{
	static const uint8_t cases[][3] = {{0, 0, 0}, {0xff, 0xff, 0xff}, {0x9f, 0x85, 0x41}, {0x28, 0x07, 0xd4}};

	generator = CONSTANT;
	for (size_t i = 0; i < COUNT(cases); i++) {
		memcpy(constant, cases[i], 3);
		assert_int_equal(draw(), (uint32_t)cases[i][0] << 16 | (uint32_t)cases[i][1] << 8 | cases[i][2]);
		assert_int_equal(bytes_asked, 3);
	}
}

static double chi_square(const unsigned *counts, unsigned cells, unsigned draws)
{
	double expected = (double)draws / cells, sum = 0;

	for (unsigned i = 0; i < cells; i++)
		sum += (counts[i] - expected) * (counts[i] - expected) / expected;
	return sum;
}

TEST(failing_generator_gives_no_psn)
{
	static const int failures[] = {0, -1};

	generator = FAIL;
	for (size_t i = 0; i < COUNT(failures); i++) {
		uint32_t psn = 0xdeadbeef;

		failure = failures[i];
		assert_int_equal(srdma_psn_generate(&psn), SRDMA_ERANDOM);
		assert_int_equal(psn, 0xdeadbeef);
		assert_error_says("random");
	}
	/* PSNs come again when the generator recovers. */
	generator = REAL;
	draw();
}

TEST(forked_child_draws_other_psns_than_its_parent)
{
	uint32_t own[16], childs[16];
	int pipe_fds[2], status;
	pid_t child;

	draw();
	assert_int_equal(pipe(pipe_fds), 0);
	child = fork();
	assert_true(child >= 0);
	if (child == 0) {
		for (size_t i = 0; i < 16; i++)
			if (srdma_psn_generate(&childs[i]) != 0)
				_exit(1);
		_exit(write(pipe_fds[1], childs, sizeof childs) == (ssize_t)sizeof childs ? 0 : 1);
	}
	close(pipe_fds[1]);
	for (size_t i = 0; i < 16; i++)
		own[i] = draw();
	assert_int_equal(read(pipe_fds[0], childs, sizeof childs), sizeof childs);
	close(pipe_fds[0]);
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_int_equal(status, 0);
	assert_memory_not_equal(own, childs, sizeof own);
}

/* ---- of the next epoch ----------------------------------------------------------------------------------------- */

static void expect_apart(const struct srdma_psn_range *last, uint32_t limit)
{
	uint32_t psn = UINT32_MAX, agreed = limit;

	assert_int_equal(srdma_psn_generate_apart(last, &psn, &agreed), 0);
	assert_true(psn < PSN_SPACE);
	assert_uint_in_range(agreed, 1, limit);
	/* Neither begins within the other: so they have no PSN in common. */
	if (((psn - last->first) & SRDMA_PSN_MASK) < last->count || ((last->first - psn) & SRDMA_PSN_MASK) < (last->count ? agreed : 0))
		fail_msg("%u from %u on, then %u from %u on", last->count, last->first, agreed, psn);
	/* Not shorter than it must be. */
	if (last->count + limit + SRDMA_PSN_STARTS <= PSN_SPACE)
		assert_int_equal(agreed, limit);
	else
		assert_int_equal(last->count + agreed + SRDMA_PSN_STARTS, PSN_SPACE);
}

TEST(next_epoch_has_no_psn_of_the_last_one)
{
	static const uint32_t firsts[] = {0, 1, 0x7fffff, 0x800000, 0xfffffe, 0xffffff};
	static const uint32_t most[] = {1, SRDMA_EPOCH_PSNS_MIN, 1u << 20, SRDMA_EPOCH_PSNS - 1, SRDMA_EPOCH_PSNS};

	for (unsigned round = 0; round < 4; round++)
		for (size_t f = 0; f < COUNT(firsts); f++)
			for (size_t l = 0; l < COUNT(most); l++)
				for (unsigned eighths = 0; eighths <= 8; eighths++) {
					struct srdma_psn_range last = {firsts[f], most[l] / 8 * eighths};

					expect_apart(&last, most[l]);
					last.count = most[l];
					expect_apart(&last, most[l]);
					expect_apart(&last, SRDMA_EPOCH_PSNS);
					last.first = draw();
					expect_apart(&last, most[l]);
				}
}

static uint32_t draw_after(uint32_t used)
{
	const struct srdma_psn_range last = {0, used};
	uint32_t psn, limit = SRDMA_EPOCH_PSNS;

	assert_int_equal(srdma_psn_generate_apart(&last, &psn, &limit), 0);
	return psn;
}

/* With the default limit: an epoch that ended in time, and one that was used up to the last PSN. */
TEST(start_of_the_next_epoch_is_one_of_2_to_the_20_and_uniform)
{
	static const uint32_t used[] = {SRDMA_EPOCH_PSNS / 8 * 7, SRDMA_EPOCH_PSNS};
	const unsigned draws = 4096;

	for (size_t i = 0; i < 2; i++) {
		unsigned counts[64] = {0};
		double off;

		for (unsigned n = 0; n < draws; n++) {
			uint32_t place = draw_after(used[i]) - used[i];

			/* The last one of all: the new epoch ends where the old one began. */
			assert_true(place <= SRDMA_PSN_STARTS);
			counts[place / (SRDMA_PSN_STARTS / 64) % 64]++;
		}
		/* 63 degrees of freedom. Above 170: p < 1e-11; below 12: p < 1e-12. */
		off = chi_square(counts, 64, draws);
		if (off < 12 || off > 170)
			fail_msg("after %u PSNs: chi-square %.1f", used[i], off);
	}
}

TEST(epoch_that_left_no_psns_has_no_successor)
{
	static const uint32_t used[] = {PSN_SPACE - SRDMA_PSN_STARTS, PSN_SPACE - 1, PSN_SPACE, UINT32_MAX};

	for (size_t i = 0; i < COUNT(used); i++) {
		const struct srdma_psn_range last = {5, used[i]};
		uint32_t psn = 0xdeadbeef, limit = 1000;

		assert_int_equal(srdma_psn_generate_apart(&last, &psn, &limit), -ERANGE);
		assert_int_equal(psn, 0xdeadbeef);
		assert_int_equal(limit, 1000);
	}
}

TEST(failing_generator_gives_no_psn_for_the_next_epoch)
{
	const struct srdma_psn_range last = {5, 1000};
	uint32_t psn = 0xdeadbeef, limit = 1000;

	generator = FAIL;
	failure = 0;
	assert_int_equal(srdma_psn_generate_apart(&last, &psn, &limit), SRDMA_ERANDOM);
	assert_int_equal(psn, 0xdeadbeef);
}

RUN_TESTS_EACH(use_real_generator, NULL)
