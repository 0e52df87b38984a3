/* SPDX-License-Identifier: Apache-2.0 */
/* Whatever arrives: packets for connected queue pairs of each kind, which may change nothing but what their keys allow.
 *
 * The input is a list of records: a selector, a length (two bytes, little-endian), and that many bytes. The selector's
 * two lowest bits choose the queue pair (3: none, the packet is as it is); REPAIR puts in the numbers that an attacker
 * would have to know (QPN, PSN, tag, rkey, address), so that what lies behind those checks is reached too; LOCAL: it comes through
 * shared memory, where packets may be longer; ACT does something with the device instead: time passes, receives and sends are posted. */

#include "../device.h"
#include "engine.h"
#include "packet_ring.h"
#include "random.h"
#include "verbs.h"

enum { REPAIR = 0x04, WRONG_KEY = 0x08, AHEAD = 0x10, LOCAL = 0x20, ACT = 0x80 };
enum { PAGE = 4096, QPS = 3, DEPTH = 8 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* In this order: no byte between them may ever change. */
static struct {
	_Alignas(PAGE) uint8_t before[PAGE];
	uint8_t open[PAGE]; /* all remote rights */
	uint8_t between[PAGE];
	uint8_t readable[PAGE]; /* remote read alone */
	uint8_t received[PAGE];
	uint8_t after[PAGE];
} memory;

static struct {
	struct device device;
	struct context context;
	struct counters counters;
	struct link link;
	struct ibv_pd *pd;
	struct ibv_cq *cq;
	struct ibv_mr *open, *readable, *received;
	struct ibv_qp *qp[QPS];
	uint64_t now;
	uint32_t number;
} rig;

static const enum ibv_qp_type types[QPS] = {IBV_QPT_RC, IBV_QPT_UC, IBV_QPT_UD};

/* The same keys each time, so that a finding can be repeated. */
int random_u32(uint32_t *out)
{
	*out = (rig.number += 0x9e3779b9) ^ rig.number >> 7;
	return 0;
}

static bool ready(struct link *link)
{
	(void)link;
	return true;
}

/* Reads all of it, as a link does. */
static bool send_packet(struct link *link, const struct packet_out *packet)
{
	size_t length = 0;

	(void)link;
	if (packet->header_length > WIRE_MAX_HEADER || packet->pieces > LINK_MAX_PIECES)
		abort();
	for (size_t i = 0; i < packet->pieces; i++) {
		for (size_t j = 0; j < packet->piece[i].iov_len; j++)
			(void)((const volatile uint8_t *)packet->piece[i].iov_base)[j];
		length += packet->piece[i].iov_len;
	}
	if (length != packet->payload_length || length > WIRE_MAX_MTU)
		abort();
	return true;
}

static void flush(struct link *link)
{
	(void)link;
}

static const struct link_ops ops = {.ready = ready, .send = send_packet, .flush = flush};

static uint64_t now(void)
{
	return rig.now;
}

static void must(bool held)
{
	if (!held)
		abort();
}

static struct ibv_sge sge_of(const struct ibv_mr *mr, uint32_t length)
{
	return (struct ibv_sge){.addr = (uintptr_t)mr->addr, .length = length, .lkey = mr->lkey};
}

static void post_receives(struct ibv_qp *qp)
{
	struct ibv_sge sge = sge_of(rig.received, PAGE);
	struct ibv_recv_wr wr = {.sg_list = &sge, .num_sge = 1}, *bad;

	for (int i = 0; i < DEPTH && qp_post_recv(qp, &wr, &bad) == 0; i++)
		;
}

static void post_sends(struct ibv_qp *qp)
{
	static const enum ibv_wr_opcode opcodes[] = {IBV_WR_SEND, IBV_WR_RDMA_READ, IBV_WR_ATOMIC_CMP_AND_SWP,
						     IBV_WR_RDMA_WRITE_WITH_IMM, (enum ibv_wr_opcode)WR_ATOMIC_WRITE,
						     IBV_WR_RDMA_READ};
	struct ibv_send_wr *bad;

	for (size_t i = 0; i < sizeof opcodes / sizeof opcodes[0]; i++) {
		bool atomic = opcodes[i] == IBV_WR_ATOMIC_CMP_AND_SWP;
		bool word = atomic || opcodes[i] == (enum ibv_wr_opcode)WR_ATOMIC_WRITE;
		struct ibv_sge sge = sge_of(rig.received, word ? 8 : 3000);
		struct ibv_send_wr wr = {.sg_list = &sge, .num_sge = 1, .opcode = opcodes[i], .send_flags = IBV_SEND_SIGNALED};

		if (qp->qp_type != IBV_QPT_RC && opcodes[i] != IBV_WR_SEND)
			continue;
		if (atomic)
			wr.wr.atomic.remote_addr = 4096;
		else
			wr.wr.rdma.remote_addr = 4096;
		if (qp->qp_type != IBV_QPT_UD)
			qp_post_send(qp, &wr, &bad);
	}
}

static struct ibv_qp *connected(enum ibv_qp_type type)
{
	struct ibv_qp_init_attr init = {
		.send_cq = rig.cq, .recv_cq = rig.cq, .qp_type = type,
		.cap = {.max_send_wr = DEPTH, .max_recv_wr = DEPTH, .max_send_sge = 2, .max_recv_sge = 2},
	};
	struct ibv_qp_attr attr = {
		.qp_state = IBV_QPS_INIT, .port_num = 1, .qkey = 0x11111111, .path_mtu = IBV_MTU_1024, .rq_psn = 0xfffffe,
		.dest_qp_num = 0x123456, .max_dest_rd_atomic = 4, .max_rd_atomic = 4, .min_rnr_timer = 1, .timeout = 10,
		.retry_cnt = 7, .rnr_retry = 7, .sq_psn = 0xfffffd,
		.qp_access_flags = IBV_ACCESS_REMOTE_WRITE | IBV_ACCESS_REMOTE_READ | IBV_ACCESS_REMOTE_ATOMIC | ACCESS_FLUSH_GLOBAL,
		.ah_attr = {.is_global = 1, .port_num = 1, .grh = {.hop_limit = 64}},
	};
	bool rc = type == IBV_QPT_RC, ud = type == IBV_QPT_UD;
	struct ibv_qp *qp = qp_create(rig.pd, &init);

	attr.ah_attr.grh.dgid.raw[15] = 1;
	must(qp);
	must(qp_modify(qp, &attr, IBV_QP_STATE | IBV_QP_PKEY_INDEX | IBV_QP_PORT | (ud ? IBV_QP_QKEY : IBV_QP_ACCESS_FLAGS)) == 0);
	attr.qp_state = IBV_QPS_RTR;
	must(qp_modify(qp, &attr, IBV_QP_STATE | (ud ? 0 : IBV_QP_AV | IBV_QP_PATH_MTU | IBV_QP_DEST_QPN | IBV_QP_RQ_PSN) |
					  (rc ? IBV_QP_MAX_DEST_RD_ATOMIC | IBV_QP_MIN_RNR_TIMER : 0)) == 0);
	attr.qp_state = IBV_QPS_RTS;
	must(qp_modify(qp, &attr, IBV_QP_STATE | IBV_QP_SQ_PSN |
					  (rc ? IBV_QP_TIMEOUT | IBV_QP_RETRY_CNT | IBV_QP_RNR_RETRY | IBV_QP_MAX_QP_RD_ATOMIC : 0)) == 0);
	return qp;
}

static void open_rig(void)
{
	const int all = IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE | IBV_ACCESS_REMOTE_READ | IBV_ACCESS_REMOTE_ATOMIC |
			ACCESS_FLUSH_GLOBAL;

	memset(&rig, 0, sizeof rig);
	memset(&memory, 0xa5, sizeof memory);
	rig.now = 1000000;
	rig.link.ops = &ops;
	test_device_open(&rig.device, &rig.context, &rig.counters, &rig.link, now);
	rig.device.max_window = 1000;
	rig.device.keeps_ahead = true;
	must((rig.pd = pd_alloc(&rig.context.verbs.context)));
	must((rig.cq = cq_create(&rig.context.verbs.context, 1000, NULL, NULL, 0)));
	must((rig.open = mr_reg(rig.pd, memory.open, PAGE, (uintptr_t)memory.open, all)));
	must((rig.readable = mr_reg(rig.pd, memory.readable, PAGE, (uintptr_t)memory.readable,
					 IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_READ)));
	must((rig.received = mr_reg(rig.pd, memory.received, PAGE, (uintptr_t)memory.received, IBV_ACCESS_LOCAL_WRITE)));
	for (int i = 0; i < QPS; i++) {
		rig.qp[i] = connected(types[i]);
		post_receives(rig.qp[i]);
		post_sends(rig.qp[i]);
	}
	/* What comes ahead of a gap is kept. */
	qp_of(rig.qp[0])->tag.peer = 1234;
}

static void close_rig(void)
{
	for (int i = 0; i < QPS; i++)
		must(qp_destroy(rig.qp[i]) == 0);
	must(mr_dereg(rig.open) == 0 && mr_dereg(rig.readable) == 0 && mr_dereg(rig.received) == 0);
	must(cq_destroy(rig.cq) == 0 && pd_dealloc(rig.pd) == 0);
	must(rig.device.qps.count == 0 && rig.device.keys.count == 0 && !rig.device.active_head);
	test_device_close(&rig.device, &rig.context);
}

static void check_memory(void)
{
	for (size_t i = 0; i < PAGE; i++)
		must(memory.before[i] == 0xa5 && memory.between[i] == 0xa5 && memory.readable[i] == 0xa5 && memory.after[i] == 0xa5);
}

static void act(uint8_t selector)
{
	struct ibv_wc wc[16];

	rig.now += (uint64_t)(selector & 0x0f) * 2000000;
	engine_enter(&rig.device);
	engine_round(&rig.device, 16, false);
	engine_leave(&rig.device);
	while (cq_poll(rig.cq, 16, wc) > 0)
		;
	for (int i = 0; i < QPS; i++) {
		if (selector & 0x10)
			post_receives(rig.qp[i]);
		if (selector & 0x20)
			post_sends(rig.qp[i]);
	}
}

static void put(uint8_t *at, uint64_t value, unsigned bytes)
{
	while (bytes > 0) {
		at[--bytes] = (uint8_t)value;
		value >>= 8;
	}
}

static void repair(uint8_t selector, uint8_t *packet, size_t length)
{
	const struct qp *qp = qp_of(rig.qp[selector & 3]);
	const uint8_t kinds[QPS] = {WIRE_RC, WIRE_UC, WIRE_UD};
	uint32_t traits;

	if (length < WIRE_BTH)
		return;
	packet[0] = (uint8_t)((packet[0] & 0x1f) | kinds[selector & 3]);
	traits = wire_traits(packet[0]);
	put(packet + 5, qp->qpn, 3);
	put(packet + 9, psn_add(traits & T_REQUEST ? qp->resp.expected : qp->req.unacked, selector & AHEAD ? 1 : 0), 3);
	put(packet + 2, WIRE_PKEY, 2);
	if (qp->tag.peer != 0) {
		packet[4] = (uint8_t)((packet[4] & 0xc0) | qp->tag.peer >> 7);
		packet[8] = (uint8_t)((packet[8] & 0x80) | (qp->tag.peer & 0x7f));
	}
	if ((traits & T_DETH) && length >= WIRE_BTH + 8)
		put(packet + WIRE_BTH, 0x11111111, 4);
	uint8_t *reth = packet + WIRE_BTH + (traits & T_FETH ? 4 : 0);
	if ((traits & (T_RETH | T_ATOMIC_ETH)) && !(traits & T_DETH) && (size_t)(reth - packet) + 12 <= length) {
		const struct ibv_mr *mr = selector & WRONG_KEY ? rig.readable : rig.open;
		/* Of the address the lowest bits are the input's: a little before the region to a little behind it. */
		uint64_t offset = ((uint64_t)reth[6] << 8 | reth[7]) % (PAGE + 64);
		put(reth, (uintptr_t)mr->addr + offset - 32, 8);
		put(reth + 8, mr->rkey, 4);
	}
}

/* As a ring of shared memory gives it. */
static void deliver_local(const uint8_t *bytes, size_t length, const struct packet_path *path)
{
	struct packet packet;
	if (wire_decode_parts(bytes, bytes, length, RING_PAYLOAD, &packet) != 0)
		return;
	packet.local = true;
	engine_deliver_local(&rig.device, &packet, path);
}

static void deliver(uint8_t selector, const uint8_t *bytes, size_t length)
{
	struct packet_path path = {.hop_limit = 64};
	/* On the heap, and not a byte more: a read beyond is found. */
	uint8_t *packet = malloc(length > 0 ? length : 1);

	must(packet);
	if (length > 0)
		memcpy(packet, bytes, length);
	path.sgid.raw[15] = 1;
	if ((selector & REPAIR) && (selector & 3) < QPS)
		repair(selector, packet, length);
	engine_enter(&rig.device);
	if (selector & LOCAL)
		deliver_local(packet, length, &path);
	else
		engine_deliver(&rig.device, packet, length, &path);
	engine_leave(&rig.device);
	free(packet);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	open_rig();
	while (size > 0) {
		uint8_t selector = data[0];
		data++, size--;
		if (selector & ACT) {
			act(selector);
			continue;
		}
		if (size < 2)
			break;
		size_t length = data[0] | (size_t)data[1] << 8;
		data += 2, size -= 2;
		if (length > size)
			length = size;
		deliver(selector, data, length);
		data += length, size -= length;
	}
	check_memory();
	close_rig();
	return 0;
}
