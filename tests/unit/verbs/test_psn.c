/* SPDX-License-Identifier: Apache-2.0 */
/* Linked with --wrap=RAND_bytes: each call of the generator passes here, and can be made to fail.
 * The statistical bounds are so wide that chance exceeds them less than once in 10^9 runs. */
#include "test.h"

#include "psn.h"
#include "securdma.h"

#include <pthread.h>
#include <sys/wait.h>
#include <unistd.h>

#define DRAWS            (3u << 16)
#define PSN_SPACE        (1u << 24)
#define THREADS          8
#define DRAWS_PER_THREAD 4096

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

TEST(each_byte_is_uniform)
{
	static unsigned counts[3][256];

	memset(counts, 0, sizeof counts);
	for (unsigned i = 0; i < DRAWS; i++) {
		uint32_t psn = draw();

		for (unsigned byte = 0; byte < 3; byte++)
			counts[byte][psn >> (8 * byte) & 0xff]++;
	}
	for (unsigned byte = 0; byte < 3; byte++) {
		double off = chi_square(counts[byte], 256, DRAWS);

		/* 255 degrees of freedom: 255 on average, 23 the deviation. Above 450: p < 1e-11. Far too even, as a
		 * counter's would be, is below 100: p < 1e-14. */
		if (off < 100 || off > 450)
			fail_msg("byte %u: chi-square %.1f", byte, off);
	}
}

TEST(each_bit_is_even_and_independent_of_the_draw_before)
{
	unsigned ones[24] = {0}, changes[24] = {0};
	uint32_t before = draw();

	for (unsigned i = 0; i < DRAWS; i++) {
		uint32_t psn = draw();

		for (unsigned bit = 0; bit < 24; bit++) {
			ones[bit] += psn >> bit & 1;
			changes[bit] += (psn ^ before) >> bit & 1;
		}
		before = psn;
	}
	/* Standard deviation sqrt(DRAWS) / 2 = 222; seven of them: p < 3e-12. */
	for (unsigned bit = 0; bit < 24; bit++) {
		if (ones[bit] < DRAWS / 2 - 1552 || ones[bit] > DRAWS / 2 + 1552)
			fail_msg("bit %u is set in %u of %u", bit, ones[bit], DRAWS);
		if (changes[bit] < DRAWS / 2 - 1552 || changes[bit] > DRAWS / 2 + 1552)
			fail_msg("bit %u changed %u times in %u", bit, changes[bit], DRAWS);
	}
}

static unsigned count_repeats(const uint32_t *psns, size_t count)
{
	uint8_t *seen = calloc(PSN_SPACE / 8, 1);
	unsigned repeats = 0;

	assert_non_null(seen);
	for (size_t i = 0; i < count; i++) {
		uint8_t bit = (uint8_t)(1u << (psns[i] & 7));

		repeats += (seen[psns[i] >> 3] & bit) != 0;
		seen[psns[i] >> 3] |= bit;
	}
	free(seen);
	return repeats;
}

TEST(repeats_are_as_rare_as_chance_has_it)
{
	uint32_t *psns = calloc(DRAWS, sizeof *psns);
	unsigned repeats;

	assert_non_null(psns);
	for (unsigned i = 0; i < DRAWS; i++)
		psns[i] = draw();
	repeats = count_repeats(psns, DRAWS);
	free(psns);
	/* Birthdays: n^2 / 2N - n^3 / 6N^2 = 1148 are expected, deviation 34; eight of them either way. One bit less of
	 * randomness would double the number. */
	if (repeats < 876 || repeats > 1420)
		fail_msg("%u of %u are repeats", repeats, DRAWS);
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

struct drawer {
	pthread_t thread;
	int error;
	uint32_t psns[DRAWS_PER_THREAD];
};

static void *draw_many(void *arg)
{
	struct drawer *drawer = arg;

	for (size_t i = 0; i < DRAWS_PER_THREAD && drawer->error == 0; i++)
		drawer->error = srdma_psn_generate(&drawer->psns[i]);
	return NULL;
}

TEST(threads_draw_different_psns)
{
	static struct drawer drawers[THREADS];
	static uint32_t all[THREADS * DRAWS_PER_THREAD];

	for (size_t i = 0; i < THREADS; i++)
		assert_int_equal(pthread_create(&drawers[i].thread, NULL, draw_many, &drawers[i]), 0);
	for (size_t i = 0; i < THREADS; i++)
		assert_int_equal(pthread_join(drawers[i].thread, NULL), 0);
	for (size_t i = 0; i < THREADS; i++) {
		assert_int_equal(drawers[i].error, 0);
		memcpy(all + i * DRAWS_PER_THREAD, drawers[i].psns, sizeof drawers[i].psns);
	}
	for (size_t i = 0; i < COUNT(all); i++)
		assert_true(all[i] < PSN_SPACE);
	/* 32 repeats are expected. Two threads with the same stream would make 4096. */
	assert_true(count_repeats(all, COUNT(all)) < 80);
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
