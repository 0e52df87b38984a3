/* SPDX-License-Identifier: Apache-2.0 */
#include "device.h"

/* The C library's functions that send and receive are cancellation points, and verbs are none: a thread that is cancelled must
 * not take the lock with it. */
static void put_off_cancellation(struct device *device)
{
	int before;
	pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &before);
	device->cancelable = before == PTHREAD_CANCEL_ENABLE;
}

bool device_try_lock(struct device *device)
{
	if (pthread_mutex_trylock(&device->lock) != 0)
		return false;
	put_off_cancellation(device);
	return true;
}

void device_lock(struct device *device)
{
	if (device_try_lock(device))
		return;
	atomic_fetch_add_explicit(&device->waiting, 1, memory_order_relaxed);
	pthread_mutex_lock(&device->lock);
	put_off_cancellation(device);
	atomic_fetch_sub_explicit(&device->waiting, 1, memory_order_relaxed);
}

void device_unlock(struct device *device)
{
	bool cancelable = device->cancelable;
	pthread_mutex_unlock(&device->lock);
	if (cancelable)
		pthread_setcancelstate(PTHREAD_CANCEL_ENABLE, NULL);
}
