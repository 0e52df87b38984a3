/* SPDX-License-Identifier: Apache-2.0 */
#include "session.h"

#include <endian.h>
#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static volatile sig_atomic_t interrupted;
static struct srdma_link *volatile interrupted_link;

static void on_signal(int number)
{
	if (interrupted)
		_exit(128 + number);
	interrupted = 1;
	if (interrupted_link)
		srdma_link_wake(interrupted_link);
}

void session_watch_signals(struct session *session)
{
	struct sigaction action = {.sa_handler = on_signal};

	interrupted_link = session->link;
	sigaction(SIGINT, &action, NULL);
	sigaction(SIGTERM, &action, NULL);
}

void session_ignore_signals(void)
{
	interrupted_link = NULL;
}

bool session_interrupted(void)
{
	return interrupted != 0;
}

static bool ends_connection(int error)
{
	return error == SRDMA_ECLOSED || error == SRDMA_ELOST || error == SRDMA_EVERBS || error == SRDMA_EPROTOCOL ||
	       error == SRDMA_ETLS || error == SRDMA_ESEAL;
}

int session_complain(struct session *session, const char *format, ...)
{
	va_list args;

	session->failure = 0;
	va_start(args, format);
	vsnprintf(session->failure_text, sizeof session->failure_text, format, args);
	va_end(args);
	fflush(stdout);
	return cli_failed(CLI_EXIT_FAILED, "%s", session->failure_text);
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

int session_begin(struct session *session)
{
	char *reply;

	session->conn = srdma_link_conn(session->link);
	srdma_conn_get_info(session->conn, &session->info);
	srdma_conn_get_timing(session->conn, &session->timing);
	/* Another server may have agreed to longer messages. */
	reply = realloc(session->reply, session->info.message_size + 1);
	if (!reply)
		return cli_fail(-ENOMEM, "connect");
	session->reply = reply;
	session->reply_size = session->info.message_size;
	return CLI_EXIT_OK;
}

static int begin_again(struct session *session)
{
	struct srdma_link_loss loss;
	size_t length;

	srdma_link_get_loss(session->link, &loss);
	session->reconnects++;
	if (!session->results)
		printf("reconnected after %llu ms: %s; messages up to %llu acknowledged, %llu in doubt\n",
		       (unsigned long long)(loss.down_us / 1000), loss.text, (unsigned long long)loss.acknowledged,
		       (unsigned long long)(loss.sent - loss.acknowledged));
	fflush(stdout);
	/* An echo that came with the end is of no use: its message will be sent again. */
	for (size_t i = 0; i < loss.kept; i++)
		srdma_link_recv(session->link, session->reply, session->reply_size, &length, 0);
	return session_begin(session);
}

/* After a call that failed. Returns 0 when there is a new connection, otherwise the error to report. */
static int come_back(struct session *session, int error)
{
	if (session_interrupted())
		return -EINTR;
	/* If there is no connection, the link has just tried for as long as the settings allow. */
	if (ends_connection(error) && srdma_link_conn(session->link))
		error = srdma_link_reconnect(session->link);
	session->conn = srdma_link_conn(session->link);
	if (error != SRDMA_ERECONNECTED)
		return error;
	return begin_again(session) == CLI_EXIT_OK ? 0 : -ENOMEM;
}

int session_recover(struct session *session, int error, const char *what)
{
	int code;

	error = come_back(session, error);
	if (error == 0)
		return CLI_EXIT_OK;
	code = session_fail(session, error, what);
	return session->conn ? code : cli_exit_code(error);
}

/* The next message. srdma_link_recv can't be interrupted, so the waiting is done in srdma_link_wait, which can. */
static int receive(struct session *session, int64_t deadline, size_t *length)
{
	int64_t left;
	int ret;

	for (;;) {
		ret = srdma_link_recv(session->link, session->reply, session->reply_size, length, 0);
		if (ret != -EAGAIN)
			return ret;
		if (session_interrupted())
			return -EINTR;
		/* Computed once: a moment later, a negative time-out would mean the connection's default. */
		left = deadline - cli_now_ms();
		if (left <= 0)
			return -ETIMEDOUT;
		ret = srdma_link_wait(session->link, (int)left);
		/* The error that ended the connection comes from srdma_link_recv, after the last message. */
		if (ret == -ETIMEDOUT || ret == SRDMA_ERECONNECTED || !srdma_link_conn(session->link))
			return ret;
	}
}

static int check_echo(struct session *session, const void *data, size_t length, size_t received)
{
	uint64_t id = 0;

	if (received >= SRDMA_ECHO_OVERHEAD)
		memcpy(&id, session->reply, sizeof id);
	if (received != length + SRDMA_ECHO_OVERHEAD || be64toh(id) != session->info.client_id ||
	    memcmp(session->reply + SRDMA_ECHO_OVERHEAD, data, length) != 0) {
		return session_complain(
			session,
			"echo: the reply of %zu byte%s is not client %llu's message of %zu byte%s; check that the "
			"server runs the echo service",
			received, CLI_S(received), (unsigned long long)session->info.client_id, length, CLI_S(length));
	}
	memmove(session->reply, session->reply + SRDMA_ECHO_OVERHEAD, length);
	session->reply_length = length;
	session->messages_verified++;
	return CLI_EXIT_OK;
}

int session_echo(struct session *session, const void *data, size_t length)
{
	size_t received = 0;
	const char *what;
	int ret, code;

	if (session->info.message_size < SRDMA_ECHO_OVERHEAD || length > session->info.message_size - SRDMA_ECHO_OVERHEAD)
		return session_complain(session,
					"send: %zu byte%s can't be echoed: the ends agreed on messages of %u bytes, and the echo "
					"adds %d",
					length, CLI_S(length), session->info.message_size, SRDMA_ECHO_OVERHEAD);
	for (;;) {
		what = "send";
		ret = srdma_link_send(session->link, data, length, -1, NULL);
		if (ret == 0) {
			what = "echo";
			ret = receive(session, cli_now_ms() + session->settings->conn.timeout_ms, &received);
		}
		if (ret == 0)
			return check_echo(session, data, length, received);
		code = session_recover(session, ret, what);
		if (code != CLI_EXIT_OK)
			return code;
	}
}

int session_idle(struct session *session, int ms)
{
	int64_t deadline = cli_now_ms() + ms;
	size_t length;
	int ret;

	while (cli_now_ms() < deadline) {
		/* Nobody asked for a message, so one that comes is dropped; it also carries the end of the connection. */
		ret = receive(session, deadline, &length);
		if (ret == -ETIMEDOUT && srdma_link_conn(session->link))
			break;
		if (ret != 0)
			ret = come_back(session, ret);
		if (ret != 0)
			return ret;
	}
	return session_interrupted() ? -EINTR : 0;
}

json_t *session_json(const struct session *session)
{
	const struct srdma_conn_info *info = &session->info;
	const struct srdma_conn_timing *timing = &session->timing;
	json_t *object;

	object = json_pack("{s:I, s:s, s:s, s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:s, s:s}", "client_id",
			   (json_int_t)info->client_id, "peer", info->peer_address, "peer_name", info->peer_name, "device",
			   info->device, "qpn", (json_int_t)info->qpn, "peer_qpn", (json_int_t)info->peer_qpn,
			   "path_mtu", (json_int_t)info->path_mtu, "message_size", (json_int_t)info->message_size,
			   "depth", (json_int_t)info->depth, "peer_region_size", (json_int_t)info->peer_region_size,
			   "tls_version", info->tls_version, "tls_cipher", info->tls_cipher);
	if (!object)
		return NULL;
	json_object_set_new(object, "seal", json_string(info->seal));
	json_object_set_new(object, "tls_group", json_string(info->tls_group));
	json_object_set_new(object, "peer_pin", json_string(info->peer_pin));
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
	const struct srdma_conn_timing *timing = &session->timing;
	char name[10 * sizeof info->peer_name];

	printf("connected to %s (%s) as client %llu, %s %s\n", info->peer_address,
	       cli_show(STDOUT_FILENO, info->peer_name, name, sizeof name), (unsigned long long)info->client_id, info->tls_version, info->tls_cipher);
	printf("%s: QPN %u, peer %u, path MTU %u, message size %u, depth %u, peer's region %zu byte%s\n", info->device,
	       info->qpn, info->peer_qpn, info->path_mtu, info->message_size, info->depth, info->peer_region_size,
	       CLI_S(info->peer_region_size));
	if (info->seal[0])
		printf("sealed with %s\n", info->seal);
	if (session->show_psn)
		printf("PSN 0x%06x, peer 0x%06x\n", info->psn, info->peer_psn);
	printf("set-up %llu us: tcp %llu, tls %llu, exchange %llu, qp %llu (psn %llu)\n",
	       (unsigned long long)timing->total, (unsigned long long)timing->tcp, (unsigned long long)timing->tls,
	       (unsigned long long)timing->exchange, (unsigned long long)timing->qp, (unsigned long long)timing->psn);
	fflush(stdout);
}
