/* SPDX-License-Identifier: Apache-2.0 */
#include "check.h"

#include "verbs.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>

#include "device.h"

/* What the device's clock does besides: the one thing of an engine_poll that a device without a wire shows. */
static struct cq *delivered_by_polling;
static unsigned clock_reads;

static void push(struct cq *cq, uint64_t wr_id, enum ibv_wc_status status, bool solicited);

static uint64_t clock_that_delivers(void)
{
	clock_reads++;
	struct cq *cq = delivered_by_polling;
	delivered_by_polling = NULL;
	if (cq)
		push(cq, 4711, IBV_WC_SUCCESS, false);
	return 123456789;
}

static int setup(void **state)
{
	struct bare *bare = bare_new();
	bare->device.clock = clock_that_delivers;
	clock_reads = 0;
	*state = bare;
	return 0;
}

static int teardown(void **state)
{
	struct bare *bare = *state;
	assert_int_equal(bare->context.objects, 0);
	assert_int_equal(bare->counters.objects.cq, 0);
	assert_int_equal(bare->counters.objects.channel, 0);
	bare_free(bare);
	return 0;
}

static struct ibv_context *context_in(void **state)
{
	return &((struct bare *)*state)->context.verbs.context;
}

static struct cq *make(void **state, int cqe, struct ibv_comp_channel *channel)
{
	struct ibv_cq *cq = cq_create(context_in(state), cqe, *state, channel, 0);
	assert_non_null(cq);
	return cq_of(cq);
}

static struct ibv_comp_channel *make_channel(void **state)
{
	struct ibv_comp_channel *channel = channel_create(context_in(state));
	assert_non_null(channel);
	return channel;
}

static void push_of(struct cq *cq, uint32_t qpn, enum ibv_wc_opcode opcode, uint64_t wr_id)
{
	struct cqe cqe = {.wc = {.wr_id = wr_id, .opcode = opcode, .qp_num = qpn}};
	cq_push(cq, &cqe, false);
}

static void push(struct cq *cq, uint64_t wr_id, enum ibv_wc_status status, bool solicited)
{
	struct cqe cqe = {.wc = {.wr_id = wr_id, .status = status, .opcode = IBV_WC_RECV, .qp_num = 7}};
	cq_push(cq, &cqe, solicited);
}

static void expect(struct cq *cq, uint64_t wr_id)
{
	struct ibv_wc wc;
	assert_int_equal(cq_poll(&cq->ibv, 1, &wc), 1);
	assert_int_equal(wc.wr_id, wr_id);
}

static void expect_empty(struct cq *cq)
{
	struct ibv_wc wc;
	assert_int_equal(cq_poll(&cq->ibv, 1, &wc), 0);
}

static bool readable(int fd)
{
	struct pollfd pollfd = {.fd = fd, .events = POLLIN};
	return poll(&pollfd, 1, 0) == 1;
}

/* ---- the ring ---- */

static void sizes_and_vectors_are_checked(void **state)
{
	struct ibv_context *context = context_in(state);
	static const int bad[] = {0, -1, MAX_CQE + 1, INT32_MIN, INT32_MAX};
	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
		errno = 0;
		assert_null(cq_create(context, bad[i], NULL, NULL, 0));
		assert_int_equal(errno, EINVAL);
	}
	assert_null(cq_create(context, 1, NULL, NULL, 2));
	assert_int_equal(errno, EINVAL);
	assert_null(cq_create(context, 1, NULL, NULL, -1));
	assert_int_equal(errno, EINVAL);
	struct ibv_cq *cq = cq_create(context, MAX_CQE, NULL, NULL, 1);
	assert_non_null(cq);
	assert_int_equal(cq->cqe, MAX_CQE);
	assert_int_equal(cq_destroy(cq), 0);
}

static void completions_come_in_order(void **state)
{
	struct cq *cq = make(state, 5, NULL);
	assert_true(cq->ibv.cqe >= 5);
	for (uint64_t i = 0; i < 100; i++) {
		push(cq, 2 * i, IBV_WC_SUCCESS, false);
		push(cq, 2 * i + 1, IBV_WC_SUCCESS, false);
		struct ibv_wc wc[4];
		assert_int_equal(cq_poll(&cq->ibv, 4, wc), 2);
		assert_int_equal(wc[0].wr_id, 2 * i);
		assert_int_equal(wc[1].wr_id, 2 * i + 1);
	}
	for (uint64_t i = 0; i < 5; i++)
		push(cq, i, IBV_WC_SUCCESS, false);
	struct ibv_wc wc[3];
	assert_int_equal(cq_poll(&cq->ibv, 3, wc), 3);
	assert_int_equal(wc[2].wr_id, 2);
	assert_int_equal(cq_poll(&cq->ibv, 0, wc), 0);
	assert_int_equal(cq_poll(&cq->ibv, -1, wc), 0);
	expect(cq, 3);
	expect(cq, 4);
	expect_empty(cq);
	assert_int_equal(cq_destroy(&cq->ibv), 0);
}

static void counters_may_wrap(void **state)
{
	struct cq *cq = make(state, 4, NULL);
	cq->head = cq->tail = UINT32_MAX - 1;
	for (uint64_t i = 0; i < 4; i++)
		push(cq, i, IBV_WC_SUCCESS, false);
	assert_false(cq->overrun);
	for (uint64_t i = 0; i < 4; i++)
		expect(cq, i);
	assert_int_equal(cq_destroy(&cq->ibv), 0);
}

static void polling_an_empty_queue_moves_the_protocol(void **state)
{
	struct cq *cq = make(state, 4, NULL);
	delivered_by_polling = cq;
	expect(cq, 4711);
	push(cq, 1, IBV_WC_SUCCESS, false);
	unsigned before = clock_reads;
	expect(cq, 1);
	assert_int_equal(clock_reads, before);
	expect_empty(cq);
	assert_int_equal(clock_reads, before + 1);
	assert_int_equal(cq_destroy(&cq->ibv), 0);
}

static void an_overrun_is_told_once_and_takes_no_more(void **state)
{
	struct bare *bare = *state;
	struct cq *cq = make(state, 2, NULL);
	for (uint64_t i = 0; i < 5; i++)
		push(cq, i, IBV_WC_SUCCESS, false);
	struct async_event *event = bare->context.event_head;
	assert_non_null(event);
	assert_int_equal(event->event.event_type, IBV_EVENT_CQ_ERR);
	assert_ptr_equal(event->event.element.cq, &cq->ibv);
	assert_null(event->next);
	expect(cq, 0);
	expect(cq, 1);
	push(cq, 9, IBV_WC_SUCCESS, false);
	expect_empty(cq);
	assert_int_equal(cq_destroy(&cq->ibv), 0);
	assert_null(bare->context.event_head);
}

static void a_queue_pairs_completions_can_be_taken_out(void **state)
{
	struct cq *cq = make(state, 8, NULL);
	struct ibv_srq srq = {0};
	push_of(cq, 1, IBV_WC_SEND, 10);
	push_of(cq, 2, IBV_WC_SEND, 11);
	push_of(cq, 1, IBV_WC_RECV, 12);
	push_of(cq, 2, IBV_WC_RECV_RDMA_WITH_IMM, 13);
	push_of(cq, 2, IBV_WC_RDMA_READ, 14);
	push_of(cq, 1, IBV_WC_SEND, 15);
	cq_remove(cq, 2, &srq);
	cq_remove(cq, 1, NULL);
	cq_remove(cq, 3, NULL);
	expect(cq, 13);
	expect_empty(cq);
	assert_int_equal(cq_destroy(&cq->ibv), 0);
}

static void resizing_keeps_what_is_held(void **state)
{
	struct cq *cq = make(state, 4, NULL);
	push(cq, 0, IBV_WC_SUCCESS, false);
	push(cq, 0, IBV_WC_SUCCESS, false);
	expect(cq, 0);
	expect(cq, 0);
	for (uint64_t i = 1; i <= 4; i++)
		push(cq, i, IBV_WC_SUCCESS, false);
	assert_int_equal(cq_resize(&cq->ibv, 3), EINVAL);
	assert_int_equal(cq_resize(&cq->ibv, 0), EINVAL);
	assert_int_equal(cq_resize(&cq->ibv, -4), EINVAL);
	assert_int_equal(cq_resize(&cq->ibv, MAX_CQE + 1), EINVAL);
	assert_int_equal(cq->ibv.cqe, 4);
	assert_int_equal(cq_resize(&cq->ibv, 9), 0);
	assert_true(cq->ibv.cqe >= 9);
	for (uint64_t i = 5; i <= 9; i++)
		push(cq, i, IBV_WC_SUCCESS, false);
	for (uint64_t i = 1; i <= 7; i++)
		expect(cq, i);
	assert_int_equal(cq_resize(&cq->ibv, 2), 0);
	assert_int_equal(cq->ibv.cqe, 2);
	expect(cq, 8);
	expect(cq, 9);
	assert_int_equal(cq_destroy(&cq->ibv), 0);
}

static void a_queue_in_use_stays(void **state)
{
	struct cq *cq = make(state, 1, NULL);
	atomic_fetch_add(&cq->uses, 1);
	assert_int_equal(cq_destroy(&cq->ibv), EBUSY);
	atomic_fetch_sub(&cq->uses, 1);
	assert_int_equal(cq_destroy(&cq->ibv), 0);
}

/* ---- events ---- */

static void an_event_is_told_once_per_arming(void **state)
{
	struct ibv_comp_channel *channel = make_channel(state);
	struct cq *cq = make(state, 8, channel);
	struct ibv_cq *told;
	void *told_context;

	push(cq, 1, IBV_WC_SUCCESS, true);
	assert_int_equal(cq_req_notify(&cq->ibv, 0), 0);
	/* What was there before does not count. */
	assert_false(readable(channel->fd));
	push(cq, 2, IBV_WC_SUCCESS, false);
	push(cq, 3, IBV_WC_SUCCESS, false);
	assert_true(readable(channel->fd));
	assert_int_equal(cq_get_event(channel, &told, &told_context), 0);
	assert_ptr_equal(told, &cq->ibv);
	assert_ptr_equal(told_context, *state);
	assert_false(readable(channel->fd));
	cq_ack_events(told, 1);
	assert_int_equal(cq_destroy(&cq->ibv), 0);
	assert_int_equal(channel_destroy(channel), 0);
}

static void solicited_arming_waits_for_the_solicited(void **state)
{
	struct ibv_comp_channel *channel = make_channel(state);
	struct cq *cq = make(state, 16, channel);

	assert_int_equal(cq_req_notify(&cq->ibv, 1), 0);
	push(cq, 1, IBV_WC_SUCCESS, false);
	assert_int_equal(cq->events.waiting, 0);
	push(cq, 2, IBV_WC_SUCCESS, true);
	assert_int_equal(cq->events.waiting, 1);
	assert_int_equal(cq_req_notify(&cq->ibv, 1), 0);
	push(cq, 3, IBV_WC_WR_FLUSH_ERR, false);
	assert_int_equal(cq->events.waiting, 2);
	/* A full arming is not taken back by a lesser one, and a lesser one is made full. */
	assert_int_equal(cq_req_notify(&cq->ibv, 0), 0);
	assert_int_equal(cq_req_notify(&cq->ibv, 1), 0);
	push(cq, 4, IBV_WC_SUCCESS, false);
	assert_int_equal(cq->events.waiting, 3);
	assert_int_equal(cq_req_notify(&cq->ibv, 1), 0);
	assert_int_equal(cq_req_notify(&cq->ibv, 0), 0);
	push(cq, 5, IBV_WC_SUCCESS, false);
	assert_int_equal(cq->events.waiting, 4);
	assert_int_equal(cq_destroy(&cq->ibv), 0);
	/* The events that nobody took went with it. */
	assert_false(readable(channel->fd) && counts_can_be_taken_back());
	assert_int_equal(channel_destroy(channel), 0);
}

static void arming_without_a_channel_is_harmless(void **state)
{
	struct cq *cq = make(state, 2, NULL);
	assert_int_equal(cq_req_notify(&cq->ibv, 0), 0);
	push(cq, 1, IBV_WC_SUCCESS, false);
	expect(cq, 1);
	assert_int_equal(cq_destroy(&cq->ibv), 0);
}

static void queues_take_turns_at_a_channel(void **state)
{
	struct ibv_comp_channel *channel = make_channel(state);
	struct cq *cq[3];
	struct ibv_cq *told;
	void *context;
	for (int i = 0; i < 3; i++)
		cq[i] = make(state, 8, channel);
	for (int round = 0; round < 2; round++) {
		for (int i = 0; i < 3; i++) {
			assert_int_equal(cq_req_notify(&cq[i]->ibv, 0), 0);
			push(cq[i], 1, IBV_WC_SUCCESS, false);
		}
	}
	/* The one in the middle goes, with its two events. */
	assert_int_equal(cq_destroy(&cq[1]->ibv), 0);
	for (int i = 0; i < 4; i++) {
		assert_int_equal(cq_get_event(channel, &told, &context), 0);
		assert_ptr_equal(told, &cq[i % 2 * 2]->ibv);
	}
	assert_false(readable(channel->fd) && counts_can_be_taken_back());
	for (int i = 0; i < 3; i += 2) {
		cq_ack_events(&cq[i]->ibv, 2);
		assert_int_equal(cq_destroy(&cq[i]->ibv), 0);
	}
	assert_int_equal(channel_destroy(channel), 0);
}

static void a_nonblocking_channel_says_again(void **state)
{
	struct ibv_comp_channel *channel = make_channel(state);
	struct ibv_cq *told;
	void *context;
	assert_int_equal(fcntl(channel->fd, F_SETFL, fcntl(channel->fd, F_GETFL) | O_NONBLOCK), 0);
	errno = 0;
	assert_int_equal(cq_get_event(channel, &told, &context), -1);
	assert_int_equal(errno, EAGAIN);
	assert_int_equal(channel_destroy(channel), 0);
}

static void a_channel_in_use_stays(void **state)
{
	struct ibv_comp_channel *channel = make_channel(state);
	struct cq *cq = make(state, 1, channel);
	assert_int_equal(channel_destroy(channel), EBUSY);
	assert_int_equal(cq_destroy(&cq->ibv), 0);
	assert_int_equal(channel->refcnt, 0);
	assert_int_equal(channel_destroy(channel), 0);
}

static void a_channel_of_another_context_is_refused(void **state)
{
	struct bare *other = bare_new();
	struct ibv_comp_channel *channel = channel_create(&other->context.verbs.context);
	assert_null(cq_create(context_in(state), 1, NULL, channel, 0));
	assert_int_equal(errno, EINVAL);
	assert_int_equal(channel_destroy(channel), 0);
	bare_free(other);
}

static atomic_bool acknowledging;

static void *acknowledge(void *arg)
{
	atomic_store(&acknowledging, true);
	cq_ack_events(arg, 1);
	return NULL;
}

static void destruction_waits_for_acknowledgement(void **state)
{
	struct ibv_comp_channel *channel = make_channel(state);
	struct cq *cq = make(state, 2, channel);
	struct ibv_cq *told;
	void *context;
	pthread_t thread;
	assert_int_equal(cq_req_notify(&cq->ibv, 0), 0);
	push(cq, 1, IBV_WC_SUCCESS, false);
	assert_int_equal(cq_get_event(channel, &told, &context), 0);
	atomic_store(&acknowledging, false);
	assert_int_equal(pthread_create(&thread, NULL, acknowledge, told), 0);
	assert_int_equal(cq_destroy(told), 0);
	assert_true(atomic_load(&acknowledging));
	pthread_join(thread, NULL);
	assert_int_equal(channel_destroy(channel), 0);
}

enum { EVENTS = 2000 };

static void *produce(void *arg)
{
	struct cq *cq = arg;
	for (uint64_t i = 0; i < EVENTS; i++) {
		push(cq, i, IBV_WC_SUCCESS, false);
		sched_yield();
	}
	return NULL;
}

static void no_wakeup_is_lost_between_threads(void **state)
{
	struct ibv_comp_channel *channel = make_channel(state);
	struct cq *cq = make(state, EVENTS, channel);
	pthread_t thread;
	unsigned taken = 0;
	uint64_t next = 0;
	assert_int_equal(cq_req_notify(&cq->ibv, 0), 0);
	assert_int_equal(pthread_create(&thread, NULL, produce, cq), 0);
	while (next < EVENTS) {
		struct ibv_cq *told;
		void *context;
		struct ibv_wc wc;
		assert_int_equal(cq_get_event(channel, &told, &context), 0);
		taken++;
		assert_int_equal(cq_req_notify(told, 0), 0);
		while (cq_poll(told, 1, &wc) == 1)
			assert_int_equal(wc.wr_id, next++);
	}
	pthread_join(thread, NULL);
	cq_ack_events(&cq->ibv, taken);
	assert_int_equal(cq_destroy(&cq->ibv), 0);
	assert_int_equal(channel_destroy(channel), 0);
}

/* ---- the extended queue ---- */

static struct ibv_cq_ex *make_ex(void **state, uint64_t wc_flags, uint32_t flags)
{
	struct ibv_cq_init_attr_ex attr = {
		.cqe = 4,
		.cq_context = *state,
		.wc_flags = wc_flags,
		.comp_mask = flags == 0 ? 0 : IBV_CQ_INIT_ATTR_MASK_FLAGS,
		.flags = flags,
	};
	struct ibv_cq_ex *ex = cq_create_ex(context_in(state), &attr);
	assert_non_null(ex);
	return ex;
}

static void ex_refused(void **state, struct ibv_cq_init_attr_ex attr, int error)
{
	errno = 0;
	assert_null(cq_create_ex(context_in(state), &attr));
	assert_int_equal(errno, error);
}

static void extended_attributes_are_checked(void **state)
{
	ex_refused(state, (struct ibv_cq_init_attr_ex){.cqe = 0}, EINVAL);
	ex_refused(state, (struct ibv_cq_init_attr_ex){.cqe = MAX_CQE + 1}, EINVAL);
	ex_refused(state, (struct ibv_cq_init_attr_ex){.cqe = 1, .comp_vector = 2}, EINVAL);
	ex_refused(state, (struct ibv_cq_init_attr_ex){.cqe = 1, .comp_mask = 1 << 7}, EINVAL);
	ex_refused(state, (struct ibv_cq_init_attr_ex){.cqe = 1, .comp_mask = IBV_CQ_INIT_ATTR_MASK_PD}, EOPNOTSUPP);
	ex_refused(state, (struct ibv_cq_init_attr_ex){.cqe = 1, .comp_mask = 1, .flags = 1 << 9}, EOPNOTSUPP);
	static const uint64_t flags[] = {IBV_WC_EX_WITH_CVLAN, IBV_WC_EX_WITH_FLOW_TAG, IBV_WC_EX_WITH_TM_INFO,
					 1ull << 40};
	for (size_t i = 0; i < sizeof flags / sizeof *flags; i++)
		ex_refused(state, (struct ibv_cq_init_attr_ex){.cqe = 1, .wc_flags = flags[i]}, EOPNOTSUPP);
}

static void a_batch_is_read_field_by_field(void **state)
{
	struct ibv_cq_ex *ex = make_ex(state,
				       IBV_WC_STANDARD_FLAGS | IBV_WC_EX_WITH_COMPLETION_TIMESTAMP |
					       IBV_WC_EX_WITH_COMPLETION_TIMESTAMP_WALLCLOCK,
				       0);
	struct cq *cq = cq_of(ibv_cq_ex_to_cq(ex));
	struct ibv_poll_cq_attr attr = {0};
	struct cqe cqe = {.wc = {.wr_id = 77,
				 .opcode = IBV_WC_RECV,
				 .vendor_err = 1,
				 .byte_len = 2,
				 .imm_data = 3,
				 .qp_num = 4,
				 .src_qp = 5,
				 .wc_flags = IBV_WC_GRH,
				 .slid = 6,
				 .sl = 7,
				 .dlid_path_bits = 8}};
	cq_push(cq, &cqe, false);
	push(cq, 78, IBV_WC_LOC_LEN_ERR, false);

	assert_int_equal(ibv_start_poll(ex, &attr), 0);
	assert_int_equal(ex->wr_id, 77);
	assert_int_equal(ex->status, IBV_WC_SUCCESS);
	assert_int_equal(ibv_wc_read_opcode(ex), IBV_WC_RECV);
	assert_int_equal(ibv_wc_read_vendor_err(ex), 1);
	assert_int_equal(ibv_wc_read_byte_len(ex), 2);
	assert_int_equal(ibv_wc_read_imm_data(ex), 3);
	assert_int_equal(ibv_wc_read_invalidated_rkey(ex), 3);
	assert_int_equal(ibv_wc_read_qp_num(ex), 4);
	assert_int_equal(ibv_wc_read_src_qp(ex), 5);
	assert_int_equal(ibv_wc_read_wc_flags(ex), IBV_WC_GRH);
	assert_int_equal(ibv_wc_read_slid(ex), 6);
	assert_int_equal(ibv_wc_read_sl(ex), 7);
	assert_int_equal(ibv_wc_read_dlid_path_bits(ex), 8);
	assert_int_equal(ibv_wc_read_completion_ts(ex), 123456789);
	assert_true(ibv_wc_read_completion_wallclock_ns(ex) > 123456789);
	/* What arrives meanwhile takes nothing away from the one that is being read. */
	push(cq, 79, IBV_WC_SUCCESS, false);
	assert_int_equal(ibv_wc_read_src_qp(ex), 5);
	assert_int_equal(ibv_next_poll(ex), 0);
	assert_int_equal(ex->wr_id, 78);
	assert_int_equal(ex->status, IBV_WC_LOC_LEN_ERR);
	assert_int_equal(ibv_next_poll(ex), 0);
	assert_int_equal(ex->wr_id, 79);
	assert_int_equal(ibv_next_poll(ex), ENOENT);
	ibv_end_poll(ex);
	assert_int_equal(ibv_start_poll(ex, &attr), ENOENT);
	assert_int_equal(cq_destroy(&cq->ibv), 0);
}

static void only_wanted_fields_have_readers(void **state)
{
	struct ibv_cq_ex *ex = make_ex(state, IBV_WC_EX_WITH_IMM, 0);
	assert_non_null(ex->read_imm_data);
	assert_non_null(ex->read_opcode);
	assert_null(ex->read_byte_len);
	assert_null(ex->read_completion_ts);
	assert_null(ex->read_cvlan);
	assert_int_equal(cq_destroy(ibv_cq_ex_to_cq(ex)), 0);
}

static void an_empty_batch_moves_the_protocol_and_leaves_no_lock(void **state)
{
	struct ibv_cq_ex *ex = make_ex(state, 0, 0);
	struct ibv_poll_cq_attr attr = {0}, unknown = {.comp_mask = 1};
	assert_int_equal(ibv_start_poll(ex, &unknown), EINVAL);
	assert_int_equal(ibv_start_poll(ex, &attr), ENOENT);
	delivered_by_polling = (struct cq *)ex;
	assert_int_equal(ibv_start_poll(ex, &attr), 0);
	assert_int_equal(ex->wr_id, 4711);
	ibv_end_poll(ex);
	assert_int_equal(ibv_start_poll(ex, &attr), ENOENT);
	assert_int_equal(cq_destroy(ibv_cq_ex_to_cq(ex)), 0);
}

static void ignored_overrun_keeps_the_newest(void **state)
{
	struct bare *bare = *state;
	struct ibv_cq_ex *ex =
		make_ex(state, 0, IBV_CREATE_CQ_ATTR_IGNORE_OVERRUN | IBV_CREATE_CQ_ATTR_SINGLE_THREADED);
	struct cq *cq = (struct cq *)ex;
	for (uint64_t i = 0; i < 10; i++)
		push(cq, i, IBV_WC_SUCCESS, false);
	assert_null(bare->context.event_head);
	for (uint64_t i = 6; i < 10; i++)
		expect(cq, i);
	expect_empty(cq);
	assert_int_equal(cq_destroy(&cq->ibv), 0);
}

static void *batches(void *arg)
{
	struct ibv_cq_ex *ex = arg;
	struct ibv_poll_cq_attr attr = {0};
	uintptr_t sum = 0;
	for (unsigned taken = 0; taken < EVENTS / 2;) {
		if (ibv_start_poll(ex, &attr) != 0) {
			sched_yield();
			continue;
		}
		do {
			sum += ex->wr_id;
			taken++;
		} while (taken < EVENTS / 2 && ibv_next_poll(ex) == 0);
		ibv_end_poll(ex);
	}
	return (void *)sum;
}

static void threads_share_an_extended_queue(void **state)
{
	struct ibv_cq_init_attr_ex attr = {.cqe = EVENTS};
	struct ibv_cq_ex *ex = cq_create_ex(context_in(state), &attr);
	pthread_t producer, taker[2];
	uintptr_t sum = 0;
	assert_non_null(ex);
	assert_int_equal(pthread_create(&producer, NULL, produce, ex), 0);
	for (int i = 0; i < 2; i++)
		assert_int_equal(pthread_create(&taker[i], NULL, batches, ex), 0);
	for (int i = 0; i < 2; i++) {
		void *part;
		pthread_join(taker[i], &part);
		sum += (uintptr_t)part;
	}
	pthread_join(producer, NULL);
	assert_int_equal(sum, (uintptr_t)EVENTS * (EVENTS - 1) / 2);
	assert_int_equal(cq_destroy(ibv_cq_ex_to_cq(ex)), 0);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(sizes_and_vectors_are_checked),
		TEST(completions_come_in_order),
		TEST(counters_may_wrap),
		TEST(polling_an_empty_queue_moves_the_protocol),
		TEST(an_overrun_is_told_once_and_takes_no_more),
		TEST(a_queue_pairs_completions_can_be_taken_out),
		TEST(resizing_keeps_what_is_held),
		TEST(a_queue_in_use_stays),
		TEST(an_event_is_told_once_per_arming),
		TEST(solicited_arming_waits_for_the_solicited),
		TEST(arming_without_a_channel_is_harmless),
		TEST(queues_take_turns_at_a_channel),
		TEST(a_nonblocking_channel_says_again),
		TEST(a_channel_in_use_stays),
		TEST(a_channel_of_another_context_is_refused),
		TEST(destruction_waits_for_acknowledgement),
		TEST(no_wakeup_is_lost_between_threads),
		TEST(extended_attributes_are_checked),
		TEST(a_batch_is_read_field_by_field),
		TEST(only_wanted_fields_have_readers),
		TEST(an_empty_batch_moves_the_protocol_and_leaves_no_lock),
		TEST(ignored_overrun_keeps_the_newest),
		TEST(threads_share_an_extended_queue),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
