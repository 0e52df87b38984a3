/* SPDX-License-Identifier: Apache-2.0 */
/* Many connections and links in one epoll loop: no call waits. Each sends three messages, prints nothing but their number, and leaves.
 * usage: epoll HOST PORT COUNT   COUNT of each, with ca.crt, client.crt and client.key in the working folder */
#include <errno.h>
#include <securdma_link.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>

enum { MESSAGES = 3 };

/* Either a link, or a connection that is first `connect` and then `conn`. */
struct session {
	struct srdma_connect *connect;
	struct srdma_conn *conn;
	struct srdma_link *link;
	int sent, received;
	int leaving;
};

static int send_one(struct session *s)
{
	return s->link ? srdma_link_send(s->link, "hello", 5, 0, NULL) : srdma_conn_send(s->conn, "hello", 5, 0);
}

static int receive_one(struct session *s)
{
	char reply[4096];
	size_t length;

	return s->link ? srdma_link_recv(s->link, reply, sizeof reply, &length, 0) : srdma_conn_recv(s->conn, reply, sizeof reply, &length, 0);
}

static int leave(struct session *s)
{
	int ret = 0;

	if (!s->leaving)
		ret = s->link ? srdma_link_disconnect_start(s->link, "done", SRDMA_DEFAULT_TIMEOUT)
			      : srdma_conn_disconnect_start(s->conn, "done", SRDMA_DEFAULT_TIMEOUT);
	s->leaving = 1;
	if (ret != 0)
		return ret;
	return s->link ? srdma_link_disconnect_step(s->link) : srdma_conn_disconnect_step(s->conn);
}

/* As far as it goes now. 0: the session is over; -EAGAIN: its descriptor will be readable; or an error. */
static int go_on(struct session *s)
{
	int ret = 0;

	if (s->connect)
		ret = srdma_connect_step(s->connect, &s->conn);
	if (ret == 0)
		srdma_connect_free(&s->connect);
	for (; ret == 0 && s->sent < MESSAGES; s->sent += ret == 0)
		ret = send_one(s);
	/* A link that has no room to send, or no connection yet, says -EAGAIN here, too. */
	if (ret == 0 || (ret == -EAGAIN && !s->connect))
		for (ret = 0; ret == 0 && s->received < MESSAGES; s->received += ret == 0)
			ret = receive_one(s);
	return ret == 0 ? leave(s) : ret;
}

static int fd_of(const struct session *s)
{
	return s->link ? srdma_link_fd(s->link) : s->connect ? srdma_connect_fd(s->connect) : srdma_conn_fd(s->conn);
}

static int watch(int epoll_fd, struct session *s)
{
	struct epoll_event event = {.events = EPOLLIN, .data.ptr = s};

	return epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd_of(s), &event) == 0 ? 0 : -errno;
}

static int run(struct session *sessions, int count)
{
	int epoll_fd = epoll_create1(EPOLL_CLOEXEC), over = 0, ret = 0;
	struct epoll_event event;

	for (int i = 0; i < count; i++)
		watch(epoll_fd, &sessions[i]);
	while (over < count && ret == 0 && epoll_wait(epoll_fd, &event, 1, -1) >= 0) {
		struct session *s = event.data.ptr;
		int before = fd_of(s);

		/* Taken out meanwhile: the descriptor of a connection that has come up is another one. */
		epoll_ctl(epoll_fd, EPOLL_CTL_DEL, before, NULL);
		ret = go_on(s);
		over += ret == 0;
		if (ret == -EAGAIN)
			ret = watch(epoll_fd, s);
	}
	return ret;
}

static int start(struct session *sessions, int count, char **argv, struct srdma_tls_context *context, struct srdma_device *device)
{
	struct srdma_endpoint endpoint;
	struct srdma_link_options options;
	int ret = 0;

	srdma_endpoint_init(&endpoint);
	endpoint.host = argv[1];
	endpoint.port = argv[2];
	srdma_link_options_init(&options);
	options.endpoints = &endpoint;
	options.endpoint_count = 1;
	for (int i = 0; ret == 0 && i < count; i += 2) {
		ret = srdma_conn_connect_start(argv[1], argv[2], context, device, NULL, &sessions[i].connect);
		if (ret == 0)
			ret = srdma_link_connect_start(&options, context, device, &sessions[i + 1].link);
	}
	return ret;
}

int main(int argc, char **argv)
{
	int count = argc == 4 ? 2 * atoi(argv[3]) : 0, received = 0;
	struct session *sessions = calloc((size_t)count + 1, sizeof *sessions);
	struct srdma_tls_client_options tls;
	struct srdma_tls_context *context = NULL;
	struct srdma_device *device = NULL;

	if (count <= 0 || !sessions) {
		fprintf(stderr, "usage: epoll HOST PORT COUNT\n");
		free(sessions);
		return 2;
	}
	srdma_tls_client_options_init(&tls);
	tls.ca_file = "ca.crt";
	tls.cert_file = "client.crt";
	tls.key_file = "client.key";
	int failed = srdma_tls_client_new(&tls, &context) || srdma_device_open(NULL, &device) ||
		     start(sessions, count, argv, context, device) || run(sessions, count);
	if (failed)
		fprintf(stderr, "epoll: %s\n", srdma_error_text());
	for (int i = 0; i < count; i++) {
		received += sessions[i].received;
		srdma_link_free(&sessions[i].link);
		srdma_connect_free(&sessions[i].connect);
		srdma_conn_free(&sessions[i].conn);
	}
	if (!failed)
		printf("%d messages echoed\n", received);
	srdma_device_unref(&device);
	srdma_tls_context_unref(&context);
	free(sessions);
	return failed;
}
