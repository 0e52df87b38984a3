/* SPDX-License-Identifier: Apache-2.0 */
/* The device of a process, put together: its link, its counters, its thread. */
#include "device.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "config.h"
#include "engine.h"
#include "udp.h"

/* What a datagram of 4 KiB is charged to a receive buffer, when it comes alone: the kernel's next larger piece of
 * memory, and its own record of it. */
enum { DATAGRAM_CHARGE = 9 << 10 };

static uint64_t monotonic(void)
{
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static bool same_peer(const struct device *device, const union ibv_gid *dgid, const union ibv_gid *sgid)
{
	return udp_same_peer(device->udp, dgid, sgid);
}

static uint32_t window_of(size_t receive_buffer)
{
	/* Up to a quarter may still be charged for what has been read: the kernel gives back in large steps. */
	size_t packets = (receive_buffer - receive_buffer / 4) / DATAGRAM_CHARGE;
	return packets == 0 ? 1 : (uint32_t)packets;
}

static int open_link(struct device *device)
{
	const struct config *config = config_get();
	if (config == NULL)
		return -ENOMEM;
	struct udp_config udp = {
		.addresses = config->addresses,
		.capture = config->capture,
		.fault = config->fault,
		.counters = device->counters,
		.deliver = engine_deliver,
		.arg = device,
	};
	int error = udp_open(&udp, &device->udp);
	if (error != 0)
		return error;
	device->link = udp_link_of(device->udp);
	device->mtu = udp_mtu(device->udp);
	device->max_window = window_of(udp_receive_buffer(device->udp));
	return 0;
}

int device_init(struct device *device)
{
	memset(device, 0, sizeof(*device));
	pthread_mutex_init(&device->lock, NULL);
	device->active_tail = &device->active_head;
	device->clock = monotonic;
	device->same_peer = same_peer;
	device->now = monotonic();
	device->hw_counters.next = UINT64_MAX;
	device->counters = counters_open();
	int error = open_link(device);
	if (error != 0)
		goto destroy_lock;
	error = progress_start(device);
	if (error != 0)
		goto close_link;
	return 0;

close_link:
	udp_close(&device->udp);
destroy_lock:
	pthread_mutex_destroy(&device->lock);
	explicit_bzero(device, sizeof(*device));
	return error;
}

void device_clear(struct device *device)
{
	if (device == NULL)
		return;
	progress_stop(device);
	hw_counters_remove(&device->hw_counters);
	udp_close(&device->udp);
	timers_clear(&device->timers);
	table_clear(&device->keys);
	table_clear(&device->qps);
	if (device->blocks != NULL)
		explicit_bzero(device->blocks, device->block_count * sizeof(*device->blocks));
	free(device->blocks);
	pthread_mutex_destroy(&device->lock);
	explicit_bzero(device, sizeof(*device));
}
