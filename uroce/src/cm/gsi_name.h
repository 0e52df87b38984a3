/* SPDX-License-Identifier: Apache-2.0 */
/* The names of Unix sockets by which the processes of a host find each other. */
#ifndef UROCE_GSI_NAME_H
#define UROCE_GSI_NAME_H

#include <sys/socket.h>
#include <sys/un.h>

#include "gsi.h"

/* Of the process that has the communication ID; returns the length. */
socklen_t gsi_process_name(uint32_t id, struct sockaddr_un *out);
/* Of the process that has a service; `loopback`: of those without addresses. The same. */
socklen_t gsi_service_name(const struct gsi_name *name, bool loopback, struct sockaddr_un *out);
/* Whether somebody has a part of what a name stands for, or a name that stands for more; but for the very same name of the same kind, which
 * the kernel gives but once. */
bool gsi_is_in_use(const struct gsi_name *name, bool loopback);
/* 0: a process has this name; -ECONNREFUSED: none has; others: it is not known. */
int gsi_try_name(const struct sockaddr_un *name, socklen_t length);
/* A socket without a name yet; -1 and errno. */
int gsi_open_socket(void);

#endif
