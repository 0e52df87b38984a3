/* SPDX-License-Identifier: Apache-2.0 */
/* Between hosts: all that goes from one to the other passes here, and some of it is changed. */
#include <errno.h>
#include <linux/virtio_net.h>
#include <net/ethernet.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "forge.h"
#include "wire.h"

enum { MAX_SIDES = 4, MAX_HOSTS = 16, FRAME = sizeof(struct virtio_net_hdr) + ETHER_HDR_LEN };

struct relay {
	const struct forge *forge;
	int side[MAX_SIDES], sides;
	struct {
		uint8_t mac[ETHER_ADDR_LEN];
		int side;
	} host[MAX_HOSTS];
	int hosts;
	uint64_t forwarded, changed;
	uint64_t skipped;
	uint64_t sends; /* that went forth */
	uint32_t hidden; /* of these, the other end knows nothing */
	uint32_t qpn, msn, tag; /* the left one's, how many of its requests it was told are done, and its peer's tag: as of the last packet back */
	struct {
		uint8_t payload[ROCE_MAX_PAYLOAD];
		size_t length;
	} past[FORGE_REPLAY]; /* by the packet's number, from 0 */
	uint64_t passed;
	uint32_t newest; /* PSN */
	uint8_t held[(1 << 16) + 256]; /* to be swapped with the next one */
	size_t held_length;
};

/* Replaces what is looked for wherever a payload has it; lengths stay. */
static bool replace(const char *find, const char *put, uint8_t *payload, size_t length)
{
	size_t wanted = strlen(find), given = strlen(put);
	uint8_t *end = payload + length, *at = payload;
	bool changed = false;

	while (wanted > 0 && (at = memmem(at, (size_t)(end - at), find, wanted)) != NULL) {
		memcpy(at, put, given < wanted ? given : wanted);
		at += wanted;
		changed = true;
	}
	return changed;
}

/* What the requests, and their answers, of the left one are numbered on the other side. */
static bool renumber(struct relay *relay, bool back, uint8_t *ip, const struct roce_packet *packet)
{
	bool answer = packet->opcode >= ROCE_READ_FIRST && packet->opcode <= ROCE_ATOMIC_ACK;

	if (back && answer) {
		relay->qpn = packet->qpn;
		relay->msn = packet->msn;
		relay->tag = packet->tag;
	}
	if (relay->hidden == 0 || back != answer)
		return false;
	roce_put_psn(ip, back ? packet->psn + relay->hidden : packet->psn - relay->hidden);
	if (back && roce_has_aeth(packet->opcode))
		roce_put_msn(ip, packet->msn + relay->hidden);
	return true;
}

/* A record that is replaced so by an earlier one has a genuine tag, but for another number. */
static bool replay(struct relay *relay, const struct roce_packet *packet, uint8_t *payload)
{
	size_t back = relay->forge->replay;
	bool send = packet->opcode <= ROCE_SEND_LAST_IMM, read = packet->opcode >= ROCE_READ_FIRST && packet->opcode <= ROCE_READ_LAST;
	bool again = relay->passed > 0 && ((packet->psn - relay->newest - 1) & ROCE_PSN_MASK) > ROCE_PSN_MASK / 2;

	if (!(send || read) || again || packet->payload_length > ROCE_MAX_PAYLOAD)
		return false;
	relay->newest = packet->psn;
	memcpy(relay->past[relay->passed % FORGE_REPLAY].payload, payload, packet->payload_length);
	relay->past[relay->passed % FORGE_REPLAY].length = packet->payload_length;
	if (relay->passed++ < back || relay->past[(relay->passed - 1 - back) % FORGE_REPLAY].length != packet->payload_length)
		return false;
	if (relay->skipped++ < relay->forge->skip)
		return false;
	memcpy(payload, relay->past[(relay->passed - 1 - back) % FORGE_REPLAY].payload, packet->payload_length);
	return true;
}

static bool change(struct relay *relay, bool back, uint8_t *ip, size_t length)
{
	const struct forge *forge = relay->forge;
	struct roce_flow flow;
	struct roce_packet packet;

	if (!roce_parse(ip, length, &flow, &packet))
		return false;
	uint8_t *payload = ip + (packet.payload - ip);
	if (forge->suppress != 0)
		return renumber(relay, back, ip, &packet);
	if (forge->flip != 0 && packet.payload_length >= forge->flip && forge->way != (back ? FORGE_FORTH : FORGE_BACK)) {
		if (relay->skipped++ < forge->skip)
			return false;
		payload[packet.payload_length / 2] ^= 1;
		return true;
	}
	if (forge->replay != 0)
		return forge->way != (back ? FORGE_FORTH : FORGE_BACK) && replay(relay, &packet, payload);
	if (forge->find == NULL || forge->put == NULL)
		return false;
	/* On the way back, what each end has seen of the other is put right, so that none of them notices. */
	return back ? replace(forge->put, forge->find, payload, packet.payload_length)
		    : replace(forge->find, forge->put, payload, packet.payload_length);
}

static size_t ip_length(const uint8_t *ip)
{
	return ip[0] >> 4 == 4 ? (size_t)ip[2] << 8 | ip[3] : 40 + ((size_t)ip[4] << 8 | ip[5]);
}

/* Where a station is; -1: not known. */
static int side_of(const struct relay *relay, const uint8_t *mac)
{
	for (int i = 0; i < relay->hosts; i++)
		if (memcmp(relay->host[i].mac, mac, ETHER_ADDR_LEN) == 0)
			return relay->host[i].side;
	return -1;
}

static void pass(struct relay *relay, int from, const uint8_t *frame, size_t length)
{
	const uint8_t *target = frame + sizeof(struct virtio_net_hdr), *source = target + ETHER_ADDR_LEN;
	int known = side_of(relay, target);

	if (side_of(relay, source) < 0 && relay->hosts < MAX_HOSTS) {
		memcpy(relay->host[relay->hosts].mac, source, ETHER_ADDR_LEN);
		relay->host[relay->hosts++].side = from;
	}
	for (int to = 0; to < relay->sides; to++) {
		if (to == from || (known >= 0 && to != known))
			continue;
		while (send(relay->side[to], frame, length, 0) < 0 && (errno == ENOBUFS || errno == EINTR)) {
		}
	}
	relay->forwarded++;
}

static uint32_t psn_of(const uint8_t *ip)
{
	const uint8_t *psn = ip + roce_bth(ip) + 9;

	return (uint32_t)psn[0] << 16 | (uint32_t)psn[1] << 8 | psn[2];
}

/* The left one takes it for the right one's. */
static void acknowledge(struct relay *relay, const uint8_t *frame, const struct roce_flow *flow, uint32_t psn)
{
	struct roce_flow back = {.family = flow->family, .source = flow->target, .target = flow->source, .source_port = 49152};
	struct roce_packet ack = {.opcode = ROCE_ACK, .qpn = relay->qpn, .psn = psn, .tag = relay->tag, .syndrome = ROCE_SYNDROME_ACK, .msn = relay->msn + 1};
	static uint8_t answer[FRAME + ROCE_MAX_PACKET];
	uint8_t *ethernet = answer + sizeof(struct virtio_net_hdr);
	const uint8_t *from = frame + sizeof(struct virtio_net_hdr);

	memcpy(ethernet, from + ETHER_ADDR_LEN, ETHER_ADDR_LEN);
	memcpy(ethernet + ETHER_ADDR_LEN, from, ETHER_ADDR_LEN);
	memcpy(ethernet + 2 * ETHER_ADDR_LEN, from + 2 * ETHER_ADDR_LEN, 2);
	size_t length = FRAME + roce_build(&back, &ack, 1, answer + FRAME);
	while (send(relay->side[0], answer, length, 0) < 0 && (errno == ENOBUFS || errno == EINTR)) {
	}
}

static void put_number(uint8_t *frame, uint32_t psn)
{
	uint8_t *ip = frame + FRAME;

	roce_put_psn(ip, psn);
	roce_seal(ip, ip_length(ip));
	memset(frame, 0, sizeof(struct virtio_net_hdr));
}

/* A SEND of the left one. Whether it has been dealt with. */
static bool take_send(struct relay *relay, uint8_t *frame, size_t length)
{
	const struct forge *forge = relay->forge;
	struct roce_flow flow;
	struct roce_packet packet;

	if ((forge->suppress == 0 && forge->swap == 0) || !roce_parse(frame + FRAME, length - FRAME, &flow, &packet) ||
	    (packet.opcode != ROCE_SEND_ONLY && packet.opcode != ROCE_SEND_ONLY_IMM))
		return false;
	relay->sends++;
	if (relay->sends == forge->suppress) {
		acknowledge(relay, frame, &flow, packet.psn);
		relay->hidden++;
		relay->changed++;
		return true;
	}
	if (relay->sends == forge->swap) {
		memcpy(relay->held, frame, length);
		relay->held_length = length;
		return true;
	}
	if (relay->held_length == 0)
		return false;
	if (packet.psn == psn_of(relay->held + FRAME)) /* it was sent again: the other one has not come in time */
		return true;
	put_number(frame, packet.psn - 1);
	put_number(relay->held, packet.psn);
	pass(relay, 0, frame, length);
	pass(relay, 0, relay->held, relay->held_length);
	relay->held_length = 0;
	relay->changed += 2;
	return true;
}

static void forward(struct relay *relay, int from)
{
	static uint8_t frame[(1 << 16) + 256];
	ssize_t got = recv(relay->side[from], frame, sizeof(frame), MSG_DONTWAIT);

	if (got <= FRAME || (from == 0 && take_send(relay, frame, (size_t)got)))
		return;
	if (change(relay, from == 1, frame + FRAME, (size_t)got - FRAME)) {
		relay->changed++;
		if (!relay->forge->stale)
			roce_seal(frame + FRAME, ip_length(frame + FRAME));
		/* Nothing of the checksum is left for the kernel to do. */
		memset(frame, 0, sizeof(struct virtio_net_hdr));
	}
	pass(relay, from, frame, (size_t)got);
}

int forge_relay(struct forge *forge)
{
	static struct relay relay;
	struct pollfd readable[MAX_SIDES + 1];
	char ignored;

	relay.forge = forge;
	relay.sides = forge->word_count < MAX_SIDES ? forge->word_count : MAX_SIDES;
	for (int i = 0; i < relay.sides; i++) {
		relay.side[i] = wire_open_frames(forge->words[i], true);
		readable[i] = (struct pollfd){.fd = relay.side[i], .events = POLLIN};
	}
	readable[relay.sides] = (struct pollfd){.fd = STDIN_FILENO, .events = POLLIN};
	puts("{\"relaying\": true}");
	while (poll(readable, (nfds_t)relay.sides + 1, -1) >= 0) {
		for (int i = 0; i < relay.sides; i++)
			if (readable[i].revents != 0)
				forward(&relay, i);
		if (readable[relay.sides].revents != 0 && read(STDIN_FILENO, &ignored, 1) <= 0)
			break;
	}
	printf("{\"packets\": %llu, \"changed\": %llu}\n", (unsigned long long)relay.forwarded,
	       (unsigned long long)relay.changed);
	return 0;
}
