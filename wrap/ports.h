/* SPDX-License-Identifier: Apache-2.0 */
/* The ports of devices that the program uses, as its agent is told of them. */
#ifndef WRAP_PORTS_H
#define WRAP_PORTS_H

#include <infiniband/verbs.h>
#include <stdbool.h>

/* Tells the agent of the port and its GIDs, if it was not told, or the GID at `gid_index` has changed since (-1: none is used). `gid`: that
 * one, or zero. 0 or a positive errno. */
int port_report(struct ibv_context *context, uint8_t port, int gid_index, union ibv_gid *gid);
/* Sends all ports to a new agent: link_restore. False: the connection is lost. */
bool ports_restore(void);

#endif
