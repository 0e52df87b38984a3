/* SPDX-License-Identifier: Apache-2.0 */
#include "device.h"

enum { PAUSE_NS = 100000 };

/* The C library's functions that send and receive are cancellation points, and verbs are none: a thread that is cancelled must
 * not take the lock with it. */
void device_stay(struct device *device)
{
	int before;
	pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &before);
	device->cancelable = before == PTHREAD_CANCEL_ENABLE;
}

bool device_try_lock(struct device *device)
{
	if (!lock_try(&device->lock))
		return false;
	device_stay(device);
	return true;
}

bool device_lock_within(struct device *device, uint64_t ns)
{
	const struct timespec pause = { .tv_nsec = PAUSE_NS };
	uint64_t end = clock_ns(CLOCK_MONOTONIC) + ns;
	int before;
	bool locked;

	pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &before);
	while (!(locked = device_try_lock(device)) && clock_ns(CLOCK_MONOTONIC) < end)
		nanosleep(&pause, NULL);
	pthread_setcancelstate(before, NULL);
	if (locked)
		device_stay(device);
	return locked;
}

void device_lock_briefly(struct device *device)
{
	if (!lock_try(&device->lock)) {
		atomic_fetch_add_explicit(&device->waiting, 1, memory_order_relaxed);
		lock_take(&device->lock);
		atomic_fetch_sub_explicit(&device->waiting, 1, memory_order_relaxed);
	}
	device->cancelable = false;
}

void device_lock(struct device *device)
{
	device_lock_briefly(device);
	device_stay(device);
}

void device_unlock(struct device *device)
{
	bool cancelable = device->cancelable;
	lock_give(&device->lock);
	if (cancelable)
		pthread_setcancelstate(PTHREAD_CANCEL_ENABLE, NULL);
}
