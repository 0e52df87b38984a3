/* SPDX-License-Identifier: Apache-2.0 */
/* A ring of packets in shared memory: one process sends, another receives. Nothing in it is believed by the receiver: the sender may
 * change any byte at any time.
 *
 * An entry starts at a cache line with a word that says what it is; a word of zero: there is none yet. The sender clears the next
 * entry's word before it writes this one's, so that the receiver reads one line to find a short packet, and writes none. */
#ifndef UROCE_PACKET_RING_H
#define UROCE_PACKET_RING_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "wire.h"

enum {
	RING_BYTES = 2 << 20,
	RING_LINE = 64,
	/* A packet's payload, at most. Larger ones leave the caches before they are read, smaller ones cost more words. */
	RING_PAYLOAD = 16384,
	RING_ENTRY = sizeof(uint64_t) + 16 + WIRE_MAX_HEADER + RING_PAYLOAD + 4 + WIRE_ACK,
};

struct ring_shared {
	_Alignas(RING_LINE) _Atomic uint64_t tail;   /* the receiver's: bytes taken so far */
	_Atomic uint32_t left; /* the receiver ends of its own accord */
	_Alignas(RING_LINE) _Atomic uint32_t sleeps; /* the receiver must be woken when something is sent */
	_Alignas(RING_LINE) _Atomic uint32_t waits;  /* the sender must be told when there is room */
	_Alignas(4096) uint8_t bytes[RING_BYTES];
};

/* What an entry's word says, besides its length. */
struct ring_word {
	uint32_t length; /* of the bytes behind the word */
	uint8_t kind;
	uint8_t gid_index; /* of the sender's GID, in its own table */
	uint8_t tclass;
	uint8_t hop_limit;
};

enum ring_kind {
	RING_PACKET = 1,
	RING_DATAGRAM, /* the GID that it is sent to comes first */
	RING_ACKED,    /* a packet and, behind it, an acknowledgement of as many bytes as one has */
	RING_WRAP,     /* the next entry is at the start of the ring */
};

struct ring_out {
	struct ring_shared *shared;
	uint64_t head;  /* bytes sent so far */
	uint64_t tail;  /* as last read */
	uint64_t look;  /* where to see whether the receiver has all */
};

struct ring_in {
	struct ring_shared *shared;
	uint64_t tail; /* bytes taken so far */
};

/* What was stored before is seen before what is loaded after is read. */
static inline void ring_fence(void)
{
#ifdef __SANITIZE_THREAD__ /* it knows no fences */
	static atomic_uint any;
	atomic_fetch_add(&any, 0);
#else
	atomic_thread_fence(memory_order_seq_cst);
#endif
}

/* Makes a ring; the descriptor of its memory, which another process may map. Negative: errno. */
int ring_create(struct ring_out *out);
/* Maps another's. The descriptor stays the caller's. 0, or a negative errno: -EINVAL when it is none, or may shrink. */
int ring_map(int fd, struct ring_in *out);
void ring_unmap(struct ring_shared **shared);

/* Room for any entry. When there is none, the receiver will tell when there is. */
bool ring_has_room(struct ring_out *ring);
/* The same for one without payload: some room is kept for these, so that acknowledgements need not wait for data. */
bool ring_has_short_room(struct ring_out *ring);
/* All that was sent has been taken. */
bool ring_is_drained(const struct ring_out *ring);
/* Where the bytes of the next entry go, so many of them at most. There must be room. Nothing is sent before ring_publish. */
uint8_t *ring_begin(struct ring_out *ring, size_t most);
/* Sends the entry that was written there. */
void ring_publish(struct ring_out *ring, struct ring_word word);

/* There is no next entry. */
bool ring_is_silent(const struct ring_in *ring);
/* The next entry: 1, 0: none, -EBADMSG: what is there is no entry. `bytes` stays where the sender may change it. */
int ring_peek(struct ring_in *ring, struct ring_word *word, const uint8_t **bytes);
void ring_take(struct ring_in *ring, const struct ring_word *word);

/* Says that the receiver sleeps from now on. False: there is something to receive. */
bool ring_sleep(struct ring_in *ring);

#endif
