/* SPDX-License-Identifier: Apache-2.0 */
/* What a server says of itself in the log: one event for each thing that happens, listed in securdma-serve(1), "LOG". */
#ifndef SRDMA_EVENTS_H
#define SRDMA_EVENTS_H

#include "server.h"

/* Its set-up is over. */
void srdma_event_connected(const struct srdma_client *client);
/* Likewise; why is the thread's last error. */
void srdma_event_not_connected(const struct srdma_client *client, int error);
/* A connected client ends; `status` 0: in order; `lost`: without being told, or telling, why; `text`: the error's. */
void srdma_event_ended(const struct srdma_client *client, int status, bool lost, const char *text);

void srdma_event_device(const struct srdma_device *device, const struct ibv_async_event *event);
void srdma_event_device_gone(const struct srdma_device *device, const char *why);

#endif
