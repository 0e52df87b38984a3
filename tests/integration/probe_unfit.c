/* SPDX-License-Identifier: Apache-2.0 */
/* What a client reads when its settings and the server's do not fit together. */
#include "probe.h"
#include "securdma_memory.h"
#include "securdma_stream.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

/* The server turns the client away; its text becomes the fact `name`. */
static void rejected(struct rig *rig, const char *name, enum srdma_reject_reason reason)
{
	struct srdma_reject reject;
	struct srdma_conn *conn = NULL;

	rig_serve(rig);
	EXPECT(srdma_conn_connect(rig->host, rig->port, rig->client_tls, rig->device, &rig->client_options, &conn), SRDMA_EREJECTED);
	srdma_reject_last(&reject);
	EXPECT(reject.reason, reason);
	CHECK(strstr(srdma_error_text(), reject.text) != NULL && conn == NULL);
	fact_text(rig, name, reject.text);
	rig_stop(rig, 0);
}

static int admit_token(const struct srdma_admit_request *request, struct srdma_admit_answer *answer, void *arg)
{
	if (request->private_data_size == 5 && memcmp(request->private_data, "token", 5) == 0)
		return 0;
	snprintf(answer->reject->text, sizeof answer->reject->text, "send a token as private data; this client sent %zu bytes", request->private_data_size);
	return -1;
}

static void reject_by_settings(struct rig *rig)
{
	const struct srdma_conn_options client = rig->client_options, server = rig->server_conn;

	rig->server_conn.seal = SRDMA_SEAL_REQUIRED;
	rejected(rig, "plain client", SRDMA_REJECT_FEATURE);
	rig->server_conn = server;
	rig->client_options.seal = SRDMA_SEAL_REQUIRED;
	rejected(rig, "sealed client", SRDMA_REJECT_FEATURE);
	rig->client_options = client;
	rig->client_options.raw = true;
	rejected(rig, "raw client", SRDMA_REJECT_FEATURE);
	rig->client_options = client;
	rig->server_options.on_admit = admit_token;
	rejected(rig, "no token", SRDMA_REJECT_REFUSED);
	rig->client_options.private_data = "wrong token";
	rig->client_options.private_data_size = 11;
	rejected(rig, "wrong token", SRDMA_REJECT_REFUSED);
	rig->client_options = client;
	rig->server_options.on_admit = NULL;
}

/* What only one end has set is missing later. */
static void miss_later(struct rig *rig, bool at_client, bool at_server, const char *who)
{
	struct srdma_peer_region region;
	struct srdma_notice notice;
	struct srdma_conn *conn;
	char name[64];

	rig->client_options.named_regions = rig->client_options.control_messages = at_client;
	rig->server_conn.named_regions = at_server;
	rig_serve(rig);
	conn = rig_connect(rig);
	EXPECT(srdma_conn_find_region(conn, "x", 0, &region), -EOPNOTSUPP);
	snprintf(name, sizeof name, "regions, %s", who);
	fact_text(rig, name, srdma_error_text());
	EXPECT(srdma_conn_recv_notice(conn, &notice, 0), -EOPNOTSUPP);
	snprintf(name, sizeof name, "notices, %s", who);
	fact_text(rig, name, srdma_error_text());
	EXPECT(srdma_conn_control_send(conn, "x", 1, 0), -EOPNOTSUPP);
	snprintf(name, sizeof name, "control, %s", who);
	fact_text(rig, name, srdma_error_text());
	rig_leave(&conn);
	rig_stop(rig, 0);
	rig->client_options.named_regions = rig->client_options.control_messages = rig->server_conn.named_regions = false;
}

/* The server's program knows messages alone; here it echoes them. */
static void stream_to_messages(struct rig *rig)
{
	struct srdma_stream *stream;
	struct srdma_conn *conn;
	char data[64];

	srdma_stream_conn_options_init(&rig->client_options);
	rig_serve(rig);
	conn = rig_connect(rig);
	EXPECT(srdma_stream_new(conn, NULL, &stream), 0);
	EXPECT(srdma_stream_read(stream, data, sizeof data, 15000 * rig->scale), SRDMA_EPROTOCOL);
	fact_text(rig, "stream", srdma_error_text());
	srdma_stream_free(&stream);
	srdma_conn_free(&conn);
	rig_wait_clients(rig, 0);
	rig_stop(rig, 0);
}

void mode_unfit(struct rig *rig, char **args)
{
	reject_by_settings(rig);
	miss_later(rig, true, false, "client alone");
	miss_later(rig, false, true, "server alone");
	miss_later(rig, false, false, "nobody");
	stream_to_messages(rig);
}
