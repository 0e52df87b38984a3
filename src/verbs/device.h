/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SRDMA_DEVICE_H
#define SRDMA_DEVICE_H

#include "securdma.h"

/* Whether `gid` is in the table of the device's port: then it is this host's own. */
bool srdma_device_has_gid(const struct srdma_device *device, const union ibv_gid *gid);

/* Whether the kernel knows the device; otherwise it is a device in user space. */
bool srdma_device_is_of_kernel(const struct srdma_device *device);

/* Whether the device has memory windows of type 2 that add protection. */
bool srdma_device_has_windows(const struct srdma_device *device);

/* Index of the network interface of a GID of the device's port; 0: unknown. */
uint32_t srdma_device_gid_interface(const struct srdma_device *device, uint8_t gid_index);

/* The number of sweeps that the device's counters have shown so far; reads them at intervals. Thread-safe. */
uint64_t srdma_device_sweeps(struct srdma_device *device);
/* Whether the device has such counters. */
bool srdma_device_watches(const struct srdma_device *device);

#endif
