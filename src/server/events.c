/* SPDX-License-Identifier: Apache-2.0 */
#include "events.h"

#include "clock.h"
#include "log.h"
#include "metrics.h"

#include <errno.h>

#define NAMES_SIZE 256 /* for a certificate's names in a line of the log */
#define COUNT(array) (sizeof(array) / sizeof *(array))

/* A client's address, and its balancer's, for a log line. */
#define THROUGH(client) (client)->address, (client)->proxy[0] ? " through " : "", (client)->proxy

void srdma_event_connected(const struct srdma_client *client)
{
	const struct srdma_conn_info *info = &client->info;
	char names[NAMES_SIZE];

	srdma_peer_names_format(&client->conn->names, names, sizeof names);
	const struct srdma_log_field fields[] = {
		SRDMA_FIELD_NUMBER("client_id", client->slot.id),
		SRDMA_FIELD_TEXT("address", client->address),
		SRDMA_FIELD_TEXT("name", info->peer_name),
		SRDMA_FIELD_TEXT("pin", info->peer_pin),
		SRDMA_FIELD_TEXT("names", names),
		SRDMA_FIELD_NUMBER("qpn", info->qpn),
		SRDMA_FIELD_NUMBER("peer_qpn", info->peer_qpn),
		SRDMA_FIELD_TEXT("tls_version", info->tls_version),
		SRDMA_FIELD_TEXT("tls_cipher", info->tls_cipher),
		SRDMA_FIELD_TEXT("tls_group", info->tls_group),
		SRDMA_FIELD_NUMBER("setup_us", client->conn->timing.total),
		SRDMA_FIELD_NUMBER("tls_us", client->conn->timing.tls),
		SRDMA_FIELD_NUMBER("exchange_us", client->conn->timing.exchange),
		SRDMA_FIELD_NUMBER("qp_us", client->conn->timing.qp),
		SRDMA_FIELD_TEXT("proxy", client->proxy),
	};
	const struct srdma_event event = {SRDMA_LOG_INFO, "client.connected", false, fields,
					  COUNT(fields) - (client->proxy[0] == '\0')};

	srdma_log_event(&event, "client %llu: connected from %s%s%s as '%s', QPN 0x%06x to 0x%06x, %s, set up in %llu us",
			(unsigned long long)client->slot.id, THROUGH(client), info->peer_name, info->qpn, info->peer_qpn,
			info->tls_version, (unsigned long long)client->conn->timing.total);
}

/* Marks events of clients that break a rule or exceed a limit, which an operator may want to investigate. */
static bool concerns_security(const struct srdma_client *client, enum srdma_reject_reason rejection, int error)
{
	if (rejection == SRDMA_REJECT_ADDRESS || rejection == SRDMA_REJECT_MALFORMED)
		return true;
	if (rejection != SRDMA_REJECT_NONE)
		return client->limit != NULL;
	return error == SRDMA_ECERT || error == SRDMA_EPROTOCOL || error == -EBUSY;
}

void srdma_event_not_connected(const struct srdma_client *client, int error)
{
	const struct srdma_accept *accept = client->accept;
	enum srdma_reject_reason rejection = accept ? srdma_accept_rejection(accept) : SRDMA_REJECT_NONE;
	bool rejected = rejection != SRDMA_REJECT_NONE;
	char names[NAMES_SIZE] = "";

	if (accept)
		srdma_peer_names_format(srdma_accept_peer_names(accept), names, sizeof names);
	struct srdma_log_field fields[10] = {
		SRDMA_FIELD_TEXT("address", client->address),
		SRDMA_FIELD_TEXT("name", accept ? srdma_accept_peer_names(accept)->identity : ""),
		SRDMA_FIELD_TEXT("pin", accept ? srdma_accept_peer_names(accept)->pin : ""),
		SRDMA_FIELD_TEXT("names", names),
		SRDMA_FIELD_TEXT("phase", accept ? srdma_accept_phase(accept) : "start"),
		SRDMA_FIELD_TEXT("result", rejected ? "rejected" : "failed"),
		SRDMA_FIELD_TEXT("reason", rejected ? srdma_reject_reason_name(rejection)
						    : srdma_setup_failure_name(srdma_setup_failure_of(error))),
		SRDMA_FIELD_TEXT("error", srdma_error_text()),
	};
	struct srdma_event event = {SRDMA_LOG_WARN, "client.not_connected", concerns_security(client, rejection, error), fields, 8};

	if (client->limit)
		fields[event.field_count++] = SRDMA_FIELD_TEXT("limit", client->limit);
	if (client->proxy[0])
		fields[event.field_count++] = SRDMA_FIELD_TEXT("proxy", client->proxy);
	srdma_log_event(&event, "client at %s%s%s: not connected: %s", THROUGH(client), srdma_error_text());
}

void srdma_event_ended(const struct srdma_client *client, int status, bool lost, const char *text)
{
	unsigned long long id = client->slot.id;
	const char *limit = atomic_load(&client->kicked) ? client->kick_limit : NULL;
	struct srdma_conn_info info;

	srdma_conn_get_info(client->conn, &info);
	const struct srdma_log_field fields[] = {
		SRDMA_FIELD_NUMBER("client_id", id),
		SRDMA_FIELD_TEXT("address", client->address),
		SRDMA_FIELD_TEXT("name", info.peer_name),
		SRDMA_FIELD_TEXT("cause", srdma_client_end_name(srdma_client_end_of(status, lost))),
		SRDMA_FIELD_TEXT("reason", info.close_reason[0] ? info.close_reason : client->reason),
		SRDMA_FIELD_NUMBER("duration_ms", (srdma_clock_us() - client->arrived) / 1000),
		SRDMA_FIELD_NUMBER("messages_received", info.messages_received),
		SRDMA_FIELD_NUMBER("messages_sent", info.messages_sent),
		SRDMA_FIELD_NUMBER("bytes_received", info.bytes_received),
		SRDMA_FIELD_NUMBER("bytes_sent", info.bytes_sent),
		SRDMA_FIELD_TEXT("error", text),
		SRDMA_FIELD_TEXT("limit", limit),
	};
	struct srdma_event event = {SRDMA_LOG_INFO, "client.disconnected", 
				    status == SRDMA_EPROTOCOL || status == SRDMA_ESEAL || limit, fields,
				    COUNT(fields) - (limit == NULL)};

	if (status == 0) {
		event.security = false;
		event.field_count = COUNT(fields) - 2;
		srdma_log_event(&event, "client %llu: disconnected%s%s; %llu message%s in, %llu out", id,
				info.close_reason[0] ? ": " : "", info.close_reason,
				(unsigned long long)info.messages_received, SRDMA_S(info.messages_received), (unsigned long long)info.messages_sent);
		return;
	}
	event.level = SRDMA_LOG_WARN;
	event.name = lost ? "client.lost" : "client.ended";
	srdma_log_event(&event, "client %llu at %s: %s: %s", id, client->address, srdma_strerror(status), text);
}

void srdma_event_device_gone(const struct srdma_device *device, const char *why)
{
	const struct srdma_log_field fields[] = {
		SRDMA_FIELD_TEXT("device", srdma_device_name(device)),
		SRDMA_FIELD_TEXT("error", why),
	};
	const struct srdma_event event = {SRDMA_LOG_ERROR, "device.gone", false, fields, COUNT(fields)};

	srdma_log_event(&event, "RDMA device %s is gone: %s", srdma_device_name(device), why);
}

static void say_port(const struct srdma_device *device, int port, bool active)
{
	const char *name = srdma_device_name(device);
	const struct srdma_log_field fields[] = {SRDMA_FIELD_TEXT("device", name), SRDMA_FIELD_NUMBER("port", port)};
	const struct srdma_event event = {active ? SRDMA_LOG_INFO : SRDMA_LOG_WARN, active ? "device.port_active" : "device.port_down",
					  false, fields, COUNT(fields)};

	if (active)
		srdma_log_event(&event, "port %d of %s is active", port, name);
	else
		srdma_log_event(&event, "port %d of %s went down", port, name);
}

void srdma_event_device(const struct srdma_device *device, const struct ibv_async_event *what)
{
	const char *name = srdma_device_name(device), *text = ibv_event_type_str(what->event_type);
	const struct srdma_log_field fields[] = {SRDMA_FIELD_TEXT("device", name), SRDMA_FIELD_TEXT("what", text)};
	const struct srdma_event event = {SRDMA_LOG_INFO, "device.event", false, fields, COUNT(fields)};

	if (what->event_type == IBV_EVENT_PORT_ERR || what->event_type == IBV_EVENT_PORT_ACTIVE)
		say_port(device, what->element.port_num, what->event_type == IBV_EVENT_PORT_ACTIVE);
	else
		srdma_log_event(&event, "%s: %s", name, text);
}
