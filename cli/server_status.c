/* SPDX-License-Identifier: Apache-2.0 */
#include "server_status.h"

#include "cli.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

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

/* The name is what the client's certificate says, so it may hold anything. */
static const char *name_of(const struct srdma_conn_info *info, char *text, size_t size)
{
	return cli_escape(info->peer_name, strlen(info->peer_name), text, size);
}

static void print_text(const struct srdma_server_status *status, const struct snapshot *snapshot)
{
	printf("clients %u/%u, pending %u, accepted %llu, rejected %llu, failed %llu, lost %llu\n", status->clients,
	       status->max_clients, status->pending, (unsigned long long)status->accepted,
	       (unsigned long long)status->rejected, (unsigned long long)status->failed,
	       (unsigned long long)status->lost);
	if (snapshot->count > 0)
		printf("%8s  %-20s %-24s %6s %8s %10s %10s\n", "client", "name", "address", "qpn", "peer qpn",
		       "received", "sent");
	for (size_t i = 0; i < snapshot->count; i++) {
		const struct srdma_conn_info *info = &snapshot->infos[i];
		char name[4 * sizeof info->peer_name];

		printf("%8llu  %-20.20s %-24s %6u %8u %10llu %10llu\n", (unsigned long long)info->client_id,
		       info->peer_name[0] ? name_of(info, name, sizeof name) : "(anonymous)", info->peer_address,
		       info->qpn, info->peer_qpn, (unsigned long long)info->messages_received,
		       (unsigned long long)info->messages_sent);
	}
	fflush(stdout);
}

static void print_json(const struct srdma_server_status *status, const struct snapshot *snapshot)
{
	json_t *clients = json_array();

	for (size_t i = 0; i < snapshot->count; i++) {
		const struct srdma_conn_info *info = &snapshot->infos[i];
		char name[4 * sizeof info->peer_name];

		json_array_append_new(
			clients,
			json_pack("{s:I, s:s, s:s, s:I, s:I, s:I, s:I, s:I, s:I}", "client_id",
				  (json_int_t)info->client_id, "name", name_of(info, name, sizeof name), "address",
				  info->peer_address, "qpn", (json_int_t)info->qpn, "peer_qpn",
				  (json_int_t)info->peer_qpn, "messages_received", (json_int_t)info->messages_received,
				  "messages_sent", (json_int_t)info->messages_sent, "bytes_received",
				  (json_int_t)info->bytes_received, "bytes_sent", (json_int_t)info->bytes_sent));
	}
	cli_json_print(json_pack("{s:s, s:i, s:i, s:i, s:I, s:I, s:I, s:I, s:b, s:o}", "event", "status", "connected",
				 (int)status->clients, "pending", (int)status->pending, "max_clients",
				 (int)status->max_clients, "accepted", (json_int_t)status->accepted, "rejected",
				 (json_int_t)status->rejected, "failed", (json_int_t)status->failed, "lost",
				 (json_int_t)status->lost, "device_failed", (int)status->device_failed, "clients",
				 clients));
}

void server_status_print(struct srdma_server *server, bool json)
{
	struct srdma_server_status status;
	struct snapshot snapshot = {0};

	srdma_server_status(server, &status);
	srdma_server_each(server, visit, &snapshot);
	if (json)
		print_json(&status, &snapshot);
	else
		print_text(&status, &snapshot);
	free(snapshot.infos);
}
