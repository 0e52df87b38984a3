/* SPDX-License-Identifier: Apache-2.0 */
/* The server's end of the control socket: a Unix stream socket that takes one line of JSON a connection and answers with one.
 * Nothing in it blocks; the program polls for it. */
#ifndef CLI_CONTROL_SERVER_H
#define CLI_CONTROL_SERVER_H

#include <jansson.h>
#include <poll.h>

#define CONTROL_CONNECTIONS 32
#define CONTROL_FDS (1 + CONTROL_CONNECTIONS)

struct control_server;

/* The answer to a request, which may be anything that is JSON; NULL: out of memory. */
typedef json_t *control_answer_fn(const json_t *request, void *arg);

/* Listens at `path`, which only its owner and root may use; replaces the socket of a server that is dead. Prints errors, in which it is called
 * `who`: "server".
 * Returns an exit code. No other thread may make files meanwhile: it changes the umask. */
int control_server_open(const char *path, const char *who, control_answer_fn *answer, void *arg, struct control_server **out);
/* Also removes the socket's file, unless another server has replaced it. NULL is allowed. */
void control_server_close(struct control_server **control);

/* What to poll for, in CONTROL_FDS entries, all of which are set. */
void control_server_fill(const struct control_server *control, struct pollfd *fds);
/* Milliseconds until a connection is over time, at most `timeout_ms`. */
int control_server_timeout(const struct control_server *control, int timeout_ms);
/* Does what poll said. */
void control_server_serve(struct control_server *control, const struct pollfd *fds);

#endif
