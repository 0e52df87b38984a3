/* SPDX-License-Identifier: Apache-2.0 */
#include "wake.h"

#include <sys/eventfd.h>

/* Empty polls after arming that an application makes before it sleeps; one that makes more is polling. */
enum { POLLS_BEFORE_SLEEP = 16 };

enum {
	/* Calls that the mean time between an application's polls is taken over. */
	MEAN_POLLS = 32,
	/* An application whose polls are closer than this on average polls: it takes its packets itself as soon as the thread would. */
	POLLING_NS = 40000,
};

void wake_thread(struct progress *progress)
{
	eventfd_write(progress->wake_fd, 1); /* a full counter wakes as well */
}

bool wake_armed_lately(struct progress *progress)
{
	return atomic_load(&progress->polls) - atomic_load(&progress->armed_polls) <= POLLS_BEFORE_SLEEP;
}

void wake_note_poll(struct device *device)
{
	if (device->progress)
		atomic_fetch_add_explicit(&device->progress->polls, 1, memory_order_relaxed);
}

void wake_note_active(struct device *device, uint64_t now)
{
	struct progress *progress = device->progress;
	if (progress && (int64_t)(now - atomic_load_explicit(&progress->active_at, memory_order_relaxed)) > 0)
		atomic_store_explicit(&progress->active_at, now, memory_order_relaxed);
}

bool wake_application_active(const struct device *device, uint64_t now, uint64_t ns)
{
	/* It may be later than `now`. */
	return (int64_t)(now - atomic_load_explicit(&device->progress->active_at, memory_order_relaxed)) < (int64_t)ns;
}

static bool polls_closely(const struct progress *progress)
{
	return atomic_load_explicit(&progress->poll_ns, memory_order_relaxed) < POLLING_NS;
}

/* With the lock held. Polls that found it taken count too: while the thread is in the way most do, and show that it is. */
static void take_mean(struct progress *progress, uint64_t now)
{
	unsigned polls = atomic_load_explicit(&progress->polls, memory_order_relaxed), more = polls - progress->mean_polls;
	if (more == 0)
		return; /* a poll of another thread has counted this one */
	int64_t pause = (int64_t)(now - atomic_load_explicit(&progress->active_at, memory_order_relaxed)) / (int64_t)(more + progress->brief_calls);
	progress->brief_calls = 0;
	pause = pause < 0 ? 0 : pause > LONGEST_PAUSE_NS ? LONGEST_PAUSE_NS : pause;
	int64_t mean = atomic_load_explicit(&progress->poll_ns, memory_order_relaxed);
	mean += (pause - mean) * (int64_t)(more < MEAN_POLLS ? more : MEAN_POLLS) / MEAN_POLLS;
	atomic_store_explicit(&progress->poll_ns, mean, memory_order_relaxed);
	progress->mean_polls = polls;
	if (polls / MEAN_POLLS != (polls - more) / MEAN_POLLS && polls_closely(progress) && !progress->called &&
	    !atomic_load_explicit(&progress->napping, memory_order_relaxed)) {
		progress->called = true;
		wake_thread(progress);
	}
}

void wake_note_locked_poll(struct device *device, uint64_t now)
{
	if (!device->progress)
		return;
	take_mean(device->progress, now);
	wake_note_active(device, now);
}

bool wake_application_polls(const struct device *device, uint64_t now)
{
	return polls_closely(device->progress) && wake_application_active(device, now, ACTIVE_NS) &&
	       !wake_armed_lately(device->progress);
}

bool wake_thread_naps(const struct device *device)
{
	/* In a simulation there is no thread, and the test polls. */
	return !device->progress || device->progress->called || atomic_load(&device->progress->napping);
}

void wake_on_arming(struct device *device)
{
	struct progress *progress = device->progress;
	if (!progress)
		return;
	atomic_store(&progress->armed_polls, atomic_load(&progress->polls));
	if (atomic_load(&progress->napping))
		wake_thread(progress);
}

void wake_for_timer(struct device *device)
{
	struct progress *progress = device->progress;
	if (!progress)
		return;
	/* While it naps the application's own polls run the timers; and a nap is short. */
	if (timers_next(&device->timers) < progress->wake_at && !atomic_load(&progress->napping)) {
		progress->wake_at = 0;
		wake_thread(progress);
	}
}
