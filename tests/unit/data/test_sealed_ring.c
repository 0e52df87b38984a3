/* SPDX-License-Identifier: Apache-2.0 */
/* Places of chunks in a ring: within it, apart from each other, and alike at both ends. */
#include "test.h"

#include "sealed_ring.h"
#include "seal.h"

enum { UNDER_WAY = 64, ROUNDS = 200000 };

struct chunk {
	uint32_t at, length, taken, peer_taken;
};

static uint64_t state;

static uint32_t below(uint32_t n)
{
	state = state * 6364136223846793005u + 1442695040888963407u;
	return (uint32_t)(state >> 33) % n;
}

/* A sender, and a receiver whose chunks go earlier: it never lacks room, and has them at the same places. */
TEST(chunks_lie_within_apart_and_alike)
{
	static const uint32_t lengths[] = {0, 1, 48, 49, 2049, 65536, SRDMA_SEALED_CHUNK - 16, SRDMA_SEALED_CHUNK};

	for (uint64_t seed = 1; seed <= 4; seed++) {
		struct srdma_sealed_ring sender = {0}, receiver = {0};
		struct chunk chunks[UNDER_WAY];
		uint32_t head = 0, opened = 0, tail = 0, most = 0, next = 0;

		state = seed;
		for (unsigned round = 0; round < ROUNDS; round++) {
			/* One seed has chunks of one length alone: that it comes to the very end is then a matter of time. */
			uint32_t length = seed == 1 ? 65536 : below(2) ? lengths[below(8)] : below(SRDMA_SEALED_CHUNK + 1), at;

			if (tail - head < UNDER_WAY && srdma_sealed_ring_fits(&sender, length)) {
				struct chunk *chunk = &chunks[tail % UNDER_WAY];

				assert_true(srdma_sealed_ring_fits(&receiver, length));
				chunk->length = length;
				chunk->taken = srdma_sealed_ring_take(&sender, length, &chunk->at);
				chunk->peer_taken = srdma_sealed_ring_take(&receiver, length, &at);
				assert_int_equal(at, chunk->at);
				/* Right behind the one before, or at the start. */
				assert_true(at == 0 || at == next);
				next = at + srdma_sealed_ring_align(length + SRDMA_SEAL_OVERHEAD);
				assert_true(chunk->at + length + SRDMA_SEAL_OVERHEAD <= SRDMA_SEALED_RING);
				for (uint32_t i = head; i < tail; i++) {
					const struct chunk *other = &chunks[i % UNDER_WAY];

					assert_true(other->at + other->length + SRDMA_SEAL_OVERHEAD <= chunk->at ||
						    chunk->at + length + SRDMA_SEAL_OVERHEAD <= other->at);
				}
				tail++;
				if (tail - head > most)
					most = tail - head;
			} else if (opened < tail && below(2)) {
				srdma_sealed_ring_free(&receiver, chunks[opened++ % UNDER_WAY].peer_taken);
			} else if (head < opened) {
				srdma_sealed_ring_free(&sender, chunks[head++ % UNDER_WAY].taken);
			}
		}
		assert_true(most > 7); /* of the longest, eight fit */
		while (opened < tail)
			srdma_sealed_ring_free(&receiver, chunks[opened++ % UNDER_WAY].peer_taken);
		while (head < tail)
			srdma_sealed_ring_free(&sender, chunks[head++ % UNDER_WAY].taken);
		assert_int_equal(sender.used, 0);
		assert_int_equal(receiver.used, 0);
	}
}

/* Where the last chunk ends just where the ring does, the next one begins at the start. */
TEST(ring_that_is_full_to_the_last_byte_goes_on_at_the_start)
{
	struct srdma_sealed_ring ring = {0};
	uint32_t at, left = SRDMA_SEALED_RING, taken = 0;

	while (left > 0) {
		uint32_t size = left < SRDMA_SEALED_CHUNK ? left : SRDMA_SEALED_CHUNK / 2;

		assert_true(srdma_sealed_ring_fits(&ring, size - SRDMA_SEAL_OVERHEAD));
		taken = srdma_sealed_ring_take(&ring, size - SRDMA_SEAL_OVERHEAD, &at);
		assert_int_equal(at + taken, SRDMA_SEALED_RING - left + size);
		left -= size;
	}
	assert_false(srdma_sealed_ring_fits(&ring, 0));
	srdma_sealed_ring_free(&ring, SRDMA_SEALED_RING);
	assert_true(srdma_sealed_ring_fits(&ring, 1000));
	assert_int_equal(srdma_sealed_ring_take(&ring, 1000, &at), 1024);
	assert_int_equal(at, 0);
}

RUN_TESTS(NULL, NULL)
