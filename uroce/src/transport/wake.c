/* SPDX-License-Identifier: Apache-2.0 */
#include "wake.h"

#include <sys/eventfd.h>

/* Empty polls after arming that an application makes before it sleeps; one that makes more is polling. */
enum { POLLS_BEFORE_SLEEP = 16 };

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
