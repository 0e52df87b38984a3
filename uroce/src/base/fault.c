/* SPDX-License-Identifier: Apache-2.0 */
/* Fault injection. A datagram passes two stages: the first may hold it back until later ones have overtaken it, the
 * second delays it. The fate of a datagram follows from the seed and its number alone, never from the time: the
 * same traffic meets the same faults, and one more kind of fault does not shift the others. */
#include "fault.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fault_text.h"
#include "log.h"
#include "random.h"
#include "wipe.h"

enum {
	REORDER_LIMIT = 1000000,
	REORDER_MOST = 3, /* datagrams that overtake a held one */
	CORRUPT_MOST = 3, /* bits */
	ROOM_AT_FIRST = 64,
};

/* A delay must not turn into a machine without memory. */
#define HELD_LIMIT ((size_t)256 << 20)

struct held {
	struct held *older; /* in the first stage */
	struct held *newer;
	uint64_t order;
	uint64_t due;
	uint64_t delay; /* of the second stage */
	unsigned overtakers; /* how many more must pass */
	size_t length;
	size_t cookie_length;
	/* The cookie, then the datagram: the cookie is often a struct and needs its alignment. */
	_Alignas(max_align_t) unsigned char bytes[];
};

struct fault {
	struct fault_settings set;
	struct counters *counters;
	uint64_t packets; /* offered */
	uint64_t order;   /* of the copies that were not lost */
	struct held *oldest; /* of the first stage */
	struct held *newest;
	struct held **heap; /* the second stage, by due and order; from 0 */
	size_t heap_count;
	size_t heap_room;
	size_t held_count; /* of both stages */
	size_t held_bytes;
};

/* The fate of one copy of a datagram. */
struct fate {
	unsigned flips;
	unsigned overtakers;
	uint64_t delay;
	uint64_t order;
	uint32_t bit[CORRUPT_MOST];
};

/* splitmix64: two lines, good enough to shake packets, and the same everywhere. */
static uint64_t next_random(uint64_t *state)
{
	uint64_t z = *state += 0x9e3779b97f4a7c15u;

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
	return z ^ (z >> 31);
}

/* The upper half of a product; not every architecture has a type for all of it. */
static uint64_t multiply_high(uint64_t a, uint64_t b)
{
	uint64_t a_low = (uint32_t)a, a_high = a >> 32, b_low = (uint32_t)b, b_high = b >> 32;
	uint64_t one = a_high * b_low + (a_low * b_low >> 32);
	uint64_t other = a_low * b_high + (uint32_t)one;

	return a_high * b_high + (one >> 32) + (other >> 32);
}

/* 0 to n - 1. */
static uint64_t random_below(uint64_t *state, uint64_t n)
{
	return multiply_high(next_random(state), n);
}

static bool happens(uint64_t *state, uint32_t chance)
{
	return random_below(state, FAULT_BILLION) < chance;
}

bool fault_explain(const char *text, char *message, size_t size)
{
	struct fault_settings set = {0};

	return fault_text_parse(text, &set, message, size) != 0;
}

int fault_parse(const char *text, struct fault **out)
{
	char message[512];
	struct fault_settings set = {0};
	uint32_t number;
	int ret = fault_text_parse(text, &set, message, sizeof message);

	if (ret) {
		log_write(LOG_ERROR, "UROCE_FAULT: %s", message);
		return ret;
	}
	struct fault *fault = calloc(1, sizeof *fault);
	if (!fault) {
		log_write(LOG_ERROR, "out of memory for fault injection");
		return -ENOMEM;
	}
	if (!set.seeded)
		set.seed = random_u32(&number) == 0 ? number : 0;
	fault->set = set;
	log_write(LOG_INFO, "fault injection: seed=%" PRIu64 " repeats this run's faults", set.seed);
	*out = fault;
	return 0;
}

/* ---- held datagrams --------------------------------------------------------------------------------------------- */

static size_t held_size(const struct held *held)
{
	return sizeof *held + held->cookie_length + held->length;
}

static unsigned char *held_datagram(struct held *held)
{
	return held->bytes + held->cookie_length;
}

static struct held *held_new(struct fault *fault, const void *datagram, size_t length, const void *cookie,
			     size_t cookie_length)
{
	size_t size = sizeof(struct held) + cookie_length + length;
	struct held *held = size <= HELD_LIMIT - fault->held_bytes ? malloc(size) : NULL;

	if (!held)
		return NULL;
	memset(held, 0, sizeof *held);
	held->length = length;
	held->cookie_length = cookie_length;
	if (cookie_length)
		memcpy(held->bytes, cookie, cookie_length);
	if (length)
		memcpy(held_datagram(held), datagram, length);
	fault->held_bytes += size;
	fault->held_count++;
	return held;
}

static void held_delete(struct fault *fault, struct held *held)
{
	size_t size = held_size(held);

	fault->held_bytes -= size;
	fault->held_count--;
	wipe_free(held, size);
}

/* A list by hand: sys/queue.h is not a part of every C library (musl). */
static void append_held(struct fault *fault, struct held *held)
{
	held->older = fault->newest;
	if (held->older)
		held->older->newer = held;
	else
		fault->oldest = held;
	fault->newest = held;
}

static void unlink_held(struct fault *fault, struct held *held)
{
	if (held->older)
		held->older->newer = held->newer;
	else
		fault->oldest = held->newer;
	if (held->newer)
		held->newer->older = held->older;
	else
		fault->newest = held->older;
}

/* As unlink_held, of a list that has one. */
static struct held *take_oldest(struct fault *fault)
{
	struct held *held = fault->oldest;

	fault->oldest = held->newer;
	if (fault->oldest)
		fault->oldest->older = NULL;
	else
		fault->newest = NULL;
	return held;
}

static bool before(const struct held *a, const struct held *b)
{
	return a->due != b->due ? a->due < b->due : a->order < b->order;
}

/* Room for everything that is held anywhere and one more, so that moving to the second stage can't fail. */
static bool heap_reserve(struct fault *fault)
{
	size_t room = fault->heap_room ? fault->heap_room * 2 : ROOM_AT_FIRST;
	struct held **heap;

	if (fault->held_count < fault->heap_room)
		return true;
	heap = reallocarray(fault->heap, room, sizeof(struct held *));
	if (!heap)
		return false;
	fault->heap = heap;
	fault->heap_room = room;
	return true;
}

static void heap_push(struct fault *fault, struct held *held)
{
	size_t at = fault->heap_count++;

	for (; at > 0 && before(held, fault->heap[(at - 1) / 2]); at = (at - 1) / 2)
		fault->heap[at] = fault->heap[(at - 1) / 2];
	fault->heap[at] = held;
}

static struct held *heap_pop(struct fault *fault)
{
	struct held *first = fault->heap[0];
	struct held *last = fault->heap[--fault->heap_count];
	size_t at = 0;

	for (size_t child; (child = 2 * at + 1) < fault->heap_count; at = child) {
		if (child + 1 < fault->heap_count && before(fault->heap[child + 1], fault->heap[child]))
			child++;
		if (!before(fault->heap[child], last))
			break;
		fault->heap[at] = fault->heap[child];
	}
	fault->heap[at] = last;
	return first;
}

/* ---- the two stages --------------------------------------------------------------------------------------------- */

static void count(_Atomic uint64_t *counter)
{
	counter_add(counter, 1);
}

static void emit_held(struct fault *fault, struct held *held, fault_emit emit, void *arg)
{
	emit(arg, held_datagram(held), held->length, held->cookie_length ? held->bytes : NULL);
	held_delete(fault, held);
}

/* Into the second stage, or out. */
static void delay_held(struct fault *fault, struct held *held, uint64_t now, fault_emit emit, void *arg)
{
	if (!held->delay) {
		emit_held(fault, held, emit, arg);
		return;
	}
	held->due = now + held->delay;
	heap_push(fault, held);
}

/* Number `order` leaves the first stage: those before it have been overtaken once, and by each that this sets free. */
static void overtake(struct fault *fault, uint64_t order, uint64_t now, fault_emit emit, void *arg)
{
	struct held *held = fault->newest;
	unsigned passed = 1;

	while (held) {
		struct held *older = held->older;

		if (held->order < order) {
			if (held->overtakers <= passed) {
				unlink_held(fault, held);
				delay_held(fault, held, now, emit, arg);
				passed++;
			} else {
				held->overtakers -= passed;
			}
		}
		held = older;
	}
}

/* Flips different bits, never one of the first byte: the opcode decides how the receiver reads the rest. */
static void draw_bits(struct fate *fate, uint64_t *random, size_t length)
{
	uint64_t bits = (uint64_t)(length - 1) * 8;
	unsigned n = 0;

	while (n < fate->flips) {
		uint32_t bit = 8 + (uint32_t)random_below(random, bits);
		bool taken = false;

		for (unsigned i = 0; i < n; i++)
			taken |= fate->bit[i] == bit;
		if (!taken)
			fate->bit[n++] = bit;
	}
}

/* Each kind draws from the copy's own generator in a fixed order. */
static void draw_fate(const struct fault_settings *set, uint64_t *random, size_t length, struct fate *fate)
{
	uint64_t bits = next_random(random);
	uint64_t least = set->delay > set->jitter ? set->delay - set->jitter : 0;

	if (happens(random, set->corrupt) && length > 1)
		fate->flips = 1 + (unsigned)random_below(random, CORRUPT_MOST);
	else
		next_random(random);
	if (happens(random, set->reorder))
		fate->overtakers = 1 + (unsigned)random_below(random, REORDER_MOST);
	else
		next_random(random);
	fate->delay = least + random_below(random, set->delay + set->jitter - least + 1);
	draw_bits(fate, &bits, length);
}

/* One copy of a datagram enters. */
static bool offer(struct fault *fault, uint64_t now, const void *datagram, size_t length, const void *cookie,
		  size_t cookie_length, const struct fate *fate, fault_emit emit, void *arg)
{
	struct held *held = NULL;

	if ((fate->flips || fate->overtakers || fate->delay) && heap_reserve(fault))
		held = held_new(fault, datagram, length, cookie, cookie_length);
	if (!held) {
		emit(arg, datagram, length, cookie);
		overtake(fault, fate->order, now, emit, arg);
		return !fate->flips && !fate->overtakers && !fate->delay;
	}
	held->order = fate->order;
	held->delay = fate->delay;
	held->overtakers = fate->overtakers;
	for (unsigned i = 0; i < fate->flips; i++)
		held_datagram(held)[fate->bit[i] / 8] ^= (unsigned char)(1u << fate->bit[i] % 8);
	if (fault->counters) {
		if (fate->flips)
			count(&fault->counters->fault_corrupt);
		if (fate->overtakers)
			count(&fault->counters->fault_reorder);
		if (fate->delay)
			count(&fault->counters->fault_delay);
	}
	if (fate->overtakers) {
		held->due = now + REORDER_LIMIT;
		append_held(fault, held);
		return true;
	}
	delay_held(fault, held, now, emit, arg);
	overtake(fault, fate->order, now, emit, arg);
	return true;
}

bool fault_apply(struct fault *fault, uint64_t now, const void *datagram, size_t length, const void *cookie,
		 size_t cookie_length, fault_emit emit, void *arg)
{
	uint64_t random = fault->set.seed ^ (++fault->packets * 0xd1342543de82ef95u);
	bool lost = happens(&random, fault->set.loss);
	bool twice = happens(&random, fault->set.duplicate);
	bool done = true;

	fault_run(fault, now, emit, arg);
	if (lost) {
		if (fault->counters)
			count(&fault->counters->fault_loss);
		return true;
	}
	if (twice && fault->counters)
		count(&fault->counters->fault_duplicate);
	for (int copies = twice ? 2 : 1; copies > 0; copies--) {
		struct fate fate = {.order = ++fault->order};

		draw_fate(&fault->set, &random, length, &fate);
		done &= offer(fault, now, datagram, length, cookie, cookie_length, &fate, emit, arg);
	}
	return done;
}

uint64_t fault_next(const struct fault *fault)
{
	const struct held *oldest = fault->oldest;
	uint64_t next = fault->heap_count ? fault->heap[0]->due : UINT64_MAX;

	return oldest && oldest->due < next ? oldest->due : next;
}

void fault_run(struct fault *fault, uint64_t now, fault_emit emit, void *arg)
{
	uint64_t next;

	while ((next = fault_next(fault)) != UINT64_MAX && next <= now) {
		if (fault->heap_count && fault->heap[0]->due == next) {
			emit_held(fault, heap_pop(fault), emit, arg);
			continue;
		}
		/* Nothing came to overtake it. Its delay counts from when the wait ended, however late this is called. */
		delay_held(fault, take_oldest(fault), next, emit, arg);
	}
}

void fault_set_counters(struct fault *fault, struct counters *counters)
{
	fault->counters = counters;
}

void fault_close(struct fault **fault)
{
	struct fault *f = *fault;

	if (!f)
		return;
	while (f->oldest)
		held_delete(f, take_oldest(f));
	while (f->heap_count)
		held_delete(f, f->heap[--f->heap_count]);
	free(f->heap);
	free(f);
	*fault = NULL;
}
