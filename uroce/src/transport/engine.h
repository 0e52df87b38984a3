/* SPDX-License-Identifier: Apache-2.0 */
/* Makes the protocol move: received packets in, timers, queue pairs that have something to send.
 * Whoever holds the device's lock does the work; a thread of the device steps in when no application thread polls. */
#ifndef UROCE_ENGINE_H
#define UROCE_ENGINE_H

#include "device.h"

/* Locks the device and reads the clock. */
void engine_enter(struct device *device);
/* Sends what is due, wakes the progress thread if a timer is set earlier than it knows, unlocks. */
void engine_leave(struct device *device);

/* What a poll of an empty completion queue does: unless another thread is at it, receives, runs timers, sends. */
void engine_poll(struct device *device);
/* One round, with the lock held: receive up to `budget` packets, timers, sending. Returns packets received. */
unsigned engine_round(struct device *device, unsigned budget);
/* Sends for the queue pairs of the active list until it is empty or the link takes no more. Lock held. */
void engine_pump(struct device *device);

/* The link's `deliver`: one packet without ICRC. Lock held. */
void engine_deliver(void *device, const uint8_t *bytes, size_t length, const struct packet_path *path);

#endif
