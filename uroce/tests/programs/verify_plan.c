/* SPDX-License-Identifier: Apache-2.0 */
/* What is sent in which round, and the data of each message: both ends compute it from the seed alone. */
#include <string.h>

#include "verify.h"

const char *const operation_names[OPERATIONS] = {"send", "send-imm", "write", "write-imm", "read", "cas", "faa"};

bool takes_receive(enum operation op)
{
	return op == SEND || op == SEND_IMM || op == WRITE_IMM;
}

bool is_atomic(enum operation op)
{
	return op == COMPARE_SWAP || op == FETCH_ADD;
}

/* The finalizer of splitmix64. */
uint64_t mix(uint64_t value)
{
	value += 0x9e3779b97f4a7c15;
	value = (value ^ value >> 30) * 0xbf58476d1ce4e5b9;
	value = (value ^ value >> 27) * 0x94d049bb133111eb;
	return value ^ value >> 31;
}

void fill(uint8_t *bytes, size_t length, uint64_t key)
{
	for (size_t at = 0; at < length; at += 8) {
		uint64_t word = mix(key++);

		memcpy(bytes + at, &word, length - at < 8 ? length - at : 8);
	}
}

ssize_t differs(const uint8_t *bytes, size_t length, uint64_t key)
{
	for (size_t at = 0; at < length; at += 8) {
		uint64_t word = mix(key++);
		const uint8_t *expected = (const uint8_t *)&word;

		for (size_t i = 0; i < 8 && at + i < length; i++) {
			if (bytes[at + i] != expected[i])
				return (ssize_t)(at + i);
		}
	}
	return -1;
}

ssize_t differs_from_byte(const uint8_t *bytes, size_t length, uint8_t byte)
{
	if (!length || (bytes[0] == byte && !memcmp(bytes, bytes + 1, length - 1)))
		return -1;
	for (size_t i = 0; i < length; i++) {
		if (bytes[i] != byte)
			return (ssize_t)i;
	}
	return -1;
}

uint32_t plan_max_size(const struct plan *plan)
{
	uint32_t max = 8; /* an atomic's */

	for (uint32_t i = 0; i < plan->sizes; i++) {
		if (plan->size[i] > max)
			max = plan->size[i];
	}
	return max;
}

/* First one round for each operation and size (atomics have one size), then the mixed ones. */
static uint32_t uniform_rounds(const struct plan *plan, uint32_t wanted, struct item *out)
{
	uint32_t round = 0;

	for (int op = 0; op < OPERATIONS; op++) {
		if (!(plan->operations >> op & 1))
			continue;
		for (uint32_t i = 0; i < (is_atomic(op) ? 1 : plan->sizes); i++) {
			if (round++ == wanted && out)
				*out = (struct item){.op = op, .size = is_atomic(op) ? 8 : plan->size[i]};
		}
	}
	return round;
}

uint32_t plan_rounds(const struct plan *plan)
{
	return uniform_rounds(plan, 0, NULL) + plan->iterations;
}

struct item plan_item(const struct plan *plan, uint32_t round, enum side sender, uint32_t qp, uint32_t slot)
{
	uint64_t key = mix(mix(mix(plan->seed) + round) + ((uint64_t)qp << 32 | slot << 1 | sender));
	struct item item = {0};

	if (uniform_rounds(plan, round, &item) <= round) {
		uint32_t which = (uint32_t)(key >> 8) % (uint32_t)__builtin_popcount(plan->operations);
		uint32_t left = plan->operations;

		while (which--)
			left &= left - 1;
		item.op = __builtin_ctz(left);
		item.size = is_atomic(item.op) ? 8 : plan->size[(uint32_t)(key >> 40) % plan->sizes];
	}
	/* Nothing tells when an unacknowledged write has arrived, but what comes behind it. */
	if (plan->unreliable && slot == plan->depth - 1 && item.op == WRITE)
		item.op = WRITE_IMM;
	item.key = mix(key);
	item.choices = (uint32_t)mix(item.key);
	return item;
}
