/* SPDX-License-Identifier: Apache-2.0 */
#include "memory_rig.h"

#include <sys/mman.h>

#include "random.h"

/* ---- the generator, which can be made to fail or to repeat itself ---- */

int __real_random_u32(uint32_t *out);
int __wrap_random_u32(uint32_t *out);

static int random_calls_left = -1; /* then it fails; -1: never */
static uint32_t random_script[4];
static unsigned random_scripted;

int __wrap_random_u32(uint32_t *out)
{
	if (random_calls_left == 0)
		return -EIO;
	if (random_calls_left > 0)
		random_calls_left--;
	if (random_scripted > 0) {
		*out = random_script[--random_scripted];
		return 0;
	}
	return __real_random_u32(out);
}

/* ---- a kernel that does not know how to populate ---- */

int __real_madvise(void *addr, size_t length, int advice);
int __wrap_madvise(void *addr, size_t length, int advice);

static bool old_kernel;

int __wrap_madvise(void *addr, size_t length, int advice)
{
	if (!old_kernel)
		return __real_madvise(addr, length, advice);
	errno = EINVAL;
	return -1;
}

static int restore(void **state)
{
	random_calls_left = -1;
	random_scripted = 0;
	old_kernel = false;
	return teardown(state);
}

static void refused(struct world *w, void *addr, size_t length, uint64_t iova, int access, int error)
{
	errno = 0;
	assert_null(mr_reg(w->pd, addr, length, iova, access));
	assert_int_equal(errno, error);
	assert_int_equal(w->bare->device.keys.count, 0);
}

/* ---- regions ---- */

static void a_region_shows_what_was_registered(void **state)
{
	struct world *w = *state;
	struct ibv_mr *mr = reg(w, LOCAL | READ);
	assert_ptr_equal(mr->addr, w->memory);
	assert_int_equal(mr->length, SIZE);
	assert_ptr_equal(mr->pd, w->pd);
	assert_ptr_equal(mr->context, w->pd->context);
	assert_int_equal(w->bare->counters.objects.mr, 1);
	assert_int_equal(mr_dereg(mr), 0);
}

static void flags_follow_the_manual(void **state)
{
	struct world *w = *state;
	uint64_t iova = at(w, 0);
	refused(w, w->memory, SIZE, iova, WRITE, EINVAL);
	refused(w, w->memory, SIZE, iova, ATOMIC | READ, EINVAL);
	refused(w, w->memory, SIZE, iova, 1 << 15, EINVAL);
	refused(w, w->memory, SIZE, iova, LOCAL | 1 << 30, EINVAL);
	refused(w, w->memory, SIZE, iova, LOCAL | ACCESS_FLUSH_PERSISTENT, EINVAL); /* ordinary memory */
	static const int good[] = {0,
				   LOCAL,
				   READ,
				   ALL,
				   BIND,
				   LOCAL | IBV_ACCESS_HUGETLB,
				   LOCAL | IBV_ACCESS_ON_DEMAND,
				   ACCESS_FLUSH_GLOBAL,
				   LOCAL | IBV_ACCESS_RELAXED_ORDERING,
				   LOCAL | 1 << 29};
	for (size_t i = 0; i < sizeof good / sizeof *good; i++)
		assert_int_equal(mr_dereg(reg(w, good[i])), 0);
}

static void ranges_that_wrap_are_refused(void **state)
{
	struct world *w = *state;
	refused(w, w->memory, SIZE_MAX - 100, 0, LOCAL, EINVAL);
	refused(w, w->memory, SIZE, UINT64_MAX - SIZE + 1, LOCAL, EINVAL);
}

static void memory_that_is_not_there_is_refused(void **state)
{
	struct world *w = *state;
	uint8_t *map = mmap(NULL, 3 * SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	assert_ptr_not_equal(map, MAP_FAILED);
	munmap(map + SIZE, SIZE);
	refused(w, map, 3 * SIZE, 0, LOCAL, EFAULT);
	refused(w, map + SIZE - 1, 2, 0, 0, EFAULT);
	refused(w, NULL, SIZE, 0, LOCAL, EFAULT);
	refused(w, (void *)(UINTPTR_MAX - 2 * SIZE), SIZE, 0, LOCAL, EFAULT);
	munmap(map, SIZE);
	munmap(map + 2 * (size_t)SIZE, SIZE);
}

static void memory_must_permit_what_the_region_does(void **state)
{
	struct world *w = *state;
	void *map = mmap(NULL, SIZE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	assert_ptr_not_equal(map, MAP_FAILED);
	refused(w, map, SIZE, 0, LOCAL, EFAULT);
	struct ibv_mr *mr = mr_reg(w->pd, map, SIZE, 0, READ);
	assert_non_null(mr);
	/* Nor may write access come later. */
	assert_int_equal(mr_rereg(mr, IBV_REREG_MR_CHANGE_ACCESS, NULL, NULL, 0, LOCAL), IBV_REREG_MR_ERR_INPUT);
	assert_int_equal(errno, EFAULT);
	assert_int_equal(mr_dereg(mr), 0);
	mprotect(map, SIZE, PROT_NONE);
	refused(w, map, SIZE, 0, READ, EFAULT);
	munmap(map, SIZE);
}

static void an_old_kernel_is_asked_for_its_mappings(void **state)
{
	old_kernel = true;
	memory_that_is_not_there_is_refused(state);
	memory_must_permit_what_the_region_does(state);
	flags_follow_the_manual(state);
}

static void memory_on_demand_may_come_later(void **state)
{
	struct world *w = *state;
	const int access = LOCAL | READ | IBV_ACCESS_ON_DEMAND;
	uint8_t *map = mmap(NULL, SIZE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	assert_ptr_not_equal(map, MAP_FAILED);
	struct ibv_mr *mr = mr_reg(w->pd, map, SIZE, (uintptr_t)map, access);
	assert_non_null(mr);
	assert_ptr_equal(memory_local(pd_of(w->pd), mr->lkey, (uintptr_t)map + 5, SIZE - 5, LOCAL), map + 5);
	/* Once it is no longer on demand, it must be there. */
	assert_int_equal(mr_rereg(mr, IBV_REREG_MR_CHANGE_ACCESS, NULL, NULL, 0, LOCAL), IBV_REREG_MR_ERR_INPUT);
	assert_int_equal(errno, EFAULT);
	assert_int_equal(mr_dereg(mr), 0);
	refused(w, (void *)(UINTPTR_MAX - 10), SIZE, 0, access, EINVAL);
	munmap(map, SIZE);
}

static void a_region_may_be_the_whole_address_space(void **state)
{
	struct world *w = *state;
	struct ibv_mr *mr = mr_reg(w->pd, NULL, SIZE_MAX, 0, LOCAL | READ | IBV_ACCESS_ON_DEMAND);
	assert_non_null(mr);
	assert_ptr_equal(memory_local(pd_of(w->pd), mr->lkey, at(w, 3), 100, LOCAL), w->memory + 3);
	assert_ptr_equal(memory_remote(w->qp.pd, w->qp.qpn, mr->rkey, at(w, 3), 100, READ), w->memory + 3);
	assert_null(memory_remote(w->qp.pd, w->qp.qpn, mr->rkey, at(w, 3), 100, WRITE));
	assert_null(memory_local(pd_of(w->pd), mr->lkey, 0, 8, LOCAL)); /* nothing is ever there */
	assert_int_equal(mr_dereg(mr), 0);
	refused(w, NULL, SIZE_MAX, 0, LOCAL, EFAULT);
}

static bool resident(const uint8_t *at_page)
{
	unsigned char there = 0;
	assert_int_equal(mincore((void *)(uintptr_t)at_page, 1, &there), 0);
	return there & 1;
}

static void advice_brings_the_pages_in(void **state)
{
	struct world *w = *state;
	static const enum ibv_advise_mr_advice advices[] = {
		IBV_ADVISE_MR_ADVICE_PREFETCH, IBV_ADVISE_MR_ADVICE_PREFETCH_WRITE, IBV_ADVISE_MR_ADVICE_PREFETCH_NO_FAULT };
	for (unsigned i = 0; i < 6; i++) {
		uint8_t *map = mmap(NULL, 2 * (size_t)SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		assert_ptr_not_equal(map, MAP_FAILED);
		struct ibv_mr *mr = mr_reg(w->pd, map, 2 * (size_t)SIZE, (uintptr_t)map, LOCAL | IBV_ACCESS_ON_DEMAND);
		struct ibv_sge sge = {(uintptr_t)map + SIZE + 1, 5, mr->lkey};
		assert_false(resident(map + SIZE));
		assert_int_equal(mr_advise(w->pd, advices[i % 3], i < 3 ? 0 : IBV_ADVISE_MR_FLAG_FLUSH, &sge, 1), 0);
		assert_int_equal(resident(map + SIZE), i % 3 != 2);
		assert_false(resident(map));
		assert_int_equal(mr_dereg(mr), 0);
		munmap(map, 2 * (size_t)SIZE);
	}
}

static void advice_that_cannot_be_taken_says_why(void **state)
{
	struct world *w = *state;
	const enum ibv_advise_mr_advice read = IBV_ADVISE_MR_ADVICE_PREFETCH, write = IBV_ADVISE_MR_ADVICE_PREFETCH_WRITE;
	uint8_t *map = mmap(NULL, SIZE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	assert_ptr_not_equal(map, MAP_FAILED);
	struct ibv_mr *pinned = reg(w, LOCAL), *mr = mr_reg(w->pd, map, SIZE, (uintptr_t)map, IBV_ACCESS_ON_DEMAND);
	struct ibv_sge good = {(uintptr_t)map, SIZE, mr->lkey}, sge = good;

	assert_int_equal(mr_advise(w->pd, (enum ibv_advise_mr_advice)9, 0, &sge, 1), ENOTSUP);
	assert_int_equal(mr_advise(w->pd, read, 2, &sge, 1), EINVAL);
	assert_int_equal(mr_advise(w->pd, read, 0, &sge, 0), EINVAL);
	assert_int_equal(mr_advise(w->other_pd, read, 0, &sge, 1), EPERM);
	assert_int_equal(mr_advise(w->pd, write, 0, &sge, 1), EPERM);
	sge.lkey = mr->rkey;
	assert_int_equal(mr_advise(w->pd, read, 0, &sge, 1), ENOENT);
	sge.lkey = pinned->lkey;
	assert_int_equal(mr_advise(w->pd, read, 0, &sge, 1), EINVAL);
	sge = good;
	sge.length++;
	assert_int_equal(mr_advise(w->pd, read, 0, &sge, 1), EFAULT);
	/* Who does not wait is not told that the pages do not come. */
	assert_int_equal(mr_advise(w->pd, read, 0, &good, 1), 0);
	assert_int_equal(mr_advise(w->pd, read, IBV_ADVISE_MR_FLAG_FLUSH, &good, 1), EFAULT);
	old_kernel = true;
	assert_int_equal(mr_advise(w->pd, read, IBV_ADVISE_MR_FLAG_FLUSH, &good, 1), 0);
	old_kernel = false;
	assert_int_equal(mr_dereg(mr), 0);
	assert_int_equal(mr_dereg(pinned), 0);
	munmap(map, SIZE);
}

static void a_region_of_no_bytes_leads_nowhere(void **state)
{
	struct world *w = *state;
	struct ibv_mr *mr = mr_reg(w->pd, NULL, 0, 0, LOCAL);
	assert_non_null(mr);
	assert_non_null(memory_local(pd_of(w->pd), mr->lkey, 0, 0, LOCAL));
	assert_null(memory_local(pd_of(w->pd), mr->lkey, 0, 1, 0));
	assert_int_equal(mr_dereg(mr), 0);
}

static void keys_differ_and_each_has_one_use(void **state)
{
	struct world *w = *state;
	struct ibv_mr *mr = reg(w, ALL);
	assert_int_not_equal(mr->lkey >> 8, mr->rkey >> 8);
	assert_int_not_equal(mr->lkey >> 8, 0);
	assert_int_not_equal(mr->rkey >> 8, 0);
	assert_ptr_equal(memory_local(pd_of(w->pd), mr->lkey, at(w, 5), 7, LOCAL), w->memory + 5);
	assert_ptr_equal(memory_remote(w->qp.pd, w->qp.qpn, mr->rkey, at(w, 5), 7, WRITE), w->memory + 5);
	assert_null(memory_local(pd_of(w->pd), mr->rkey, at(w, 5), 7, 0));
	assert_null(memory_remote(w->qp.pd, w->qp.qpn, mr->lkey, at(w, 5), 7, READ));
	for (unsigned bit = 0; bit < 32; bit++) {
		assert_null(memory_local(pd_of(w->pd), mr->lkey ^ 1u << bit, at(w, 0), 1, 0));
		assert_null(memory_remote(w->qp.pd, w->qp.qpn, mr->rkey ^ 1u << bit, at(w, 0), 1, READ));
	}
	assert_null(memory_remote(w->qp.pd, w->qp.qpn, 0, at(w, 0), 1, READ));
	assert_null(memory_remote(w->qp.pd, w->qp.qpn, 0x42, at(w, 0), 1, READ));

	uint32_t rkey = mr->rkey, lkey = mr->lkey;
	assert_int_equal(mr_dereg(mr), 0);
	assert_null(memory_local(pd_of(w->pd), lkey, at(w, 0), 1, 0));
	assert_null(memory_remote(w->qp.pd, w->qp.qpn, rkey, at(w, 0), 1, READ));
}

static void numbers_that_are_taken_or_zero_are_drawn_again(void **state)
{
	struct world *w = *state;
	/* Drawn from the end. The second has the upper bits of the first, the third none. */
	random_script[3] = 0xabcdef01;
	random_script[2] = 0xabcdef77;
	random_script[1] = 0x000000ff;
	random_script[0] = 0x12345678;
	random_scripted = 4;
	struct ibv_mr *mr = reg(w, LOCAL);
	assert_int_equal(mr->lkey, 0xabcdef01);
	assert_int_equal(mr->rkey, 0x12345678);
	assert_int_equal(mr_dereg(mr), 0);
}

static void without_random_numbers_nothing_is_made(void **state)
{
	struct world *w = *state;
	for (int calls = 0; calls < 2; calls++) {
		random_calls_left = calls;
		refused(w, w->memory, SIZE, 0, LOCAL, EIO);
	}
	random_calls_left = 0;
	assert_null(mw_alloc(w->pd, IBV_MW_TYPE_1));
	assert_int_equal(errno, EIO);
}

static void rights_and_domain_are_checked(void **state)
{
	struct world *w = *state;
	struct ibv_mr *mr = reg(w, READ);
	assert_non_null(memory_local(pd_of(w->pd), mr->lkey, at(w, 0), 1, 0));
	assert_null(memory_local(pd_of(w->pd), mr->lkey, at(w, 0), 1, LOCAL));
	assert_null(memory_local(pd_of(w->other_pd), mr->lkey, at(w, 0), 1, 0));
	assert_non_null(memory_remote(w->qp.pd, w->qp.qpn, mr->rkey, at(w, 0), 1, READ));
	assert_null(memory_remote(w->qp.pd, w->qp.qpn, mr->rkey, at(w, 0), 1, WRITE));
	assert_null(memory_remote(w->qp.pd, w->qp.qpn, mr->rkey, at(w, 0), 8, ATOMIC));
	assert_null(memory_remote(w->alien_qp.pd, w->alien_qp.qpn, mr->rkey, at(w, 0), 1, READ));
	assert_int_equal(mr_dereg(mr), 0);
}

static void check_bounds(struct world *w, const struct ibv_mr *mr, uint64_t base)
{
	assert_ptr_equal(memory_remote(w->qp.pd, w->qp.qpn, mr->rkey, base, SIZE, READ), w->memory);
	assert_ptr_equal(memory_remote(w->qp.pd, w->qp.qpn, mr->rkey, base + SIZE - 1, 1, READ), w->memory + SIZE - 1);
	assert_non_null(memory_remote(w->qp.pd, w->qp.qpn, mr->rkey, base + SIZE, 0, READ));
	assert_null(memory_remote(w->qp.pd, w->qp.qpn, mr->rkey, base, SIZE + 1, READ));
	assert_null(memory_remote(w->qp.pd, w->qp.qpn, mr->rkey, base + SIZE, 1, READ));
	assert_null(memory_remote(w->qp.pd, w->qp.qpn, mr->rkey, base + SIZE + 1, 0, READ));
	assert_null(memory_remote(w->qp.pd, w->qp.qpn, mr->rkey, base - 1, 1, READ));
	assert_null(memory_remote(w->qp.pd, w->qp.qpn, mr->rkey, base + 1, UINT64_MAX, READ));
	assert_null(memory_remote(w->qp.pd, w->qp.qpn, mr->rkey, base - 1, UINT64_MAX, READ));
	assert_null(memory_local(pd_of(w->pd), mr->lkey, base - 1, 2, 0));
	assert_null(memory_local(pd_of(w->pd), mr->lkey, base + SIZE - 1, 2, 0));
}

static void bounds_hold_at_every_base(void **state)
{
	struct world *w = *state;
	static const uint64_t bases[] = {0, 1, 0x1000, 1ull << 63, UINT64_MAX - SIZE};
	struct ibv_mr *mr = reg(w, READ);
	check_bounds(w, mr, at(w, 0));
	assert_int_equal(mr_dereg(mr), 0);
	for (size_t i = 0; i < sizeof bases / sizeof *bases; i++) {
		mr = mr_reg(w->pd, w->memory, SIZE, bases[i], READ);
		assert_non_null(mr);
		check_bounds(w, mr, bases[i]);
		assert_int_equal(mr_dereg(mr), 0);
	}
	mr = reg(w, READ | ZERO);
	check_bounds(w, mr, 0);
	assert_int_equal(mr_dereg(mr), 0);
}

static void a_domain_in_use_stays(void **state)
{
	struct world *w = *state;
	struct ibv_mr *mr = reg(w, LOCAL);
	struct ibv_mw *mw = mw_alloc(w->pd, IBV_MW_TYPE_1);
	assert_int_equal(pd_dealloc(w->pd), EBUSY);
	assert_int_equal(mr_dereg(mr), 0);
	assert_int_equal(pd_dealloc(w->pd), EBUSY);
	assert_int_equal(mw_dealloc(mw), 0);
}

static void many_regions_come_and_go(void **state)
{
	struct world *w = *state;
	enum { MANY = 2000 };
	static struct ibv_mr *mr[MANY];
	for (int i = 0; i < MANY; i++)
		mr[i] = reg(w, READ);
	for (int i = 0; i < MANY; i += 2)
		assert_int_equal(mr_dereg(mr[i]), 0);
	for (int i = 1; i < MANY; i += 2) {
		assert_ptr_equal(memory_remote(w->qp.pd, w->qp.qpn, mr[i]->rkey, at(w, 3), 1, READ), w->memory + 3);
		assert_true(mr_alive(&w->bare->device, mr[i]));
		assert_int_equal(mr_dereg(mr[i]), 0);
		assert_false(mr_alive(&w->bare->device, mr[i]));
	}
}

/* ---- re-registration ---- */

static void reregistration_changes_what_its_flags_say(void **state)
{
	struct world *w = *state;
	struct ibv_mr *mr = reg(w, LOCAL | WRITE);
	uint32_t lkey = mr->lkey, rkey = mr->rkey;

	assert_int_equal(mr_rereg(mr, IBV_REREG_MR_CHANGE_ACCESS, NULL, NULL, 0, READ), 0);
	assert_null(memory_remote(w->qp.pd, w->qp.qpn, rkey, at(w, 0), 1, WRITE));
	assert_non_null(memory_remote(w->qp.pd, w->qp.qpn, rkey, at(w, 0), 1, READ));

	assert_int_equal(mr_rereg(mr, IBV_REREG_MR_CHANGE_TRANSLATION, NULL, w->memory + 64, 32, 0), 0);
	assert_ptr_equal(mr->addr, w->memory + 64);
	assert_int_equal(mr->length, 32);
	assert_ptr_equal(memory_remote(w->qp.pd, w->qp.qpn, rkey, at(w, 64), 32, READ), w->memory + 64);
	assert_null(memory_remote(w->qp.pd, w->qp.qpn, rkey, at(w, 63), 1, READ));
	assert_null(memory_remote(w->qp.pd, w->qp.qpn, rkey, at(w, 64), 33, READ));

	assert_int_equal(mr_rereg(mr, IBV_REREG_MR_CHANGE_PD, w->other_pd, NULL, 0, 0), 0);
	assert_ptr_equal(mr->pd, w->other_pd);
	assert_null(memory_remote(w->qp.pd, w->qp.qpn, rkey, at(w, 64), 1, READ));
	assert_non_null(memory_remote(w->alien_qp.pd, w->alien_qp.qpn, rkey, at(w, 64), 1, READ));
	assert_int_equal(pd_dealloc(w->other_pd), EBUSY);

	assert_int_equal(mr->lkey, lkey);
	assert_int_equal(mr->rkey, rkey);
	assert_int_equal(mr_dereg(mr), 0);
}

static void a_refused_reregistration_changes_nothing(void **state)
{
	struct world *w = *state;
	struct ibv_mr *mr = reg(w, LOCAL | WRITE);
	const int all = IBV_REREG_MR_FLAGS_SUPPORTED;
	rereg_refused(mr, 0, NULL, NULL, 0, 0, EINVAL);
	rereg_refused(mr, 8, NULL, NULL, 0, 0, EINVAL);
	rereg_refused(mr, IBV_REREG_MR_CHANGE_PD, NULL, NULL, 0, 0, EINVAL);
	rereg_refused(mr, IBV_REREG_MR_CHANGE_PD, w->other_pd, NULL, 0, READ, EINVAL);
	rereg_refused(mr, IBV_REREG_MR_CHANGE_TRANSLATION, NULL, NULL, SIZE, 0, EINVAL);
	rereg_refused(mr, IBV_REREG_MR_CHANGE_TRANSLATION, NULL, w->memory, 0, 0, EINVAL);
	rereg_refused(mr, all, w->other_pd, w->memory, 1, WRITE, EINVAL);
	rereg_refused(mr, all, w->other_pd, (void *)16, 1, READ, EFAULT);
	assert_non_null(memory_remote(w->qp.pd, w->qp.qpn, mr->rkey, at(w, 0), SIZE, WRITE));
	assert_int_equal(mr_dereg(mr), 0);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, restore)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(a_region_shows_what_was_registered),
		TEST(flags_follow_the_manual),
		TEST(ranges_that_wrap_are_refused),
		TEST(memory_that_is_not_there_is_refused),
		TEST(memory_on_demand_may_come_later),
		TEST(a_region_may_be_the_whole_address_space),
		TEST(advice_brings_the_pages_in),
		TEST(advice_that_cannot_be_taken_says_why),
		TEST(memory_must_permit_what_the_region_does),
		TEST(an_old_kernel_is_asked_for_its_mappings),
		TEST(a_region_of_no_bytes_leads_nowhere),
		TEST(keys_differ_and_each_has_one_use),
		TEST(numbers_that_are_taken_or_zero_are_drawn_again),
		TEST(without_random_numbers_nothing_is_made),
		TEST(rights_and_domain_are_checked),
		TEST(bounds_hold_at_every_base),
		TEST(a_domain_in_use_stays),
		TEST(many_regions_come_and_go),
		TEST(reregistration_changes_what_its_flags_say),
		TEST(a_refused_reregistration_changes_nothing),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
