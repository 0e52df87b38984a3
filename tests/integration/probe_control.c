/* SPDX-License-Identifier: Apache-2.0 */
/* A program's own data: in the exchange, and over the TLS channel afterwards. */
#include "probe.h"
#include "securdma_cert.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* ---- private data ---------------------------------------------------------------------------------------------- */

static void expect_private_data(const struct srdma_conn *conn, const void *data, size_t size)
{
	size_t got;
	const void *bytes = srdma_conn_peer_private_data(conn, &got);

	EXPECT(got, size);
	CHECK((bytes != NULL) == (data != NULL));
	CHECK(size == 0 || memcmp(bytes, data, size) == 0);
}

/* Turns away a client whose private data begins with '!', and answers "for you" to one whose data begins with '?'. */
static int judge(const struct srdma_admit_request *request, struct srdma_admit_answer *answer, void *arg)
{
	struct rig *rig = arg;
	const char *said = request->private_data;

	CHECK(strcmp(request->peer_name, "client one") == 0 && strncmp(request->peer_pin, "sha256:", 7) == 0);
	CHECK(request->name_count >= 1 && request->names[0]->kind == SRDMA_NAME_CN && strcmp(request->names[0]->text, "client one") == 0);
	CHECK(request->address->sa_family == AF_INET || request->address->sa_family == AF_INET6);
	rig->scratch = (char *)rig->scratch + 1;
	if (said && request->private_data_size > 0 && said[0] == '!') {
		answer->reject->retry_after_ms = 7;
		strcpy(answer->reject->text, "say please");
		return SRDMA_EREJECTED;
	}
	if (said && request->private_data_size > 0 && said[0] == '?') {
		memcpy(answer->private_data, "for you", 7);
		answer->private_data_size = 7;
	}
	return 0;
}

/* Both ends have each other's data, whatever its size; a server's goes only to a client that asks; the program decides by it. */
void mode_private_data(struct rig *rig, char **args)
{
	uint8_t longest[SRDMA_PRIVATE_DATA_MAX + 1];
	char own[] = "the server's";
	struct srdma_reject reject;
	struct srdma_conn *conn;

	(void)args;
	fill(longest, sizeof longest, 3);
	rig->server_options.on_admit = judge;
	rig->server_conn.private_data = own;
	rig->server_conn.private_data_size = 12;
	rig_serve(rig);
	memset(own, 0, sizeof own); /* it was copied */

	const struct {
		const void *said;
		size_t size;
		const char *answer;
	} cases[] = {{NULL, 0, NULL}, {"", 0, "the server's"}, {"x", 1, "the server's"}, {longest, SRDMA_PRIVATE_DATA_MAX, "the server's"},
		     {"?", 1, "for you"}};

	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		rig->client_options.private_data = cases[i].said;
		rig->client_options.private_data_size = cases[i].size;
		conn = rig_connect(rig);
		expect_private_data(conn, cases[i].answer, cases[i].answer ? strlen(cases[i].answer) : 0);
		EXPECT(srdma_conn_disconnect(conn, NULL, SRDMA_DEFAULT_TIMEOUT), 0);
		srdma_conn_free(&conn);
	}
	rig->client_options.private_data = "!";
	rig->client_options.private_data_size = 1;
	EXPECT(srdma_conn_connect(rig->host, rig->port, rig->client_tls, rig->device, &rig->client_options, &conn), SRDMA_EREJECTED);
	srdma_reject_last(&reject);
	CHECK(reject.reason == SRDMA_REJECT_REFUSED && reject.retry_after_ms == 7 && strcmp(reject.text, "say please") == 0);
	EXPECT((long long)(intptr_t)rig->scratch, 6);
	rig->client_options.private_data = longest;
	rig->client_options.private_data_size = sizeof longest;
	EXPECT(srdma_conn_connect(rig->host, rig->port, rig->client_tls, rig->device, &rig->client_options, &conn), -EINVAL);
	rig->client_options.private_data = NULL;
	rig->client_options.private_data_size = 1;
	EXPECT(srdma_conn_connect(rig->host, rig->port, rig->client_tls, rig->device, &rig->client_options, &conn), -EINVAL);
	rig_wait_clients(rig, 0);
	rig_stop(rig, 0);
}

/* ---- control messages ------------------------------------------------------------------------------------------ */

static void expect_control(struct srdma_conn *conn, const void *data, size_t size, int timeout_ms)
{
	char buffer[SRDMA_CONTROL_MESSAGE_MAX];
	size_t length = 77777;

	EXPECT(srdma_conn_control_recv(conn, buffer, sizeof buffer, &length, timeout_ms), 0);
	EXPECT(length, size);
	CHECK(size == 0 || memcmp(buffer, data, size) == 0);
}

static void both_sizes(struct srdma_conn *from, struct srdma_conn *to, int timeout_ms)
{
	static const size_t sizes[] = {0, 1, 2, 511, SRDMA_CONTROL_MESSAGE_MAX};
	uint8_t data[SRDMA_CONTROL_MESSAGE_MAX + 1], small[3];
	size_t length;

	for (unsigned i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
		fill(data, sizeof data, i);
		EXPECT(srdma_conn_control_send(from, data, sizes[i], timeout_ms), 0);
		if (sizes[i] > sizeof small) {
			EXPECT(srdma_conn_control_recv(to, small, sizeof small, &length, timeout_ms), -EMSGSIZE);
			EXPECT(length, sizes[i]);
		}
		expect_control(to, data, sizes[i], timeout_ms);
	}
	EXPECT(srdma_conn_control_send(from, data, sizeof data, timeout_ms), -EMSGSIZE);
	EXPECT(srdma_conn_control_recv(to, small, sizeof small, &length, 0), -EAGAIN);
}

/* A program that does not take its messages holds up the sender, and loses none. */
static void fill_up(struct srdma_conn *from, struct srdma_conn *to, int timeout_ms)
{
	unsigned sent = 0, taken = 0;
	uint8_t data[SRDMA_CONTROL_MESSAGE_MAX];
	int ret;

	for (unsigned round = 0; round < 3; round++) {
		for (;; sent++) {
			fill(data, sizeof data, sent);
			ret = srdma_conn_control_send(from, data, sizeof data, sent - taken < SRDMA_CONTROL_DEPTH ? timeout_ms : 0);
			if (ret != 0)
				break;
		}
		EXPECT(ret, -EAGAIN);
		EXPECT(sent - taken, SRDMA_CONTROL_DEPTH);
		EXPECT(srdma_conn_control_send(from, data, sizeof data, 50), -ETIMEDOUT);
		for (; taken < sent; taken++) {
			fill(data, sizeof data, taken);
			expect_control(to, data, sizeof data, timeout_ms);
		}
	}
}

/* Over message and raw connections, both ways. What came before a disconnect is still there after it. */
void mode_control(struct rig *rig, char **args)
{
	int timeout_ms = 15000 * rig->scale;
	struct srdma_conn *client, *accepted;
	char buffer[8];
	size_t length;

	rig->client_options.raw = rig->server_conn.raw = strcmp(args[0], "raw") == 0;
	rig->client_options.control_messages = rig->server_conn.control_messages = true;
	rig->client_options.private_data = "both";
	rig->client_options.private_data_size = 4;
	rig_pair(rig, &client, &accepted);
	expect_private_data(accepted, "both", 4);
	both_sizes(client, accepted, timeout_ms);
	both_sizes(accepted, client, timeout_ms);
	fill_up(client, accepted, timeout_ms);
	fill_up(accepted, client, timeout_ms);
	EXPECT(srdma_conn_control_send(client, "wake", 4, timeout_ms), 0);
	EXPECT(srdma_conn_wait(accepted, timeout_ms), 0);
	expect_control(accepted, "wake", 4, 0);
	EXPECT(srdma_conn_control_send(client, "last", 4, timeout_ms), 0);
	while (srdma_conn_disconnect(client, NULL, 0) == -EAGAIN) {
		int ret = srdma_conn_wait(accepted, 10);
		CHECK(ret == 0 || ret == -ETIMEDOUT || ret == SRDMA_ECLOSED);
	}
	expect_control(accepted, "last", 4, timeout_ms);
	EXPECT(srdma_conn_control_recv(accepted, buffer, sizeof buffer, &length, timeout_ms), SRDMA_ECLOSED);
	EXPECT(srdma_conn_control_send(accepted, "no", 2, timeout_ms), SRDMA_ECLOSED);
	srdma_conn_free(&client);
	srdma_conn_free(&accepted);
}

/* Only one end allows them: there is a connection, and no control messages. */
void mode_control_alone(struct rig *rig, char **args)
{
	struct srdma_conn *client, *accepted;
	char buffer[8];
	size_t length;

	rig->client_options.control_messages = strcmp(args[0], "client") == 0;
	rig->server_conn.control_messages = !rig->client_options.control_messages;
	rig_pair(rig, &client, &accepted);
	EXPECT(srdma_conn_control_send(client, "x", 1, 0), -EOPNOTSUPP);
	EXPECT(srdma_conn_control_send(accepted, "x", 1, 0), -EOPNOTSUPP);
	EXPECT(srdma_conn_control_recv(client, buffer, sizeof buffer, &length, 0), -EOPNOTSUPP);
	expect_private_data(client, NULL, 0);
	expect_private_data(accepted, NULL, 0);
	srdma_conn_free(&client);
	srdma_conn_free(&accepted);
}

static int answer_control(struct srdma_conn *conn, const void *data, size_t length, char *reason, void *client_arg, void *arg)
{
	(void)client_arg;
	(void)arg;
	if (length == 3 && memcmp(data, "bad", 3) == 0) {
		strcpy(reason, "a bad control message");
		return -EINVAL;
	}
	return srdma_conn_control_send(conn, data, length, SRDMA_DEFAULT_TIMEOUT);
}

/* A server's program answers them by a handler, while messages and epochs go on. */
void mode_control_server(struct rig *rig, char **args)
{
	int timeout_ms = 15000 * rig->scale;
	struct srdma_conn_info info;
	struct srdma_conn *conn;
	char message[64], answer[64 + SRDMA_ECHO_OVERHEAD];
	size_t length;

	(void)args;
	rig->server_conn.control_messages = rig->client_options.control_messages = true;
	EXPECT(srdma_server_start(&rig->server_options, rig->server_tls, rig->device, &rig->server), -EINVAL);
	rig->server_options.on_control = answer_control;
	rig->server_options.workers = 1;
	rig_serve(rig);
	conn = rig_connect(rig);
	for (unsigned i = 0; i < 300; i++) {
		fill(message, sizeof message, i);
		EXPECT(srdma_conn_control_send(conn, message, sizeof message, timeout_ms), 0);
		EXPECT(srdma_conn_send(conn, message, sizeof message, timeout_ms), 0);
		expect_control(conn, message, sizeof message, timeout_ms);
		EXPECT(srdma_conn_recv(conn, answer, sizeof answer, &length, timeout_ms), 0);
		CHECK(is_filled(answer + SRDMA_ECHO_OVERHEAD, sizeof message, i));
	}
	EXPECT(srdma_conn_control_send(conn, "bad", 3, timeout_ms), 0);
	EXPECT(srdma_conn_control_recv(conn, message, sizeof message, &length, timeout_ms), SRDMA_ECLOSED);
	srdma_conn_get_info(conn, &info);
	fact_text(rig, "close_reason", info.close_reason);
	srdma_conn_free(&conn);
	rig_wait_clients(rig, 0);
	rig_stop(rig, 0);
}

/* Accepts one client, takes none of its control messages, and tells how the connection ended. */
void mode_control_accept(struct rig *rig, char **args)
{
	struct srdma_listener *listener;
	struct srdma_conn *conn;
	int socket, ret;

	rig->server_conn.control_messages = true;
	rig->server_conn.region_size = 0;
	EXPECT(srdma_listener_listen(NULL, args[0], &listener), 0);
	socket = srdma_listener_accept(listener, 15000 * rig->scale);
	CHECK(socket >= 0);
	EXPECT(srdma_conn_accept(socket, rig->server_tls, rig->device, &rig->server_conn, NULL, NULL, &conn), 0);
	srdma_listener_free(&listener);
	EXPECT(srdma_conn_control_send(conn, "hello", 5, 0), 0);
	/* Messages that came are there until they are taken, so the wait alone does not tell the end. */
	do {
		srdma_conn_wait(conn, 100);
		ret = srdma_conn_withdraw_region(conn);
	} while (ret == -ENXIO);
	fact_text(rig, "error", srdma_error_text());
	srdma_conn_free(&conn);
}
