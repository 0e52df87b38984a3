/* SPDX-License-Identifier: Apache-2.0 */
/* What the modes about streams have in common. */
#ifndef PROBE_STREAM_H
#define PROBE_STREAM_H

#include "probe.h"

#include "securdma_stream.h"

/* Gives both ends a region of that many bytes, for rings, and few messages in flight. */
void stream_prepare(struct rig *rig, const char *region);
/* Ends both connections in order. */
void stream_leave(struct srdma_conn **client, struct srdma_conn **accepted);

#endif
