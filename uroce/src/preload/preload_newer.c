/* SPDX-License-Identifier: Apache-2.0 */
/* Exported functions that libibverbs got after rdma-core 44. The library that uroce meets may be newer than the headers
 * that it was built with, and its functions look into a context for what ours does not have. So the names and structures
 * are written down here: a name of C's own, and that of the symbol. */
#include "preload.h"

#include <pthread.h>
#include <stdlib.h>
#include <unistd.h>

#define SYMBOL(name) __asm__(#name)

/* Calls libibverbs' `symbol`; where it is older than that, the call is one that its devices don't support. */
#define PASS_NEWER(failure, function, symbol, ...) PASS_AS(failure, EOPNOTSUPP, function, #symbol, __VA_ARGS__)

static int unsupported(void)
{
	return answer(EOPNOTSUPP);
}

/* ---- buffers from the device: here ordinary memory (libibverbs 1.17) ---- */

/* ibv_buf: what it holds is the library's own affair. */
struct buffer {
	struct buffer *next;
	struct ibv_pd *pd;
	void *addr;
	size_t size;
};

static pthread_mutex_t buffers_lock = PTHREAD_MUTEX_INITIALIZER; /* guards the next, and `next` of its elements */
static struct buffer *buffers;

/* Nothing in a handle says whose it is: those not in the list are another device's. Call it with the lock. */
static struct buffer **find_buffer(const struct buffer *buf)
{
	struct buffer **at = &buffers;
	while (*at && *at != buf)
		at = &(*at)->next;
	return at;
}

static bool buffer_is_ours(const struct buffer *buf)
{
	pthread_mutex_lock(&buffers_lock);
	bool found = *find_buffer(buf);
	pthread_mutex_unlock(&buffers_lock);
	return found;
}

void *alloc_buf(struct ibv_pd *pd, size_t size, struct buffer **buf) SYMBOL(ibv_alloc_buf);
EXPORT void *alloc_buf(struct ibv_pd *pd, size_t size, struct buffer **buf)
{
	if (!context_is_ours(pd->context))
		PASS_NEWER(NULL, alloc_buf, ibv_alloc_buf, pd, size, buf);
	struct buffer *made = calloc(1, sizeof *made);
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

void free_buf(struct buffer *buf) SYMBOL(ibv_free_buf);
EXPORT void free_buf(struct buffer *buf)
{
	pthread_mutex_lock(&buffers_lock);
	struct buffer **at = find_buffer(buf);
	bool ours = *at;
	if (ours)
		*at = buf->next;
	pthread_mutex_unlock(&buffers_lock);
	if (!ours) {
		PASS_VOID_AS(free_buf, "ibv_free_buf", buf);
		return;
	}
	free(buf->addr);
	free(buf);
}

static bool in_buffer(const struct buffer *buf, const void *addr, size_t length)
{
	size_t offset = (size_t)((uintptr_t)addr - (uintptr_t)buf->addr);
	return (uintptr_t)addr >= (uintptr_t)buf->addr && offset <= buf->size && length <= buf->size - offset;
}

/* `pd` is ours, `buf` may be anything. */
static struct ibv_mr *reg_buffer(struct ibv_pd *pd, struct buffer *buf, void *addr, size_t length, uint64_t iova, int access)
{
	if (!buffer_is_ours(buf) || buf->pd != pd || !in_buffer(buf, addr, length)) {
		errno = EINVAL;
		return NULL;
	}
	return mr_reg(pd, addr, length, iova, access);
}

struct ibv_mr *reg_buf_mr(struct ibv_pd *pd, struct buffer *buf, void *addr, size_t length, int access) SYMBOL(ibv_reg_buf_mr);
EXPORT struct ibv_mr *reg_buf_mr(struct ibv_pd *pd, struct buffer *buf, void *addr, size_t length, int access)
{
	if (context_is_ours(pd->context))
		return reg_buffer(pd, buf, addr, length, (uintptr_t)addr, access);
	PASS_NEWER(NULL, reg_buf_mr, ibv_reg_buf_mr, pd, buf, addr, length, access);
}

int export_buf_dmabuf_fd(struct buffer *buf) SYMBOL(ibv_export_buf_dmabuf_fd);
EXPORT int export_buf_dmabuf_fd(struct buffer *buf)
{
	if (buffer_is_ours(buf)) {
		errno = ENODATA; /* as ibv_alloc_buf(3) has it */
		return -1;
	}
	PASS_NEWER(-1, export_buf_dmabuf_fd, ibv_export_buf_dmabuf_fd, buf);
}

/* ---- registration with everything (1.15) ---- */

/* ibv_mr_init_attr; 1.15's ended before `buf`, and its mask says so. */
struct mr_attr {
	size_t length;
	int access;
	uint64_t comp_mask;
	uint64_t iova;
	void *addr;
	int fd;
	uint64_t fd_offset;
	void *dmah;
	struct buffer *buf;
};

enum { MASK_IOVA = 1 << 0, MASK_ADDR = 1 << 1, MASK_FD = 1 << 2, MASK_FD_OFFSET = 1 << 3, MASK_BUF = 1 << 5 };

struct ibv_mr *reg_mr_ex(struct ibv_pd *pd, struct mr_attr *attr) SYMBOL(ibv_reg_mr_ex);
EXPORT struct ibv_mr *reg_mr_ex(struct ibv_pd *pd, struct mr_attr *attr)
{
	if (!context_is_ours(pd->context))
		PASS_NEWER(NULL, reg_mr_ex, ibv_reg_mr_ex, pd, attr);
	uint64_t mask = attr->comp_mask & ~(uint64_t)MASK_IOVA;
	uint64_t iova = attr->comp_mask & MASK_IOVA ? attr->iova : (uintptr_t)attr->addr;
	if (mask == MASK_ADDR)
		return mr_reg(pd, attr->addr, attr->length, iova, attr->access);
	if (mask == (MASK_ADDR | MASK_BUF))
		return reg_buffer(pd, attr->buf, attr->addr, attr->length, iova, attr->access);
	if (attr->comp_mask == (MASK_IOVA | MASK_FD | MASK_FD_OFFSET))
		return mr_reg_dmabuf(pd, attr->fd_offset, attr->length, attr->iova, attr->fd, attr->access);
	/* A handle for hints: there are none. */
	unsupported();
	return NULL;
}

/* ibv_dmah and ibv_comp_cntr, as much of them as matters. */
struct handle {
	struct ibv_context *context;
};

struct handle *alloc_dmah(struct ibv_context *context, void *attr) SYMBOL(ibv_alloc_dmah);
EXPORT struct handle *alloc_dmah(struct ibv_context *context, void *attr)
{
	if (!context_is_ours(context))
		PASS_NEWER(NULL, alloc_dmah, ibv_alloc_dmah, context, attr);
	unsupported();
	return NULL;
}

int dealloc_dmah(struct handle *dmah) SYMBOL(ibv_dealloc_dmah);
EXPORT int dealloc_dmah(struct handle *dmah)
{
	if (context_is_ours(dmah->context))
		return unsupported();
	PASS_NEWER(EOPNOTSUPP, dealloc_dmah, ibv_dealloc_dmah, dmah);
}

/* ---- speed, device memory (1.16) ---- */

int query_port_speed(struct ibv_context *context, uint32_t port, uint64_t *speed) SYMBOL(ibv_query_port_speed);
EXPORT int query_port_speed(struct ibv_context *context, uint32_t port, uint64_t *speed)
{
	if (!context_is_ours(context))
		PASS_NEWER(EOPNOTSUPP, query_port_speed, ibv_query_port_speed, context, port, speed);
	if (port != 1)
		return answer(EINVAL);
	*speed = 400; /* in 100 Mb/s: four lanes of 10 Gb/s, as ibv_query_port tells */
	return 0;
}

int dm_export_dmabuf_fd(struct ibv_dm *dm) SYMBOL(ibv_dm_export_dmabuf_fd);
EXPORT int dm_export_dmabuf_fd(struct ibv_dm *dm)
{
	if (!context_is_ours(dm->context))
		PASS_NEWER(-1, dm_export_dmabuf_fd, ibv_dm_export_dmabuf_fd, dm);
	unsupported();
	return -1;
}

/* ---- counters of completions: none can be made (1.18) ---- */

int query_comp_cntr_caps(struct ibv_context *context, void *caps, size_t size) SYMBOL(_ibv_query_comp_cntr_caps);
EXPORT int query_comp_cntr_caps(struct ibv_context *context, void *caps, size_t size)
{
	if (context_is_ours(context))
		return unsupported();
	PASS_NEWER(EOPNOTSUPP, query_comp_cntr_caps, _ibv_query_comp_cntr_caps, context, caps, size);
}

struct handle *create_comp_cntr(struct ibv_context *context, void *attr) SYMBOL(ibv_create_comp_cntr);
EXPORT struct handle *create_comp_cntr(struct ibv_context *context, void *attr)
{
	if (!context_is_ours(context))
		PASS_NEWER(NULL, create_comp_cntr, ibv_create_comp_cntr, context, attr);
	unsupported();
	return NULL;
}

int destroy_comp_cntr(struct handle *counter) SYMBOL(ibv_destroy_comp_cntr);
EXPORT int destroy_comp_cntr(struct handle *counter)
{
	if (context_is_ours(counter->context))
		return unsupported();
	PASS_NEWER(EOPNOTSUPP, destroy_comp_cntr, ibv_destroy_comp_cntr, counter);
}

int qp_attach_comp_cntr(struct ibv_qp *qp, struct handle *counter, void *attr) SYMBOL(ibv_qp_attach_comp_cntr);
EXPORT int qp_attach_comp_cntr(struct ibv_qp *qp, struct handle *counter, void *attr)
{
	if (context_is_ours(qp->context))
		return unsupported();
	PASS_NEWER(EOPNOTSUPP, qp_attach_comp_cntr, ibv_qp_attach_comp_cntr, qp, counter, attr);
}

/* Those that take a counter and a number. */
#define WITH_NUMBER(function, type) \
	int function(struct handle *counter, type number) SYMBOL(ibv_##function); \
	EXPORT int function(struct handle *counter, type number) \
	{ \
		if (context_is_ours(counter->context)) \
			return unsupported(); \
		PASS_NEWER(EOPNOTSUPP, function, ibv_##function, counter, number); \
	}
WITH_NUMBER(set_comp_cntr, uint64_t)
WITH_NUMBER(set_err_comp_cntr, uint64_t)
WITH_NUMBER(inc_comp_cntr, uint64_t)
WITH_NUMBER(inc_err_comp_cntr, uint64_t)
WITH_NUMBER(read_comp_cntr, uint64_t *)
WITH_NUMBER(read_err_comp_cntr, uint64_t *)
