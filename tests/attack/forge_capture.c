/* SPDX-License-Identifier: Apache-2.0 */
/* Sees packets, and plays them again. */
#include <arpa/inet.h>
#include <net/ethernet.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "forge.h"
#include "wire.h"

static void print_text(const uint8_t *bytes, size_t length)
{
	for (size_t i = 0; i < length && i < 64 && bytes[i] != '\0'; i++)
		putchar(bytes[i] < ' ' || bytes[i] > '~' || bytes[i] == '"' || bytes[i] == '\\' ? '.' : bytes[i]);
}

static void print_packet(const uint8_t *ip, size_t length, const struct roce_flow *flow,
			 const struct roce_packet *packet)
{
	char from[INET6_ADDRSTRLEN], to[INET6_ADDRSTRLEN];
	uint32_t stored;

	inet_ntop(flow->family, &flow->source, from, sizeof(from));
	inet_ntop(flow->family, &flow->target, to, sizeof(to));
	memcpy(&stored, ip + length - sizeof(stored), sizeof(stored));
	printf("{\"from\": \"%s\", \"to\": \"%s\", \"opcode\": %u, \"qpn\": %u, \"psn\": %u, \"tag\": %u, \"ack_req\": %s, "
	       "\"icrc\": %s, \"length\": %zu",
	       from, to, packet->opcode, packet->qpn, packet->psn, packet->tag, packet->ack_req ? "true" : "false",
	       stored == roce_icrc(ip, length) ? "true" : "false", packet->payload_length);
	if (roce_has_reth(packet->opcode))
		printf(", \"va\": %llu, \"rkey\": %u, \"dma_length\": %u", (unsigned long long)packet->va, packet->rkey,
		       packet->length);
	if (roce_has_aeth(packet->opcode))
		printf(", \"syndrome\": %u, \"msn\": %u", packet->syndrome, packet->msn);
	if (roce_has_imm(packet->opcode))
		printf(", \"imm\": %u", packet->imm);
	printf(", \"text\": \"");
	print_text(packet->payload, packet->payload_length);
	printf("\", \"bytes\": \"");
	for (size_t i = 0; i < length; i++)
		printf("%02x", ip[i]);
	puts("\"}");
}

static size_t ip_length(const uint8_t *ip)
{
	return ip[0] >> 4 == 4 ? (size_t)ip[2] << 8 | ip[3] : 40 + ((size_t)ip[4] << 8 | ip[5]);
}

int forge_sniff(struct forge *forge)
{
	static uint8_t frame[1 << 16];
	int fd = wire_open_frames(forge->words[0], false);
	uint64_t seen = 0, end = forge_now_us() + forge->limit_us;

	puts("{\"sniffing\": true}");
	while (forge->count == 0 || seen < forge->count) {
		uint64_t now = forge_now_us();
		struct pollfd readable = {.fd = fd, .events = POLLIN};
		if (forge->limit_us != 0 && now >= end)
			break;
		if (poll(&readable, 1, forge->limit_us == 0 ? -1 : (int)((end - now) / 1000) + 1) <= 0)
			continue;
		ssize_t got = recv(fd, frame, sizeof(frame), 0);
		struct roce_flow flow;
		struct roce_packet packet;
		const uint8_t *ip = frame + ETHER_HDR_LEN;
		if (got <= ETHER_HDR_LEN || !roce_parse(ip, (size_t)got - ETHER_HDR_LEN, &flow, &packet))
			continue;
		print_packet(ip, ip_length(ip), &flow, &packet);
		seen++;
	}
	return 0;
}

/* The field "bytes" of a line of sniff. 0: none there. */
static size_t read_bytes(const char *line, uint8_t out[ROCE_MAX_PACKET])
{
	const char *at = strstr(line, "\"bytes\": \"");
	size_t length = 0;
	unsigned byte;

	for (at = at == NULL ? "" : at + 10; length < ROCE_MAX_PACKET && sscanf(at, "%2x", &byte) == 1; at += 2)
		out[length++] = (uint8_t)byte;
	return length;
}

int forge_play(struct forge *forge)
{
	struct wire_batch *batch = malloc(sizeof(*batch));
	char *line = NULL;
	size_t room = 0;
	uint64_t began = forge_now_us();

	if (batch == NULL)
		wire_die("memory");
	wire_open_raw(batch, &forge->flow);
	while (getline(&line, &room, stdin) > 0) {
		for (uint64_t i = 0; i < (forge->count == 0 ? 1 : forge->count); i++) {
			uint8_t *packet = wire_next(batch);
			size_t length = read_bytes(line, packet);
			if (length == 0)
				continue;
			if (forge->put_qpn)
				roce_put_qpn(packet, forge->qpn.first);
			if (forge->put_psn)
				roce_put_psn(packet, forge->psn.first++);
			if (forge->put_qpn || forge->put_psn)
				roce_seal(packet, length);
			roce_put_checksum(packet, length);
			wire_push(batch, length);
		}
	}
	wire_flush(batch);
	printf("{\"packets\": %llu, \"seconds\": %.6f}\n", (unsigned long long)batch->sent,
	       (double)(forge_now_us() - began) / 1e6);
	free(line);
	free(batch);
	return 0;
}

int forge_cut(struct forge *forge)
{
	for (int i = 0; i < forge->word_count; i++)
		wire_cut_packets(forge->words[i]);
	return 0;
}
