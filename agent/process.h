/* SPDX-License-Identifier: Apache-2.0 */
/* The process that has connected a socket. Its number does not name it: when it has ended, the kernel gives the number to another one, while
 * a third may still have the socket. */
#ifndef AGENT_PROCESS_H
#define AGENT_PROCESS_H

#include <stdbool.h>
#include <sys/types.h>

/* A descriptor of the process at the other end of a Unix socket, to be closed; it is readable when the process has ended. `pid`: what the
 * kernel says of the socket. Before Linux 6.5 the process with that number is taken, which is another one if the number was given away since
 * the socket was connected. Errors: -ESRCH the process has ended; -EMFILE, -ENFILE, -ENOMEM; others where the kernel has no such descriptors. */
int process_open(int socket, pid_t pid);
/* `fd`: of process_open; below 0: nothing is known of it, and it counts as alive. */
bool process_has_ended(int fd);

#endif
