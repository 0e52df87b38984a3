/* SPDX-License-Identifier: Apache-2.0 */
/* A server's log events, which securdma-serve(1), "LOG", lists. */
#ifndef SRDMA_EVENTS_H
#define SRDMA_EVENTS_H

#include "server.h"

/* The client's set-up has succeeded. */
void srdma_event_connected(const struct srdma_client *client);
/* The client's set-up has failed; the thread's last error is the reason. */
void srdma_event_not_connected(const struct srdma_client *client, int error);
/* A connected client ends. `status` 0: in order. `lost`: neither end told the other why. `text`: of the error. */
void srdma_event_ended(const struct srdma_client *client, int status, bool lost, const char *text);

void srdma_event_device(const struct srdma_device *device, const struct ibv_async_event *event);
void srdma_event_device_gone(const struct srdma_device *device, const char *why);

#endif
