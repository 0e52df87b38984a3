/* SPDX-License-Identifier: Apache-2.0 */
/* The one device of a process. All is thread-safe. */
#ifndef UROCE_OWN_DEVICE_H
#define UROCE_OWN_DEVICE_H

#include "context.h"

/* Made when first asked for. NULL when it can't be had: the reason is logged, once. */
struct device *own_device(void);
/* The same as an entry of the device list; errno is kept. */
struct ibv_device *own_device_listed(void);
bool own_device_is(const struct ibv_device *device);
/* Whether an object's context is ours. Exported functions ask this first, and pass all others through. */
bool context_is_ours(const struct ibv_context *context);
/* Before the process ends: its last acknowledgements go out, and others learn that it was not killed. Nothing in a child that has no
 * device of its own, also not in one that shares its parent's memory (vfork). */
void own_device_settle(void);
/* The GUID of the node and of the system image. Never 0. */
__be64 own_device_guid(void);
/* Makes the device's files unless they are there (own_files.h), when it is first opened. */
void own_device_show_files(struct device *device);
/* The folder that stands for "/", with the device's files. NULL: there is no device, or it has no files. */
const char *own_device_files(void);
/* For a path below "/sys/class": the file has the counter's present value; the folder has the kernel's entries too. */
void own_device_refresh_file(const char *path);
void own_device_add_kernel_files(const char *folder);

#endif
