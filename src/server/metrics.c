/* SPDX-License-Identifier: Apache-2.0 */
#include "metrics.h"

#include "device.h"
#include "histogram.h"
#include "tls.h"

#include <errno.h>

/* ---- words ----------------------------------------------------------------------------------------------------- */

const char *srdma_setup_failure_name(enum srdma_setup_failure failure)
{
	static const char *const names[SRDMA_SETUP_FAILURES] = {
		[SRDMA_SETUP_TLS] = "tls",         [SRDMA_SETUP_CERTIFICATE] = "certificate",
		[SRDMA_SETUP_PROTOCOL] = "protocol", [SRDMA_SETUP_TIMEOUT] = "timeout",
		[SRDMA_SETUP_LOST] = "lost",       [SRDMA_SETUP_VERBS] = "verbs",
		[SRDMA_SETUP_EVICTED] = "evicted", [SRDMA_SETUP_OTHER] = "other",
	};

	return (unsigned)failure < SRDMA_SETUP_FAILURES ? names[failure] : NULL;
}

const char *srdma_client_end_name(enum srdma_client_end end)
{
	static const char *const names[SRDMA_CLIENT_ENDS] = {
		[SRDMA_END_IN_ORDER] = "in_order", [SRDMA_END_SERVER] = "server", [SRDMA_END_LOST] = "lost",
		[SRDMA_END_TLS] = "tls",           [SRDMA_END_PROTOCOL] = "protocol", [SRDMA_END_SEAL] = "seal",
		[SRDMA_END_TIMEOUT] = "timeout",
		[SRDMA_END_VERBS] = "verbs",       [SRDMA_END_OTHER] = "other",
	};

	return (unsigned)end < SRDMA_CLIENT_ENDS ? names[end] : NULL;
}

const char *srdma_setup_phase_name(enum srdma_setup_phase phase)
{
	static const char *const names[SRDMA_SETUP_PHASES] = {"tls", "exchange", "qp", "total"};

	return (unsigned)phase < SRDMA_SETUP_PHASES ? names[phase] : NULL;
}

enum srdma_setup_failure srdma_setup_failure_of(int error)
{
	switch (error) {
	case SRDMA_ETLS: return SRDMA_SETUP_TLS;
	case SRDMA_ECERT: return SRDMA_SETUP_CERTIFICATE;
	case SRDMA_EPROTOCOL: return SRDMA_SETUP_PROTOCOL;
	case -ETIMEDOUT: return SRDMA_SETUP_TIMEOUT;
	case SRDMA_ELOST: return SRDMA_SETUP_LOST;
	case SRDMA_EVERBS: return SRDMA_SETUP_VERBS;
	case -EBUSY: return SRDMA_SETUP_EVICTED;
	default: return SRDMA_SETUP_OTHER;
	}
}

enum srdma_client_end srdma_client_end_of(int status, bool lost)
{
	switch (status) {
	case 0: return SRDMA_END_IN_ORDER;
	case SRDMA_ELOST: return SRDMA_END_LOST;
	case SRDMA_ETLS: return SRDMA_END_TLS;
	case SRDMA_EPROTOCOL: return SRDMA_END_PROTOCOL;
	case SRDMA_ESEAL: return SRDMA_END_SEAL;
	case -ETIMEDOUT: return SRDMA_END_TIMEOUT;
	case SRDMA_EVERBS: return SRDMA_END_VERBS;
	default: return lost ? SRDMA_END_OTHER : SRDMA_END_SERVER;
	}
}

/* ---- counting -------------------------------------------------------------------------------------------------- */

void srdma_metrics_count_setup(struct srdma_server *server, int error, enum srdma_reject_reason rejection,
			       const struct srdma_conn_timing *timing)
{
	struct srdma_server_metrics *m = &server->metrics;

	if (error == 0) {
		m->accepted++;
		srdma_histogram_add(&m->setup_time[SRDMA_PHASE_TLS], timing->tls);
		srdma_histogram_add(&m->setup_time[SRDMA_PHASE_EXCHANGE], timing->exchange);
		srdma_histogram_add(&m->setup_time[SRDMA_PHASE_QP], timing->qp);
		srdma_histogram_add(&m->setup_time[SRDMA_PHASE_TOTAL], timing->total);
	} else if (rejection != SRDMA_REJECT_NONE && rejection < SRDMA_REJECT_REASONS) {
		m->rejected[rejection]++;
	} else {
		m->failed[srdma_setup_failure_of(error)]++;
	}
}

void srdma_metrics_count_end(struct srdma_server *server, const struct srdma_conn *conn, int status, bool lost)
{
	unsigned completion = conn->stream.failed_status;

	server->metrics.ended[srdma_client_end_of(status, lost)]++;
	if (completion != IBV_WC_SUCCESS)
		server->metrics.completion_errors[completion < SRDMA_WC_STATUSES ? completion : IBV_WC_GENERAL_ERR]++;
}

static void add_traffic(struct srdma_server_metrics *to, const struct srdma_conn *conn)
{
	const struct srdma_counters *c = &conn->stream.counters;

	to->messages_received += srdma_counter_read(&c->messages_received);
	to->messages_sent += srdma_counter_read(&c->messages_sent);
	to->bytes_received += srdma_counter_read(&c->bytes_received);
	to->bytes_sent += srdma_counter_read(&c->bytes_sent);
	to->rdma_bytes_written += srdma_counter_read(&c->bytes_written);
	to->rdma_bytes_read += srdma_counter_read(&c->bytes_read);
	to->epochs += atomic_load(&conn->epoch.number);
	to->recoveries += atomic_load(&conn->epoch.recoveries);
}

void srdma_metrics_keep_traffic(struct srdma_server *server, const struct srdma_conn *conn)
{
	add_traffic(&server->gone, conn);
}

/* ---- the snapshot ---------------------------------------------------------------------------------------------- */

/* Under one lock, so that a client that goes meanwhile is counted once: among the live ones or the others. */
static void sum_traffic(struct srdma_server *server, struct srdma_server_metrics *out)
{
	struct srdma_slots *slots = &server->slots;

	pthread_mutex_lock(&slots->mutex);
	out->clients = slots->used;
	out->max_clients = slots->max;
	out->messages_received = server->gone.messages_received;
	out->messages_sent = server->gone.messages_sent;
	out->bytes_received = server->gone.bytes_received;
	out->bytes_sent = server->gone.bytes_sent;
	out->rdma_bytes_written = server->gone.rdma_bytes_written;
	out->rdma_bytes_read = server->gone.rdma_bytes_read;
	out->epochs = server->gone.epochs;
	out->recoveries = server->gone.recoveries;
	for (unsigned i = 0; i < slots->used; i++) {
		const struct srdma_client *client = slots->taken[i]->client;

		if (client->conn)
			add_traffic(out, client->conn);
	}
	pthread_mutex_unlock(&slots->mutex);
}

void srdma_server_metrics(struct srdma_server *server, struct srdma_server_metrics *out)
{
	pthread_mutex_lock(&server->mutex);
	*out = server->metrics;
	out->pending = server->pending;
	out->workers = server->worker_count;
	for (unsigned i = 0; i < server->worker_count && i < SRDMA_METRICS_WORKERS; i++)
		out->worker_load[i] = server->workers[i]->load;
	out->certificate_not_after = srdma_tls_context_not_after(server->context);
	pthread_mutex_unlock(&server->mutex);
	sum_traffic(server, out);
	out->sweeps = srdma_device_sweeps(server->device);
	out->device_failed = atomic_load(&server->device_failed);
}
