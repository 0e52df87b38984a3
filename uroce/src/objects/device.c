/* SPDX-License-Identifier: Apache-2.0 */
#include "device.h"

void device_lock(struct device *device)
{
	if (pthread_mutex_trylock(&device->lock) == 0)
		return;
	atomic_fetch_add_explicit(&device->waiting, 1, memory_order_relaxed);
	pthread_mutex_lock(&device->lock);
	atomic_fetch_sub_explicit(&device->waiting, 1, memory_order_relaxed);
}
