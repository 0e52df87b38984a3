/* SPDX-License-Identifier: Apache-2.0 */
/* The counts of a server, for srdma_server_get_metrics. Each connection counts its own messages without a lock; these functions
 * run once for each client. */
#ifndef SRDMA_METRICS_H
#define SRDMA_METRICS_H

#include "server.h"

enum srdma_setup_failure srdma_setup_failure_of(int error);
enum srdma_client_end srdma_client_end_of(int status, bool lost);

/* Counts a set-up that is over; server->mutex is held. `rejection`: the reason in the REJECT that was sent, if any. */
void srdma_metrics_count_setup(struct srdma_server *server, int error, enum srdma_reject_reason rejection,
			       const struct srdma_conn_timing *timing);
/* Counts the end of a connected client; server->mutex is held. */
void srdma_metrics_count_end(struct srdma_server *server, const struct srdma_conn *conn, int status, bool lost);
/* Adds a connection's traffic. */
void srdma_traffic_add(struct srdma_traffic *to, const struct srdma_conn *conn);

#endif
