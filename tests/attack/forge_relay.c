/* SPDX-License-Identifier: Apache-2.0 */
/* Between two hosts: all that goes from one to the other passes here, and some of it is changed. */
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

enum { FRAME = sizeof(struct virtio_net_hdr) + ETHER_HDR_LEN };

struct relay {
	const struct forge *forge;
	int side[2];
	uint64_t forwarded, changed;
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

static bool change(const struct relay *relay, bool back, uint8_t *ip, size_t length)
{
	const struct forge *forge = relay->forge;
	struct roce_flow flow;
	struct roce_packet packet;

	if (!roce_parse(ip, length, &flow, &packet))
		return false;
	uint8_t *payload = ip + (packet.payload - ip);
	if (forge->flip != 0 && packet.payload_length >= forge->flip) {
		payload[packet.payload_length / 2] ^= 1;
		return true;
	}
	if (forge->find == NULL || forge->put == NULL)
		return false;
	/* On the way back, what each end has seen of the other is put right, so that none of them notices. */
	return back ? replace(forge->put, forge->find, payload, packet.payload_length) :
		      replace(forge->find, forge->put, payload, packet.payload_length);
}

static size_t ip_length(const uint8_t *ip)
{
	return ip[0] >> 4 == 4 ? (size_t)ip[2] << 8 | ip[3] : 40 + ((size_t)ip[4] << 8 | ip[5]);
}

static void forward(struct relay *relay, int from, int to)
{
	static uint8_t frame[(1 << 16) + 256];
	ssize_t got = recv(from, frame, sizeof(frame), MSG_DONTWAIT);

	if (got <= FRAME)
		return;
	if (change(relay, from == relay->side[1], frame + FRAME, (size_t)got - FRAME)) {
		relay->changed++;
		if (!relay->forge->stale)
			roce_seal(frame + FRAME, ip_length(frame + FRAME));
		/* Nothing of the checksum is left for the kernel to do. */
		memset(frame, 0, sizeof(struct virtio_net_hdr));
	}
	while (send(to, frame, (size_t)got, 0) < 0 && (errno == ENOBUFS || errno == EINTR)) {
	}
	relay->forwarded++;
}

int forge_relay(struct forge *forge)
{
	struct relay relay = {.forge = forge};
	struct pollfd readable[3] = {{.events = POLLIN}, {.events = POLLIN}, {.fd = STDIN_FILENO, .events = POLLIN}};
	char ignored;

	for (int i = 0; i < 2; i++)
		readable[i].fd = relay.side[i] = wire_open_frames(forge->words[i], true);
	puts("{\"relaying\": true}");
	while (poll(readable, 3, -1) >= 0) {
		for (int i = 0; i < 2; i++)
			if (readable[i].revents != 0)
				forward(&relay, relay.side[i], relay.side[1 - i]);
		if (readable[2].revents != 0 && read(STDIN_FILENO, &ignored, 1) <= 0)
			break;
	}
	printf("{\"packets\": %llu, \"changed\": %llu}\n", (unsigned long long)relay.forwarded, (unsigned long long)relay.changed);
	return 0;
}
