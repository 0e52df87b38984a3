/* SPDX-License-Identifier: Apache-2.0 */
/* Streams over narrow places: how much of the link they use, what they lose, how they share it. All rates are of the link, and the
 * runs are the same each time. UROCE_SIM_TABLE=1 prints what each run reached. */
#include "sim_tcp.h"

enum {
	MESSAGE = 65536,
	OUTSTANDING = 128, /* as perftest has */
	MOST_FLOWS = 8,
	GBIT = 125000000, /* bytes a second */
	LOWER_HEADERS = 46 + WIRE_BTH,
};

enum kind { WRITE, READ, SEND, KINDS };

static const char *const kind_name[] = { "write", "read", "send" };

struct flow {
	struct sim_end a, b;
	enum kind kind;
	uint64_t posted, done, received;
	uint64_t at_warm; /* done by then */
};

struct trial {
	const char *name;
	uint64_t rate;  /* bytes a second */
	size_t queue;   /* bytes */
	uint64_t delay; /* ns one way */
	double loss, late;
	uint64_t late_by;
	size_t mark;
	enum ibv_mtu mtu;
	uint8_t rd_atomic;
	unsigned flows;
	uint64_t warm, time; /* ns: what is measured begins after the first */
	uint64_t looks_every; /* ns: so often the ends take what has come */
	double aim;          /* part of the link */
	double most_lost;    /* part of the packets, at the queue */
};

struct result {
	double part; /* of the link */
	double lost;
	double share[MOST_FLOWS]; /* of the mean */
	uint64_t marked, heeded;
};

static struct flow flows[MOST_FLOWS];
static struct sim_node *wires[2]; /* the data's, and the answers' */

static void post(struct flow *flow)
{
	if (flow->kind == WRITE)
		sim_write(&flow->a, flow->posted, 0, MESSAGE, &flow->b, 0);
	else if (flow->kind == READ)
		sim_read(&flow->a, flow->posted, 0, MESSAGE, &flow->b, 0);
	else
		sim_send(&flow->a, flow->posted, 0, MESSAGE);
	flow->posted++;
}

static void keep_going(struct flow *flow)
{
	if (flow->kind == SEND)
		for (unsigned n = sim_count(flow->b.rcq); n > 0; n--)
			sim_recv(&flow->b, 0, 0, MESSAGE);
	unsigned done = sim_count(flow->a.scq);
	flow->done += done;
	for (; done > 0; done--)
		post(flow);
}

static void begin(const struct trial *trial, enum kind kind, uint64_t seed)
{
	struct sim_options options = sim_defaults();
	options.memory = MESSAGE;
	options.depth = 2 * OUTSTANDING;
	options.mtu = trial->mtu;
	options.timeout = 14;
	options.rd_atomic = options.dest_rd_atomic = trial->rd_atomic;
	sim_start(seed);
	struct sim_node *na = wires[0] = sim_node(), *nb = wires[1] = sim_node();
	na->device.max_window = nb->device.max_window = 2048;
	na->wire = nb->wire = (struct sim_wire){
		.path_rate = trial->rate, .path_queue = trial->queue, .path_mark = trial->mark, .delay = trial->delay,
		.loss = trial->loss, .late = trial->late, .late_by = trial->late_by,
	};
	na->looks_every = nb->looks_every = trial->looks_every;
	for (unsigned i = 0; i < trial->flows; i++) {
		struct flow *flow = &flows[i];
		*flow = (struct flow){ .kind = kind };
		sim_pair(&flow->a, na, &flow->b, nb, &options);
		sim_fill(kind == READ ? flow->b.memory : flow->a.memory, MESSAGE, i + 1);
		for (unsigned n = 0; kind == SEND && n < 2 * OUTSTANDING; n++)
			sim_recv(&flow->b, 0, 0, MESSAGE);
		for (unsigned n = 0; n < OUTSTANDING; n++)
			post(flow);
	}
}

static void pass(const struct trial *trial, uint64_t time)
{
	uint64_t end = sim_now() + time;
	while (sim_now() < end) {
		sim_pass(100 * US);
		for (unsigned i = 0; i < trial->flows; i++)
			keep_going(&flows[i]);
	}
}

/* Nothing more is posted: all that was completes, and has its data. */
static void finish(const struct trial *trial, enum kind kind)
{
	assert_true(sim_run(100 * SECOND));
	for (unsigned i = 0; i < trial->flows; i++) {
		struct flow *flow = &flows[i];
		flow->done += sim_count(flow->a.scq);
		assert_int_equal(flow->done, flow->posted);
		assert_true(sim_filled(kind == READ ? flow->a.memory : flow->b.memory, MESSAGE, i + 1));
		sim_close(&flow->a);
		sim_close(&flow->b);
	}
	sim_stop();
}

static struct result run(const struct trial *trial, enum kind kind, uint64_t seed)
{
	struct result result = { 0 };
	double link = 0;
	begin(trial, kind, seed);
	struct sim_node *from = kind == READ ? flows[0].b.node : flows[0].a.node;
	pass(trial, trial->warm);
	for (unsigned i = 0; i < trial->flows; i++)
		flows[i].at_warm = flows[i].done;
	pass(trial, trial->time);
	double total = 0;
	for (unsigned i = 0; i < trial->flows; i++)
		total += result.share[i] = (double)(flows[i].done - flows[i].at_warm) * MESSAGE;
	for (unsigned i = 0; i < trial->flows; i++)
		result.share[i] /= total / trial->flows;
	unsigned mtu = 128u << trial->mtu;
	link = (double)trial->rate * mtu / (mtu + LOWER_HEADERS) * (double)trial->time / (double)SECOND;
	result.part = total / link;
	result.lost = (double)from->path_dropped / (double)(from->path_dropped + from->path_carried);
	result.marked = from->path_marked;
	result.heeded = kind == READ ? flows[0].a.node->counters.ecn_marked : from->counters.cnps_received;
	if (getenv("UROCE_SIM_TABLE")) {
		print_message("%-34s %-5s %.3f of the link, %.2f %% lost, %llu marked", trial->name, kind_name[kind], result.part,
			      100 * result.lost, (unsigned long long)result.marked);
		for (unsigned i = 0; trial->flows > 1 && i < trial->flows; i++)
			print_message(" %.2f", result.share[i]);
		print_message("\n");
	}
	finish(trial, kind);
	return result;
}

/* What a trial leaves out. */
static struct trial complete(struct trial trial)
{
	if (trial.rate == 0)
		trial.rate = GBIT;
	if (trial.queue == 0)
		trial.queue = 250000;
	if (trial.delay == 0)
		trial.delay = 100 * US;
	if (trial.mtu == 0)
		trial.mtu = IBV_MTU_1024;
	if (trial.flows == 0)
		trial.flows = 1;
	if (trial.time == 0)
		trial.time = SECOND / 2;
	if (trial.rd_atomic == 0)
		trial.rd_atomic = 128;
	if (trial.aim == 0)
		trial.aim = 0.9;
	if (trial.most_lost == 0)
		trial.most_lost = 0.02;
	return trial;
}

static const struct trial trials[] = {
	{ .name = "1 Gbit/s, queue 250 KB" },
	{ .name = "1 Gbit/s, queue 60 KB", .queue = 60000 },
	{ .name = "200 Mbit/s, queue 250 KB", .rate = GBIT / 5, .most_lost = 0.035 },
	{ .name = "200 Mbit/s, queue 60 KB", .rate = GBIT / 5, .queue = 60000 },
	{ .name = "MTU 9000, queue 250 KB", .mtu = IBV_MTU_4096 },
	{ .name = "MTU 9000, queue 60 KB", .mtu = IBV_MTU_4096, .queue = 60000, .most_lost = 0.03 },
	{ .name = "round trip 10 ms", .delay = 5 * MS, .warm = SECOND / 2 },
	{ .name = "round trip 20 ms", .delay = 10 * MS, .warm = SECOND / 2, .most_lost = 0.025 },
	/* Slow start loses as much as the path holds. */
	{ .name = "round trip 50 ms", .delay = 25 * MS, .warm = SECOND, .time = SECOND, .aim = 0.8, .most_lost = 0.06 },
	{ .name = "round trip 50 ms, 200 Mbit/s", .rate = GBIT / 5, .delay = 25 * MS, .warm = SECOND, .time = SECOND, .most_lost = 0.06 },
	{ .name = "loss 0.1 %", .loss = 0.001 },
	{ .name = "loss 1 %", .loss = 0.01 },
	{ .name = "loss 0.1 %, round trip 10 ms", .delay = 5 * MS, .loss = 0.001, .warm = SECOND / 2, .most_lost = 0.05 },
	{ .name = "loss 1 %, round trip 10 ms", .delay = 5 * MS, .loss = 0.01, .warm = SECOND / 2, .most_lost = 0.05 },
	{ .name = "1 % of packets 0.3 ms late", .late = 0.01, .late_by = 300 * US },
	{ .name = "1 % 0.3 ms late, round trip 10 ms", .late = 0.01, .late_by = 300 * US, .delay = 5 * MS, .warm = SECOND / 2, .most_lost = 0.07 },
};

/* What one TCP stream reaches in place of a queue pair, in the same way of counting. */
static double tcp_alone(const struct trial *trial, uint64_t seed)
{
	struct trial none = *trial;
	none.flows = 0;
	begin(&none, WRITE, seed);
	uint32_t mtu = trial->mtu >= IBV_MTU_4096 ? 9000 : 1500;
	struct sim_tcp *tcp = sim_tcp_start(wires[0], wires[1], mtu);
	sim_pass(trial->warm);
	uint64_t before = sim_tcp_arrived(tcp);
	sim_pass(trial->time);
	double link = (double)trial->rate * (mtu - 52) / (mtu + 14) * (double)trial->time / (double)SECOND;
	double part = (double)(sim_tcp_arrived(tcp) - before) / link;
	sim_tcp_stop(tcp);
	sim_run(100 * SECOND);
	sim_tcp_free(tcp);
	sim_stop();
	return part;
}

static void check(struct trial trial, enum kind kind, uint64_t seed)
{
	struct result result = run(&trial, kind, seed);
	if (getenv("UROCE_SIM_TABLE"))
		return;
	double tcp = tcp_alone(&trial, seed);
	if (result.part < 0.9 * tcp)
		fail_msg("%s, %s: %.3f of the link; one TCP stream has %.3f", trial.name, kind_name[kind], result.part, tcp);
	if (result.part < trial.aim)
		fail_msg("%s, %s: %.3f of the link; the aim is %.2f", trial.name, kind_name[kind], result.part, trial.aim);
	if (result.lost > trial.most_lost)
		fail_msg("%s, %s: the queue dropped %.2f %% of the packets", trial.name, kind_name[kind], 100 * result.lost);
}

static void check_all(enum kind kind)
{
	for (size_t i = 0; i < sizeof trials / sizeof trials[0]; i++)
		check(complete(trials[i]), kind, 1);
}

static void a_stream_of_writes_uses_the_link(void **state)
{
	(void)state;
	check_all(WRITE);
}

static void a_stream_of_reads_uses_the_link(void **state)
{
	(void)state;
	check_all(READ);
}

static void a_stream_of_sends_uses_the_link(void **state)
{
	(void)state;
	check_all(SEND);
}

/* Links of all kinds, a little over each: whatever is lost, late or marked, all arrives, whole and before long, and no retry is used up. */
static void a_little_over_each_of_many_links_arrives_in_time(void **state)
{
	(void)state;
	enum { LINKS = 1000 };
	static const double losses[] = { 0, 0, 0.001, 0.01 };
	unsigned good = 0, fair = 0;
	for (uint64_t seed = 1; seed <= LINKS; seed++) {
		sim_start(seed);
		struct trial trial = complete((struct trial){
			.rate = GBIT / (1 + sim_below(20)),
			.queue = 30000 + sim_below(300000),
			.delay = 50 * US + sim_below(sim_below(3) ? MS : 25 * MS),
			.loss = losses[sim_below(4)],
			.late = sim_below(3) ? 0 : 0.01,
			.late_by = 50 * US + sim_below(500 * US),
			.mark = sim_below(3) ? 0 : 30000,
			.mtu = sim_below(2) ? IBV_MTU_1024 : IBV_MTU_4096,
			.rd_atomic = 16,
		});
		enum kind kind = (enum kind)(seed % KINDS);
		begin(&trial, kind, seed);
		uint64_t began = sim_now(), ideal = (uint64_t)OUTSTANDING * MESSAGE * SECOND / trial.rate;
		if (!sim_run(10 * ideal + 100 * trial.delay + SECOND / 2))
			fail_msg("seed %llu, %s: not all has arrived in time", (unsigned long long)seed, kind_name[kind]);
		/* Ten ways for the first packets, until the rate is known. */
		double needed = (double)(sim_now() - began) - 10 * (double)trial.delay;
		good += needed <= 1.2 * (double)ideal;
		fair += needed <= 2 * (double)ideal;
		assert_int_equal(flows[0].a.node->counters.retries_exhausted + flows[0].b.node->counters.retries_exhausted, 0);
		finish(&trial, kind);
	}
	if (getenv("UROCE_SIM_TABLE"))
		print_message("of %d links, %u good, %u fair\n", LINKS, good, fair);
	assert_true(good >= LINKS * 3 / 4);
	assert_true(fair >= LINKS * 9 / 10);
}

/* A place that marks packets long before it has no room, and a place that is as good without: nothing is lost then. What the
 * sender does not heed fills the queue all the same. */
/* A queue pair's rate over that of the TCP stream beside it. */
static double beside_tcp(const struct trial *trial, enum kind kind, uint64_t seed)
{
	uint32_t mtu = trial->mtu >= IBV_MTU_4096 ? 9000 : 1500;
	begin(trial, kind, seed);
	unsigned from = kind == READ;
	struct sim_tcp *tcp = sim_tcp_start(wires[from], wires[!from], mtu);
	pass(trial, trial->warm);
	uint64_t before = sim_tcp_arrived(tcp);
	flows[0].at_warm = flows[0].done;
	pass(trial, trial->time);
	double ratio = (double)(flows[0].done - flows[0].at_warm) * MESSAGE / (double)(sim_tcp_arrived(tcp) - before + 1);
	sim_tcp_stop(tcp);
	finish(trial, kind);
	sim_tcp_free(tcp);
	return ratio;
}


/* Over narrow places of many widths, queues and lengths; UROCE_SIM_LINKS=3000 tries so many, and shows what came of them. */
static void a_queue_pair_and_a_tcp_stream_share_the_link(void **state)
{
	(void)state;
	const char *asked = getenv("UROCE_SIM_LINKS");
	unsigned links = asked ? (unsigned)strtoul(asked, NULL, 10) : 24, fair = 0;
	for (uint64_t seed = 1; seed <= links; seed++) {
		sim_start(seed);
		struct trial trial = complete((struct trial){
			.name = "beside TCP",
			.rate = GBIT / (2 + sim_below(19)),
			.queue = 60000 + sim_below(190000),
			.delay = 50 * US + sim_below(200 * US),
			.mtu = sim_below(3) ? IBV_MTU_1024 : IBV_MTU_4096,
			.warm = SECOND + sim_below(SECOND),
			.time = 2 * SECOND,
		});
		enum kind kind = (enum kind)(seed % KINDS);
		double ratio = beside_tcp(&trial, kind, seed);
		fair += ratio >= 0.4 && ratio <= 2.5;
		if (asked)
			print_message("%s: %.0f Mbit/s, queue %zu, MTU %u: %.2f times TCP\n", kind_name[kind],
				      (double)trial.rate / 125000, trial.queue, 128u << trial.mtu, ratio);
	}
	if (asked)
		print_message("of %u links, %u fair\n", links, fair);
	assert_true(fair >= links * 9 / 10);
}

/* TCP makes the round trip a hundred times as long before the first answer has measured it: what is sent again before its answer
 * measures nothing. */
static void a_queue_pair_is_not_starved_behind_a_queue_that_tcp_fills(void **state)
{
	(void)state;
	for (unsigned slower = 8; slower <= 16; slower += 4) {
		struct trial trial = complete((struct trial){
			.name = "beside TCP", .rate = GBIT / slower, .queue = 225000, .mtu = IBV_MTU_4096, .warm = SECOND, .time = 2 * SECOND });
		assert_true(beside_tcp(&trial, WRITE, 1) >= 0.4);
	}
}

/* Ends that look for packets only now and then make the path no longer than it is. */
static void ends_that_look_now_and_then_measure_the_path(void **state)
{
	(void)state;
	for (enum kind kind = WRITE; kind < KINDS; kind++) {
		struct trial trial = complete((struct trial){
			.name = "looks every 2 ms", .rate = GBIT / 5, .delay = MS, .looks_every = 2 * MS });
		begin(&trial, kind, 1);
		uint64_t shortest = UINT64_MAX;
		for (unsigned n = 0; n < 50; n++) {
			pass(&trial, 10 * MS);
			uint64_t base = qp_of(flows[0].a.qp)->req.path.base;
			if (n > 0 && base < shortest)
				shortest = base;
		}
		const struct congestion *path = &qp_of(flows[0].a.qp)->req.path;
		if (getenv("UROCE_SIM_TABLE"))
			print_message("%s: base %llu us, round trip %llu us, of it the ends' %llu us\n", kind_name[kind],
				      (unsigned long long)shortest / 1000, (unsigned long long)path->rtt / 1000, (unsigned long long)path->ends / 1000);
		assert_in_range(shortest, 2 * MS, 3 * MS);
		assert_true(path->rtt > 3 * MS);
		finish(&trial, kind);
	}
}

/* Nor is what they do taken for a queue, which would make each random loss, and each late packet, one to be paid for. */
static void what_is_lost_where_ends_look_rarely_does_not_slow_them_down(void **state)
{
	(void)state;
	static const struct {
		enum kind kind;
		struct trial trial;
	} cases[] = {
		{ READ, { .name = "loss 1 %, looks every 0.3 ms", .loss = 0.01, .looks_every = 300 * US, .aim = 0.7 } },
		{ READ, { .name = "1 % late, looks every 0.3 ms", .late = 0.01, .late_by = 300 * US, .looks_every = 300 * US, .aim = 0.8 } },
		{ WRITE, { .name = "loss 1 %, looks every 1 ms", .loss = 0.01, .looks_every = MS, .aim = 0.85 } },
		{ WRITE, { .name = "71 Mbit/s, loss 1 %, looks every 3 ms", .rate = GBIT / 14, .queue = 160000, .delay = 900 * US, .loss = 0.01,
			   .looks_every = 3 * MS, .time = 2 * SECOND, .aim = 0.85 } },
		{ SEND, { .name = "500 Mbit/s, loss 0.1 %, looks every 3 ms", .rate = GBIT / 2, .queue = 110000, .delay = 2 * MS, .loss = 0.001,
			  .looks_every = 3 * MS, .time = 2 * SECOND, .aim = 0.7 } },
		{ READ, { .name = "77 Mbit/s, loss 1 %, looks every 3 ms", .rate = GBIT / 13, .queue = 92000, .delay = 500 * US, .loss = 0.01,
			   .looks_every = 3 * MS, .time = 2 * SECOND, .aim = 0.5 } },
	};
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		struct trial trial = cases[i].trial;
		trial.delay = trial.delay ? trial.delay : 5 * MS;
		trial.warm = SECOND / 2;
		trial = complete(trial);
		struct result result = run(&trial, cases[i].kind, 1);
		if (result.part < trial.aim)
			fail_msg("%s, %s: %.3f of the link; the aim is %.2f", trial.name, kind_name[cases[i].kind], result.part, trial.aim);
	}
}

static void marked_streams_leave_the_queue_short(void **state)
{
	(void)state;
	for (enum kind kind = WRITE; kind < KINDS; kind++) {
		for (unsigned wide = 0; wide < 2; wide++) {
			struct trial trial = complete((struct trial){
				.name = "marked above 60 KB", .mark = 60000, .queue = 500000, .delay = wide ? 5 * MS : 100 * US, .warm = SECOND / 2 });
			struct result result = run(&trial, kind, 1);
			if (getenv("UROCE_SIM_TABLE"))
				continue;
			assert_true(result.part >= (wide && kind == READ ? 0.84 : 0.9));
			assert_true(result.marked > 0);
			assert_true(result.lost < (wide ? 0.01 : 0.0001));
			assert_true(result.heeded > 0);
		}
	}
}

static void flows_share_the_link(void **state)
{
	(void)state;
	for (unsigned count = 2; count <= MOST_FLOWS; count *= 4) {
		for (enum kind kind = WRITE; kind < KINDS; kind++) {
			struct trial trial = complete((struct trial){
				.name = "several flows", .flows = count, .warm = 2 * SECOND, .time = 4 * SECOND });
			struct result result = run(&trial, kind, 1);
			for (unsigned i = 0; i < count && !getenv("UROCE_SIM_TABLE"); i++) {
				assert_true(result.share[i] >= 0.7);
				assert_true(result.share[i] <= 1.4);
			}
		}
	}
}

/* The first answers of each have to find room in a queue that the others fill: none may use up its retries. */
static void reads_that_begin_together_on_a_short_queue_all_live(void **state)
{
	(void)state;
	for (uint64_t seed = 1; seed <= 4; seed++) {
		struct trial trial = complete((struct trial){
			.name = "reads that begin", .rate = GBIT / 6, .queue = 60000, .loss = 0.01, .looks_every = 3 * MS, .mtu = IBV_MTU_4096,
			.flows = MOST_FLOWS });
		begin(&trial, READ, seed);
		pass(&trial, SECOND);
		assert_int_equal(flows[0].a.node->counters.retries_exhausted, 0);
		finish(&trial, READ);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_stream_of_writes_uses_the_link),
		cmocka_unit_test(a_stream_of_reads_uses_the_link),
		cmocka_unit_test(a_stream_of_sends_uses_the_link),
		cmocka_unit_test(a_little_over_each_of_many_links_arrives_in_time),
		cmocka_unit_test(ends_that_look_now_and_then_measure_the_path),
		cmocka_unit_test(what_is_lost_where_ends_look_rarely_does_not_slow_them_down),
		cmocka_unit_test(marked_streams_leave_the_queue_short),
		cmocka_unit_test(a_queue_pair_and_a_tcp_stream_share_the_link),
		cmocka_unit_test(a_queue_pair_is_not_starved_behind_a_queue_that_tcp_fills),
		cmocka_unit_test(flows_share_the_link),
		cmocka_unit_test(reads_that_begin_together_on_a_short_queue_all_live),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
