/* SPDX-License-Identifier: Apache-2.0 */
/* The account of a write's or read's bytes: each is claimed once, in order, and settled once; no claim reaches a job that is over. */
#include "test.h"

#include "sealed_job.h"

enum { ROOM = 3 };

static struct srdma_sealed_jobs jobs;
static char memory[100];

static int start(void **state)
{
	return srdma_sealed_jobs_init(&jobs, ROOM);
}

static int finish(void **state)
{
	srdma_sealed_jobs_release(&jobs);
	return 0;
}

static struct srdma_sealed_job *add(uint64_t length)
{
	const struct srdma_sealed_job job = {.local = memory, .owner = memory, .length = length, .cookie = length, .claimed = 77, .claims = 5, .all_claimed = true};

	assert_true(srdma_sealed_jobs_add(&jobs, &job));
	return srdma_sealed_jobs_at(&jobs, jobs.ring.count - 1);
}

static bool take(void)
{
	struct srdma_sealed_job job;

	return srdma_sealed_jobs_take(&jobs, &job);
}

TEST(each_byte_is_claimed_once_and_in_order)
{
	struct srdma_sealed_job *job = add(10);
	struct srdma_sealed_claim claims[2], none;
	char *place;

	assert_false(srdma_sealed_jobs_claim(job, 0, &none));
	assert_false(srdma_sealed_jobs_claim(job, 11, &none));
	assert_true(srdma_sealed_jobs_claim(job, 4, &claims[0]));
	assert_false(srdma_sealed_jobs_claim(job, 0, &none));
	assert_false(srdma_sealed_jobs_claim(job, 7, &none));
	assert_true(srdma_sealed_jobs_claim(job, 6, &claims[1]));
	assert_false(srdma_sealed_jobs_claim(job, 0, &none));
	assert_false(srdma_sealed_jobs_claim(job, 1, &none));
	assert_true(srdma_sealed_jobs_place(&jobs, &claims[1], &place));
	assert_ptr_equal(place, memory + 4);
	assert_true(srdma_sealed_jobs_place(&jobs, &claims[0], &place));
	assert_ptr_equal(place, memory);
}

TEST(job_is_over_when_every_claim_is_settled)
{
	struct srdma_sealed_job *job = add(10), over;
	struct srdma_sealed_claim claims[2];

	assert_false(take());
	assert_true(srdma_sealed_jobs_claim(job, 9, &claims[0]));
	assert_true(srdma_sealed_jobs_settle(&jobs, &claims[0]));
	assert_false(take());
	assert_true(srdma_sealed_jobs_claim(job, 1, &claims[1]));
	assert_false(take());
	assert_true(srdma_sealed_jobs_settle(&jobs, &claims[1]));
	assert_true(srdma_sealed_jobs_take(&jobs, &over));
	assert_int_equal(over.cookie, 10);
	assert_false(take());
}

TEST(claim_is_settled_once_and_in_order)
{
	struct srdma_sealed_job *job = add(10);
	struct srdma_sealed_claim claims[2];
	char *place;

	assert_true(srdma_sealed_jobs_claim(job, 5, &claims[0]));
	assert_true(srdma_sealed_jobs_claim(job, 5, &claims[1]));
	assert_false(srdma_sealed_jobs_settle(&jobs, &claims[1]));
	assert_true(srdma_sealed_jobs_settle(&jobs, &claims[0]));
	assert_false(srdma_sealed_jobs_settle(&jobs, &claims[0]));
	assert_false(srdma_sealed_jobs_place(&jobs, &claims[0], &place));
	assert_false(take());
	assert_true(srdma_sealed_jobs_settle(&jobs, &claims[1]));
	assert_false(srdma_sealed_jobs_settle(&jobs, &claims[1]));
	assert_true(take());
}

TEST(claim_that_was_never_made_is_refused)
{
	struct srdma_sealed_job *job = add(10);
	struct srdma_sealed_claim claim;
	char *place;

	assert_true(srdma_sealed_jobs_claim(job, 5, &claim));
	const struct srdma_sealed_claim wrong[] = {{0}, {.job = claim.job + 1, .length = 5}, {claim.job, 0, 6}, {claim.job, 5, 1}, {claim.job, 1, UINT32_MAX},
						 {claim.job, UINT64_MAX, 1}, {UINT64_MAX, 0, 5}};
	for (size_t i = 0; i < COUNT(wrong); i++) {
		assert_false(srdma_sealed_jobs_place(&jobs, &wrong[i], &place));
		assert_false(srdma_sealed_jobs_settle(&jobs, &wrong[i]));
	}
	assert_true(srdma_sealed_jobs_settle(&jobs, &claim));
}

TEST(job_of_no_bytes_owes_one_claim)
{
	struct srdma_sealed_job *job = add(0);
	struct srdma_sealed_claim claim, none;
	char *place;

	assert_false(take());
	assert_false(srdma_sealed_jobs_claim(job, 1, &none));
	assert_true(srdma_sealed_jobs_claim(job, 0, &claim));
	assert_false(srdma_sealed_jobs_claim(job, 0, &none));
	assert_false(take());
	assert_true(srdma_sealed_jobs_place(&jobs, &claim, &place));
	assert_true(srdma_sealed_jobs_settle(&jobs, &claim));
	assert_false(srdma_sealed_jobs_settle(&jobs, &claim));
	assert_true(take());
}

/* The place of one that is over is soon another's; its number never is. */
TEST(claim_on_a_job_that_is_over_does_not_reach_the_next_one)
{
	struct srdma_sealed_claim old[2 * ROOM], claim;
	char *place;

	for (unsigned i = 0; i < 2 * ROOM; i++) {
		assert_true(srdma_sealed_jobs_claim(add(8), 8, &old[i]));
		assert_true(srdma_sealed_jobs_settle(&jobs, &old[i]));
		assert_true(take());
	}
	for (unsigned i = 0; i < ROOM; i++)
		assert_true(srdma_sealed_jobs_claim(add(8), 8, &claim));
	for (unsigned i = 0; i < 2 * ROOM; i++) {
		assert_false(srdma_sealed_jobs_place(&jobs, &old[i], &place));
		assert_false(srdma_sealed_jobs_settle(&jobs, &old[i]));
	}
	assert_false(take());
}

TEST(dropped_job_is_over)
{
	struct srdma_sealed_claim claims[2], claim;
	const struct srdma_sealed_job another = {.length = 1};
	char *place;

	assert_true(srdma_sealed_jobs_claim(add(8), 8, &claims[0]));
	assert_true(srdma_sealed_jobs_claim(add(8), 4, &claims[1]));
	add(8);
	assert_false(srdma_sealed_jobs_add(&jobs, &another));
	assert_true(srdma_sealed_jobs_use(&jobs, memory));
	srdma_sealed_jobs_drop(&jobs);
	assert_int_equal(jobs.ring.count, 0);
	assert_false(take());
	assert_false(srdma_sealed_jobs_use(&jobs, memory));
	for (unsigned i = 0; i < 2; i++) {
		assert_false(srdma_sealed_jobs_place(&jobs, &claims[i], &place));
		assert_false(srdma_sealed_jobs_settle(&jobs, &claims[i]));
	}
	assert_true(srdma_sealed_jobs_claim(add(8), 8, &claim));
	for (unsigned i = 0; i < 2; i++)
		assert_false(srdma_sealed_jobs_settle(&jobs, &claims[i]));
	assert_true(srdma_sealed_jobs_settle(&jobs, &claim));
}

TEST(owner_in_use_is_that_of_a_job)
{
	add(10);
	assert_true(srdma_sealed_jobs_use(&jobs, memory));
	assert_false(srdma_sealed_jobs_use(&jobs, memory + 1));
}

RUN_TESTS_EACH(start, finish)
