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

static void forward(struct relay *relay, int from)
{
	static uint8_t frame[(1 << 16) + 256];
	ssize_t got = recv(relay->side[from], frame, sizeof(frame), MSG_DONTWAIT);

	if (got <= FRAME)
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
	struct relay relay = {.forge = forge, .sides = forge->word_count < MAX_SIDES ? forge->word_count : MAX_SIDES};
	struct pollfd readable[MAX_SIDES + 1];
	char ignored;

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
