/* SPDX-License-Identifier: Apache-2.0 */
/* Forged packets, one or millions: one is built, and of the others the numbers and the checks alone are changed. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "forge.h"
#include "wire.h"

enum {
	/* uroce looks closely at identifications from 64 on; any other device at none. */
	IP_ID = 1,
	MANY = 1024,
	IP_ID_AT = 4,
	BTH = 12,
	QPN_AT = 5,
	PSN_AT = 9,
	RKEY_AT = BTH + 8,
};

static void put24(uint8_t *at, uint32_t value)
{
	at[0] = (uint8_t)(value >> 16);
	at[1] = (uint8_t)(value >> 8);
	at[2] = (uint8_t)value;
}

struct sweep {
	struct forge *forge;
	struct wire_batch *batch;
	uint8_t model[ROCE_MAX_PACKET];
	size_t length;
	uint64_t began;
};

static volatile sig_atomic_t ended;

static void end(int number)
{
	(void)number;
	ended = 1;
}

/* False: the time is over, or the program that started this has seen enough. */
static bool keep_pace(struct sweep *sweep)
{
	uint64_t elapsed = forge_now_us() - sweep->began, limit = sweep->forge->limit_us;

	if (sweep->forge->rate != 0) {
		uint64_t due = sweep->batch->sent * 1000000 / sweep->forge->rate;
		if (due > elapsed) {
			struct timespec pause = {(time_t)((due - elapsed) / 1000000),
						 (long)((due - elapsed) % 1000000) * 1000};
			nanosleep(&pause, NULL);
		}
	}
	return !ended && (limit == 0 || elapsed < limit);
}

static bool send_one(struct sweep *sweep, uint32_t qpn, uint32_t psn, uint32_t rkey)
{
	uint8_t *packet = wire_next(sweep->batch), *bth = packet + roce_bth(sweep->model);

	memcpy(packet, sweep->model, sweep->length);
	put24(bth + QPN_AT, qpn);
	put24(bth + PSN_AT, psn & ROCE_PSN_MASK);
	if (roce_has_reth(sweep->forge->packet.opcode)) {
		bth[RKEY_AT] = (uint8_t)(rkey >> 24);
		put24(bth + RKEY_AT + 1, rkey);
	}
	if (sweep->batch->segmented)
		packet[IP_ID_AT] = 0, packet[IP_ID_AT + 1] = (uint8_t)sweep->batch->count;
	roce_seal(packet, sweep->length);
	wire_push(sweep->batch, sweep->length);
	if (sweep->batch->count < WIRE_BATCH)
		return true;
	wire_flush(sweep->batch);
	return keep_pace(sweep);
}

static bool all_rkeys(struct sweep *sweep, uint32_t qpn, uint32_t psn)
{
	const struct forge_range *rkey = &sweep->forge->rkey;

	for (uint32_t i = 0; i < rkey->count; i++)
		if (!send_one(sweep, qpn, psn, rkey->first + i))
			return false;
	return true;
}

int forge_send(struct forge *forge)
{
	struct wire_batch *batch = malloc(sizeof(*batch));
	struct sweep sweep = {.forge = forge, .batch = batch};
	bool more = true;

	if (batch == NULL || forge->packet.payload_length > ROCE_MAX_PAYLOAD)
		wire_die("memory");
	/* A single one goes as it is, with its own header. */
	bool many = (uint64_t)forge->psn.count * forge->qpn.count * forge->rkey.count >= MANY;
	if (many && forge->flow.family == AF_INET)
		wire_open_segmented(batch, &forge->flow);
	else
		wire_open_raw(batch, &forge->flow);
	sweep.length = roce_build(&forge->flow, &forge->packet, IP_ID, sweep.model);
	signal(SIGTERM, end);
	sweep.began = forge_now_us();
	for (uint32_t q = 0; more && q < forge->qpn.count; q++)
		for (uint32_t p = 0; more && p < forge->psn.count; p++)
			more = all_rkeys(&sweep, forge->qpn.first + q, forge->psn.first + p);
	wire_flush(batch);
	printf("{\"packets\": %llu, \"seconds\": %.6f}\n", (unsigned long long)batch->sent,
	       (double)(forge_now_us() - sweep.began) / 1e6);
	free(batch);
	return 0;
}
