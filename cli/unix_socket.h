/* SPDX-License-Identifier: Apache-2.0 */
/* A listening Unix socket that takes the place of a dead server's, and whose file goes with its server. */
#ifndef CLI_UNIX_SOCKET_H
#define CLI_UNIX_SOCKET_H

#include <sys/stat.h>

struct unix_socket {
	int fd; /* -1: none */
	char *path;
	struct stat file; /* as bound, to know it again */
};

/* Listens at `path` with sockets of this type (SOCK_STREAM, SOCK_SEQPACKET); `mode`: of its file. `what`: the socket's name in errors ("control
 * socket"), `who`: what another owner of the path is called ("server"). Prints errors. Returns an exit code. No other thread may make files
 * meanwhile: it changes the umask. */
int unix_socket_listen(const char *what, const char *who, const char *path, int type, mode_t mode, struct unix_socket *out);
/* Removes the socket's file, unless another server has replaced it, and closes. The descriptor may be -1: somebody else closes it. */
void unix_socket_close(struct unix_socket *socket);

#endif
