/* SPDX-License-Identifier: Apache-2.0 */
#include "packet_ring.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
	/* While the receiver keeps up, no more of the ring than this is used: it stays in the caches, and takes little memory. */
	HOT_BYTES = 384 << 10,
	LOOK_BYTES = 16 << 10,
	NEAR_BYTES = 16 << 10, /* to a receiver that keeps up */
	AHEAD_FROM = 8 * RING_LINE, /* of the lines that are fetched before they are needed: four short entries ahead, as many as one has */
	AHEAD_TO = 10 * RING_LINE,
	SEALS = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL,
};

_Static_assert(sizeof(struct ring_word) == sizeof(uint64_t), "the word is written at once");

static size_t lines(size_t length)
{
	return (sizeof(struct ring_word) + length + RING_LINE - 1) & ~(size_t)(RING_LINE - 1);
}

static _Atomic uint64_t *word_at(struct ring_shared *shared, uint64_t position)
{
	return (_Atomic uint64_t *)(void *)(shared->bytes + position % RING_BYTES);
}

/* Fetches a line that is about to be written. The compiler's own fetches it for reading, as a baseline processor does: it would have to be
 * fetched once more. A processor that does not know this instruction does nothing. */
static void fetch_to_write(void *line)
{
#ifdef __x86_64__
	__asm__ volatile("prefetchw (%0)" : : "r"(line));
#else
	__builtin_prefetch(line, 1);
#endif
}

static int map(int fd, struct ring_shared **out)
{
	*out = mmap(NULL, sizeof **out, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (*out != MAP_FAILED)
		return 0;
	*out = NULL;
	return -errno;
}

int ring_create(struct ring_out *out)
{
	int fd = memfd_create("uroce-ring", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	if (fd < 0)
		return -errno;
	if (ftruncate(fd, sizeof(struct ring_shared)) != 0 || fcntl(fd, F_ADD_SEALS, SEALS) != 0) {
		int error = errno;
		close(fd);
		return -error;
	}
	*out = (struct ring_out){ .head = 0 };
	int error = map(fd, &out->shared);
	if (error != 0)
		close(fd);
	return error == 0 ? fd : error;
}

int ring_map(int fd, struct ring_in *out)
{
	struct stat stat;
	int seals = fcntl(fd, F_GET_SEALS);
	if (seals < 0 || (seals & F_SEAL_SHRINK) == 0 || fstat(fd, &stat) != 0 ||
	    stat.st_size != (off_t)sizeof(struct ring_shared))
		return -EINVAL;
	*out = (struct ring_in){ .tail = 0 };
	return map(fd, &out->shared);
}

void ring_unmap(struct ring_shared **shared)
{
	if (*shared)
		munmap(*shared, sizeof **shared);
	*shared = NULL;
}

/* ---- sending ---- */

/* An entry may take twice its bytes, for what it leaves at the end of the ring, and needs a word behind it. */
enum {
	SHORT_ROOM = 2 * (2 * RING_LINE) + RING_LINE,
	KEPT_ROOM = 64 << 10, /* for short ones */
	LONG_ROOM = 2 * (RING_ENTRY + RING_LINE) + RING_LINE + KEPT_ROOM,
};

_Static_assert(NEAR_BYTES + LONG_ROOM < HOT_BYTES, "there is room after the start is gone to early");
_Static_assert(sizeof(struct ring_word) + WIRE_MAX_HEADER + sizeof(union ibv_gid) <= 2 * RING_LINE, "of a short entry");

static bool fits(struct ring_out *ring, uint64_t room)
{
	if (ring->head + room - ring->tail <= RING_BYTES)
		return true;
	uint64_t tail = atomic_load(&ring->shared->tail);
	/* It is the other process's: it can make this one wait, or overwrite what it has not read, and nothing else. */
	if (tail - ring->tail <= ring->head - ring->tail)
		ring->tail = tail;
	return ring->head + room - ring->tail <= RING_BYTES;
}

static bool has_room(struct ring_out *ring, uint64_t room)
{
	if (fits(ring, room))
		return true;
	atomic_store(&ring->shared->waits, 1);
	return fits(ring, room);
}

bool ring_has_room(struct ring_out *ring)
{
	return has_room(ring, LONG_ROOM);
}

bool ring_has_short_room(struct ring_out *ring)
{
	return has_room(ring, SHORT_ROOM);
}

bool ring_is_drained(const struct ring_out *ring)
{
	return atomic_load_explicit(&ring->shared->tail, memory_order_acquire) == ring->head;
}

static void put_word(struct ring_out *ring, struct ring_word word, size_t bytes)
{
	uint64_t whole;
	memcpy(&whole, &word, sizeof whole);
	atomic_store_explicit(word_at(ring->shared, ring->head), whole, memory_order_release);
	ring->head += bytes;
}

/* Goes on at the start of the ring. */
static void wrap(struct ring_out *ring)
{
	atomic_store_explicit(word_at(ring->shared, 0), 0, memory_order_relaxed);
	put_word(ring, (struct ring_word){ .kind = RING_WRAP }, RING_BYTES - ring->head % RING_BYTES);
	ring->look = ring->head + HOT_BYTES;
}

/* Whether to go on at the start, though there is room behind: the receiver has come so near that it does not read what lies there.
 * Should what it says be wrong, it overwrites what it has not read. */
static bool is_followed(struct ring_out *ring)
{
	if (ring->head < ring->look)
		return false;
	ring->look = ring->head + LOOK_BYTES;
	uint64_t behind = ring->head - atomic_load_explicit(&ring->shared->tail, memory_order_acquire);
	return ring->head % RING_BYTES >= HOT_BYTES && behind <= NEAR_BYTES;
}

uint8_t *ring_begin(struct ring_out *ring, size_t most)
{
	if (ring->head % RING_BYTES + lines(most) + RING_LINE > RING_BYTES || is_followed(ring))
		wrap(ring);
	/* The receiver's processor has the lines of the next entries: to fetch each when it is written would take longer than all else. */
	for (size_t ahead = AHEAD_FROM; ahead < AHEAD_TO; ahead += RING_LINE)
		fetch_to_write(word_at(ring->shared, ring->head + ahead));
	return ring->shared->bytes + ring->head % RING_BYTES + sizeof(struct ring_word);
}

void ring_publish(struct ring_out *ring, struct ring_word word)
{
	size_t bytes = lines(word.length);
	atomic_store_explicit(word_at(ring->shared, ring->head + bytes), 0, memory_order_relaxed);
	put_word(ring, word, bytes);
}

/* ---- receiving ---- */

bool ring_is_silent(const struct ring_in *ring)
{
	/* A short message has two lines: where both are fetched at once, the second takes no longer. */
	__builtin_prefetch(word_at(ring->shared, ring->tail + RING_LINE));
	return atomic_load_explicit(word_at(ring->shared, ring->tail), memory_order_acquire) == 0;
}

int ring_peek(struct ring_in *ring, struct ring_word *word, const uint8_t **bytes)
{
	for (unsigned wraps = 0; wraps < 2; wraps++) {
		uint64_t whole = atomic_load_explicit(word_at(ring->shared, ring->tail), memory_order_acquire);
		if (whole == 0)
			return 0;
		memcpy(word, &whole, sizeof *word);
		size_t offset = ring->tail % RING_BYTES;
		if (word->kind == RING_WRAP) {
			ring->tail += RING_BYTES - offset;
			continue;
		}
		bool known = word->kind == RING_PACKET || word->kind == RING_DATAGRAM || word->kind == RING_ACKED;
		if (!known || word->length > RING_ENTRY - sizeof *word || lines(word->length) > RING_BYTES - RING_LINE - offset)
			return -EBADMSG;
		*bytes = ring->shared->bytes + offset + sizeof *word;
		if (word->length > RING_LINE - sizeof *word)
			__builtin_prefetch(*bytes + RING_LINE - sizeof *word);
		return 1;
	}
	return -EBADMSG; /* from the start to the start */
}

void ring_take(struct ring_in *ring, const struct ring_word *word)
{
	ring->tail += lines(word->length);
	atomic_store_explicit(&ring->shared->tail, ring->tail, memory_order_release);
}

bool ring_sleep(struct ring_in *ring)
{
	atomic_store(&ring->shared->sleeps, 1);
	ring_fence();
	return atomic_load_explicit(word_at(ring->shared, ring->tail), memory_order_acquire) == 0;
}
