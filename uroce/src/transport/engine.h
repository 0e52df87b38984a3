/* SPDX-License-Identifier: Apache-2.0 */
/* Makes the protocol move: received packets, timers, queue pairs that have something to send. The thread that holds the
 * device's lock does the work; the device's own thread steps in when no thread of the application polls. */
#ifndef UROCE_ENGINE_H
#define UROCE_ENGINE_H

#include "device.h"
#include "shm.h"

/* Locks the device and reads the clock. */
void engine_enter(struct device *device);
/* The same when it is locked, but briefly. */
void engine_stay(struct device *device);
/* Sends packets that are due, wakes the device's thread if a timer is set earlier than it knows, unlocks. */
void engine_leave(struct device *device);

/* Called when a completion queue is polled and empty: receives, runs timers, sends, unless another thread is at it. */
void engine_poll(struct device *device);
/* One round, with the lock held: receive up to `budget` packets, timers, sending. `patient`: acknowledgements stay for the next
 * one. Returns packets received. */
unsigned engine_round(struct device *device, unsigned budget, bool patient);
/* Sends for the queue pairs of the active list until it is empty or the link takes no more. Lock held. */
void engine_pump(struct device *device);

/* What has become of a path through shared memory, for the queue pairs that use it. Lock held. */
void engine_path_event(void *device, struct shm_path *path, enum shm_event event);

/* One packet that came through shared memory. Lock held. */
void engine_deliver_local(void *device, const struct packet *packet, const struct packet_path *path);
/* The link's `deliver`: one packet without ICRC. Lock held. */
void engine_deliver(void *device, const uint8_t *bytes, size_t length, const struct packet_path *path);

#endif
