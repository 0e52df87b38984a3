/* SPDX-License-Identifier: Apache-2.0 */
#include "memory_rig.h"

#include "window.h"

static int bind(struct qp *qp, struct ibv_mw *mw, uint32_t rkey, struct ibv_mr *mr, uint64_t addr, uint64_t length,
		unsigned access)
{
	struct ibv_mw_bind_info info = {.mr = mr, .addr = addr, .length = length, .mw_access_flags = access};
	return window_bind(qp->pd, qp->qpn, (struct mw *)mw, rkey, &info);
}

static void a_window_grants_its_own_rights_and_bounds(void **state)
{
	struct world *w = *state;
	struct ibv_mr *mr = reg(w, LOCAL | BIND);
	struct ibv_mw *mw = mw_alloc(w->pd, IBV_MW_TYPE_1);
	assert_non_null(mw);
	uint32_t key = ibv_inc_rkey(mw->rkey);

	assert_null(memory_remote(w->qp.pd, w->qp.qpn, mw->rkey, at(w, 100), 1, WRITE));
	assert_int_equal(bind(&w->qp, mw, key, mr, at(w, 100), 50, WRITE), 0);
	assert_ptr_equal(memory_remote(w->qp.pd, w->qp.qpn, key, at(w, 100), 50, WRITE), w->memory + 100);
	assert_ptr_equal(memory_remote(w->other_qp.pd, w->other_qp.qpn, key, at(w, 149), 1, WRITE), w->memory + 149);
	assert_null(memory_remote(w->qp.pd, w->qp.qpn, key, at(w, 99), 1, WRITE));
	assert_null(memory_remote(w->qp.pd, w->qp.qpn, key, at(w, 149), 2, WRITE));
	assert_null(memory_remote(w->qp.pd, w->qp.qpn, key, at(w, 101), UINT64_MAX, WRITE));
	assert_null(memory_remote(w->qp.pd, w->qp.qpn, key, at(w, 100), 1, READ));
	assert_null(memory_remote(w->alien_qp.pd, w->alien_qp.qpn, key, at(w, 100), 1, WRITE));
	/* The region itself grants nothing to peers, a window's key nothing locally, and the former key nothing at all.
	 */
	assert_null(memory_remote(w->qp.pd, w->qp.qpn, mr->rkey, at(w, 100), 1, WRITE));
	assert_null(memory_local(pd_of(w->pd), key, at(w, 100), 1, 0));
	assert_null(memory_remote(w->qp.pd, w->qp.qpn, mw->rkey, at(w, 100), 1, WRITE));
	assert_int_equal(mw_dealloc(mw), 0);
	assert_null(memory_remote(w->qp.pd, w->qp.qpn, key, at(w, 100), 1, WRITE));
	assert_int_equal(mr_dereg(mr), 0);
}

static void a_window_of_type_1_moves_with_each_bind(void **state)
{
	struct world *w = *state;
	struct ibv_mr *mr = reg(w, ALL);
	struct ibv_mw *mw = mw_alloc(w->pd, IBV_MW_TYPE_1);
	uint32_t first = ibv_inc_rkey(mw->rkey), second = ibv_inc_rkey(first), third = ibv_inc_rkey(second);

	assert_int_equal(bind(&w->qp, mw, first, mr, at(w, 0), 8, READ), 0);
	assert_int_equal(bind(&w->other_qp, mw, second, mr, at(w, 64), 8, WRITE), 0);
	assert_null(memory_remote(w->qp.pd, w->qp.qpn, first, at(w, 0), 8, READ));
	assert_null(memory_remote(w->qp.pd, w->qp.qpn, second, at(w, 0), 8, WRITE));
	assert_non_null(memory_remote(w->qp.pd, w->qp.qpn, second, at(w, 64), 8, WRITE));
	assert_int_equal(window_invalidate(w->qp.pd, w->qp.qpn, second, false), -EACCES);
	assert_int_equal(window_invalidate(w->qp.pd, w->qp.qpn, second, true), -EACCES);
	assert_int_equal(mr_dereg(mr), EBUSY);

	assert_int_equal(bind(&w->qp, mw, third, mr, at(w, 0), 0, 0), 0);
	assert_null(memory_remote(w->qp.pd, w->qp.qpn, second, at(w, 64), 8, WRITE));
	assert_null(memory_remote(w->qp.pd, w->qp.qpn, third, at(w, 64), 8, WRITE));
	assert_int_equal(mr_dereg(mr), 0);
	assert_int_equal(mw_dealloc(mw), 0);
}

static void a_window_of_type_2_belongs_to_its_queue_pair(void **state)
{
	struct world *w = *state;
	struct ibv_mr *mr = reg(w, ALL);
	struct ibv_mw *mw = mw_alloc(w->pd, IBV_MW_TYPE_2);
	uint32_t key = ibv_inc_rkey(mw->rkey), next = ibv_inc_rkey(key);

	assert_int_not_equal(bind(&w->qp, mw, key, mr, at(w, 0), 0, READ), 0);
	assert_int_equal(bind(&w->qp, mw, key, mr, at(w, 0), 8, READ | LOCAL), 0);
	assert_non_null(memory_remote(w->qp.pd, w->qp.qpn, key, at(w, 0), 8, READ));
	assert_null(memory_remote(w->other_qp.pd, w->other_qp.qpn, key, at(w, 0), 8, READ));
	assert_int_not_equal(bind(&w->qp, mw, next, mr, at(w, 0), 8, READ), 0);

	assert_int_equal(window_invalidate(w->other_qp.pd, w->other_qp.qpn, key, true), -EACCES);
	assert_int_equal(window_invalidate(w->other_qp.pd, w->other_qp.qpn, key, false), -EACCES);
	assert_int_equal(window_invalidate(w->alien_qp.pd, w->alien_qp.qpn, key, true), -EACCES);
	assert_int_equal(window_invalidate(w->qp.pd, w->qp.qpn, next, true), -EACCES);
	assert_int_equal(window_invalidate(w->qp.pd, w->qp.qpn, mr->rkey, true), -EACCES);
	assert_non_null(memory_remote(w->qp.pd, w->qp.qpn, key, at(w, 0), 8, READ));

	assert_int_equal(window_invalidate(w->qp.pd, w->qp.qpn, key, true), 0);
	assert_null(memory_remote(w->qp.pd, w->qp.qpn, key, at(w, 0), 8, READ));
	assert_int_equal(window_invalidate(w->qp.pd, w->qp.qpn, key, true), -EACCES);
	assert_int_equal(window_invalidate(w->qp.pd, w->qp.qpn, key, false), 0);
	assert_int_equal(bind(&w->other_qp, mw, next, mr, at(w, 8), 8, READ), 0);
	assert_non_null(memory_remote(w->other_qp.pd, w->other_qp.qpn, next, at(w, 8), 8, READ));
	assert_int_equal(mw_dealloc(mw), 0);
	assert_int_equal(mr_dereg(mr), 0);
}

static void binds_that_are_not_allowed_change_nothing(void **state)
{
	struct world *w = *state;
	struct ibv_mr *mr = reg(w, ALL);
	struct ibv_mr *unbindable = reg(w, LOCAL | WRITE | READ);
	struct ibv_mr *read_only = reg(w, READ | BIND);
	struct ibv_mr *alien = mr_reg(w->other_pd, w->memory, SIZE, at(w, 0), ALL);
	struct ibv_mw *mw = mw_alloc(w->pd, IBV_MW_TYPE_1);
	struct ibv_mw *other = mw_alloc(w->pd, IBV_MW_TYPE_1);
	uint32_t key = ibv_inc_rkey(mw->rkey), next = ibv_inc_rkey(key);

	assert_int_equal(bind(&w->qp, mw, key, mr, at(w, 0), 8, READ), 0);
	assert_true(bind(&w->qp, mw, next, unbindable, at(w, 0), 8, READ) < 0);
	assert_true(bind(&w->qp, mw, next, read_only, at(w, 0), 8, WRITE) < 0);
	assert_true(bind(&w->qp, mw, next, read_only, at(w, 0), 8, ATOMIC) < 0);
	assert_true(bind(&w->qp, mw, next, alien, at(w, 0), 8, READ) < 0);
	assert_true(bind(&w->qp, mw, next, NULL, at(w, 0), 8, READ) < 0);
	assert_true(bind(&w->alien_qp, mw, next, mr, at(w, 0), 8, READ) < 0);
	assert_true(bind(&w->qp, mw, next, mr, at(w, 0), SIZE + 1, READ) < 0);
	assert_true(bind(&w->qp, mw, next, mr, at(w, 0) - 1, 8, READ) < 0);
	assert_true(bind(&w->qp, mw, next, mr, at(w, 8), UINT64_MAX, READ) < 0);
	assert_true(bind(&w->qp, mw, next, mr, at(w, 0), 8, READ | BIND) < 0);
	assert_true(bind(&w->qp, mw, next ^ 0x100, mr, at(w, 0), 8, READ) < 0);
	assert_true(bind(&w->qp, mw, other->rkey, mr, at(w, 0), 8, READ) < 0);
	assert_true(bind(&w->qp, mw, mr->rkey, mr, at(w, 0), 8, READ) < 0);
	assert_non_null(memory_remote(w->qp.pd, w->qp.qpn, key, at(w, 0), 8, READ));

	assert_int_equal(mw_dealloc(mw), 0);
	assert_int_equal(mw_dealloc(other), 0);
	assert_int_equal(mr_dereg(mr), 0);
	assert_int_equal(mr_dereg(unbindable), 0);
	assert_int_equal(mr_dereg(read_only), 0);
	assert_int_equal(mr_dereg(alien), 0);
}

static void a_bind_that_comes_too_late_fails(void **state)
{
	struct world *w = *state;
	struct ibv_mr *mr = reg(w, ALL);
	struct ibv_mw *mw = mw_alloc(w->pd, IBV_MW_TYPE_1);
	uint32_t key = ibv_inc_rkey(mw->rkey);
	struct ibv_mr *gone = reg(w, ALL);
	assert_int_equal(mr_dereg(gone), 0);
	assert_true(bind(&w->qp, mw, key, gone, at(w, 0), 8, READ) < 0);
	assert_int_equal(mw_dealloc(mw), 0);
	assert_true(bind(&w->qp, mw, key, mr, at(w, 0), 8, READ) < 0);
	assert_int_equal(mr_dereg(mr), 0);
}

static void a_region_with_windows_stays_as_it_is(void **state)
{
	struct world *w = *state;
	struct ibv_mr *mr = reg(w, ALL);
	struct ibv_mw *mw = mw_alloc(w->pd, IBV_MW_TYPE_1);
	assert_int_equal(bind(&w->qp, mw, mw->rkey, mr, at(w, 0), 8, READ), 0);
	assert_int_equal(mr_dereg(mr), EBUSY);
	rereg_refused(mr, IBV_REREG_MR_CHANGE_ACCESS, NULL, NULL, 0, READ, EBUSY);
	rereg_refused(mr, IBV_REREG_MR_CHANGE_PD, w->other_pd, NULL, 0, 0, EBUSY);
	assert_int_equal(mw_dealloc(mw), 0);
	assert_int_equal(mr_rereg(mr, IBV_REREG_MR_CHANGE_ACCESS, NULL, NULL, 0, READ), 0);
	assert_int_equal(mr_dereg(mr), 0);
}

static void windows_count_from_the_regions_base_or_from_zero(void **state)
{
	struct world *w = *state;
	struct ibv_mr *mr = mr_reg(w->pd, w->memory, SIZE, 0x10000, ALL);
	struct ibv_mw *mw = mw_alloc(w->pd, IBV_MW_TYPE_1);
	uint32_t key = mw->rkey;
	assert_int_equal(bind(&w->qp, mw, key, mr, 0x10010, 8, READ), 0);
	assert_ptr_equal(memory_remote(w->qp.pd, w->qp.qpn, key, 0x10010, 8, READ), w->memory + 0x10);
	assert_int_equal(bind(&w->qp, mw, key, mr, 0x10010, 8, READ | ZERO), 0);
	assert_ptr_equal(memory_remote(w->qp.pd, w->qp.qpn, key, 0, 8, READ), w->memory + 0x10);
	assert_null(memory_remote(w->qp.pd, w->qp.qpn, key, 1, 8, READ));
	assert_null(memory_remote(w->qp.pd, w->qp.qpn, key, 0x10010, 8, READ));
	assert_int_equal(mw_dealloc(mw), 0);
	assert_int_equal(mr_dereg(mr), 0);
}

static void there_are_two_types_of_windows(void **state)
{
	struct world *w = *state;
	assert_null(mw_alloc(w->pd, (enum ibv_mw_type)3));
	assert_int_equal(errno, EINVAL);
	assert_null(mw_alloc(w->pd, (enum ibv_mw_type)0));
	assert_int_equal(errno, EINVAL);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(a_window_grants_its_own_rights_and_bounds),
		TEST(a_window_of_type_1_moves_with_each_bind),
		TEST(a_window_of_type_2_belongs_to_its_queue_pair),
		TEST(binds_that_are_not_allowed_change_nothing),
		TEST(a_bind_that_comes_too_late_fails),
		TEST(a_region_with_windows_stays_as_it_is),
		TEST(windows_count_from_the_regions_base_or_from_zero),
		TEST(there_are_two_types_of_windows),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
