/* SPDX-License-Identifier: Apache-2.0 */
/* The counts of a server, for srdma_server_get_metrics. Messages are counted by their connection, without a lock; what is counted
 * here is once for each client. */
#ifndef SRDMA_METRICS_H
#define SRDMA_METRICS_H

#include "server.h"

enum srdma_setup_failure srdma_setup_failure_of(int error);
enum srdma_client_end srdma_client_end_of(int status, bool lost);

/* A set-up is over; server->mutex is held. `rejection`: of the REJECT that was sent, if one was. */
void srdma_metrics_count_setup(struct srdma_server *server, int error, enum srdma_reject_reason rejection,
			       const struct srdma_conn_timing *timing);
/* A connected client ends; server->mutex is held. */
void srdma_metrics_count_end(struct srdma_server *server, const struct srdma_conn *conn, int status, bool lost);
/* Its traffic stays counted after it has gone; server->slots.mutex is held, under which its conn is cleared. */
void srdma_metrics_keep_traffic(struct srdma_server *server, const struct srdma_conn *conn);

#endif
