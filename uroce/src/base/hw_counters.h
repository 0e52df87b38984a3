/* SPDX-License-Identifier: Apache-2.0 */
/* Counters where programs look for those of kernel devices: <ibdev_path>/ports/1/hw_counters/NAME, a number as text. The kernel
 * makes such a file's content when it is read; here the device's thread writes it, now and then, when the number has changed. */
#ifndef UROCE_HW_COUNTERS_H
#define UROCE_HW_COUNTERS_H

#include <sys/types.h>

#include "counters.h"

enum {
	HW_COUNTERS = 2,
	HW_COUNTERS_PATH = 128,
	HW_COUNTERS_NS = 100000000, /* between two writes */
};

struct hw_counters {
	char path[HW_COUNTERS_PATH]; /* "": there are none */
	pid_t owner;
	int fds[HW_COUNTERS];
	uint64_t shown[HW_COUNTERS];
	uint64_t next; /* when to write again, on the device's clock; UINT64_MAX: never */
};

/* Makes the files. Where they can't be made there are none, which is no failure. */
void hw_counters_open(struct hw_counters *files);
/* Writes numbers that have changed; called when `next` has come, with the device's lock held. */
void hw_counters_publish(struct hw_counters *files, const struct counters *counters, uint64_t now);
/* Removes the files, in the process that has made them. */
void hw_counters_remove(struct hw_counters *files);

#endif
