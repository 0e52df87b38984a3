/* SPDX-License-Identifier: Apache-2.0 */
#include "metrics.h"

#include "device.h"
#include "histogram.h"
#include "log.h"
#include "seal_pool.h"
#include "tls.h"

#include <errno.h>
#include <stdlib.h>

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

void srdma_metrics_count_setup(struct srdma_server *server, int error, enum srdma_reject_reason rejection,
			       const struct srdma_conn_timing *timing)
{
	struct srdma_totals *m = &server->totals;

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
	unsigned completion = conn->queues.failed_status;

	server->totals.ended[srdma_client_end_of(status, lost)]++;
	if (completion != IBV_WC_SUCCESS)
		server->totals.completion_errors[completion < SRDMA_WC_STATUSES ? completion : IBV_WC_GENERAL_ERR]++;
}

void srdma_traffic_add(struct srdma_traffic *to, const struct srdma_conn *conn)
{
	const struct srdma_counters *c = &conn->queues.counters;

	to->messages_received += srdma_counter_read(&c->messages_received);
	to->messages_sent += srdma_counter_read(&c->messages_sent);
	to->bytes_received += srdma_counter_read(&c->bytes_received);
	to->bytes_sent += srdma_counter_read(&c->bytes_sent);
	to->rdma_bytes_written += srdma_counter_read(&c->bytes_written);
	to->rdma_bytes_read += srdma_counter_read(&c->bytes_read);
	to->epochs += atomic_load(&conn->epoch.number);
	to->recoveries += atomic_load(&conn->epoch.recoveries);
}

#define WORKERS_TOLD 1024

/* A struct srdma_server_metrics and the memory that it points to. */
struct snapshot {
	struct srdma_server_metrics public; /* first */
	struct srdma_totals totals;
	struct srdma_traffic traffic;
	struct srdma_histogram setup_time[SRDMA_SETUP_PHASES];
	const struct srdma_histogram *setup_times[SRDMA_SETUP_PHASES];
	unsigned worker_load[WORKERS_TOLD];
	uint64_t seal_bytes[SRDMA_SEAL_THREADS_MAX + 1];
};

/* One lock covers both sums, so that a client that leaves meanwhile is counted once, as connected or as gone. */
static void sum_traffic(struct srdma_server *server, struct snapshot *out)
{
	struct srdma_slots *slots = &server->slots;

	pthread_mutex_lock(&slots->mutex);
	out->public.clients = slots->used;
	out->public.max_clients = slots->max;
	out->traffic = server->gone;
	for (unsigned i = 0; i < slots->used; i++) {
		const struct srdma_client *client = slots->taken[i]->client;

		if (client->conn)
			srdma_traffic_add(&out->traffic, client->conn);
	}
	pthread_mutex_unlock(&slots->mutex);
}

static void read_server(struct srdma_server *server, struct snapshot *out)
{
	pthread_mutex_lock(&server->mutex);
	out->totals = server->totals;
	out->public.pending = server->pending;
	out->public.workers = server->worker_count;
	out->public.worker_load_count = server->worker_count < WORKERS_TOLD ? server->worker_count : WORKERS_TOLD;
	for (size_t i = 0; i < out->public.worker_load_count; i++)
		out->worker_load[i] = server->workers[i]->load;
	out->public.certificate_not_after = srdma_tls_context_not_after(server->context);
	pthread_mutex_unlock(&server->mutex);
}

static void read_seal_pool(const struct srdma_server *server, struct snapshot *out)
{
	const struct srdma_seal_pool *pool = server->seal_pool;

	out->public.seal_bytes = out->seal_bytes;
	out->public.seal_bytes_count = pool ? srdma_seal_pool_threads(pool) + 1 : 0;
	for (unsigned i = 0; i < out->public.seal_bytes_count; i++)
		out->seal_bytes[i] = srdma_seal_pool_bytes(pool, i);
}

static void point_to_arrays(struct snapshot *s)
{
	struct srdma_server_metrics *m = &s->public;
	const struct srdma_totals *t = &s->totals;

	for (size_t i = 0; i < SRDMA_SETUP_PHASES; i++) {
		s->setup_time[i] = (struct srdma_histogram){.size = sizeof *s->setup_time, .counts = t->setup_time[i].counts,
							    .bucket_count = SRDMA_HISTOGRAM_BUCKETS, .sum_us = t->setup_time[i].sum_us};
		s->setup_times[i] = &s->setup_time[i];
	}
	m->worker_load = s->worker_load;
	m->rejected = t->rejected;
	m->rejected_count = SRDMA_REJECT_REASONS;
	m->failed = t->failed;
	m->failed_count = SRDMA_SETUP_FAILURES;
	m->setup_time = s->setup_times;
	m->setup_time_count = SRDMA_SETUP_PHASES;
	m->ended = t->ended;
	m->ended_count = SRDMA_CLIENT_ENDS;
	m->completion_errors = t->completion_errors;
	m->completion_error_count = SRDMA_WC_STATUSES;
}

int srdma_server_get_metrics(struct srdma_server *server, struct srdma_server_metrics **out)
{
	struct snapshot *s = calloc(1, sizeof *s);
	struct srdma_server_metrics *m;

	if (!s)
		return srdma_fail(-ENOMEM, "out of memory");
	read_server(server, s);
	sum_traffic(server, s);
	read_seal_pool(server, s);
	point_to_arrays(s);
	m = &s->public;
	m->size = sizeof *m;
	m->accepted = s->totals.accepted;
	m->messages_received = s->traffic.messages_received;
	m->messages_sent = s->traffic.messages_sent;
	m->bytes_received = s->traffic.bytes_received;
	m->bytes_sent = s->traffic.bytes_sent;
	m->rdma_bytes_written = s->traffic.rdma_bytes_written;
	m->rdma_bytes_read = s->traffic.rdma_bytes_read;
	m->epochs = s->traffic.epochs;
	m->recoveries = s->traffic.recoveries;
	m->sweeps = srdma_device_sweeps(server->device);
	m->device_failed = atomic_load(&server->device_failed);
	*out = m;
	return 0;
}

void srdma_server_metrics_free(struct srdma_server_metrics **metrics)
{
	free(*metrics);
	*metrics = NULL;
}
