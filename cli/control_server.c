/* SPDX-License-Identifier: Apache-2.0 */
#include "control_server.h"

#include "cli.h"
#include "unix_socket.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define REQUEST_MAX 2048
/* For the request, and again for the answer to be taken. */
#define DEADLINE_MS 2000

struct connection {
	int fd; /* -1: free */
	int64_t deadline;
	size_t request_size, answer_size, answer_sent;
	char *answer; /* NULL: the request is not whole */
	char request[REQUEST_MAX];
};

struct control_server {
	struct unix_socket socket;
	control_answer_fn *answer;
	void *arg;
	struct connection connections[CONTROL_CONNECTIONS];
};

static void drop(struct connection *connection)
{
	close(connection->fd);
	free(connection->answer);
	connection->answer = NULL;
	connection->fd = -1;
}

int control_server_open(const char *path, const char *who, control_answer_fn *answer, void *arg, struct control_server **out)
{
	struct control_server *control = calloc(1, sizeof *control);
	int code;

	if (!control)
		return cli_failed(CLI_EXIT_FAILED, "control socket %s: out of memory", path);
	control->answer = answer;
	control->arg = arg;
	for (size_t i = 0; i < CONTROL_CONNECTIONS; i++)
		control->connections[i].fd = -1;
	code = unix_socket_listen("control socket", who, path, SOCK_STREAM, 0600, &control->socket);
	if (code == CLI_EXIT_OK)
		*out = control;
	else
		control_server_close(&control);
	return code;
}

void control_server_close(struct control_server **out)
{
	struct control_server *control = *out;

	*out = NULL;
	if (!control)
		return;
	for (size_t i = 0; i < CONTROL_CONNECTIONS; i++)
		if (control->connections[i].fd >= 0)
			drop(&control->connections[i]);
	unix_socket_close(&control->socket);
	free(control);
}

/* The file's mode says the same; but it can be changed, and so can the owner. */
static bool may_control(int fd)
{
	struct ucred peer;
	socklen_t size = sizeof peer;

	return getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) == 0 && (peer.uid == 0 || peer.uid == geteuid());
}

/* Returns a free place, or closes the oldest connection for one: a silent connection must not keep others out. */
static struct connection *find_place(struct control_server *control)
{
	struct connection *oldest = &control->connections[0];

	for (size_t i = 0; i < CONTROL_CONNECTIONS; i++) {
		if (control->connections[i].fd < 0)
			return &control->connections[i];
		if (control->connections[i].deadline < oldest->deadline)
			oldest = &control->connections[i];
	}
	drop(oldest);
	return oldest;
}

static void take_connection(struct control_server *control)
{
	struct connection *connection;
	int fd = accept4(control->socket.fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

	if (fd < 0)
		return;
	if (!may_control(fd)) {
		cli_log(SRDMA_LOG_WARN, "control socket: refused a process of another user");
		close(fd);
		return;
	}
	connection = find_place(control);
	*connection = (struct connection){.fd = fd, .deadline = cli_now_ms() + DEADLINE_MS};
}

static void send_answer(struct connection *connection)
{
	ssize_t n = send(connection->fd, connection->answer + connection->answer_sent,
			 connection->answer_size - connection->answer_sent, MSG_NOSIGNAL);

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n >= 0)
		connection->answer_sent += (size_t)n;
	if (n < 0 || connection->answer_sent == connection->answer_size)
		drop(connection);
}

static json_t *answer_line(struct control_server *control, const char *line, size_t length)
{
	json_error_t error;
	json_t *request = json_loadb(line, length, JSON_REJECT_DUPLICATES, &error);
	json_t *answer;

	if (!request)
		return json_pack("{s:b, s:s}", "ok", 0, "error", "the request is not a line of JSON");
	answer = control->answer(request, control->arg);
	json_decref(request);
	return answer;
}

static void answer_request(struct control_server *control, struct connection *connection, size_t length)
{
	json_t *answer = answer_line(control, connection->request, length);
	char *text = answer ? json_dumps(answer, JSON_COMPACT) : NULL;
	size_t size = text ? strlen(text) : 0;

	json_decref(answer);
	if (text)
		connection->answer = realloc(text, size + 1);
	if (!connection->answer) {
		free(text);
		drop(connection);
		return;
	}
	connection->answer[size] = '\n'; /* instead of the NUL */
	connection->answer_size = size + 1;
	connection->deadline = cli_now_ms() + DEADLINE_MS;
	send_answer(connection);
}

static void receive(struct control_server *control, struct connection *connection)
{
	ssize_t n = recv(connection->fd, connection->request + connection->request_size, REQUEST_MAX - connection->request_size, 0);
	const char *end;

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n <= 0) {
		drop(connection);
		return;
	}
	connection->request_size += (size_t)n;
	end = memchr(connection->request, '\n', connection->request_size);
	if (end)
		answer_request(control, connection, (size_t)(end - connection->request));
	else if (connection->request_size == REQUEST_MAX)
		drop(connection);
}

void control_server_fill(const struct control_server *control, struct pollfd *fds)
{
	fds[0] = (struct pollfd){.fd = control ? control->socket.fd : -1, .events = POLLIN};
	for (size_t i = 0; i < CONTROL_CONNECTIONS; i++) {
		const struct connection *connection = control ? &control->connections[i] : NULL;

		fds[1 + i] = (struct pollfd){.fd = connection ? connection->fd : -1,
					     .events = connection && connection->answer ? POLLOUT : POLLIN};
	}
}

int control_server_timeout(const struct control_server *control, int timeout_ms)
{
	int64_t now = cli_now_ms();

	for (size_t i = 0; control && i < CONTROL_CONNECTIONS; i++) {
		const struct connection *connection = &control->connections[i];

		if (connection->fd >= 0 && connection->deadline - now < timeout_ms)
			timeout_ms = connection->deadline > now ? (int)(connection->deadline - now) : 0;
	}
	return timeout_ms;
}

void control_server_serve(struct control_server *control, const struct pollfd *fds)
{
	int64_t now = cli_now_ms();

	for (size_t i = 0; control && i < CONTROL_CONNECTIONS; i++) {
		struct connection *connection = &control->connections[i];

		if (connection->fd < 0)
			continue;
		if (fds[1 + i].revents && connection->answer)
			send_answer(connection);
		else if (fds[1 + i].revents)
			receive(control, connection);
		if (connection->fd >= 0 && now >= connection->deadline)
			drop(connection);
	}
	/* Last: it may take the place of one that has an event. */
	if (control && fds[0].revents)
		take_connection(control);
}
