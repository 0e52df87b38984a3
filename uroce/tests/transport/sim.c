/* SPDX-License-Identifier: Apache-2.0 */
#include "sim_world.h"

#include "guard.h"

enum { MAX_NODES = 8, OTHER_NODE = SCRIPT_NODE + 1, LOSS_SLOTS = 1 << 16 };

static struct {
	uint64_t now;
	uint64_t order;
	uint64_t random;
	struct sim_node *node[MAX_NODES];
	unsigned nodes;
	struct sim_packet **heap; /* by time and order, from 1 */
	size_t flying;
	size_t room;
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

void sim_fly(struct sim_packet *packet)
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
	packet->to = memcmp(&out->dgid, script_gid(), sizeof out->dgid) == 0 ? SCRIPT_NODE : out->dgid.raw[15] - 1u;
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
	sim_fly(copy);
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
	sim_fly(packet);
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

union ibv_gid sim_gid(uint8_t last)
{
	union ibv_gid gid = {.raw = {[10] = 0xff, [11] = 0xff, [12] = 192, [13] = 0, [14] = 2, [15] = last}};
	return gid;
}

void sim_start(uint64_t seed)
{
	memset(&sim, 0, sizeof sim);
	sim.now = SECOND;
	sim.random = seed * 0x2545f4914f6cdd1d + 1;
	script_start();
}

struct sim_node *sim_node(void)
{
	struct sim_node *node = calloc(1, sizeof *node);
	if (!node || sim.nodes == MAX_NODES)
		abort();
	node->number = sim.nodes;
	sim.node[sim.nodes++] = node;
	node->gid = sim_gid((uint8_t)sim.nodes);
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
	script_stop();
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
		script_arrived(packet);
		return;
	}
	struct sim_node *node = sim.node[packet->to];
	struct packet_path path = {.dgid = node->gid, .tclass = packet->tclass, .hop_limit = 64, .arrived = packet->arrived};
	path.sgid = packet->from == SCRIPT_NODE ? *script_gid() : sim.node[packet->from]->gid;
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
void sim_step(void)
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
	for (uint64_t next; (next = next_time()) != UINT64_MAX; sim_step()) {
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
