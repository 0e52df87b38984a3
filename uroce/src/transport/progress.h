/* SPDX-License-Identifier: Apache-2.0 */
/* The device's thread. It makes progress while the application sleeps, computes, or waits for an event; while the
 * application polls, it stays out of the way. */
#ifndef UROCE_PROGRESS_H
#define UROCE_PROGRESS_H

#include "device.h"

int progress_start(struct device *device); /* 0 or a negative errno */
/* In a forked child, where the thread does not exist: closes its descriptor. */
void progress_abandon(struct device *device);

#endif
