/* SPDX-License-Identifier: Apache-2.0 */
#include "sim.h"

#include "guard.h"

enum { MAX_NODES = 8, SCRIPT_NODE = 100, OTHER_NODE, LOSS_SLOTS = 1 << 16 };

static struct {
	uint64_t now;
	uint64_t order;
	uint64_t random;
	struct sim_node *node[MAX_NODES];
	unsigned nodes;
	struct sim_packet **heap; /* by time and order, from 1 */
	size_t flying;
	size_t room;
	struct sim_packet **taken; /* arrived at the test */
	size_t taken_count;
	size_t taken_next;
	union ibv_gid script;
	uint16_t script_tag;
	uint8_t script_class;
	uint64_t script_waited;
	unsigned script_asked;
	unsigned violations;
	uint8_t lost[LOSS_SLOTS]; /* how often a packet was lost, by a hash of it */
} sim;

/* A broken contract is found under the device's lock, where a failed assertion would leave it locked: told at the end.
 */
static void violation(const char *what)
{
	if (sim.violations++ == 0)
		print_error("the link's contract was broken: %s\n", what);
}

/* ---- time and chance ---- */

uint64_t sim_now(void)
{
	return sim.now;
}

uint64_t sim_random(void)
{
	uint64_t x = sim.random += 0x9e3779b97f4a7c15;
	x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9;
	x = (x ^ (x >> 27)) * 0x94d049bb133111eb;
	return x ^ (x >> 31);
}

uint64_t sim_below(uint64_t n)
{
	return sim_random() % n;
}

static bool chance(double p)
{
	return p > 0 && (double)(sim_random() >> 11) < p * 0x1p53;
}

/* ---- packets in flight ---- */

static bool before(const struct sim_packet *a, const struct sim_packet *b)
{
	return a->time != b->time ? a->time < b->time : a->order < b->order;
}

static void fly(struct sim_packet *packet)
{
	if (sim.flying + 2 > sim.room) {
		sim.room = sim.room ? sim.room * 2 : 64;
		sim.heap = realloc(sim.heap, sim.room * sizeof *sim.heap);
		if (!sim.heap)
			abort();
	}
	packet->order = sim.order++;
	size_t at = ++sim.flying;
	while (at > 1 && before(packet, sim.heap[at / 2])) {
		sim.heap[at] = sim.heap[at / 2];
		at /= 2;
	}
	sim.heap[at] = packet;
}

static struct sim_packet *land(void)
{
	struct sim_packet *first = sim.heap[1], *last = sim.heap[sim.flying--];
	size_t at = 1;
	for (size_t child; (child = 2 * at) <= sim.flying; at = child) {
		if (child < sim.flying && before(sim.heap[child + 1], sim.heap[child]))
			child++;
		if (!before(sim.heap[child], last))
			break;
		sim.heap[at] = sim.heap[child];
	}
	sim.heap[at] = last;
	return first;
}

static void take(struct sim_packet *packet)
{
	if (packet->packet.opcode == OP_ASK_TAG) {
		sim.script_asked++;
		free(packet);
		return;
	}
	/* Grows by one chunk at a time; the packets themselves stay where they are. */
	if (sim.taken_count % 256 == 0) {
		sim.taken = realloc(sim.taken, (sim.taken_count + 256) * sizeof *sim.taken);
		if (!sim.taken)
			abort();
	}
	sim.taken[sim.taken_count++] = packet;
}

/* ---- the link ---- */

static struct sim_node *node_of(struct link *link)
{
	return (struct sim_node *)((char *)link - offsetof(struct sim_node, link));
}

static uint64_t wire_time(const struct sim_node *node, size_t bytes)
{
	return node->wire.bytes_per_second == 0 ? 0 : bytes * SECOND / node->wire.bytes_per_second;
}

/* When the wire's queue has room again. */
static uint64_t ready_at(const struct sim_node *node)
{
	if (node->blocked)
		return UINT64_MAX;
	uint64_t backlog = wire_time(node, node->wire.queue);
	return node->wire.queue == 0 || node->wire_free <= backlog ? 0 : node->wire_free - backlog;
}

static bool sim_ready(struct link *link)
{
	return ready_at(node_of(link)) <= sim.now;
}

static bool sim_link_send(struct link *link, const struct packet_out *packet)
{
	struct sim_node *node = node_of(link);
	if (node->waiting_count == node->waiting_room) {
		node->waiting_room = node->waiting_room ? node->waiting_room * 2 : 16;
		node->waiting = realloc(node->waiting, node->waiting_room * sizeof *node->waiting);
		if (!node->waiting)
			abort();
	}
	if (node->blocked)
		violation("sent while the link was not ready");
	size_t total = 0;
	for (size_t i = 0; i < packet->pieces && i < LINK_MAX_PIECES; i++)
		total += packet->piece[i].iov_len;
	if (total != packet->payload_length || total > WIRE_MAX_MTU || packet->pieces > LINK_MAX_PIECES)
		violation("pieces and payload length differ");
	if (packet->header_length < WIRE_BTH || packet->header_length > WIRE_MAX_HEADER)
		violation("header length");
	if (packet->sgid_index != 0)
		violation("source address");
	static uint8_t payload[WIRE_MAX_MTU];
	for (size_t i = 0; i < packet->pieces; i++)
		if (!guard_copy(payload, packet->piece[i].iov_base, packet->piece[i].iov_len))
			return false;
	node->waiting[node->waiting_count++] = *packet;
	node->sent++;
	node->sent_bytes += packet->header_length + total;
	uint64_t start = node->wire_free > sim.now ? node->wire_free : sim.now;
	node->wire_free = start + wire_time(node, packet->header_length + total);
	return true;
}

static bool lost(struct sim_node *node, const struct sim_packet *packet)
{
	const struct sim_wire *wire = &node->wire;
	if (wire->drop)
		return wire->drop(wire->arg, packet);
	bool lose = chance(wire->loss);
	if (node->burst_left > 0) {
		node->burst_left--;
		lose = true;
	} else if (chance(wire->burst)) {
		node->burst_left = wire->burst_length - 1;
		lose = true;
	}
	if (!lose || wire->loss_cap == 0)
		return lose;
	uint32_t hash = (packet->packet.psn * 64 + packet->packet.opcode) * 2654435761u + packet->to * 40503u;
	uint8_t *count = &sim.lost[(hash >> 8) % LOSS_SLOTS];
	if (*count >= wire->loss_cap)
		return false;
	++*count;
	return true;
}

static bool to_flight(struct sim_node *node, const struct packet_out *out, struct sim_packet *packet)
{
	memcpy(packet->bytes, out->header, out->header_length);
	packet->length = out->header_length;
	for (size_t i = 0; i < out->pieces; i++) {
		memcpy(packet->bytes + packet->length, out->piece[i].iov_base, out->piece[i].iov_len);
		packet->length += out->piece[i].iov_len;
	}
	while (packet->length % 4 != 0)
		packet->bytes[packet->length++] = 0;
	packet->may_change = out->may_change;
	packet->icrc_twice = out->icrc_twice;
	packet->tclass = out->tclass;
	packet->from = node->number;
	packet->to = memcmp(&out->dgid, &sim.script, sizeof out->dgid) == 0 ? SCRIPT_NODE : out->dgid.raw[15] - 1u;
	if (wire_decode(packet->bytes, packet->length, &packet->packet) != 0) {
		violation("a packet that does not decode");
		return false;
	}
	if (packet->packet.payload_length != out->payload_length || packet->packet.qpn != out->dqpn)
		violation("header and packet differ");
	if (packet->packet.pkey != WIRE_PKEY)
		violation("P_Key");
	return packet->to < sim.nodes || packet->to == SCRIPT_NODE;
}

/* Through the narrow place: when the packet has left it. False: it is dropped. */
static bool pass_path(struct sim_node *node, size_t length, uint8_t *tclass, uint64_t *at)
{
	enum { ECT = 2, CE = 3 };
	const struct sim_wire *wire = &node->wire;
	if (wire->path_rate == 0)
		return true;
	uint64_t start = node->path_free > *at ? node->path_free : *at;
	uint64_t waiting = (start - *at) * wire->path_rate / SECOND;
	if (waiting + length > wire->path_queue) {
		node->path_dropped++;
		return false;
	}
	if (wire->path_mark != 0 && waiting > wire->path_mark && (*tclass & CE) == ECT) {
		*tclass |= CE;
		node->path_marked++;
	}
	node->path_carried++;
	*at = node->path_free = start + length * SECOND / wire->path_rate;
	return true;
}

static uint64_t arrival(const struct sim_node *node, uint64_t left_at)
{
	uint64_t time = left_at + node->wire.delay + (node->wire.jitter ? sim_below(node->wire.jitter) : 0);
	if (chance(node->wire.reorder))
		time += 5 * US + sim_below(20 * US);
	if (chance(node->wire.late))
		time += node->wire.late_by;
	return time;
}

static void fly_copy(struct sim_node *node, const struct sim_packet *packet, uint64_t left_at)
{
	struct sim_packet *copy = malloc(sizeof *copy);
	if (!copy)
		abort();
	*copy = *packet;
	copy->packet.payload = copy->bytes + (packet->packet.payload - packet->bytes);
	copy->time = copy->arrived = arrival(node, left_at);
	uint64_t every = packet->to < sim.nodes ? sim.node[packet->to]->looks_every : 0;
	if (every != 0)
		copy->time += every - copy->time % every;
	fly(copy);
}

/* The pieces are read here, as late as the contract allows. */
static void sim_flush(struct link *link)
{
	enum { LOWER_HEADERS = 46 }; /* Ethernet, IPv4, UDP, ICRC */
	static struct sim_packet packet; /* large; one thread */
	struct sim_node *node = node_of(link);
	uint64_t left = node->wire_free;
	for (size_t i = 0; i < node->waiting_count; i++)
		left -= wire_time(node, node->waiting[i].header_length + node->waiting[i].payload_length);
	for (size_t i = 0; i < node->waiting_count; i++) {
		const struct packet_out *out = &node->waiting[i];
		left += wire_time(node, out->header_length + out->payload_length);
		if (!to_flight(node, out, &packet) || node->dead || lost(node, &packet))
			continue;
		uint64_t at = left > sim.now ? left : sim.now;
		if (!pass_path(node, packet.length + LOWER_HEADERS, &packet.tclass, &at))
			continue;
		fly_copy(node, &packet, at);
		if (chance(node->wire.duplicate))
			fly_copy(node, &packet, at);
	}
	node->waiting_count = 0;
}

void sim_call_at(uint64_t time, void (*call)(void *arg, uint64_t number), void *arg, uint64_t number)
{
	struct sim_packet *packet = malloc(sizeof *packet);
	if (!packet)
		abort();
	packet->to = OTHER_NODE;
	packet->time = time;
	packet->arrive = call;
	packet->arg = arg;
	packet->number = number;
	fly(packet);
}

void sim_other_send(struct sim_node *node, size_t length, void (*arrive)(void *arg, uint64_t number), void *arg, uint64_t number)
{
	uint64_t at = sim.now;
	uint8_t tclass = 0;
	if (!chance(node->wire.loss) && pass_path(node, length, &tclass, &at))
		sim_call_at(arrival(node, at), arrive, arg, number);
}

static const struct link_ops sim_link = {.ready = sim_ready, .send = sim_link_send, .flush = sim_flush};

/* ---- the world ---- */

static union ibv_gid make_gid(uint8_t last)
{
	union ibv_gid gid = {.raw = {[10] = 0xff, [11] = 0xff, [12] = 192, [13] = 0, [14] = 2, [15] = last}};
	return gid;
}

void sim_start(uint64_t seed)
{
	memset(&sim, 0, sizeof sim);
	sim.now = SECOND;
	sim.random = seed * 0x2545f4914f6cdd1d + 1;
	sim.script = make_gid(250);
}

struct sim_node *sim_node(void)
{
	struct sim_node *node = calloc(1, sizeof *node);
	if (!node || sim.nodes == MAX_NODES)
		abort();
	node->number = sim.nodes;
	sim.node[sim.nodes++] = node;
	node->gid = make_gid((uint8_t)sim.nodes);
	node->link.ops = &sim_link;

	test_device_open(&node->device, &node->context, &node->counters, &node->link, sim_now);
	node->device.now = sim.now;
	node->device.max_window = 256;
	node->device.keeps_ahead = node->device.ecn = true;
	node->pd = pd_alloc(&node->context.verbs.context);
	assert_non_null(node->pd);
	return node;
}

static void node_free(struct sim_node *node)
{
	assert_int_equal(pd_dealloc(node->pd), 0);
	assert_int_equal(node->device.qps.count, 0);
	assert_int_equal(node->device.keys.count, 0);
	assert_null(node->device.active_head);
	assert_int_equal(timers_next(&node->device.timers), UINT64_MAX);
	test_device_close(&node->device, &node->context);
	free(node->waiting);
	free(node);
}

void sim_stop(void)
{
	while (sim.flying > 0)
		free(land());
	free(sim.heap);
	for (size_t i = 0; i < sim.taken_count; i++)
		free(sim.taken[i]);
	free(sim.taken);
	for (unsigned i = 0; i < sim.nodes; i++)
		node_free(sim.node[i]);
	assert_int_equal(sim.violations, 0);
	memset(&sim, 0, sizeof sim);
}

static void deliver(struct sim_packet *packet)
{
	if (packet->to == OTHER_NODE) {
		packet->arrive(packet->arg, packet->number);
		free(packet);
		return;
	}
	if (packet->to == SCRIPT_NODE) {
		take(packet);
		return;
	}
	struct sim_node *node = sim.node[packet->to];
	struct packet_path path = {.dgid = node->gid, .tclass = packet->tclass, .hop_limit = 64, .arrived = packet->arrived};
	path.sgid = packet->from == SCRIPT_NODE ? sim.script : sim.node[packet->from]->gid;
	if (!node->dead) {
		/* An exact copy on the heap: a read past its end is seen by a sanitizer. */
		uint8_t *exact = malloc(packet->length);
		if (!exact)
			abort();
		memcpy(exact, packet->bytes, packet->length);
		engine_deliver(&node->device, exact, packet->length, &path);
		free(exact);
	}
	free(packet);
}

static void round_of(struct sim_node *node)
{
	struct device *device = &node->device;
	engine_enter(device);
	engine_round(device, 64, false);
	for (unsigned n = 0; device->active_head && link_ready(device->link); n++) {
		engine_round(device, 64, false);
		if (n > 100000) {
			violation("a queue pair that stays active and sends nothing");
			break;
		}
	}
	engine_leave(device);
}

/* When something happens next. */
static uint64_t next_time(void)
{
	uint64_t next = sim.flying > 0 ? sim.heap[1]->time : UINT64_MAX;
	for (unsigned i = 0; i < sim.nodes; i++) {
		struct device *device = &sim.node[i]->device;
		uint64_t timer = timers_next(&device->timers);
		uint64_t ready = device->active_head ? ready_at(sim.node[i]) : UINT64_MAX;
		if (timer < next)
			next = timer;
		if (ready < next)
			next = ready;
	}
	return next;
}

/* All packets that arrive at one node at this moment come in one go, as from one system call. */
static void step(void)
{
	while (sim.flying > 0 && sim.heap[1]->time <= sim.now) {
		unsigned to = sim.heap[1]->to;
		struct device *device = to < sim.nodes ? &sim.node[to]->device : NULL;
		if (device)
			engine_enter(device);
		for (unsigned n = 0; n < 64 && sim.flying > 0 && sim.heap[1]->time <= sim.now && sim.heap[1]->to == to;
		     n++)
			deliver(land());
		if (device)
			engine_leave(device);
	}
	for (unsigned i = 0; i < sim.nodes; i++)
		round_of(sim.node[i]);
}

bool sim_run(uint64_t limit)
{
	uint64_t end = sim.now + limit;
	for (uint64_t next; (next = next_time()) != UINT64_MAX; step()) {
		if (next > end) {
			sim.now = end;
			return false;
		}
		if (next > sim.now)
			sim.now = next;
	}
	return true;
}

void sim_pass(uint64_t ns)
{
	uint64_t end = sim.now + ns;
	sim_run(ns);
	sim.now = end;
}

/* ---- ends ---- */

struct sim_options sim_defaults(void)
{
	return (struct sim_options){
		.type = IBV_QPT_RC,
		.mtu = IBV_MTU_1024,
		.psn = 0x000100,
		.timeout = 10,
		.retry_cnt = 7,
		.rnr_retry = 7,
		.min_rnr_timer = 12,
		.rd_atomic = 4,
		.dest_rd_atomic = 4,
		.access = IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE | IBV_ACCESS_REMOTE_READ |
			  IBV_ACCESS_REMOTE_ATOMIC | IBV_ACCESS_MW_BIND,
		.mr_access = IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE | IBV_ACCESS_REMOTE_READ |
			     IBV_ACCESS_REMOTE_ATOMIC | IBV_ACCESS_MW_BIND,
		.depth = 64,
		.sges = 4,
		.memory = 1 << 20,
		.qkey = 0x11111111,
	};
}

static void to_init(struct sim_end *end)
{
	const struct sim_options *o = &end->options;
	int mask = IBV_QP_STATE | IBV_QP_PKEY_INDEX | IBV_QP_PORT;
	struct ibv_qp_attr attr = {.qp_state = IBV_QPS_INIT, .port_num = 1, .qkey = o->qkey};
	int remote = IBV_ACCESS_REMOTE_WRITE | IBV_ACCESS_REMOTE_READ | IBV_ACCESS_REMOTE_ATOMIC | ACCESS_FLUSH_GLOBAL;
	attr.qp_access_flags = o->access < 0 ? 0 : o->access & (remote | IBV_ACCESS_LOCAL_WRITE);
	mask |= o->type == IBV_QPT_UD ? IBV_QP_QKEY : IBV_QP_ACCESS_FLAGS;
	assert_int_equal(qp_modify(end->qp, &attr, mask), 0);
}

void sim_open(struct sim_end *end, struct sim_node *node, const struct sim_options *options)
{
	*end = (struct sim_end){.node = node, .options = *options, .size = options->memory};
	struct ibv_context *context = &node->context.verbs.context;
	end->pd = options->pd ? options->pd : node->pd;
	end->memory = calloc(1, end->size + 1);
	end->mr = mr_reg(end->pd, end->memory, end->size, (uintptr_t)end->memory, options->mr_access);
	assert_non_null(end->mr);
	end->scq = cq_create(context, (int)options->depth * 2, NULL, NULL, 0);
	end->rcq = cq_create(context, (int)options->depth * 2, NULL, options->channel, 0);
	assert_non_null(end->scq);
	assert_non_null(end->rcq);
	struct ibv_qp_init_attr init = {
		.send_cq = end->scq,
		.recv_cq = end->rcq,
		.srq = options->srq,
		.qp_type = options->type,
		.sq_sig_all = options->signal_all,
		.cap = {.max_send_wr = options->depth,
			.max_recv_wr = options->srq ? 0 : options->depth,
			.max_send_sge = options->sges,
			.max_recv_sge = options->srq ? 0 : options->sges,
			.max_inline_data = options->inline_bytes},
	};
	end->qp = qp_create(end->pd, &init);
	assert_non_null(end->qp);
	to_init(end);
}

void sim_connect(struct sim_end *end, const union ibv_gid *peer, uint32_t qpn)
{
	const struct sim_options *o = &end->options;
	bool rc = o->type == IBV_QPT_RC;
	struct ibv_qp_attr attr = {
		.qp_state = IBV_QPS_RTR,
		.path_mtu = o->mtu,
		.dest_qp_num = qpn,
		.rq_psn = o->psn,
		.max_dest_rd_atomic = o->dest_rd_atomic,
		.min_rnr_timer = o->min_rnr_timer,
		.ah_attr = {.is_global = 1, .port_num = 1, .grh = {.dgid = *peer, .hop_limit = 64}},
	};
	int mask = IBV_QP_STATE;
	if (o->type != IBV_QPT_UD)
		mask |= IBV_QP_AV | IBV_QP_PATH_MTU | IBV_QP_DEST_QPN | IBV_QP_RQ_PSN;
	if (rc)
		mask |= IBV_QP_MAX_DEST_RD_ATOMIC | IBV_QP_MIN_RNR_TIMER;
	assert_int_equal(qp_modify(end->qp, &attr, mask), 0);

	attr = (struct ibv_qp_attr){
		.qp_state = IBV_QPS_RTS,
		.sq_psn = o->psn,
		.timeout = o->timeout,
		.retry_cnt = o->retry_cnt,
		.rnr_retry = o->rnr_retry,
		.max_rd_atomic = o->rd_atomic == 255 ? 0 : o->rd_atomic,
	};
	mask = IBV_QP_STATE | IBV_QP_SQ_PSN;
	if (rc)
		mask |= IBV_QP_TIMEOUT | IBV_QP_RETRY_CNT | IBV_QP_RNR_RETRY | IBV_QP_MAX_QP_RD_ATOMIC;
	assert_int_equal(qp_modify(end->qp, &attr, mask), 0);
}

void sim_pair(struct sim_end *a, struct sim_node *na, struct sim_end *b, struct sim_node *nb,
	      const struct sim_options *options)
{
	sim_open(a, na, options);
	sim_open(b, nb, options);
	sim_connect(a, &nb->gid, b->qp->qp_num);
	sim_connect(b, &na->gid, a->qp->qp_num);
}

void sim_close(struct sim_end *end)
{
	if (end->qp)
		assert_int_equal(qp_destroy(end->qp), 0);
	assert_int_equal(cq_destroy(end->scq), 0);
	assert_int_equal(cq_destroy(end->rcq), 0);
	assert_int_equal(mr_dereg(end->mr), 0);
	free(end->memory);
}

int sim_modify(struct sim_end *end, enum ibv_qp_state state)
{
	struct ibv_qp_attr attr = {.qp_state = state};
	return qp_modify(end->qp, &attr, IBV_QP_STATE);
}

enum ibv_qp_state sim_state(const struct sim_end *end)
{
	return qp_of(end->qp)->state;
}

/* ---- posting ---- */

void sim_post(struct sim_end *end, struct ibv_send_wr *wr, size_t offset, uint32_t length)
{
	struct ibv_sge sge = {.addr = (uintptr_t)(end->memory + offset), .length = length, .lkey = end->mr->lkey};
	struct ibv_send_wr *bad = NULL;
	assert_true(offset + length <= end->size);
	wr->sg_list = &sge;
	wr->num_sge = length > 0;
	assert_int_equal(qp_post_send(end->qp, wr, &bad), 0);
}

void sim_send(struct sim_end *end, uint64_t id, size_t offset, uint32_t length)
{
	struct ibv_send_wr wr = {.wr_id = id, .opcode = IBV_WR_SEND, .send_flags = IBV_SEND_SIGNALED};
	sim_post(end, &wr, offset, length);
}

static void one_sided(struct sim_end *end, enum ibv_wr_opcode opcode, uint64_t id, size_t offset, uint32_t length,
		      const struct sim_end *to, size_t at)
{
	struct ibv_send_wr wr = {.wr_id = id, .opcode = opcode, .send_flags = IBV_SEND_SIGNALED};
	wr.wr.rdma.remote_addr = (uintptr_t)to->memory + at;
	wr.wr.rdma.rkey = to->mr->rkey;
	sim_post(end, &wr, offset, length);
}

void sim_write(struct sim_end *end, uint64_t id, size_t offset, uint32_t length, const struct sim_end *to, size_t at)
{
	one_sided(end, IBV_WR_RDMA_WRITE, id, offset, length, to, at);
}

void sim_read(struct sim_end *end, uint64_t id, size_t offset, uint32_t length, const struct sim_end *from, size_t at)
{
	one_sided(end, IBV_WR_RDMA_READ, id, offset, length, from, at);
}

void sim_fetch_add(struct sim_end *end, uint64_t id, size_t offset, const struct sim_end *to, size_t at, uint64_t add)
{
	struct ibv_send_wr wr = {.wr_id = id, .opcode = IBV_WR_ATOMIC_FETCH_AND_ADD, .send_flags = IBV_SEND_SIGNALED};
	wr.wr.atomic.remote_addr = (uintptr_t)to->memory + at;
	wr.wr.atomic.rkey = to->mr->rkey;
	wr.wr.atomic.compare_add = add;
	sim_post(end, &wr, offset, 8);
}

void sim_recv(struct sim_end *end, uint64_t id, size_t offset, uint32_t length)
{
	struct ibv_sge sge = {.addr = (uintptr_t)(end->memory + offset), .length = length, .lkey = end->mr->lkey};
	struct ibv_recv_wr wr = {.wr_id = id, .sg_list = &sge, .num_sge = length > 0}, *bad = NULL;
	assert_true(offset + length <= end->size);
	assert_int_equal(qp_post_recv(end->qp, &wr, &bad), 0);
}

/* ---- looking ---- */

struct ibv_wc sim_expect(struct ibv_cq *cq, uint64_t id, enum ibv_wc_status status)
{
	struct ibv_wc wc = {0};
	assert_int_equal(cq_poll(cq, 1, &wc), 1);
	if (wc.status != status || wc.wr_id != id)
		fail_msg("request %llu has status %d; expected request %llu with status %d",
			 (unsigned long long)wc.wr_id, (int)wc.status, (unsigned long long)id, (int)status);
	return wc;
}

void sim_expect_none(struct ibv_cq *cq)
{
	struct ibv_wc wc;
	assert_int_equal(cq_poll(cq, 1, &wc), 0);
}

unsigned sim_count(struct ibv_cq *cq)
{
	struct ibv_wc wc;
	unsigned count = 0;
	for (; cq_poll(cq, 1, &wc) == 1; count++)
		assert_int_equal(wc.status, IBV_WC_SUCCESS);
	return count;
}

bool sim_event(struct sim_node *node, enum ibv_event_type type, const void *element)
{
	bool found = false;
	pthread_mutex_lock(&node->context.event_lock);
	for (struct async_event *event = node->context.event_head; event; event = event->next)
		found = found || (event->event.event_type == type && event->event.element.qp == element);
	pthread_mutex_unlock(&node->context.event_lock);
	return found;
}

static uint8_t pattern(size_t i, uint64_t seed)
{
	uint64_t x = (i / 8 + 1) * 0x9e3779b97f4a7c15 + seed * 0xd1342543de82ef95;
	return (uint8_t)((x ^ (x >> 29)) >> (8 * (i % 8)));
}

void sim_fill(uint8_t *at, size_t length, uint64_t seed)
{
	for (size_t i = 0; i < length; i++)
		at[i] = pattern(i, seed);
}

bool sim_filled(const uint8_t *at, size_t length, uint64_t seed)
{
	for (size_t i = 0; i < length; i++)
		if (at[i] != pattern(i, seed))
			return false;
	return true;
}

/* ---- the test as the peer ---- */

const union ibv_gid *script_gid(void)
{
	return &sim.script;
}

void script_connect(struct sim_end *end)
{
	sim_connect(end, &sim.script, SCRIPT_QPN);
}

void script_send(struct sim_end *end, struct packet packet, const void *payload, uint32_t length)
{
	struct sim_packet *copy = calloc(1, sizeof *copy);
	if (!copy)
		abort();
	packet.qpn = packet.qpn ? packet.qpn : end->qp->qp_num;
	packet.pkey = packet.pkey ? packet.pkey : WIRE_PKEY;
	packet.tag = packet.tag ? packet.tag : sim.script_tag;
	packet.pad = (uint8_t)(-length & 3);
	copy->length = wire_encode(&packet, copy->bytes);
	if (length > 0)
		memcpy(copy->bytes + copy->length, payload, length);
	copy->length += length + packet.pad;
	copy->from = SCRIPT_NODE;
	copy->to = end->node->number;
	copy->time = sim.now;
	copy->arrived = sim.now - sim.script_waited;
	copy->tclass = sim.script_class;
	fly(copy);
	step();
	step(); /* the answer arrives at the test */
}

const struct sim_packet *script_take(void)
{
	return sim.taken_next < sim.taken_count ? sim.taken[sim.taken_next++] : NULL;
}

const struct packet *script_expect(uint8_t opcode, uint32_t psn)
{
	const struct sim_packet *packet = script_take();
	assert_non_null(packet);
	assert_int_equal(packet->packet.opcode, opcode);
	assert_int_equal(packet->packet.psn, psn & WIRE_PSN_MASK);
	return &packet->packet;
}

const struct packet *script_expect_ack(uint8_t syndrome, uint32_t psn)
{
	const struct packet *packet = script_expect(OP_ACK, psn);
	assert_int_equal(packet->syndrome, syndrome);
	return packet;
}

void script_expect_none(void)
{
	assert_null(script_take());
}

void script_use_tag(uint16_t tag)
{
	sim.script_tag = tag;
}

void script_use_class(uint8_t tclass)
{
	sim.script_class = tclass;
}

void script_wait(uint64_t ns)
{
	sim.script_waited = ns;
}

void script_have_tag(struct sim_end *end, uint16_t tag)
{
	script_use_tag(tag);
	qp_of(end->qp)->tag.peer = tag;
}

unsigned script_asked(void)
{
	return sim.script_asked;
}

void script_forget(void)
{
	sim.taken_next = sim.taken_count;
}

void script_ack(struct sim_end *end, uint32_t psn, uint8_t syndrome)
{
	struct packet ack = {.opcode = OP_ACK, .psn = psn & WIRE_PSN_MASK, .syndrome = syndrome};
	script_send(end, ack, NULL, 0);
}
