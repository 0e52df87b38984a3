/* SPDX-License-Identifier: Apache-2.0 */
/* The client's end of a tunnel: one TCP connection of a local program, and one connection to the server for it. */
#ifndef CLI_TUNNEL_CLIENT_H
#define CLI_TUNNEL_CLIENT_H

#include "securdma.h"

/* What all flows have in common. */
struct tunnel_route {
	const char *host, *port, *target;
	struct srdma_tls_context *context;
	struct srdma_device *device;
	const struct srdma_conn_options *options;
	int retry_ms; /* how long a connection waits for a server that has no room for it */
	int epoll_fd;
};

struct tunnel_flow;

/* Begins; the socket is the flow's from here on, also after an error. Its events come with the flow as their data. Errors: -ENOMEM, those
 * of srdma_conn_connect_start. */
int tunnel_flow_new(const struct tunnel_route *route, int fd, struct tunnel_flow **out);
/* Whatever has happened, goes as far as possible. False: it is over; free it. */
bool tunnel_flow_step(struct tunnel_flow *flow);
/* Whether it waits for room at the server; tunnel_flow_hurry() makes it try again at once, since another flow has gone. */
bool tunnel_flow_waits(const struct tunnel_flow *flow);
void tunnel_flow_hurry(struct tunnel_flow *flow);
/* Whether another step has something to do at once. */
bool tunnel_flow_is_busy(const struct tunnel_flow *flow);
/* Ends it soon: both of its ends see an error. */
void tunnel_flow_break(struct tunnel_flow *flow, const char *reason);
void tunnel_flow_free(struct tunnel_flow **flow);

#endif
