/* SPDX-License-Identifier: Apache-2.0 */
#include "session.h"

#include <endian.h>
#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static volatile sig_atomic_t interrupted;
static struct srdma_conn *volatile interrupted_conn;

static void on_signal(int number)
{
	if (interrupted)
		_exit(128 + number);
	interrupted = 1;
	if (interrupted_conn)
		srdma_conn_wake(interrupted_conn);
}

void session_watch_signals(struct session *session)
{
	struct sigaction action = {.sa_handler = on_signal};

	interrupted_conn = session->conn;
	sigaction(SIGINT, &action, NULL);
	sigaction(SIGTERM, &action, NULL);
}

void session_ignore_signals(void)
{
	interrupted_conn = NULL;
}

bool session_interrupted(void)
{
	return interrupted != 0;
}

static int64_t now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static bool ends_connection(int error)
{
	return error == SRDMA_ECLOSED || error == SRDMA_ELOST || error == SRDMA_EVERBS || error == SRDMA_EPROTOCOL ||
	       error == SRDMA_ETLS;
}

int session_complain(struct session *session, const char *format, ...)
{
	va_list args;

	session->failure = 0;
	va_start(args, format);
	vsnprintf(session->failure_text, sizeof session->failure_text, format, args);
	va_end(args);
	fflush(stdout);
	fprintf(stderr, "securdma: %s\n", session->failure_text);
	return CLI_EXIT_FAILED;
}

int session_fail(struct session *session, int error, const char *what)
{
	if (error == -EINTR)
		return session_complain(session, "%s: interrupted", what);
	if (ends_connection(error))
		session->error = error;
	session->failure = error;
	snprintf(session->failure_text, sizeof session->failure_text, "%s", srdma_error_text());
	/* -EINVAL and the like are about this operation, not about the command line. */
	cli_fail(error, "%s", what);
	return ends_connection(error) || error == -ETIMEDOUT ? cli_exit_code(error) : CLI_EXIT_FAILED;
}

/* srdma_conn_recv can't be interrupted, so the waiting is done in srdma_conn_wait, which can. */
static int receive(struct session *session, size_t *length)
{
	int64_t deadline = now_ms() + session->settings->timeout_ms, left;
	int ret;

	for (;;) {
		ret = srdma_conn_recv(session->conn, session->reply, session->reply_size, length, 0);
		if (ret != -EAGAIN)
			return ret;
		if (session_interrupted())
			return -EINTR;
		left = deadline - now_ms();
		if (left <= 0)
			return -ETIMEDOUT;
		ret = srdma_conn_wait(session->conn, (int)left);
		/* The error that ended the connection comes from srdma_conn_recv, after the last message. */
		if (ret == -ETIMEDOUT)
			return ret;
	}
}

static int check_echo(struct session *session, const void *data, size_t length, size_t received)
{
	uint64_t id;

	if (received >= SRDMA_ECHO_OVERHEAD)
		memcpy(&id, session->reply, sizeof id);
	if (received != length + SRDMA_ECHO_OVERHEAD || be64toh(id) != session->info.client_id ||
	    memcmp(session->reply + SRDMA_ECHO_OVERHEAD, data, length) != 0) {
		return session_complain(
			session,
			"echo: the reply of %zu bytes is not client %llu's message of %zu bytes; does the "
			"server run the echo service?",
			received, (unsigned long long)session->info.client_id, length);
	}
	memmove(session->reply, session->reply + SRDMA_ECHO_OVERHEAD, length);
	session->reply_length = length;
	session->messages_verified++;
	return CLI_EXIT_OK;
}

int session_echo(struct session *session, const void *data, size_t length)
{
	size_t received = 0;
	int ret;

	if (session->info.message_size < SRDMA_ECHO_OVERHEAD ||
	    length > session->info.message_size - SRDMA_ECHO_OVERHEAD)
		return session_complain(session,
					"send: %zu bytes can't be echoed: the agreed message size is %u, the echo "
					"adds %d",
					length, session->info.message_size, SRDMA_ECHO_OVERHEAD);
	ret = srdma_conn_send(session->conn, data, length, -1);
	if (ret < 0)
		return session_fail(session, ret, "send");
	ret = receive(session, &received);
	if (ret < 0)
		return session_fail(session, ret, "echo");
	return check_echo(session, data, length, received);
}

int session_idle(struct session *session, int ms)
{
	int64_t deadline = now_ms() + ms, left;
	size_t length;
	int ret;

	/* Asked for once: a negative time-out, a moment later, would mean the connection's default. */
	while ((left = deadline - now_ms()) > 0) {
		if (session_interrupted())
			return -EINTR;
		/* Nobody asked for a message, so one that comes is dropped; it also carries the end of the connection.
		 */
		ret = srdma_conn_recv(session->conn, session->reply, session->reply_size, &length, 0);
		if (ret < 0 && ret != -EAGAIN)
			return ret;
		if (ret == -EAGAIN)
			srdma_conn_wait(session->conn, (int)left);
	}
	return session_interrupted() ? -EINTR : 0;
}

json_t *session_json(const struct session *session)
{
	const struct srdma_conn_info *info = &session->info;
	const struct srdma_conn_timing *timing = &info->timing;
	char name[4 * sizeof info->peer_name];
	json_t *object;

	cli_escape(info->peer_name, strlen(info->peer_name), name, sizeof name);
	object = json_pack("{s:I, s:s, s:s, s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:s, s:s}", "client_id",
			   (json_int_t)info->client_id, "peer", info->peer_address, "peer_name", name, "device",
			   info->device, "qpn", (json_int_t)info->qpn, "peer_qpn", (json_int_t)info->peer_qpn,
			   "path_mtu", (json_int_t)info->path_mtu, "message_size", (json_int_t)info->message_size,
			   "depth", (json_int_t)info->depth, "peer_region_size", (json_int_t)info->peer_region_size,
			   "tls_version", info->tls_version, "tls_cipher", info->tls_cipher);
	if (!object)
		return NULL;
	if (session->show_psn) {
		json_object_set_new(object, "psn", json_integer(info->psn));
		json_object_set_new(object, "peer_psn", json_integer(info->peer_psn));
	}
	json_object_set_new(object, "phases",
			    json_pack("{s:I, s:I, s:I, s:I, s:I, s:I}", "tcp_us", (json_int_t)timing->tcp, "tls_us",
				      (json_int_t)timing->tls, "exchange_us", (json_int_t)timing->exchange, "qp_us",
				      (json_int_t)timing->qp, "psn_us", (json_int_t)timing->psn, "total_us",
				      (json_int_t)timing->total));
	return object;
}

void session_print(const struct session *session)
{
	const struct srdma_conn_info *info = &session->info;
	const struct srdma_conn_timing *timing = &info->timing;
	char name[4 * sizeof info->peer_name];

	printf("connected to %s (%s) as client %llu, %s %s\n", info->peer_address,
	       cli_escape(info->peer_name, strlen(info->peer_name), name, sizeof name),
	       (unsigned long long)info->client_id, info->tls_version, info->tls_cipher);
	printf("%s: QPN %u, peer %u, path MTU %u, message size %u, depth %u, peer's region %zu bytes\n", info->device,
	       info->qpn, info->peer_qpn, info->path_mtu, info->message_size, info->depth, info->peer_region_size);
	if (session->show_psn)
		printf("PSN 0x%06x, peer 0x%06x\n", info->psn, info->peer_psn);
	printf("set-up %llu us: tcp %llu, tls %llu, exchange %llu, qp %llu (psn %llu)\n",
	       (unsigned long long)timing->total, (unsigned long long)timing->tcp, (unsigned long long)timing->tls,
	       (unsigned long long)timing->exchange, (unsigned long long)timing->qp, (unsigned long long)timing->psn);
	fflush(stdout);
}
