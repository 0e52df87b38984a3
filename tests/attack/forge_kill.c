/* SPDX-License-Identifier: Apache-2.0 */
/* Kills queue pairs while they are at work: sees a packet, and is there with the next number before its sender is. */
#include <linux/virtio_net.h>
#include <net/ethernet.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "forge.h"
#include "wire.h"

enum { FRAME = sizeof(struct virtio_net_hdr) + ETHER_HDR_LEN, BAD_RKEY = 0xbadbad };
/* The answer to a hit takes no longer; then it was a miss. */
#define AGAIN_US 2000

struct killer {
	const struct forge *forge;
	int left, right;
	uint32_t target; /* the QPN that was last aimed at */
	uint64_t next;   /* when it may be aimed at again */
	uint64_t packets, kills;
};

static void shoot(struct killer *killer, const uint8_t *frame, const struct roce_flow *flow, const struct roce_packet *seen)
{
	static const uint8_t byte = 'x';
	struct roce_packet packet = {.opcode = ROCE_WRITE_ONLY, .ack_req = true, .qpn = seen->qpn, .psn = seen->psn + 1, .tag = seen->tag,
				     .rkey = BAD_RKEY, .length = 1, .payload = &byte, .payload_length = 1};
	static uint8_t out[FRAME + ROCE_MAX_PACKET];

	memcpy(out + sizeof(struct virtio_net_hdr), frame + sizeof(struct virtio_net_hdr), ETHER_HDR_LEN);
	size_t length = FRAME + roce_build(flow, &packet, 1, out + FRAME);
	if (send(killer->right, out, length, 0) < 0)
		return;
	killer->packets++;
	killer->target = seen->qpn;
}

static void look(struct killer *killer)
{
	static uint8_t frame[(1 << 16) + 256];
	ssize_t got = recv(killer->left, frame, sizeof(frame), MSG_DONTWAIT);
	struct roce_flow flow;
	struct roce_packet packet;
	uint64_t now = forge_now_us();

	if (got <= FRAME || !roce_parse(frame + FRAME, (size_t)got - FRAME, &flow, &packet) ||
	    (packet.opcode != ROCE_SEND_ONLY && packet.opcode != ROCE_SEND_ONLY_IMM))
		return;
	if (killer->target != 0 && packet.qpn != killer->target) {
		killer->kills++;
		killer->target = 0;
		killer->next = now + killer->forge->every_us;
	}
	if (now < killer->next || (killer->forge->count != 0 && killer->kills >= killer->forge->count))
		return;
	shoot(killer, frame, &flow, &packet);
	killer->next = now + AGAIN_US;
}

int forge_kill(struct forge *forge)
{
	struct killer killer = {.forge = forge,
				.left = wire_open_frames(forge->words[0], true),
				.right = wire_open_frames(forge->words[1], true)};
	struct pollfd readable[2] = {{.fd = killer.left, .events = POLLIN}, {.fd = STDIN_FILENO, .events = POLLIN}};
	char ignored;

	killer.next = forge_now_us() + forge->every_us;
	puts("{\"killing\": true}");
	while (poll(readable, 2, -1) >= 0) {
		if (readable[0].revents != 0)
			look(&killer);
		if (readable[1].revents != 0 && read(STDIN_FILENO, &ignored, 1) <= 0)
			break;
	}
	printf("{\"packets\": %llu, \"kills\": %llu}\n", (unsigned long long)killer.packets, (unsigned long long)killer.kills);
	return 0;
}
