/* SPDX-License-Identifier: Apache-2.0 */
#include "server_status.h"

#include "cli.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define NAME_COLUMNS 20 /* at least */

/* Copies of the clients' info: the slot table is locked during the visits, so nothing is printed there. */
struct snapshot {
	struct srdma_conn_info *infos;
	size_t count, room;
};

static void visit(const struct srdma_conn_info *info, void *arg)
{
	struct snapshot *snapshot = arg;

	if (snapshot->count == snapshot->room) {
		size_t room = snapshot->room ? snapshot->room * 2 : 16;
		struct srdma_conn_info *infos = realloc(snapshot->infos, room * sizeof *infos);

		if (!infos)
			return;
		snapshot->infos = infos;
		snapshot->room = room;
	}
	snapshot->infos[snapshot->count++] = *info;
}

static json_t *client_json(const struct srdma_conn_info *info)
{
	return json_pack("{s:I, s:s, s:s, s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:i}", "client_id", (json_int_t)info->client_id, "name",
			 info->peer_name, "pin", info->peer_pin, "address", info->peer_address, "qpn", (json_int_t)info->qpn, "peer_qpn",
			 (json_int_t)info->peer_qpn, "messages_received", (json_int_t)info->messages_received, "messages_sent",
			 (json_int_t)info->messages_sent, "bytes_received", (json_int_t)info->bytes_received, "bytes_sent",
			 (json_int_t)info->bytes_sent, "connected_at", (json_int_t)info->connected_at, "worker", info->worker);
}

void server_status_kick_all(struct srdma_server *server, const char *reason)
{
	struct snapshot snapshot = {0};

	srdma_server_each(server, visit, &snapshot);
	/* One that has gone meanwhile is no error. */
	for (size_t i = 0; i < snapshot.count; i++)
		srdma_server_kick(server, snapshot.infos[i].client_id, reason);
	free(snapshot.infos);
}

json_t *server_status_json(struct srdma_server *server)
{
	struct srdma_server_status status;
	struct snapshot snapshot = {0};
	json_t *clients = json_array();

	srdma_server_get_status(server, &status);
	srdma_server_each(server, visit, &snapshot);
	for (size_t i = 0; i < snapshot.count; i++)
		json_array_append_new(clients, client_json(&snapshot.infos[i]));
	free(snapshot.infos);
	return json_pack("{s:s, s:i, s:i, s:i, s:I, s:I, s:I, s:I, s:b, s:b, s:b, s:o}", "event", "status", "connected",
			 (int)status.clients, "pending", (int)status.pending, "max_clients", (int)status.max_clients,
			 "accepted", (json_int_t)status.accepted, "rejected", (json_int_t)status.rejected, "failed",
			 (json_int_t)status.failed, "lost", (json_int_t)status.lost, "device_failed",
			 (int)status.device_failed, "draining", (int)status.draining, "drained", (int)status.drained, "clients",
			 clients);
}

static long long number(const json_t *object, const char *name)
{
	return (long long)json_integer_value(json_object_get(object, name));
}

static const char *text(const json_t *object, const char *name)
{
	const char *value = json_string_value(json_object_get(object, name));

	return value ? value : "";
}

/* A client without a name showed no certificate. */
static const char *name_of(const json_t *client)
{
	const char *name = text(client, "name");

	return name[0] ? name : "(anonymous)";
}

static void show_client(const json_t *client, unsigned name_columns)
{
	time_t at = (time_t)number(client, "connected_at");
	char since[32] = "";
	struct tm local;

	if (localtime_r(&at, &local))
		strftime(since, sizeof since, "%Y-%m-%d %H:%M:%S", &local);
	printf("%8lld  ", number(client, "client_id"));
	cli_print_column(name_of(client), name_columns);
	printf(" %-24s %6lld %8lld %10lld %10lld %12lld %12lld %6lld  %s\n", text(client, "address"), number(client, "qpn"),
	       number(client, "peer_qpn"), number(client, "messages_received"), number(client, "messages_sent"),
	       number(client, "bytes_received"), number(client, "bytes_sent"), number(client, "worker"), since);
}

unsigned server_status_name_columns(const json_t *clients)
{
	unsigned columns = NAME_COLUMNS;

	for (size_t i = 0; i < json_array_size(clients); i++) {
		unsigned own = cli_columns(name_of(json_array_get(clients, i)));

		columns = own > columns ? own : columns;
	}
	return columns;
}

static void show_tunnels(const json_t *tunnels)
{
	if (json_array_size(tunnels) > 0)
		printf("%-20s %8s %10s %10s %10s %14s %14s\n", "tunnel target", "open", "total", "refused", "failed", "bytes to", "bytes from");
	for (size_t i = 0; i < json_array_size(tunnels); i++) {
		const json_t *tunnel = json_array_get(tunnels, i);

		printf("%-20s %8lld %10lld %10lld %10lld %14lld %14lld\n", text(tunnel, "target"), number(tunnel, "open"), number(tunnel, "total"),
		       number(tunnel, "refused"), number(tunnel, "failed"), number(tunnel, "bytes_to_target"), number(tunnel, "bytes_from_target"));
	}
}

void server_status_show(const json_t *status)
{
	const json_t *clients = json_object_get(status, "clients");
	unsigned name_columns = server_status_name_columns(clients);

	printf("clients %lld/%lld, pending %lld, accepted %lld, rejected %lld, failed %lld, lost %lld%s\n",
	       number(status, "connected"), number(status, "max_clients"), number(status, "pending"),
	       number(status, "accepted"), number(status, "rejected"), number(status, "failed"), number(status, "lost"),
	       json_is_true(json_object_get(status, "draining")) ? ", draining" : "");
	if (json_array_size(clients) > 0)
		printf("%8s  %-*s %-24s %6s %8s %10s %10s %12s %12s %6s  %s\n", "client", (int)name_columns, "name", "address", "qpn",
		       "peer qpn", "received", "sent", "bytes in", "bytes out", "worker", "since");
	for (size_t i = 0; i < json_array_size(clients); i++)
		show_client(json_array_get(clients, i), name_columns);
	show_tunnels(json_object_get(status, "tunnels"));
	fflush(stdout);
}

void server_status_print(struct srdma_server *server, bool json)
{
	json_t *status = server_status_json(server);

	if (json || !status) {
		cli_json_print(status);
		return;
	}
	server_status_show(status);
	json_decref(status);
}

static json_t *refuse(const char *why)
{
	return json_pack("{s:b, s:s}", "ok", 0, "error", why);
}

static json_t *kick(struct srdma_server *server, const json_t *request)
{
	const json_t *id = json_object_get(request, "id"), *reason = json_object_get(request, "reason");
	const char *words = json_string_value(reason);
	char shown[128] = ""; /* what the protocol takes, and nothing that a peer's terminal would act on */

	if (!json_is_integer(id) || json_integer_value(id) <= 0 || (reason && !words))
		return refuse("kick needs an id above 0; reason must be a string");
	if (words)
		cli_escape(words, strlen(words), shown, sizeof shown);
	if (srdma_server_kick(server, (uint64_t)json_integer_value(id), words ? shown : NULL) != 0)
		return refuse(srdma_error_text());
	return json_pack("{s:b}", "ok", 1);
}

static json_t *drain(struct srdma_server *server, const json_t *request)
{
	const json_t *timeout = json_object_get(request, "timeout_ms");

	if (!json_is_integer(timeout) || json_integer_value(timeout) < 0 || json_integer_value(timeout) > 86400000)
		return refuse("drain needs a timeout_ms from 0 to 86400000");
	if (srdma_server_drain(server, (int)json_integer_value(timeout)) != 0)
		return refuse(srdma_error_text());
	return json_pack("{s:b}", "ok", 1);
}

json_t *server_status_answer(const json_t *request, struct srdma_server *server)
{
	const char *what = json_string_value(json_object_get(request, "request"));
	json_t *answer;

	if (what && strcmp(what, "kick") == 0)
		return kick(server, request);
	if (what && strcmp(what, "drain") == 0)
		return drain(server, request);
	if (!what || strcmp(what, "status") != 0)
		return refuse("there is no such request; the requests are status, kick, drain and reload");
	answer = server_status_json(server);
	if (answer)
		json_object_set_new(answer, "ok", json_true());
	return answer;
}
