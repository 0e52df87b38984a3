/* SPDX-License-Identifier: Apache-2.0 */
/* Asynchronous events: their order, their descriptor, and what an object that goes away waits for. */
#include "check.h"

#include <errno.h>
#include <poll.h>

#include "device.h"

/* Objects as events see them: nothing but what is public. */
struct world {
	struct bare *bare;
	struct ibv_qp qp[2];
	struct ibv_cq cq;
	struct ibv_srq srq;
};

static int setup(void **state)
{
	struct world *w = calloc(1, sizeof *w);
	assert_non_null(w);
	w->bare = bare_new();
	for (int i = 0; i < 2; i++) {
		w->qp[i].context = &w->bare->context.verbs.context;
		pthread_mutex_init(&w->qp[i].mutex, NULL);
		pthread_cond_init(&w->qp[i].cond, NULL);
	}
	w->cq.context = w->srq.context = w->qp[0].context;
	pthread_mutex_init(&w->cq.mutex, NULL);
	pthread_cond_init(&w->cq.cond, NULL);
	pthread_mutex_init(&w->srq.mutex, NULL);
	pthread_cond_init(&w->srq.cond, NULL);
	*state = w;
	return 0;
}

static int teardown(void **state)
{
	struct world *w = *state;
	event_forget_all(&w->bare->context);
	bare_free(w->bare);
	free(w);
	return 0;
}

static struct ibv_context *context_in(struct world *w)
{
	return &w->bare->context.verbs.context;
}

static bool readable(struct world *w)
{
	struct pollfd fd = {.fd = context_in(w)->async_fd, .events = POLLIN};
	return poll(&fd, 1, 0) == 1;
}

static struct ibv_async_event take(struct world *w)
{
	struct ibv_async_event event;
	assert_true(readable(w));
	assert_int_equal(event_get(context_in(w), &event), 0);
	return event;
}

static void assert_none(struct world *w)
{
	struct ibv_async_event event;
	assert_false(readable(w) && counts_can_be_taken_back());
	errno = 0;
	assert_int_equal(event_get(context_in(w), &event), -1);
	assert_int_equal(errno, EAGAIN);
}

static void events_come_in_order_with_their_objects(void **state)
{
	struct world *w = *state;
	struct context *context = &w->bare->context;
	assert_none(w);
	event_raise(context, IBV_EVENT_QP_FATAL, &w->qp[1]);
	event_raise(context, IBV_EVENT_CQ_ERR, &w->cq);
	event_raise(context, IBV_EVENT_SRQ_LIMIT_REACHED, &w->srq);
	event_raise(context, IBV_EVENT_GID_CHANGE, NULL);

	struct ibv_async_event event = take(w);
	assert_int_equal(event.event_type, IBV_EVENT_QP_FATAL);
	assert_ptr_equal(event.element.qp, &w->qp[1]);
	event = take(w);
	assert_int_equal(event.event_type, IBV_EVENT_CQ_ERR);
	assert_ptr_equal(event.element.cq, &w->cq);
	event = take(w);
	assert_int_equal(event.event_type, IBV_EVENT_SRQ_LIMIT_REACHED);
	assert_ptr_equal(event.element.srq, &w->srq);
	event = take(w);
	assert_int_equal(event.event_type, IBV_EVENT_GID_CHANGE);
	assert_int_equal(event.element.port_num, 1);
	assert_none(w);
}

static void acknowledging_counts_in_the_object(void **state)
{
	struct world *w = *state;
	struct context *context = &w->bare->context;
	event_raise(context, IBV_EVENT_SQ_DRAINED, &w->qp[0]);
	event_raise(context, IBV_EVENT_CQ_ERR, &w->cq);
	event_raise(context, IBV_EVENT_SRQ_LIMIT_REACHED, &w->srq);
	event_raise(context, IBV_EVENT_PORT_ERR, NULL);
	for (int i = 0; i < 4; i++) {
		struct ibv_async_event event = take(w);
		event_ack(&event);
	}
	assert_int_equal(w->qp[0].events_completed, 1);
	assert_int_equal(w->qp[1].events_completed, 0);
	assert_int_equal(w->cq.async_events_completed, 1);
	assert_int_equal(w->cq.comp_events_completed, 0);
	assert_int_equal(w->srq.events_completed, 1);
}

static void forgetting_drops_what_waits_and_tells_what_was_taken(void **state)
{
	struct world *w = *state;
	struct context *context = &w->bare->context;
	for (int i = 0; i < 3; i++) {
		event_raise(context, IBV_EVENT_QP_ACCESS_ERR, &w->qp[0]);
		event_raise(context, IBV_EVENT_QP_ACCESS_ERR, &w->qp[1]);
	}
	for (int i = 0; i < 3; i++)
		take(w); /* two of the first, one of the second */
	assert_int_equal(event_forget(context, &w->qp[0]), 2);
	assert_ptr_equal(take(w).element.qp, &w->qp[1]);
	assert_ptr_equal(take(w).element.qp, &w->qp[1]);
	assert_none(w);
	assert_int_equal(event_forget(context, &w->qp[1]), 3);

	/* Another object at the same address starts afresh. */
	assert_int_equal(event_forget(context, &w->qp[0]), 0);
	event_raise(context, IBV_EVENT_QP_FATAL, &w->qp[0]);
	assert_int_equal(event_forget(context, &w->qp[0]), 0);
	assert_none(w);
}

static void events_follow_after_the_last_in_the_queue_was_dropped(void **state)
{
	struct world *w = *state;
	struct context *context = &w->bare->context;
	event_raise(context, IBV_EVENT_QP_FATAL, &w->qp[0]);
	event_raise(context, IBV_EVENT_QP_FATAL, &w->qp[1]);
	assert_int_equal(event_forget(context, &w->qp[1]), 0);
	event_raise(context, IBV_EVENT_CQ_ERR, &w->cq);
	assert_ptr_equal(take(w).element.qp, &w->qp[0]);
	assert_ptr_equal(take(w).element.cq, &w->cq);
	assert_none(w);
}

static void an_event_names_the_context_of_its_object(void **state)
{
	struct world *w = *state;
	struct ibv_async_event event = {.event_type = IBV_EVENT_QP_LAST_WQE_REACHED, .element.qp = &w->qp[0]};
	assert_ptr_equal(event_context(&event), context_in(w));
	event = (struct ibv_async_event){.event_type = IBV_EVENT_SRQ_ERR, .element.srq = &w->srq};
	assert_ptr_equal(event_context(&event), context_in(w));
	event = (struct ibv_async_event){.event_type = IBV_EVENT_DEVICE_FATAL, .element.port_num = 1};
	assert_null(event_context(&event));
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(events_come_in_order_with_their_objects),
		TEST(acknowledging_counts_in_the_object),
		TEST(forgetting_drops_what_waits_and_tells_what_was_taken),
		TEST(events_follow_after_the_last_in_the_queue_was_dropped),
		TEST(an_event_names_the_context_of_its_object),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
