/* SPDX-License-Identifier: Apache-2.0 */
#include "cli.h"
#include "serve.h"
#include "service_manager.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define FIELDS_MAX         6
#define TEXT(key, value)   ((struct srdma_log_field){.name = (key), .text = (value)})
#define NUMBER(key, value) ((struct srdma_log_field){.name = (key), .number = (int64_t)(value)})

/* Whether both streams are the journal: then the log writes all lines. */
static bool is_logged(void)
{
	return cli_log_is_journal(STDOUT_FILENO) && cli_log_is_journal(STDERR_FILENO);
}

static bool wants_json(const struct serve *serve)
{
	return serve->settings.json || serve->settings.log_format == CLI_LOG_JSON;
}

static void log_event(const char *event, const char *text, const struct srdma_log_field *fields, size_t count)
{
	const struct srdma_log_field *pointers[FIELDS_MAX];
	const struct srdma_log_record record = {
		.level = SRDMA_LOG_INFO, .event = event, .fields = pointers, .field_count = count, .text = text};

	for (size_t i = 0; i < count; i++)
		pointers[i] = &fields[i];
	cli_log_record(&record);
}

/* All sockets, "10.0.0.1:4433, [fd00::1]:4433". */
static void list_addresses(const struct srdma_server *server, char *text, size_t size)
{
	char address[80];
	size_t used = 0;

	text[0] = '\0';
	for (unsigned i = 0; used < size && srdma_server_address(server, i, address, sizeof address) == 0; i++)
		used += (size_t)snprintf(text + used, size - used, "%s%s", i > 0 ? ", " : "", address);
}

static void listening_json(const struct serve *serve)
{
	json_t *sockets = json_array(), *object;
	char address[80];
	size_t length;

	for (unsigned i = 0; srdma_server_address(serve->server, i, address, sizeof address) == 0; i++)
		json_array_append_new(sockets, json_string(address));
	srdma_server_address(serve->server, 0, address, sizeof address);
	*strrchr(address, ':') = '\0';
	length = strlen(address);
	if (address[0] == '[') {
		address[length - 1] = '\0';
		memmove(address, address + 1, length - 1);
	}
	object = json_pack("{s:s, s:s, s:i, s:o, s:s, s:i, s:I, s:i}", "event", "listening", "address", address, "port",
			   (int)srdma_server_port(serve->server), "sockets", sockets, "device", srdma_device_name(serve->device),
			   "device_port", (int)srdma_device_port(serve->device), "max_clients",
			   (json_int_t)serve->settings.limits.max_clients, "pid", (int)getpid());
	if (object && serve->metrics)
		json_object_set_new(object, "metrics_port", json_integer(metrics_port(serve->metrics)));
	cli_json_print(object);
}

void announce_listening(const struct serve *serve)
{
	const char *device = srdma_device_name(serve->device);
	unsigned device_port = srdma_device_port(serve->device), port = serve->metrics ? metrics_port(serve->metrics) : 0;
	char addresses[512], metrics[40] = "", text[800];

	list_addresses(serve->server, addresses, sizeof addresses);
	if (serve->metrics)
		snprintf(metrics, sizeof metrics, " metrics-port %u", port);
	snprintf(text, sizeof text, "listening on %s device %s/%u max-clients %lld%s", addresses, device, device_port,
		 (long long)serve->settings.limits.max_clients, metrics);
	if (is_logged()) {
		const struct srdma_log_field fields[] = {
			TEXT("addresses", addresses),
			NUMBER("port", srdma_server_port(serve->server)),
			TEXT("device", device),
			NUMBER("device_port", device_port),
			NUMBER("max_clients", serve->settings.limits.max_clients),
			NUMBER("metrics_port", port),
		};

		log_event("server.listening", text, fields, serve->metrics ? 6 : 5);
	} else if (wants_json(serve)) {
		listening_json(serve);
	} else {
		printf("%s\n", text);
		fflush(stdout);
	}
}

void announce_stopped(const struct serve *serve, const struct srdma_server_status *status, int unfinished, bool device_failed)
{
	char text[200];

	snprintf(text, sizeof text, "stopped: disconnected %u client%s, %d of them not in order", status->clients,
		 CLI_S(status->clients), unfinished);
	if (is_logged()) {
		const struct srdma_log_field fields[] = {
			NUMBER("clients", status->clients),   NUMBER("unfinished", unfinished),
			NUMBER("accepted", status->accepted), NUMBER("rejected", status->rejected),
			NUMBER("failed", status->failed),     NUMBER("lost", status->lost),
		};

		log_event("server.stopped", text, fields, sizeof fields / sizeof *fields);
	} else if (wants_json(serve)) {
		cli_json_print(json_pack("{s:s, s:i, s:i, s:I, s:I, s:I, s:I, s:b}", "event", "stopped", "clients",
					 (int)status->clients, "unfinished", unfinished, "accepted",
					 (json_int_t)status->accepted, "rejected", (json_int_t)status->rejected, "failed",
					 (json_int_t)status->failed, "lost", (json_int_t)status->lost, "device_failed",
					 (int)device_failed));
	} else {
		printf("%s\n", text);
		fflush(stdout);
	}
}

void announce_state(struct serve *serve, const struct srdma_server_status *status)
{
	char state[sizeof serve->state], addresses[160];
	const char *failed = serve->reload_failed ? "; the last reload failed, see the log" : "";

	list_addresses(serve->server, addresses, sizeof addresses);
	if (status->drained && status->clients == 0)
		snprintf(state, sizeof state, "drained: no client is left, rejecting new clients%s", failed);
	else if (status->draining)
		snprintf(state, sizeof state, "draining: %u client%s left, rejecting new clients%s", status->clients,
			 CLI_S(status->clients), failed);
	else
		snprintf(state, sizeof state, "listening on %s, %u of %u client%s%s", addresses, status->clients, status->max_clients,
			 CLI_S(status->max_clients), failed);
	if (strcmp(state, serve->state) == 0)
		return;
	/* The first state also means that the server is ready. */
	service_manager_tell("%sSTATUS=%s", serve->state[0] ? "" : "READY=1\n", state);
	snprintf(serve->state, sizeof serve->state, "%s", state);
}
