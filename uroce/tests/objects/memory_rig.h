/* SPDX-License-Identifier: Apache-2.0 */
/* Memory, domains and queue pairs for the tests of regions and of windows. */
#ifndef UROCE_TESTS_MEMORY_RIG_H
#define UROCE_TESTS_MEMORY_RIG_H

#include "check.h"

#include "memory.h"

#include <errno.h>

#include "device.h"
#include "qp.h"

enum {
	LOCAL = IBV_ACCESS_LOCAL_WRITE,
	WRITE = IBV_ACCESS_REMOTE_WRITE,
	READ = IBV_ACCESS_REMOTE_READ,
	ATOMIC = IBV_ACCESS_REMOTE_ATOMIC,
	BIND = IBV_ACCESS_MW_BIND,
	ZERO = IBV_ACCESS_ZERO_BASED,
	ALL = LOCAL | WRITE | READ | ATOMIC | BIND,
	SIZE = 4096,
};

struct world {
	struct bare *bare;
	struct ibv_pd *pd;
	struct ibv_pd *other_pd;
	struct qp qp;       /* in pd */
	struct qp other_qp; /* in pd */
	struct qp alien_qp; /* in other_pd */
	uint8_t *memory;
};

static inline int setup(void **state)
{
	struct world *w = calloc(1, sizeof *w);
	w->bare = bare_new();
	w->pd = pd_alloc(&w->bare->context.verbs.context);
	w->other_pd = pd_alloc(&w->bare->context.verbs.context);
	w->qp = (struct qp){.device = &w->bare->device, .pd = pd_of(w->pd), .qpn = 0x111};
	w->other_qp = (struct qp){.device = &w->bare->device, .pd = pd_of(w->pd), .qpn = 0x222};
	w->alien_qp = (struct qp){.device = &w->bare->device, .pd = pd_of(w->other_pd), .qpn = 0x333};
	w->memory = aligned_alloc(SIZE, SIZE);
	*state = w;
	return !w->pd || !w->other_pd || !w->memory;
}

static inline int teardown(void **state)
{
	struct world *w = *state;
	assert_int_equal(pd_dealloc(w->pd), 0);
	assert_int_equal(pd_dealloc(w->other_pd), 0);
	assert_int_equal(w->bare->device.keys.count, 0);
	assert_int_equal(w->bare->context.objects, 0);
	assert_int_equal(w->bare->counters.objects.pd, 0);
	assert_int_equal(w->bare->counters.objects.mr, 0);
	assert_int_equal(w->bare->counters.objects.mw, 0);
	bare_free(w->bare);
	free(w->memory);
	free(w);
	return 0;
}

static inline struct ibv_mr *reg(struct world *w, int access)
{
	struct ibv_mr *mr = mr_reg(w->pd, w->memory, SIZE, (uintptr_t)w->memory, access);
	assert_non_null(mr);
	return mr;
}

static inline uint64_t at(const struct world *w, uint64_t offset)
{
	return (uintptr_t)w->memory + offset;
}

static inline void rereg_refused(struct ibv_mr *mr, int flags, struct ibv_pd *pd, void *addr, size_t length, int access, int error)
{
	struct ibv_mr before = *mr;
	errno = 0;
	assert_int_equal(mr_rereg(mr, flags, pd, addr, length, access), IBV_REREG_MR_ERR_INPUT);
	assert_int_equal(errno, error);
	assert_memory_equal(mr, &before, sizeof before);
}

#endif
