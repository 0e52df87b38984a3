/* SPDX-License-Identifier: Apache-2.0 */
/* The test as the peer. */
#include "sim_world.h"

static struct {
	union ibv_gid gid;
	uint16_t tag;
	uint8_t tclass;
	uint64_t waited;
	unsigned asked;
	struct sim_packet **taken; /* arrived at the test */
	size_t count;
	size_t next;
} script;

void script_start(void)
{
	memset(&script, 0, sizeof script);
	script.gid = sim_gid(250);
}

void script_stop(void)
{
	for (size_t i = 0; i < script.count; i++)
		free(script.taken[i]);
	free(script.taken);
	memset(&script, 0, sizeof script);
}

void script_arrived(struct sim_packet *packet)
{
	if (packet->packet.opcode == OP_ASK_TAG) {
		script.asked++;
		free(packet);
		return;
	}
	/* Grows by one chunk at a time; the packets themselves stay where they are. */
	if (script.count % 256 == 0) {
		script.taken = realloc(script.taken, (script.count + 256) * sizeof *script.taken);
		if (!script.taken)
			abort();
	}
	script.taken[script.count++] = packet;
}

const union ibv_gid *script_gid(void)
{
	return &script.gid;
}

void script_connect(struct sim_end *end)
{
	sim_connect(end, &script.gid, SCRIPT_QPN);
}

void script_send(struct sim_end *end, struct packet packet, const void *payload, uint32_t length)
{
	struct sim_packet *copy = calloc(1, sizeof *copy);
	if (!copy)
		abort();
	packet.qpn = packet.qpn ? packet.qpn : end->qp->qp_num;
	packet.pkey = packet.pkey ? packet.pkey : WIRE_PKEY;
	packet.tag = packet.tag ? packet.tag : script.tag;
	packet.pad = (uint8_t)(-length & 3);
	copy->length = wire_encode(&packet, copy->bytes);
	if (length > 0)
		memcpy(copy->bytes + copy->length, payload, length);
	copy->length += length + packet.pad;
	copy->from = SCRIPT_NODE;
	copy->to = end->node->number;
	copy->time = sim_now();
	copy->arrived = sim_now() - script.waited;
	copy->tclass = script.tclass;
	sim_fly(copy);
	sim_step();
	sim_step(); /* the answer arrives at the test */
}

const struct sim_packet *script_take(void)
{
	return script.next < script.count ? script.taken[script.next++] : NULL;
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
	script.tag = tag;
}

void script_use_class(uint8_t tclass)
{
	script.tclass = tclass;
}

void script_wait(uint64_t ns)
{
	script.waited = ns;
}

void script_have_tag(struct sim_end *end, uint16_t tag)
{
	script_use_tag(tag);
	qp_of(end->qp)->tag.peer = tag;
}

unsigned script_asked(void)
{
	return script.asked;
}

void script_forget(void)
{
	script.next = script.count;
}

void script_ack(struct sim_end *end, uint32_t psn, uint8_t syndrome)
{
	struct packet ack = {.opcode = OP_ACK, .psn = psn & WIRE_PSN_MASK, .syndrome = syndrome};
	script_send(end, ack, NULL, 0);
}
