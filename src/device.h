/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SRDMA_DEVICE_H
#define SRDMA_DEVICE_H

#include "securdma.h"

/* Whether `gid` is in the table of the device's port: then it is this host's own. */
bool srdma_device_has_gid(const struct srdma_device *device, const union ibv_gid *gid);

#endif
