/* SPDX-License-Identifier: Apache-2.0 */
/* Linked with --wrap for the making and freeing of queue pairs, which here are numbered in order as most devices do it, and for
 * RAND_bytes. */
#include "test.h"

#include "qp_pool.h"

static struct {
	uint32_t next;
	unsigned alive, made;
	unsigned fail_after; /* so many were made; 0: never */
} device;
static bool generator_fails;

int __real_RAND_bytes(unsigned char *buffer, int length);

int __wrap_RAND_bytes(unsigned char *buffer, int length)
{
	return generator_fails ? 0 : __real_RAND_bytes(buffer, length);
}

int __wrap_srdma_qp_new_like(const struct srdma_qp *like, struct srdma_qp *out)
{
	if (device.fail_after != 0 && device.made == device.fail_after)
		return SRDMA_EVERBS;
	*out = *like;
	out->verbs = calloc(1, sizeof *out->verbs);
	assert_non_null(out->verbs);
	out->verbs->qp_num = device.next++;
	device.alive++;
	device.made++;
	return 0;
}

void __wrap_srdma_qp_release(struct srdma_qp *qp)
{
	device.alive -= qp->verbs != NULL;
	free(qp->verbs);
	qp->verbs = NULL;
}

static int new_device(void **state)
{
	memset(&device, 0, sizeof device);
	device.next = 17;
	generator_fails = false;
	return 0;
}

TEST(next_number_is_ahead_by_1_to_16_and_none_of_these_is_rare)
{
	enum { TAKES = 4096 };
	const struct srdma_qp like = {.max_inline = 220};
	struct srdma_qp_pool pool = {0};
	unsigned counts[SRDMA_QP_SKIPS] = {0};
	uint32_t last = device.next - 1;

	for (unsigned i = 0; i < TAKES; i++) {
		struct srdma_qp qp;
		uint32_t ahead;

		assert_int_equal(srdma_qp_pool_take(&pool, &like, &qp), 0);
		ahead = qp.verbs->qp_num - last;
		last = qp.verbs->qp_num;
		assert_uint_in_range(ahead, 1, SRDMA_QP_SKIPS);
		counts[ahead - 1]++;
		assert_int_equal(qp.max_inline, 220);
		/* The pool has freed the skipped ones. */
		assert_int_equal(device.alive, 1);
		__wrap_srdma_qp_release(&qp);
	}
	/* 256 of each are expected, 15.5 the deviation: eight of them. */
	for (unsigned i = 0; i < SRDMA_QP_SKIPS; i++)
		assert_uint_in_range(counts[i], 256 - 124, 256 + 124);
}

TEST(spare_one_is_made_once_and_taken_once)
{
	const struct srdma_qp like = {0};
	struct srdma_qp_pool pool = {0};
	struct srdma_qp first, second;
	unsigned made;

	assert_int_equal(srdma_qp_pool_fill(&pool, &like), 0);
	made = device.made;
	assert_int_equal(srdma_qp_pool_fill(&pool, &like), 0);
	assert_int_equal(srdma_qp_pool_take(&pool, &like, &first), 0);
	assert_int_equal(device.made, made);
	assert_int_equal(device.alive, 1);
	assert_null(pool.spare.verbs);
	assert_int_equal(srdma_qp_pool_take(&pool, &like, &second), 0);
	assert_int_not_equal(first.verbs->qp_num, second.verbs->qp_num);
	__wrap_srdma_qp_release(&first);
	__wrap_srdma_qp_release(&second);
	assert_int_equal(srdma_qp_pool_fill(&pool, &like), 0);
	assert_int_equal(device.alive, 1);
	srdma_qp_pool_release(&pool);
	srdma_qp_pool_release(&pool);
	assert_int_equal(device.alive, 0);
}

TEST(failure_leaves_nothing_behind)
{
	const struct srdma_qp like = {0};
	struct srdma_qp_pool pool = {0};
	struct srdma_qp qp;

	generator_fails = true;
	assert_int_equal(srdma_qp_pool_take(&pool, &like, &qp), SRDMA_ERANDOM);
	assert_int_equal(device.made, 0);
	generator_fails = false;
	/* Whether it was to be left out or to be kept. */
	for (unsigned i = 0; i < 200; i++) {
		device.made = 0;
		device.fail_after = 1;
		if (srdma_qp_pool_take(&pool, &like, &qp) == 0)
			__wrap_srdma_qp_release(&qp);
		assert_null(pool.spare.verbs);
		assert_int_equal(device.alive, 0);
	}
}

RUN_TESTS_EACH(new_device, NULL)
