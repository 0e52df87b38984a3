/* SPDX-License-Identifier: Apache-2.0 */
#include "rate.h"

#include "clock.h"

#define NS_PER_US 1000u
#define NS_PER_MS 1000000u
#define NS_PER_S  1000000000u
/* A taker may be this far ahead, so that one that waits for its turn, and so comes late, does not lose its share. */
#define BURST_NS (10u * NS_PER_MS)
/* The least that a piece costs: an empty message takes about as much work as a short one. */
#define LEAST_BYTES 64u
/* The most that one call can add, since a long piece at 1 byte a second would stop a connection for years. */
#define LONGEST_NS (60ull * NS_PER_S)

static uint64_t now_ns(void)
{
	return srdma_clock_us() * NS_PER_US;
}

bool srdma_rate_is_open(const struct srdma_rate *rate)
{
	return rate->per_second == 0 || rate->paid_until <= now_ns() + BURST_NS;
}

void srdma_rate_take(struct srdma_rate *rate, uint64_t bytes)
{
	uint64_t now, cost;

	if (rate->per_second == 0)
		return;
	now = now_ns();
	if (bytes < LEAST_BYTES)
		bytes = LEAST_BYTES;
	cost = bytes > UINT64_MAX / NS_PER_S ? LONGEST_NS : bytes * NS_PER_S / rate->per_second;
	if (rate->paid_until < now)
		rate->paid_until = now;
	rate->paid_until += cost < LONGEST_NS ? cost : LONGEST_NS;
}

int srdma_rate_left_ms(const struct srdma_rate *rate)
{
	uint64_t now;

	if (rate->per_second == 0)
		return -1;
	now = now_ns() + BURST_NS;
	return rate->paid_until <= now ? 0 : (int)((rate->paid_until - now + NS_PER_MS - 1) / NS_PER_MS);
}
