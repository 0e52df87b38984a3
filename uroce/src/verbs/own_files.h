/* SPDX-License-Identifier: Apache-2.0 */
/* The device as files: what the kernel would show of it in /sys/class/infiniband, /sys/class/infiniband_verbs and /dev/infiniband. */
#ifndef UROCE_OWN_FILES_H
#define UROCE_OWN_FILES_H

#include <infiniband/verbs.h>

#include "device.h"

/* Device numbers of /dev/infiniband/uverbsN. */
enum { UVERBS_MAJOR = 231, UVERBS_MINOR = 192 };

/* The N of the device: the first that the kernel has not given, or that `uroce --mount` shows for it. */
unsigned own_files_number(const struct ibv_device *listed);
/* The device numbers of /dev/infiniband/rdma_cm: the kernel's, where it has one, for librdmacm may know them from the kernel itself. */
void own_files_channel_node(unsigned *major, unsigned *minor);
/* Makes the tree of `device`, listed as `listed`. Where that is impossible there is none, and the reason is logged. */
void own_files_make(struct device *device, const struct ibv_device *listed, __be64 guid);
/* Writes the counter anew that `path` names, if it names one. */
void own_files_refresh(const struct device *device, const struct ibv_device *listed, const char *path);
/* Shows the kernel's own entries in the tree's folder `folder` too, by links. */
void own_files_add_kernel(const struct device *device, const char *folder);
/* Removes the tree: the device's lock is held. */
void own_files_remove(struct device *device);

#endif
