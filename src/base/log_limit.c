/* SPDX-License-Identifier: Apache-2.0 */
#include "log_limit.h"

#include "clock.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <string.h>

#define SECOND_US 1000000u
/* The library has about 40 kinds. A new kind takes the place of another, whose count then starts again. */
#define KINDS_MAX 64

struct kind {
	const char *name;
	uint64_t spent_until; /* on the clock, in microseconds: each line adds its part of a second, and a burst may run ahead */
	unsigned left_out;
	uint64_t left_out_since;
};

static struct {
	pthread_mutex_t mutex; /* guards the members below */
	struct kind kinds[KINDS_MAX];
	unsigned next; /* the place to be taken */
	atomic_bool has_omissions; /* read without the mutex */
} limit = {.mutex = PTHREAD_MUTEX_INITIALIZER};

/* The mutex is held. */
static struct kind *find(const char *name)
{
	struct kind *kind;

	for (unsigned i = 0; i < KINDS_MAX && limit.kinds[i].name; i++)
		if (limit.kinds[i].name == name || strcmp(limit.kinds[i].name, name) == 0)
			return &limit.kinds[i];
	kind = &limit.kinds[limit.next++ % KINDS_MAX];
	*kind = (struct kind){.name = name};
	return kind;
}

bool srdma_log_limit_admits(const char *name, struct srdma_log_rate rate)
{
	uint64_t now = srdma_clock_us(), cost = SECOND_US / rate.per_second;
	struct kind *kind;
	bool admitted;

	pthread_mutex_lock(&limit.mutex);
	kind = find(name);
	if (kind->spent_until < now)
		kind->spent_until = now;
	admitted = kind->spent_until + cost <= now + rate.burst * cost;
	if (admitted) {
		kind->spent_until += cost;
	} else {
		if (kind->left_out++ == 0)
			kind->left_out_since = now;
		atomic_store(&limit.has_omissions, true);
	}
	pthread_mutex_unlock(&limit.mutex);
	return admitted;
}

bool srdma_log_limit_take_omission(bool at_once, struct srdma_log_omission *omission)
{
	bool found = false, more = false;

	if (!atomic_load_explicit(&limit.has_omissions, memory_order_relaxed))
		return false;
	pthread_mutex_lock(&limit.mutex);
	for (unsigned i = 0; i < KINDS_MAX; i++) {
		struct kind *kind = &limit.kinds[i];

		if (kind->left_out == 0)
			continue;
		if (!found && (at_once || srdma_clock_us() - kind->left_out_since >= SECOND_US)) {
			*omission = (struct srdma_log_omission){kind->name, kind->left_out};
			kind->left_out = 0;
			found = true;
		} else {
			more = true;
		}
	}
	atomic_store(&limit.has_omissions, more);
	pthread_mutex_unlock(&limit.mutex);
	return found;
}
