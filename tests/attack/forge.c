/* SPDX-License-Identifier: Apache-2.0 */
/* The attacker on RDMA packets.
 *
 * forge send --from ADDRESS --to ADDRESS --op OPERATION --qpn N[+COUNT] --psn N[+COUNT] [--rkey N[+COUNT]] [--va N]
 * [--length N] [--tag N]
 *            [--text TEXT] [--imm N] [--syndrome N] [--msn N] [--rate PER-SECOND] [--limit-ms N]
 *     forged packets, one for each combination, until SIGTERM; prints {"packets", "seconds"}
 * forge sniff INTERFACE [--count N] [--limit-ms N]     a line of JSON for each RoCEv2 packet
 * forge play --to ADDRESS [--copies N] [--qpn N] [--psn N]
 *     sends what `sniff` printed (standard input), but for the UDP checksum; with other numbers (PSNs count up from N)
 * forge relay LEFT RIGHT [MORE...] [--find TEXT --put TEXT] [--flip LENGTH [--way forth|back] [--skip N]] [--replay N [--way forth|back] [--skip N]]
 *     [--stale] [--suppress N] [--swap N]
 *     all frames from one interface to the others, until standard input ends; in RoCEv2 payloads replaces bytes (back, from
 *     right to left, the other way round), or turns a bit of those that are at least so long (but for the first N), and puts the ICRC right (--stale:
 *     does not); gives each packet of a long SEND or a READ response the payload of the Nth such packet before it (at most 127), where
 *     the lengths are equal (but for the first N); suppresses the Nth SEND that goes forth: drops it, acknowledges it, and renumbers what follows, so that none
 *     of the ends can tell; or swaps it with the next one; prints {"packets", "changed"}
 * forge kill LEFT RIGHT --every-ms N [--count N]
 *     beside a switch: when a SEND comes in from LEFT, a WRITE with a bad rkey and the next PSN goes out to RIGHT in its sender's
 *     name; when another QPN shows that it hit, the same again N ms later; until standard input ends; prints {"packets", "kills"}
 * forge cut INTERFACE...                               turns segmentation offload off
 * Operations: send, send-imm, write, read, ack, nak. Numbers may be hexadecimal. */
#include "forge.h"

#include <arpa/inet.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static const struct {
	const char *name;
	uint8_t opcode;
} operations[] = {
	{"send", ROCE_SEND_ONLY},   {"send-imm", ROCE_SEND_ONLY_IMM},
	{"write", ROCE_WRITE_ONLY}, {"read", ROCE_READ_REQUEST},
	{"ack", ROCE_ACK},          {"nak", ROCE_ACK},
};

uint64_t forge_now_us(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000;
}

static void usage(const char *what)
{
	fprintf(stderr, "forge: %s; see the head of tests/attack/forge.c\n", what);
	exit(2);
}

static uint64_t number(const char *text, char **end)
{
	uint64_t value = strtoull(text, end, 0);

	if (*end == text)
		usage(text);
	return value;
}

static struct forge_range range(const char *text)
{
	char *end;
	struct forge_range out = {.first = (uint32_t)number(text, &end), .count = 1};

	if (*end == '+')
		out.count = (uint32_t)number(end + 1, &end);
	if (*end != '\0')
		usage(text);
	return out;
}

static uint64_t plain(const char *text)
{
	char *end;
	uint64_t value = number(text, &end);

	if (*end != '\0')
		usage(text);
	return value;
}

static void address(const char *text, struct roce_flow *flow, bool source)
{
	int family = strchr(text, ':') ? AF_INET6 : AF_INET;

	if (inet_pton(family, text, source ? (void *)&flow->source : (void *)&flow->target) != 1)
		usage(text);
	flow->family = family;
}

static uint8_t operation(const char *name)
{
	for (size_t i = 0; i < sizeof(operations) / sizeof(operations[0]); i++)
		if (strcmp(name, operations[i].name) == 0)
			return operations[i].opcode;
	usage("no such operation");
	return 0;
}

static void option(struct forge *forge, int which, const char *value)
{
	struct roce_packet *packet = &forge->packet;

	switch (which) {
	case 'f': address(value, &forge->flow, true); break;
	case 't': address(value, &forge->flow, false); break;
	case 'o': packet->opcode = operation(value); break;
	case 'q':
		forge->qpn = range(value);
		forge->put_qpn = true;
		break;
	case 'p':
		forge->psn = range(value);
		forge->put_psn = true;
		break;
	case 'g': packet->tag = (uint32_t)plain(value); break;
	case 'k': forge->rkey = range(value); break;
	case 'v': packet->va = plain(value); break;
	case 'l': packet->length = (uint32_t)plain(value); break;
	case 'x':
		packet->payload = (const uint8_t *)value;
		packet->payload_length = strlen(value);
		break;
	case 's': packet->syndrome = (uint8_t)plain(value); break;
	case 'i': packet->imm = (uint32_t)plain(value); break;
	case 'm': packet->msn = (uint32_t)plain(value); break;
	case 'r': forge->rate = plain(value); break;
	case 'L': forge->limit_us = plain(value) * 1000; break;
	case 'c': forge->count = plain(value); break;
	case 'F': forge->find = value; break;
	case 'P': forge->put = value; break;
	case 'b': forge->flip = plain(value); break;
	case 'S': forge->stale = true; break;
	case 'w': forge->way = strcmp(value, "back") == 0 ? FORGE_BACK : FORGE_FORTH; break;
	case 'K': forge->skip = plain(value); break;
	case 'R': forge->replay = plain(value) < FORGE_REPLAY ? plain(value) : FORGE_REPLAY - 1; break;
	case 'U': forge->suppress = plain(value); break;
	case 'W': forge->swap = plain(value); break;
	case 'e': forge->every_us = plain(value) * 1000; break;
	default: usage("options");
	}
}

static void options(struct forge *forge, int argc, char **argv)
{
	static const struct option all[] = {
		{"from", 1, NULL, 'f'}, {"to", 1, NULL, 't'},       {"op", 1, NULL, 'o'},    {"qpn", 1, NULL, 'q'},
		{"psn", 1, NULL, 'p'},  {"tag", 1, NULL, 'g'},  {"rkey", 1, NULL, 'k'},     {"va", 1, NULL, 'v'},    {"length", 1, NULL, 'l'},
		{"text", 1, NULL, 'x'}, {"syndrome", 1, NULL, 's'}, {"msn", 1, NULL, 'm'},   {"rate", 1, NULL, 'r'},
		{"imm", 1, NULL, 'i'},  {"limit-ms", 1, NULL, 'L'}, {"count", 1, NULL, 'c'}, {"copies", 1, NULL, 'c'},
		{"find", 1, NULL, 'F'}, {"put", 1, NULL, 'P'},      {"flip", 1, NULL, 'b'},  {"stale", 0, NULL, 'S'},
		{"skip", 1, NULL, 'K'}, {"replay", 1, NULL, 'R'}, {"way", 1, NULL, 'w'},      {"suppress", 1, NULL, 'U'}, {"swap", 1, NULL, 'W'},  {"every-ms", 1, NULL, 'e'},
		{NULL, 0, NULL, 0},
	};
	int which;

	*forge = (struct forge){
		.flow = {.source_port = 49152},
		.packet = {.opcode = ROCE_SEND_ONLY, .ack_req = true, .syndrome = ROCE_NAK_ACCESS},
		.qpn = {.count = 1},
		.psn = {.count = 1},
		.rkey = {.count = 1},
	};
	while ((which = getopt_long(argc, argv, "", all, NULL)) != -1)
		option(forge, which, optarg);
	if (forge->packet.length == 0)
		forge->packet.length = (uint32_t)forge->packet.payload_length;
	forge->words = argv + optind;
	forge->word_count = argc - optind;
}

int main(int argc, char **argv)
{
	static const struct {
		const char *name;
		int (*run)(struct forge *forge);
		int words; /* at least */
	} commands[] = {
		{"send", forge_send, 0},   {"sniff", forge_sniff, 1}, {"play", forge_play, 0},
		{"relay", forge_relay, 2}, {"kill", forge_kill, 2},   {"cut", forge_cut, 1},
	};
	struct forge forge;

	if (argc < 2)
		usage("a command is missing");
	options(&forge, argc - 1, argv + 1);
	setvbuf(stdout, NULL, _IOLBF, 0);
	for (size_t i = 0; i < sizeof(commands) / sizeof(commands[0]); i++)
		if (strcmp(argv[1], commands[i].name) == 0 && forge.word_count >= commands[i].words)
			return commands[i].run(&forge);
	usage(argv[1]);
	return 2;
}
