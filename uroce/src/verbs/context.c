/* SPDX-License-Identifier: Apache-2.0 */
/* Contexts: the device as a program has opened it. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "engine.h"
#include "event.h"
#include "eventfd.h"
#include "log.h"
#include "own_device.h"
#include "qp_state.h"
#include "verbs.h"
#include "wipe.h"

enum { COMPLETION_VECTORS = 2 };

/* In nanoseconds altogether, as a counter that the completion timestamps are of. Devices with a counter of cycles leave
 * the seconds 0 too. */
static int query_clock(struct ibv_context *ibv_context, struct ibv_values_ex *values)
{
	uint32_t wanted = values->comp_mask;
	values->comp_mask = 0;
	if (wanted & ~(uint32_t)IBV_VALUES_MASK_RAW_CLOCK) {
		errno = EINVAL;
		return EINVAL;
	}
	if (wanted & IBV_VALUES_MASK_RAW_CLOCK) {
		values->raw_clock.tv_sec = 0;
		values->raw_clock.tv_nsec = (long)context_of(ibv_context)->device->clock();
		values->comp_mask = IBV_VALUES_MASK_RAW_CLOCK;
	}
	return 0;
}

/* libibverbs' inline functions return EOPNOTSUPP for pointers that stay NULL: device memory, flows, counters, XRC and
 * others. The functions that are not inline are exported. */
static void set_operations(struct verbs_context *verbs)
{
	struct ibv_context_ops *ops = &verbs->context.ops;
	ops->alloc_mw = mw_alloc;
	ops->bind_mw = qp_bind_mw;
	ops->dealloc_mw = mw_dealloc;
	ops->poll_cq = cq_poll;
	ops->req_notify_cq = cq_req_notify;
	ops->post_srq_recv = srq_post_recv;
	ops->post_send = qp_post_send;
	ops->post_recv = qp_post_recv;

	verbs->query_port = context_query_port;
	verbs->advise_mr = mr_advise;
	verbs->query_device_ex = context_query_device_ex;
	verbs->query_rt_values = query_clock;
	verbs->create_cq_ex = cq_create_ex;
	verbs->create_srq_ex = srq_create_ex;
	verbs->create_qp_ex = qp_create_ex;
}

struct ibv_context *context_open(void)
{
	struct device *device = own_device();
	if (!device) {
		errno = ENODEV;
		return NULL;
	}
	struct context *context = calloc(1, sizeof *context);
	if (!context)
		return NULL;
	struct ibv_context *ibv_context = &context->verbs.context;
	/* Blocking, as the application expects: it makes the descriptor non-blocking if it wants that. */
	ibv_context->async_fd = eventfd_open(EFD_SEMAPHORE);
	if (ibv_context->async_fd < 0) {
		int error = errno;
		free(context);
		errno = error;
		return NULL;
	}
	context->device = device;
	context->event_tail = &context->event_head;
	pthread_mutex_init(&context->event_lock, NULL);
	pthread_mutex_init(&ibv_context->mutex, NULL);
	ibv_context->device = own_device_listed();
	ibv_context->cmd_fd = -1; /* of the kernel's commands */
	ibv_context->num_comp_vectors = COMPLETION_VECTORS;
	ibv_context->abi_compat = __VERBS_ABI_IS_EXTENDED;
	context->verbs.sz = sizeof context->verbs;
	set_operations(&context->verbs);
	own_device_show_files(device);
	counter_object(&device->counters->objects.ctx, 1);
	return ibv_context;
}

/* The kernel destroys the objects of a closed context. Here their memory is the application's leak, but no peer may
 * reach memory that the application frees next. */
static void disconnect_all(struct context *context)
{
	struct device *device = context->device;
	engine_enter(device);
	for (size_t i = 0; i < device->qps.size; i++) {
		/* Not the slot's `thing`: it may stand for one that was removed. */
		struct qp *qp = table_find(&device->qps, device->qps.slot[i].number);
		if (qp && qp->context == context)
			qp_reset(qp);
	}
	engine_leave(device);
}

int context_close(struct ibv_context *ibv_context)
{
	struct context *context = context_of(ibv_context);
	unsigned objects = atomic_load(&context->objects);

	if (objects != 0) {
		log_write(LOG_INFO, "the program closed a context without destroying %u of its objects", objects);
		disconnect_all(context);
	}
	event_forget_all(context);
	close(ibv_context->async_fd);
	ibv_context->async_fd = -1;
	counter_object(&context->device->counters->objects.ctx, -1);
	/* The remaining objects point there. */
	if (objects != 0)
		return 0;
	pthread_mutex_destroy(&ibv_context->mutex);
	pthread_mutex_destroy(&context->event_lock);
	wipe_free(context, sizeof *context);
	return 0;
}
