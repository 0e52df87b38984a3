/* SPDX-License-Identifier: Apache-2.0 */
#include "pace.h"

#include "cli.h"

/* What may be saved up. A tenth of a second's bytes at a time are few enough for others on the network. */
#define SAVED_MS 100

static void refill(struct pace *pace)
{
	int64_t now = cli_now_ms(), most = pace->rate * SAVED_MS / 1000, passed = now - pace->at;

	if (pace->at == 0 || passed > 10 * (int64_t)SAVED_MS)
		passed = SAVED_MS;
	pace->at = now;
	pace->have += pace->rate * passed / 1000;
	if (pace->have > most)
		pace->have = most;
}

size_t pace_allow(struct pace *pace, size_t wanted)
{
	if (pace->rate == 0)
		return wanted;
	if (pace_wait_ms(pace) > 0)
		return 0;
	return (int64_t)wanted < pace->have ? wanted : (size_t)pace->have;
}

void pace_take(struct pace *pace, size_t bytes)
{
	if (pace->rate > 0)
		pace->have -= (int64_t)bytes;
}

int pace_wait_ms(struct pace *pace)
{
	int64_t missing;

	if (pace->rate == 0)
		return 0;
	refill(pace);
	/* Not for each byte: half of what can be saved up. */
	missing = pace->rate * SAVED_MS / 2000 - pace->have;
	return missing > 0 ? (int)(missing * 1000 / pace->rate) + 1 : 0;
}
