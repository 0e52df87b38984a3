/* SPDX-License-Identifier: Apache-2.0 */
#include "wake.h"

#include <sys/eventfd.h>

/* Empty polls after arming that an application makes before it sleeps; one that makes more is polling. */
enum { POLLS_BEFORE_SLEEP = 16 };

/* An application that makes so many in a row polls. */
enum { CLOSE_POLLS = 32 };


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

void wake_note_close_poll(struct device *device, uint64_t now)
{
	struct progress *progress = device->progress;
	if (!progress)
		return;
	if (!wake_application_active(device, now, ACTIVE_NS))
		atomic_store_explicit(&progress->close_polls, 0, memory_order_relaxed);
	else if ((atomic_fetch_add_explicit(&progress->close_polls, 1, memory_order_relaxed) + 1) % CLOSE_POLLS == 0 &&
		 !atomic_load_explicit(&progress->napping, memory_order_relaxed))
		wake_thread(progress);
	wake_note_active(device, now);
}

bool wake_application_polls(struct progress *progress)
{
	return atomic_load_explicit(&progress->close_polls, memory_order_relaxed) >= CLOSE_POLLS && !wake_armed_lately(progress);
}

bool wake_thread_naps(const struct device *device)
{
	/* In a simulation there is no thread, and the test polls. */
	return !device->progress || atomic_load(&device->progress->napping);
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
