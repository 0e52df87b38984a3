/* SPDX-License-Identifier: Apache-2.0 */
/* A program's own data over the TLS channel. python_data.py has private data, and what a server does with control messages. */
#include "probe.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static void expect_private_data(const struct srdma_conn *conn, const void *data, size_t size)
{
	size_t got;
	const void *bytes = srdma_conn_peer_private_data(conn, &got);

	EXPECT(got, size);
	CHECK((bytes != NULL) == (data != NULL));
	CHECK(size == 0 || memcmp(bytes, data, size) == 0);
}

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

/* Accepts one client, takes none of its control messages, and tells how the connection ended. */
void mode_control_accept(struct rig *rig, char **args)
{
	struct srdma_conn *conn;
	int ret;

	rig->server_conn.control_messages = true;
	rig->server_conn.region_size = 0;
	conn = rig_accept(rig, args[0]);
	EXPECT(srdma_conn_control_send(conn, "hello", 5, 0), 0);
	/* Messages that came are there until they are taken, so the wait alone does not tell the end. */
	do {
		srdma_conn_wait(conn, 100);
		ret = srdma_conn_withdraw_region(conn);
	} while (ret == -ENXIO);
	fact_text(rig, "error", srdma_error_text());
	srdma_conn_free(&conn);
}
