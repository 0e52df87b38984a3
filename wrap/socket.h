/* SPDX-License-Identifier: Apache-2.0 */
/* A socket to the agent, in a process whose program knows nothing of it and may close any descriptor. */
#ifndef WRAP_SOCKET_H
#define WRAP_SOCKET_H

#include "local.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

union local_received {
	struct local_header header;
	struct local_welcome welcome;
	struct local_answer answer;
	struct local_revoke revoke;
};

struct socket {
	int fd; /* -1: none */
	dev_t device;
	ino_t inode; /* the program may have closed the descriptor, and another file have its number */
};

/* Milliseconds on CLOCK_MONOTONIC. */
int64_t socket_now_ms(void);
/* Never blocks; not inherited by programs. Errors: a negative errno; -EPERM: who listens there is neither root, nor this user, nor the owner of
 * a folder that nobody else can write. */
int socket_open(struct socket *socket, const char *path);
void socket_close(struct socket *socket);
bool socket_is_ours(const struct socket *socket);
/* Both ends find it lost; it stays open until it is closed. */
void socket_shutdown(const struct socket *socket);
/* Fills in the header. 0; -EAGAIN: no room now; else the connection is lost. */
int socket_send(const struct socket *socket, void *packet, size_t length, uint16_t type, uint32_t request);
/* 0: a packet, with a right header and length; -EAGAIN: none; -EPROTO: what is no agent's; else the connection is lost. */
int socket_receive(const struct socket *socket, union local_received *packet);
/* Until it can be read, or written if `write`; at most `timeout_ms`. */
void socket_wait(const struct socket *socket, bool write, int timeout_ms);

#endif
