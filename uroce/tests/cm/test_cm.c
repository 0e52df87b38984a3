/* SPDX-License-Identifier: Apache-2.0 */
/* Two connection managers on a link that loses messages, in simulated time: what each end is told, and that it ends. */
#include "check.h"

#include "../device.h"
#include "fake_gsi.h"

enum { EVENTS = 16, SEEDS = 300, MOST = 64 };
#define SECOND UINT64_C(1000000000)
#define SERVICE UINT64_C(0x01061c06)

/* One end's use of an endpoint: what it was told, in order. */
struct use {
	struct cm_endpoint endpoint;
	struct {
		enum cm_event event;
		int status;
	} told[EVENTS];
	unsigned events;
	bool used;
};

static struct end {
	struct bare bare;
	struct cm *cm;
	struct use listener;
	struct use use[MOST];
	unsigned requests;
	bool accepts; /* at once */
	bool full;
} end[FAKE_NODES];

static struct use *use_of(struct cm_endpoint *endpoint)
{
	return (struct use *)((char *)endpoint - offsetof(struct use, endpoint));
}

static struct end *end_of(const struct cm_endpoint *endpoint)
{
	return endpoint->cm == end[0].cm ? &end[0] : &end[1];
}

static struct use *new_use(struct end *at)
{
	for (unsigned i = 0; i < MOST; i++)
		if (!at->use[i].used) {
			memset(&at->use[i], 0, sizeof at->use[i]);
			at->use[i].used = true;
			assert_int_equal(cm_add(at->cm, &at->use[i].endpoint), 0);
			return &at->use[i];
		}
	return NULL;
}

static struct cm_endpoint *request(struct cm_endpoint *listener, const struct mad *mad)
{
	(void)mad;
	struct end *at = end_of(listener);
	struct use *use = at->full ? NULL : new_use(at);
	return use ? &use->endpoint : NULL;
}

static const struct mad answer = {.qpn = 0x222222, .responder_resources = 3, .initiator_depth = 2, .private_length = 3, .private_data = "yes"};

static void requested(struct cm_endpoint *listener, struct cm_endpoint *endpoint, const struct mad *mad)
{
	struct end *at = end_of(listener);

	assert_string_equal((const char *)mad->private_data, "please");
	at->requests++;
	if (at->accepts)
		assert_int_equal(cm_accept(endpoint, &answer), 0);
}

static void event(struct cm_endpoint *endpoint, enum cm_event what, int status, const struct mad *mad)
{
	struct use *use = use_of(endpoint);

	(void)mad;
	assert_true(use->events < EVENTS);
	use->told[use->events].event = what;
	use->told[use->events++].status = status;
	if (what == CM_RESPONSE)
		assert_int_equal(cm_confirm(endpoint), 0);
}

static const struct cm_user user = {.request = request, .requested = requested, .event = event};

static int open_both(void **state)
{
	(void)state;
	memset(&fake, 0, sizeof fake);
	memset(end, 0, sizeof end);
	for (unsigned i = 0; i < FAKE_NODES; i++) {
		bare_open(&end[i].bare);
		end[i].bare.device.now = SECOND;
		fake_node(&end[i].bare.device);
		assert_int_equal(timers_reserve(&end[i].bare.device.timers, DEVICE_TIMERS), 0);
		assert_int_equal(cm_open(&end[i].bare.device, &user, &end[i].cm), 0);
		assert_int_equal(cm_start(end[i].cm), 0);
	}
	struct use *listener = &end[1].listener;
	end[1].accepts = true;
	assert_int_equal(cm_add(end[1].cm, &listener->endpoint), 0);
	assert_int_equal(cm_reserve(&listener->endpoint, &(struct gsi_name){.service = SERVICE, .where = GSI_ANY}), 0);
	assert_int_equal(cm_listen(&listener->endpoint), 0);
	return 0;
}

static int close_both(void **state)
{
	(void)state;
	for (unsigned i = 0; i < FAKE_NODES; i++) {
		for (unsigned j = 0; j < MOST; j++)
			if (end[i].use[j].used)
				cm_remove(&end[i].use[j].endpoint);
		cm_remove(&end[i].listener.endpoint);
	}
	for (unsigned i = 0; i < FAKE_NODES; i++) {
		cm_close(&end[i].cm);
		test_device_close(&end[i].bare.device, &end[i].bare.context);
	}
	return 0;
}

static void run(uint64_t ns)
{
	uint64_t until = end[0].bare.device.now + ns;

	while (fake_step(until))
		;
	for (unsigned i = 0; i < FAKE_NODES; i++)
		end[i].bare.device.now = until;
}

static struct use *dial(uint64_t service)
{
	static const struct mad message = {.qpn = 0x111111,
					   .responder_resources = 7,
					   .initiator_depth = 5,
					   .retry_count = 6,
					   .rnr_retry_count = 4,
					   .private_length = 7,
					   .private_data = "please"};
	struct use *use = new_use(&end[0]);

	use->endpoint.path = (struct gsi_path){.own = fake.node[0].gid, .peer = fake.node[1].gid, .hop_limit = 64};
	use->endpoint.mtu = IBV_MTU_1024;
	assert_int_equal(cm_connect(&use->endpoint, service, &message), 0);
	return use;
}

/* The endpoint that the other end has for it. */
static struct use *peer_of(const struct use *use)
{
	for (unsigned i = 0; i < MOST; i++)
		if (end[1].use[i].used && end[1].use[i].endpoint.remote == use->endpoint.id)
			return &end[1].use[i];
	return NULL;
}

static struct use *peer_of_new(const struct use *use)
{
	run(SECOND / 10);
	assert_non_null(peer_of(use));
	return peer_of(use);
}

static void assert_told(const struct use *use, unsigned count, ...)
{
	va_list list;

	assert_int_equal(use->events, count);
	va_start(list, count);
	for (unsigned i = 0; i < count; i++)
		assert_int_equal(use->told[i].event, va_arg(list, int));
	va_end(list);
}

static void both_ends_agree_on_numbers(void **state)
{
	(void)state;
	struct use *active = dial(SERVICE);
	run(SECOND / 10);
	struct use *passive = peer_of(active);
	assert_non_null(passive);
	assert_told(active, 1, CM_RESPONSE);
	assert_told(passive, 1, CM_CONNECTED);
	const struct cm_endpoint *a = &active->endpoint, *p = &passive->endpoint;
	assert_int_equal(a->peer_qpn, 0x222222);
	assert_int_equal(p->peer_qpn, 0x111111);
	/* What one begins to send with is what the other begins to receive with. */
	assert_int_equal(a->psn, p->peer_psn);
	assert_int_equal(p->psn, a->peer_psn);
	/* What one may ask for at once is what the other said that it answers. */
	assert_int_equal(p->mtu, IBV_MTU_1024);
	assert_int_equal(a->responder_resources, 2);
	assert_int_equal(a->initiator_depth, 3);
	assert_int_equal(p->retry_count, 6);
	assert_int_equal(p->rnr_retry_count, 4);
}

static void either_end_may_disconnect(void **state)
{
	(void)state;
	for (int from = 0; from < 2; from++) {
		struct use *active = dial(SERVICE);
		run(SECOND / 10);
		struct use *first = from == 0 ? active : peer_of(active), *second = from == 0 ? peer_of(active) : active;
		assert_int_equal(cm_disconnect(&first->endpoint), 0);
		run(SECOND / 10);
		assert_int_equal(second->told[second->events - 1].event, CM_DISCONNECTED);
		/* The other is told when the peer has answered. */
		assert_int_equal(first->endpoint.state, CM_DREQ_SENT);
		assert_int_equal(cm_disconnect(&second->endpoint), 0);
		run(SECOND / 10);
		assert_int_equal(first->told[first->events - 1].event, CM_DISCONNECTED);
		run(10 * SECOND);
		assert_int_equal(first->told[first->events - 1].event, CM_TIMEWAIT_EXIT);
		assert_int_equal(second->told[second->events - 1].event, CM_TIMEWAIT_EXIT);
	}
}

static void nobody_listens_is_told_at_once(void **state)
{
	(void)state;
	struct use *use = dial(SERVICE + 1);
	run(SECOND / 10);
	assert_told(use, 1, CM_REJECTED);
	assert_int_equal(use->told[0].status, MAD_REASON_SERVICE);
}

static void full_listener_rejects(void **state)
{
	(void)state;
	end[1].full = true;
	struct use *use = dial(SERVICE);
	run(SECOND / 10);
	assert_told(use, 1, CM_REJECTED);
	assert_int_equal(use->told[0].status, MAD_REASON_NO_RESOURCES);
}

static void silence_ends_in_unreachable(void **state)
{
	(void)state;
	fake.loss = 100;
	struct use *use = dial(SERVICE);
	run(60 * SECOND);
	assert_told(use, 0);
	run(20 * SECOND);
	assert_told(use, 1, CM_UNREACHABLE);
	assert_int_equal(use->told[0].status, -ETIMEDOUT);
	assert_true(fake.sent < 30);
}

/* The program takes a minute and a half before it accepts: the peer is told to wait, once it asks again. */
static void slow_acceptance_is_waited_for(void **state)
{
	(void)state;
	end[1].accepts = false;
	struct use *use = dial(SERVICE);
	run(90 * SECOND);
	assert_told(use, 0);
	struct use *passive = peer_of(use);
	assert_int_equal(end[1].requests, 1);
	assert_int_equal(cm_accept(&passive->endpoint, &answer), 0);
	run(SECOND);
	assert_told(use, 1, CM_RESPONSE);
	assert_told(passive, 1, CM_CONNECTED);
}

static void rejection_carries_a_reason(void **state)
{
	(void)state;
	end[1].accepts = false;
	struct use *use = dial(SERVICE);
	run(SECOND / 10);
	const struct mad no = {.reason = 40, .private_length = 2, .private_data = "no"};
	struct use *passive = peer_of(use);
	assert_int_equal(cm_reject(&passive->endpoint, &no), 0);
	run(SECOND / 10);
	assert_told(use, 1, CM_REJECTED);
	assert_int_equal(use->told[0].status, 40);
}

/* The peer repeats its request, and is rejected anew, whether or not the program has destroyed what it has rejected. */
static void lost_rejection_is_repeated(void **state)
{
	(void)state;
	end[1].accepts = false;
	struct use *use = dial(SERVICE);
	run(SECOND / 10);
	fake.loss = 100;
	assert_int_equal(cm_reject(&peer_of(use)->endpoint, &(struct mad){.reason = 28}), 0);
	run(SECOND / 10);
	fake.loss = 0;
	run(SECOND);
	assert_int_equal(end[1].requests, 2);
	for (unsigned i = 0; i < MOST; i++)
		if (end[1].use[i].used && end[1].use[i].endpoint.state == CM_REQ_RECEIVED)
			assert_int_equal(cm_reject(&end[1].use[i].endpoint, &(struct mad){.reason = 28}), 0);
	run(SECOND / 10);
	assert_told(use, 1, CM_REJECTED);
}

/* Killed in each state of a connection: the other end is told within seconds, whoever it is. */
static void process_that_ends_is_missed(void **state)
{
	(void)state;
	end[1].accepts = false;
	struct use *asks = dial(SERVICE);
	run(2 * SECOND); /* it has been told to wait */
	end[1].accepts = true;
	struct use *connected = dial(SERVICE);
	run(SECOND);
	fake.loss = 100;
	fake.gone = fake.node[1].prefix;
	run(2 * SECOND);
	assert_told(asks, 1, CM_REJECTED);
	assert_told(connected, 2, CM_RESPONSE, CM_DISCONNECTED);
	close_both(NULL);
	open_both(NULL);
	end[1].accepts = false;
	struct use *passive = peer_of_new(dial(SERVICE)), *established = peer_of_new(dial(SERVICE));
	assert_int_equal(cm_accept(&established->endpoint, &answer), 0);
	run(SECOND);
	fake.loss = 100;
	fake.gone = fake.node[0].prefix;
	assert_int_equal(cm_accept(&passive->endpoint, &answer), 0);
	run(2 * SECOND);
	assert_told(passive, 1, CM_REJECTED);
	assert_told(established, 2, CM_CONNECTED, CM_DISCONNECTED);
	/* Nobody is left to be looked for. */
	run(10 * SECOND);
	assert_true(timers_next(&end[1].bare.device.timers) == UINT64_MAX);
}

/* Calls that a state does not have change nothing. */
static void calls_in_the_wrong_state_are_refused(void **state)
{
	(void)state;
	struct use *idle = new_use(&end[0]), *use = dial(SERVICE);
	assert_int_equal(cm_accept(&idle->endpoint, &answer), -EINVAL);
	assert_int_equal(cm_confirm(&idle->endpoint), -EINVAL);
	assert_int_equal(cm_reject(&idle->endpoint, &answer), -EINVAL);
	assert_int_equal(cm_disconnect(&idle->endpoint), -EINVAL);
	assert_int_equal(cm_listen(&idle->endpoint), -EINVAL);
	assert_int_equal(cm_connect(&use->endpoint, SERVICE, &answer), -EINVAL);
	assert_int_equal(cm_accept(&use->endpoint, &answer), -EINVAL);
	run(SECOND / 10);
	assert_int_equal(cm_confirm(&use->endpoint), -EINVAL);
	assert_int_equal(use->endpoint.state, CM_ESTABLISHED);
}

/* Whatever is lost, repeated or overtaken: no request is seen twice, and both ends come to the same end. */
static void lossy_links_connect_and_disconnect(void **state)
{
	(void)state;
	close_both(NULL);
	for (uint64_t seed = 1; seed <= SEEDS; seed++) {
		open_both(NULL);
		fake.seed = seed;
		fake.loss = 30;
		fake.repeat = 20;
		fake.jitter = 5000000;
		struct use *active[4];
		for (unsigned i = 0; i < 4; i++)
			active[i] = dial(SERVICE);
		run(60 * SECOND);
		for (unsigned i = 0; i < 4; i++) {
			assert_told(active[i], 1, CM_RESPONSE);
			assert_non_null(peer_of(active[i]));
			assert_int_equal(peer_of(active[i])->events, 1);
			assert_int_equal(cm_disconnect(&active[i]->endpoint), 0);
		}
		assert_int_equal(end[1].requests, 4);
		run(60 * SECOND);
		for (unsigned i = 0; i < 4; i++) {
			struct use *passive = peer_of(active[i]);
			if (passive->endpoint.state == CM_DREQ_RECEIVED)
				assert_int_equal(cm_disconnect(&passive->endpoint), 0);
			assert_int_equal(active[i]->told[1].event, CM_DISCONNECTED);
		}
		close_both(NULL);
	}
	open_both(NULL);
}

/* A message about a connection from anyone but its peer is not heeded. */
static void strangers_are_not_heeded(void **state)
{
	(void)state;
	struct use *active = dial(SERVICE);
	run(SECOND / 10);
	struct gsi_path stranger = active->endpoint.path;
	stranger.peer.raw[15] = 99;
	struct mad dreq = {.kind = MAD_DREQ, .local = active->endpoint.remote, .remote = active->endpoint.id, .qpn = 0x111111};
	fake.node[0].take(fake.node[0].arg, &dreq, &stranger);
	struct mad rej = {.kind = MAD_REJ, .local = active->endpoint.remote, .remote = active->endpoint.id, .reason = 28};
	fake.node[0].take(fake.node[0].arg, &rej, &stranger);
	assert_int_equal(active->endpoint.state, CM_ESTABLISHED);
	/* The peer's host, but another connection. */
	dreq.local ^= 1;
	fake.node[0].take(fake.node[0].arg, &dreq, &active->endpoint.path);
	assert_int_equal(active->endpoint.state, CM_ESTABLISHED);
	/* The peer itself, about another queue pair. */
	dreq.local ^= 1;
	dreq.qpn ^= 1;
	fake.node[0].take(fake.node[0].arg, &dreq, &active->endpoint.path);
	assert_int_equal(active->endpoint.state, CM_ESTABLISHED);
	assert_told(active, 1, CM_RESPONSE);
}

/* The listener asks for time and ends; its host refuses the request when it comes again, and has no ID to do so by. */
static void refusal_is_heeded_after_more_time_was_asked_for(void **state)
{
	(void)state;
	end[1].accepts = false;
	struct use *active = dial(SERVICE);
	run(SECOND);
	assert_int_equal(active->endpoint.state, CM_REQ_SENT);
	assert_int_not_equal(active->endpoint.remote, 0); /* the MRA's */
	const struct mad rej = {.kind = MAD_REJ, .remote = active->endpoint.id, .about = MAD_ABOUT_REQ, .reason = MAD_REASON_SERVICE};
	fake.node[0].take(fake.node[0].arg, &rej, &active->endpoint.path);
	assert_told(active, 1, CM_REJECTED);
	assert_int_equal(active->told[0].status, MAD_REASON_SERVICE);
}

/* The request is withdrawn before the peer has an ID to be told by: then it is told as it accepts. */
static void acceptance_of_a_withdrawn_request_is_refused(void **state)
{
	(void)state;
	end[1].accepts = false;
	struct use *active = dial(SERVICE), *passive = peer_of_new(active);
	fake.loss = 100;
	cm_remove(&active->endpoint);
	active->used = false;
	fake.loss = 0;
	assert_int_equal(cm_accept(&passive->endpoint, &answer), 0);
	run(SECOND / 10);
	assert_told(passive, 1, CM_REJECTED);
	assert_int_equal(passive->told[0].status, MAD_REASON_NO_ID);
}

/* Its node's bits of messages that are sent to it. */
static void take_lap(const struct use *to, unsigned node, uint32_t local, uint32_t remote)
{
	const struct mad lap = {.kind = MAD_LAP, .local = local, .remote = remote};

	fake.node[node].take(fake.node[node].arg, &lap, &to->endpoint.path);
}

static void paths_that_are_offered_are_refused(void **state)
{
	(void)state;
	struct use *active = dial(SERVICE), *passive = peer_of_new(active);
	take_lap(passive, 1, active->endpoint.id, passive->endpoint.id);
	run(SECOND / 10);
	assert_true(active->endpoint.answers); /* it has got the refusal, which changes nothing else */
	assert_int_equal(active->endpoint.state, CM_ESTABLISHED);
	/* About a connection that this end does not know. */
	take_lap(passive, 1, active->endpoint.id, passive->endpoint.id + 1000);
	run(SECOND / 10);
	assert_told(active, 1, CM_RESPONSE); /* it is not the peer's ID that this is about */
	/* A request with an alternate path is accepted without it. */
	end[1].accepts = false;
	struct use *use = dial(SERVICE), *request = peer_of_new(use);
	assert_false(request->endpoint.alternate);
	request->endpoint.alternate = true;
	assert_int_equal(cm_accept(&request->endpoint, &answer), 0);
	assert_int_equal(request->endpoint.last.failover, MAD_FAILOVER_UNSUPPORTED);
}

/* Killed on another host, where another process of the address says so. */
static void process_of_another_host_is_missed_by_its_neighbours(void **state)
{
	(void)state;
	fake.far = true;
	struct use *active = dial(SERVICE), *passive = peer_of_new(active);
	run(20 * SECOND);
	assert_true(active->endpoint.answers && passive->endpoint.answers);
	fake.silent = &fake.node[0];
	passive->endpoint.state = CM_ENDED;
	cm_remove(&passive->endpoint);
	passive->used = false;
	fake.silent = NULL;
	run(10 * SECOND);
	assert_told(active, 3, CM_RESPONSE, CM_DISCONNECTED, CM_TIMEWAIT_EXIT);
	run(10 * SECOND);
	assert_true(timers_next(&end[0].bare.device.timers) == UINT64_MAX);
}

/* Nobody is left at the address. A process that is stopped, or a network that is away, is another thing. */
static void last_process_of_another_host_is_missed_by_its_port(void **state)
{
	(void)state;
	fake.far = true;
	struct use *active = dial(SERVICE), *second = dial(SERVICE);
	run(20 * SECOND);
	assert_int_equal(fake.knocks, 0);
	fake.silent = &fake.node[1];
	run(100 * SECOND);
	assert_true(fake.knocks > 0);
	assert_told(active, 1, CM_RESPONSE);
	fake.silent = NULL;
	run(10 * SECOND);
	unsigned knocks = fake.knocks;
	run(100 * SECOND);
	assert_int_equal(fake.knocks, knocks);
	fake.silent = &fake.node[1];
	fake.refuses = true;
	run(12 * SECOND);
	assert_told(active, 3, CM_RESPONSE, CM_DISCONNECTED, CM_TIMEWAIT_EXIT);
	assert_told(second, 3, CM_RESPONSE, CM_DISCONNECTED, CM_TIMEWAIT_EXIT);
}

/* The kernel's connection manager leaves these questions unanswered. */
static void peers_that_never_answer_are_left_in_peace(void **state)
{
	(void)state;
	fake.far = true;
	struct use *active = dial(SERVICE);
	run(SECOND / 10);
	fake.silent = &fake.node[0];
	fake.refuses = true;
	run(20 * SECOND);
	unsigned sent = fake.sent;
	run(100 * SECOND);
	assert_true(fake.sent - sent < 60); /* of the other end, which has been answered before */
	assert_int_equal(active->endpoint.asked, 3);
	assert_told(active, 1, CM_RESPONSE);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, open_both, close_both)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(both_ends_agree_on_numbers), TEST(either_end_may_disconnect),
		TEST(nobody_listens_is_told_at_once), TEST(full_listener_rejects),
		TEST(silence_ends_in_unreachable), TEST(slow_acceptance_is_waited_for),
		TEST(rejection_carries_a_reason), TEST(calls_in_the_wrong_state_are_refused),
		TEST(lossy_links_connect_and_disconnect), TEST(strangers_are_not_heeded),
		TEST(lost_rejection_is_repeated), TEST(process_that_ends_is_missed),
		TEST(refusal_is_heeded_after_more_time_was_asked_for),
		TEST(acceptance_of_a_withdrawn_request_is_refused),
		TEST(paths_that_are_offered_are_refused),
		TEST(process_of_another_host_is_missed_by_its_neighbours),
		TEST(last_process_of_another_host_is_missed_by_its_port),
		TEST(peers_that_never_answer_are_left_in_peace),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
