/* SPDX-License-Identifier: Apache-2.0 */
/* The device's thread. It makes progress while the application sleeps, computes, or waits for an event; while the
 * application polls, it stays out of the way. */
#ifndef UROCE_PROGRESS_H
#define UROCE_PROGRESS_H

#include "device.h"

int progress_start(struct device *device); /* 0 or a negative errno */
void progress_stop(struct device *device);
/* In a forked child, where the thread does not exist: closes what it had. */
void progress_abandon(struct device *device);

/* The application has polled an empty completion queue. No lock needed. */
void progress_notice_poll(struct device *device);
/* A completion queue was armed: the application is about to sleep. No lock needed. */
void progress_notice_arming(struct device *device);
/* With the lock held, before it is released: wakes the thread if a timer is due before it would wake by itself. */
void progress_notice_timer(struct device *device);

#endif
