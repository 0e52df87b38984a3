/* SPDX-License-Identifier: Apache-2.0 */
/* Counters where programs look for those of kernel devices: in the folders ports/1/counters and ports/1/hw_counters of the device, a
 * number as text in each file. The kernel makes such a file's content when it is read. Here it is written when the program opens
 * the file; and programs that keep a file open find some that the device's thread writes, now and then, when the number has
 * changed. */
#ifndef UROCE_HW_COUNTERS_H
#define UROCE_HW_COUNTERS_H

#include "counters.h"
#include "device_files.h"

enum {
	HW_COUNTERS = 2,          /* that the thread writes */
	HW_COUNTERS_NS = 100000000, /* between two writes */
};

struct hw_counters {
	int fds[HW_COUNTERS];
	uint64_t shown[HW_COUNTERS];
	uint64_t next; /* when to write again, on the device's clock; UINT64_MAX: never */
};

/* Makes the files in the folder `port` of the tree. False and errno; then there is nothing to close. */
bool hw_counters_open(struct hw_counters *own, const struct device_files *files, const char *port, const struct counters *counters);
/* Writes all these files anew. False and errno. */
bool hw_counters_show(const struct device_files *files, const char *port, const struct counters *counters);
/* Writes the file anew if `path` is one of these: a path in the tree, and that of the folder `port`, begin alike. */
void hw_counters_refresh(const struct device_files *files, const char *port, const char *path, const struct counters *counters);
/* Writes numbers that have changed; called when `next` has come, with the device's lock held. */
void hw_counters_publish(struct hw_counters *own, const struct counters *counters, uint64_t now);
void hw_counters_close(struct hw_counters *own);

#endif
