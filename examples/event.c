/* SPDX-License-Identifier: Apache-2.0 */
/* A connection in the event loop of libevent: no call waits, and the program does other things meanwhile. It sends five messages,
 * one at each tick of a timer, and prints the echoes as they come.
 * usage: event HOST PORT   with ca.crt, client.crt and client.key in the working folder
 * cc event.c $(pkg-config --cflags --libs securdma libevent_core)   libevent's headers are in Debian's libevent-dev */
#include <errno.h>
#include <event2/event.h>
#include <securdma.h>
#include <stdio.h>

enum { MESSAGES = 5 };

struct program {
	struct event_base *loop;
	struct srdma_conn *conn;
	unsigned ticks, sent, received;
	int result; /* once the loop has ended */
};

/* Everything that can be done now. -EAGAIN: the connection's descriptor becomes readable when there is more to do. */
static int go_on(struct program *program)
{
	char reply[4096];
	size_t length;
	int ret = 0;

	for (; ret == 0 && program->sent < program->ticks; program->sent += ret == 0)
		ret = srdma_conn_send(program->conn, &"01234"[program->sent], 1, 0);
	if (ret != 0 && ret != -EAGAIN)
		return ret;
	while (program->received < MESSAGES) {
		ret = srdma_conn_recv(program->conn, reply, sizeof reply, &length, 0);
		if (ret != 0)
			return ret;
		printf("echo: %.*s\n", (int)(length - SRDMA_ECHO_OVERHEAD), reply + SRDMA_ECHO_OVERHEAD);
		program->received++;
	}
	return srdma_conn_disconnect(program->conn, "done", 0);
}

static void step(struct program *program)
{
	program->result = go_on(program);
	if (program->result != -EAGAIN)
		event_base_loopbreak(program->loop);
}

static void on_readable(evutil_socket_t fd, short events, void *arg)
{
	(void)fd;
	(void)events;
	step(arg);
}

static void on_tick(evutil_socket_t fd, short events, void *arg)
{
	struct program *program = arg;

	(void)fd;
	(void)events;
	program->ticks += program->ticks < MESSAGES;
	step(program);
}

static int run(struct srdma_conn *conn)
{
	const struct timeval interval = {.tv_usec = 50000};
	struct program program = {.loop = event_base_new(), .conn = conn};
	struct event *readable = event_new(program.loop, srdma_conn_fd(conn), EV_READ | EV_PERSIST, on_readable, &program);
	struct event *tick = event_new(program.loop, -1, EV_PERSIST, on_tick, &program);

	event_add(readable, NULL);
	event_add(tick, &interval);
	event_base_dispatch(program.loop);
	event_free(readable);
	event_free(tick);
	event_base_free(program.loop);
	return program.result;
}

int main(int argc, char **argv)
{
	struct srdma_tls_client_options tls;
	struct srdma_tls_context *context = NULL;
	struct srdma_device *device = NULL;
	struct srdma_conn *conn = NULL;

	if (argc != 3) {
		fprintf(stderr, "usage: event HOST PORT\n");
		return 2;
	}
	srdma_tls_client_options_init(&tls);
	tls.ca_file = "ca.crt";
	tls.cert_file = "client.crt";
	tls.key_file = "client.key";
	int failed = srdma_tls_client_new(&tls, &context) || srdma_device_open(NULL, &device) ||
		     srdma_conn_connect(argv[1], argv[2], context, device, NULL, &conn) || run(conn);
	if (failed)
		fprintf(stderr, "event: %s\n", srdma_error_text());
	srdma_conn_free(&conn);
	srdma_device_unref(&device);
	srdma_tls_context_unref(&context);
	return failed;
}
