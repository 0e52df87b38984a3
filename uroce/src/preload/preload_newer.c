/* SPDX-License-Identifier: Apache-2.0 */
/* Exported functions that libibverbs got after rdma-core 44; those that the installed headers know (see meson.build). */
#include "preload.h"

#include <pthread.h>
#include <stdlib.h>
#include <unistd.h>

/* ---- buffers from the device: here ordinary memory ---- */

#ifdef HAVE_IBV_ALLOC_BUF
struct ibv_buf {
	struct ibv_buf *next;
	struct ibv_pd *pd;
	void *addr;
	size_t size;
};

static pthread_mutex_t buffers_lock = PTHREAD_MUTEX_INITIALIZER; /* guards the next, and `next` of its elements */
static struct ibv_buf *buffers;

/* Nothing in a handle says whose it is: those not in the list are another device's. Call it with the lock. */
static struct ibv_buf **find_buffer(const struct ibv_buf *buf)
{
	struct ibv_buf **at = &buffers;
	while (*at && *at != buf)
		at = &(*at)->next;
	return at;
}

static bool buffer_is_ours(const struct ibv_buf *buf)
{
	pthread_mutex_lock(&buffers_lock);
	bool found = *find_buffer(buf);
	pthread_mutex_unlock(&buffers_lock);
	return found;
}

EXPORT void *ibv_alloc_buf(struct ibv_pd *pd, size_t size, struct ibv_buf **buf)
{
	if (!context_is_ours(pd->context))
		PASS(NULL, ibv_alloc_buf, pd, size, buf);
	struct ibv_buf *made = calloc(1, sizeof *made);
	if (!made || posix_memalign(&made->addr, (size_t)sysconf(_SC_PAGESIZE), size) != 0) {
		free(made);
		errno = ENOMEM;
		return NULL;
	}
	made->pd = pd;
	made->size = size;
	pthread_mutex_lock(&buffers_lock);
	made->next = buffers;
	buffers = made;
	pthread_mutex_unlock(&buffers_lock);
	*buf = made;
	return made->addr;
}

EXPORT void ibv_free_buf(struct ibv_buf *buf)
{
	pthread_mutex_lock(&buffers_lock);
	struct ibv_buf **at = find_buffer(buf);
	bool ours = *at;
	if (ours)
		*at = buf->next;
	pthread_mutex_unlock(&buffers_lock);
	if (!ours) {
		PASS_VOID(ibv_free_buf, buf);
		return;
	}
	free(buf->addr);
	free(buf);
}

static bool in_buffer(const struct ibv_buf *buf, const void *addr, size_t length)
{
	size_t offset = (size_t)((uintptr_t)addr - (uintptr_t)buf->addr);
	return (uintptr_t)addr >= (uintptr_t)buf->addr && offset <= buf->size && length <= buf->size - offset;
}

/* `pd` is ours, `buf` may be anything. */
static struct ibv_mr *reg_buffer(struct ibv_pd *pd, struct ibv_buf *buf, void *addr, size_t length, uint64_t iova, int access)
{
	if (!buffer_is_ours(buf) || buf->pd != pd || !in_buffer(buf, addr, length)) {
		errno = EINVAL;
		return NULL;
	}
	return mr_reg(pd, addr, length, iova, access);
}

EXPORT struct ibv_mr *ibv_reg_buf_mr(struct ibv_pd *pd, struct ibv_buf *buf, void *addr, size_t length, int access)
{
	if (context_is_ours(pd->context))
		return reg_buffer(pd, buf, addr, length, (uintptr_t)addr, access);
	PASS(NULL, ibv_reg_buf_mr, pd, buf, addr, length, access);
}
#endif

#ifdef HAVE_IBV_EXPORT_BUF_DMABUF_FD
EXPORT int ibv_export_buf_dmabuf_fd(struct ibv_buf *buf)
{
	if (buffer_is_ours(buf)) {
		errno = ENODATA; /* as ibv_alloc_buf(3) has it */
		return -1;
	}
	PASS(-1, ibv_export_buf_dmabuf_fd, buf);
}
#endif

/* ---- registration with everything ---- */

#ifdef HAVE_IBV_REG_MR_EX
EXPORT struct ibv_mr *ibv_reg_mr_ex(struct ibv_pd *pd, struct ibv_mr_init_attr *attr)
{
	if (!context_is_ours(pd->context))
		PASS(NULL, ibv_reg_mr_ex, pd, attr);
	uint64_t mask = attr->comp_mask & ~(uint64_t)IBV_REG_MR_MASK_IOVA;
	uint64_t iova = attr->comp_mask & IBV_REG_MR_MASK_IOVA ? attr->iova : (uintptr_t)attr->addr;
	if (mask == IBV_REG_MR_MASK_ADDR)
		return mr_reg(pd, attr->addr, attr->length, iova, attr->access);
#ifdef HAVE_IBV_ALLOC_BUF
	if (mask == (IBV_REG_MR_MASK_ADDR | IBV_REG_MR_MASK_BUF))
		return reg_buffer(pd, attr->buf, attr->addr, attr->length, iova, attr->access);
#endif
	/* A DMA buffer's descriptor, or a handle for hints to it: there are none. */
	errno = EOPNOTSUPP;
	return NULL;
}

EXPORT struct ibv_dmah *ibv_alloc_dmah(struct ibv_context *context, struct ibv_dmah_init_attr *attr)
{
	if (!context_is_ours(context))
		PASS(NULL, ibv_alloc_dmah, context, attr);
	errno = EOPNOTSUPP;
	return NULL;
}

EXPORT int ibv_dealloc_dmah(struct ibv_dmah *dmah)
{
	if (context_is_ours(dmah->context))
		return EOPNOTSUPP;
	PASS(ENOSYS, ibv_dealloc_dmah, dmah);
}
#endif

/* ---- speed ---- */

#ifdef HAVE_IBV_QUERY_PORT_SPEED
EXPORT int ibv_query_port_speed(struct ibv_context *context, uint32_t port, uint64_t *speed)
{
	if (!context_is_ours(context))
		PASS(ENOSYS, ibv_query_port_speed, context, port, speed);
	if (port != 1)
		return EINVAL;
	*speed = 400; /* in 100 Mb/s: four lanes of 10 Gb/s, as ibv_query_port tells */
	return 0;
}

EXPORT int ibv_dm_export_dmabuf_fd(struct ibv_dm *dm)
{
	if (!context_is_ours(dm->context))
		PASS(-1, ibv_dm_export_dmabuf_fd, dm);
	errno = EOPNOTSUPP;
	return -1;
}
#endif

/* ---- counters of completions: none can be made ---- */

#ifdef HAVE_IBV_CREATE_COMP_CNTR
EXPORT int _ibv_query_comp_cntr_caps(struct ibv_context *context, struct ibv_comp_cntr_caps *caps, size_t size)
{
	if (context_is_ours(context))
		return EOPNOTSUPP;
	PASS(ENOSYS, _ibv_query_comp_cntr_caps, context, caps, size);
}

EXPORT struct ibv_comp_cntr *ibv_create_comp_cntr(struct ibv_context *context, struct ibv_comp_cntr_init_attr *attr)
{
	if (!context_is_ours(context))
		PASS(NULL, ibv_create_comp_cntr, context, attr);
	errno = EOPNOTSUPP;
	return NULL;
}

EXPORT int ibv_qp_attach_comp_cntr(struct ibv_qp *qp, struct ibv_comp_cntr *counter, struct ibv_qp_attach_comp_cntr_attr *attr)
{
	if (context_is_ours(qp->context))
		return EOPNOTSUPP;
	PASS(ENOSYS, ibv_qp_attach_comp_cntr, qp, counter, attr);
}
#endif
