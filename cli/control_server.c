/* SPDX-License-Identifier: Apache-2.0 */
#include "control_server.h"

#include "cli.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define REQUEST_MAX 2048
/* For the request, and again for the answer to be taken. */
#define DEADLINE_MS 2000
#define LOCK_TRIES 100

struct connection {
	int fd; /* -1: free */
	int64_t deadline;
	size_t request_size, answer_size, answer_sent;
	char *answer; /* NULL: the request is not whole */
	char request[REQUEST_MAX];
};

struct control_server {
	int fd;
	char *path;
	struct stat file; /* as bound, to know it again */
	control_answer_fn *answer;
	void *arg;
	struct connection connections[CONTROL_CONNECTIONS];
};

/* The lock is on a file that no other user can open: any user can read the folder, and one that locked it could stop the server from
 * starting. The file exists as long as the lock is held: the server removes it before it releases the lock. */
struct lock {
	char *path;
	int fd;
};

static bool is_own(int fd, const char *path)
{
	struct stat opened, there;

	if (fstat(fd, &opened) != 0)
		return false;
	if (!S_ISREG(opened.st_mode) || opened.st_uid != geteuid() || (opened.st_mode & 077) != 0) {
		errno = EPERM;
		return false;
	}
	if (lstat(path, &there) == 0 && there.st_dev == opened.st_dev && there.st_ino == opened.st_ino)
		return true;
	errno = ESTALE; /* also when another server has just taken it away: try again */
	return false;
}

/* Two servers that start at once must not each take the other's new socket for a dead one's. */
static int lock_take(struct lock *lock, const char *path)
{
	if (asprintf(&lock->path, "%s.lock", path) < 0) {
		lock->path = NULL;
		errno = ENOMEM;
		return -1;
	}
	for (int i = 0; i < LOCK_TRIES; i++) {
		lock->fd = open(lock->path, O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK, 0600);
		if (lock->fd < 0)
			return -1;
		if (flock(lock->fd, LOCK_EX | LOCK_NB) == 0 && is_own(lock->fd, lock->path))
			return 0;
		int error = errno;

		close(lock->fd);
		lock->fd = -1;
		errno = error;
		if (error != EWOULDBLOCK && error != EINTR && error != ESTALE)
			return -1;
		poll(NULL, 0, 10);
	}
	return -1;
}

static void lock_release(struct lock *lock)
{
	if (lock->fd >= 0) {
		unlink(lock->path);
		close(lock->fd);
	}
	free(lock->path);
}

/* Whether somebody accepts connections there. A full backlog is somebody's too. */
static bool is_served(const struct sockaddr_un *address)
{
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	bool served = fd >= 0 && (connect(fd, (const struct sockaddr *)address, sizeof *address) == 0 || errno != ECONNREFUSED);

	if (fd >= 0)
		close(fd);
	return served;
}

static int bind_private(int fd, const struct sockaddr_un *address)
{
	mode_t mask = umask(0177);
	int ret = bind(fd, (const struct sockaddr *)address, sizeof *address);
	int error = errno;

	umask(mask);
	errno = error;
	return ret;
}

static int take_path(struct control_server *control)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	struct stat there;

	snprintf(address.sun_path, sizeof address.sun_path, "%s", control->path);
	if (bind_private(control->fd, &address) != 0) {
		if (errno != EADDRINUSE)
			goto fail;
		if (lstat(control->path, &there) != 0 || !S_ISSOCK(there.st_mode))
			return cli_failed(CLI_EXIT_USAGE,
					  "control socket %s: a file that is not a socket exists there; remove it, or give another path",
					  control->path);
		if (is_served(&address))
			return cli_failed(CLI_EXIT_FAILED,
					  "control socket %s: another server uses it; stop that server, or give another path",
					  control->path);
		if (unlink(control->path) != 0 || bind_private(control->fd, &address) != 0)
			goto fail;
	}
	if (listen(control->fd, 128) == 0 && lstat(control->path, &control->file) == 0)
		return CLI_EXIT_OK;
fail:
	return cli_failed(CLI_EXIT_FAILED, "control socket %s: %s", control->path, strerror(errno));
}

int control_server_open(const char *path, control_answer_fn *answer, void *arg, struct control_server **out)
{
	struct lock lock = {.fd = -1};
	struct control_server *control;
	int code;

	if (strlen(path) >= sizeof((struct sockaddr_un *)0)->sun_path)
		return cli_failed(CLI_EXIT_USAGE, "control socket %s: the path is too long for a socket; give a shorter one", path);
	control = calloc(1, sizeof *control);
	if (!control || !(control->path = strdup(path))) {
		free(control);
		return cli_failed(CLI_EXIT_FAILED, "control socket %s: out of memory", path);
	}
	control->answer = answer;
	control->arg = arg;
	for (size_t i = 0; i < CONTROL_CONNECTIONS; i++)
		control->connections[i].fd = -1;
	control->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (control->fd < 0) {
		cli_error("control socket %s: %s", path, strerror(errno));
		code = CLI_EXIT_FAILED;
	} else if (lock_take(&lock, path) != 0) {
		cli_error("control socket %s: cannot lock %s.lock, which only this user may own: %s", path, path, strerror(errno));
		code = CLI_EXIT_FAILED;
	} else {
		code = take_path(control);
	}
	lock_release(&lock);
	if (code == CLI_EXIT_OK)
		*out = control;
	else
		control_server_close(&control);
	return code;
}

static void drop(struct connection *connection)
{
	close(connection->fd);
	free(connection->answer);
	connection->answer = NULL;
	connection->fd = -1;
}

void control_server_close(struct control_server **out)
{
	struct control_server *control = *out;
	struct stat there;

	*out = NULL;
	if (!control)
		return;
	for (size_t i = 0; i < CONTROL_CONNECTIONS; i++)
		if (control->connections[i].fd >= 0)
			drop(&control->connections[i]);
	if (control->file.st_ino != 0 && lstat(control->path, &there) == 0 && there.st_ino == control->file.st_ino &&
	    there.st_dev == control->file.st_dev)
		unlink(control->path);
	if (control->fd >= 0)
		close(control->fd);
	free(control->path);
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
	int fd = accept4(control->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

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
	fds[0] = (struct pollfd){.fd = control ? control->fd : -1, .events = POLLIN};
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
