/* SPDX-License-Identifier: Apache-2.0 */
/* What other threads tell the device's thread (progress.c): that the application polls, is about to sleep, or set a timer. */
#ifndef UROCE_WAKE_H
#define UROCE_WAKE_H

#include "device.h"

struct progress {
	pthread_t thread;
	int wake_fd;
	atomic_uint polls;          /* empty ones, so far */
	atomic_uint armed_polls;    /* their number when a queue was last armed */
	_Atomic uint64_t active_at; /* when the application last polled or posted, by the device's clock */
	_Atomic int64_t poll_ns;    /* mean time from the application's last call to its next poll; written with the lock held */
	unsigned mean_polls;        /* `polls`, when the mean was last taken; guarded by the device's lock */
	bool called;                /* the thread was woken to go out of the way, and has not come yet; guarded by the device's lock */
	unsigned brief_calls;       /* the application's since its last poll, without a clock; guarded by the lock */
	atomic_bool napping;        /* the application polls, and the thread leaves packets to it */
	uint64_t wake_at;           /* when the thread wakes by itself; guarded by the device's lock */
};

void wake_thread(struct progress *progress);
/* A completion queue was armed, and the application has hardly polled since: it is about to sleep. */
bool wake_armed_lately(struct progress *progress);

/* The application has polled an empty completion queue. No lock needed. */
void wake_note_poll(struct device *device);
/* The same with the device's lock, at this time: wakes the thread, so that it goes out of the way, when the polls are close. */
void wake_note_locked_poll(struct device *device, uint64_t now);
/* The application is in the device, and no clock was read: its next poll comes after many calls, and not after a pause. */
static inline void wake_note_brief_call(struct device *device)
{
	if (device->progress)
		device->progress->brief_calls++;
}

/* The application is in the device at this time. */
void wake_note_active(struct device *device, uint64_t now);
enum {
	/* Calls of an application that polls are closer than this, even when something interrupts it. */
	ACTIVE_NS = 100000,
	/* A longer pause between polls counts as one of this length: the application is soon seen to poll again. */
	LONGEST_PAUSE_NS = 1000000,
};

/* The mean time between its polls is shorter than that; false in a simulation. With the lock held. */
static inline bool wake_polls_within(const struct device *device, int64_t ns)
{
	return device->progress && atomic_load_explicit(&device->progress->poll_ns, memory_order_relaxed) < ns;
}

/* Whether the application's last call is less than `ns` nanoseconds ago. */
bool wake_application_active(const struct device *device, uint64_t now, uint64_t ns);
/* The application polls so often that the thread is not needed. */
bool wake_application_polls(const struct device *device, uint64_t now);
/* The thread naps for that reason, or is about to, and works before or after: it sends what the application's last poll has left.
 * With the lock held. */
bool wake_thread_naps(const struct device *device);
/* A completion queue was armed: the thread must listen, even though the application has just polled. No lock needed. */
void wake_on_arming(struct device *device);
/* With the lock held, before it is released: wakes the thread if a timer is due before it would wake by itself. */
void wake_for_timer(struct device *device);

#endif
