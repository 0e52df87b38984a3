/* SPDX-License-Identifier: Apache-2.0 */
#include "metrics.h"

#include <inttypes.h>

/* Label values are words of this program or the library, so that nothing has to be escaped. */
static void family(FILE *file, const char *name, const char *type, const char *help)
{
	fprintf(file, "# HELP securdma_%s %s\n# TYPE securdma_%s %s\n", name, help, name, type);
}

static void single(FILE *file, const char *name, const char *type, const char *help, uint64_t value)
{
	family(file, name, type, help);
	fprintf(file, "securdma_%s %" PRIu64 "\n", name, value);
}

static void labelled(FILE *file, const char *name, const char *label, const char *word, uint64_t value)
{
	fprintf(file, "securdma_%s{%s=\"%s\"} %" PRIu64 "\n", name, label, word, value);
}

static void print_state(const struct srdma_server_metrics *m, FILE *file)
{
	single(file, "clients", "gauge", "Clients connected now.", m->clients);
	single(file, "max_clients", "gauge", "Clients that may be connected at once.", m->max_clients);
	single(file, "setups_pending", "gauge", "Connections in set-up now.", m->pending);
	single(file, "workers", "gauge", "Threads that serve clients.", m->workers);
	family(file, "worker_clients", "gauge", "Clients of each thread, including those in set-up.");
	for (unsigned i = 0; i < m->worker_load_count; i++)
		fprintf(file, "securdma_worker_clients{worker=\"%u\"} %u\n", i, m->worker_load[i]);
	if (m->seal_bytes_count > 0)
		family(file, "seal_bytes_total", "counter", "Bytes that each seal thread sealed or opened; thread 0: the workers.");
	for (unsigned i = 0; i < m->seal_bytes_count; i++)
		fprintf(file, "securdma_seal_bytes_total{thread=\"%u\"} %llu\n", i, (unsigned long long)m->seal_bytes[i]);
	single(file, "device_failed", "gauge", "Whether the RDMA device is gone.", m->device_failed);
	if (m->certificate_not_after != 0)
		single(file, "certificate_expiry_timestamp_seconds", "gauge",
		       "End of the server's certificate, seconds since the epoch.", (uint64_t)m->certificate_not_after);
}

static void print_histogram(const struct srdma_histogram *histogram, const char *phase, FILE *file)
{
	uint64_t sum = 0;

	for (unsigned i = 0; i < histogram->bucket_count; i++) {
		uint64_t bound = srdma_histogram_bound(i);

		sum += histogram->counts[i];
		fprintf(file, "securdma_setup_duration_seconds_bucket{phase=\"%s\",le=\"", phase);
		if (bound == UINT64_MAX)
			fprintf(file, "+Inf");
		else
			fprintf(file, "%g", (double)bound / 1e6);
		fprintf(file, "\"} %" PRIu64 "\n", sum);
	}
	fprintf(file, "securdma_setup_duration_seconds_sum{phase=\"%s\"} %.6f\n", phase, (double)histogram->sum_us / 1e6);
	fprintf(file, "securdma_setup_duration_seconds_count{phase=\"%s\"} %" PRIu64 "\n", phase, sum);
}

static void print_setups(const struct srdma_server_metrics *m, FILE *file)
{
	single(file, "setups_accepted_total", "counter", "Clients that have connected since the start.", m->accepted);
	family(file, "setups_rejected_total", "counter", "Set-ups that the server rejected.");
	for (unsigned i = SRDMA_REJECT_NONE + 1; i <= SRDMA_REJECT_BUSY && i < m->rejected_count; i++)
		labelled(file, "setups_rejected_total", "reason", srdma_reject_reason_name((enum srdma_reject_reason)i),
			 m->rejected[i]);
	family(file, "setups_failed_total", "counter", "Set-ups that failed for another reason.");
	for (unsigned i = 0; i < m->failed_count; i++)
		labelled(file, "setups_failed_total", "reason", srdma_setup_failure_name((enum srdma_setup_failure)i),
			 m->failed[i]);
	family(file, "setup_duration_seconds", "histogram", "Duration of accepted set-ups.");
	for (unsigned i = 0; i < m->setup_time_count; i++)
		print_histogram(m->setup_time[i], srdma_setup_phase_name((enum srdma_setup_phase)i), file);
}

static void print_traffic(const struct srdma_server_metrics *m, FILE *file)
{
	family(file, "messages_total", "counter", "Messages of all clients.");
	labelled(file, "messages_total", "direction", "received", m->messages_received);
	labelled(file, "messages_total", "direction", "sent", m->messages_sent);
	family(file, "message_bytes_total", "counter", "Payload of messages of all clients.");
	labelled(file, "message_bytes_total", "direction", "received", m->bytes_received);
	labelled(file, "message_bytes_total", "direction", "sent", m->bytes_sent);
	family(file, "rdma_bytes_total", "counter", "Bytes that the server wrote to or read from clients' regions.");
	labelled(file, "rdma_bytes_total", "operation", "write", m->rdma_bytes_written);
	labelled(file, "rdma_bytes_total", "operation", "read", m->rdma_bytes_read);
}

static void print_epochs(const struct srdma_server_metrics *m, FILE *file)
{
	single(file, "epochs_total", "counter", "Renewals of PSNs and queue pairs.", m->epochs);
	single(file, "recoveries_total", "counter", "Renewals after a queue pair had failed.", m->recoveries);
	single(file, "sweeps_total", "counter", "Attempts to try PSNs that the device's counters showed.", m->sweeps);
}

static void print_ends(const struct srdma_server_metrics *m, FILE *file)
{
	/* enum ibv_wc_status, without IBV_WC_. */
	static const char *const statuses[] = {
		"SUCCESS",         "LOC_LEN_ERR",      "LOC_QP_OP_ERR",    "LOC_EEC_OP_ERR",  "LOC_PROT_ERR",
		"WR_FLUSH_ERR",    "MW_BIND_ERR",      "BAD_RESP_ERR",     "LOC_ACCESS_ERR",  "REM_INV_REQ_ERR",
		"REM_ACCESS_ERR",  "REM_OP_ERR",       "RETRY_EXC_ERR",    "RNR_RETRY_EXC_ERR", "LOC_RDD_VIOL_ERR",
		"REM_INV_RD_REQ_ERR", "REM_ABORT_ERR", "INV_EECN_ERR",     "INV_EEC_STATE_ERR", "FATAL_ERR",
		"RESP_TIMEOUT_ERR", "GENERAL_ERR",     "TM_ERR",           "TM_RNDV_INCOMPLETE",
	};
	_Static_assert(sizeof statuses / sizeof *statuses == IBV_WC_TM_RNDV_INCOMPLETE + 1, "a word for each status");

	family(file, "clients_ended_total", "counter", "Connected clients that ended, by cause.");
	for (unsigned i = 0; i < m->ended_count; i++)
		labelled(file, "clients_ended_total", "cause", srdma_client_end_name((enum srdma_client_end)i), m->ended[i]);
	family(file, "completion_errors_total", "counter", "Completions with an error that ended a connection, by status.");
	for (unsigned i = IBV_WC_SUCCESS + 1; i < sizeof statuses / sizeof *statuses && i < m->completion_error_count; i++)
		labelled(file, "completion_errors_total", "status", statuses[i], m->completion_errors[i]);
}

static void print_all(const struct srdma_server_metrics *m, FILE *file)
{
	family(file, "build_info", "gauge", "1, with the version of the library.");
	labelled(file, "build_info", "version", srdma_version(), 1);
	print_state(m, file);
	print_setups(m, file);
	print_traffic(m, file);
	print_epochs(m, file);
	print_ends(m, file);
}

static bool print(void *arg, FILE *file)
{
	struct srdma_server_metrics *m = NULL;
	bool made = srdma_server_get_metrics(arg, &m) == 0;

	if (made)
		print_all(m, file);
	srdma_server_metrics_free(&m);
	return made;
}

static const char *problem(void *arg)
{
	struct srdma_server_status status;

	srdma_server_get_status(arg, &status);
	return status.device_failed ? "the RDMA device has failed" : status.draining ? "draining" : NULL;
}

void metrics_of_server(struct srdma_server *server, struct metrics_source *source)
{
	*source = (struct metrics_source){.print = print, .problem = problem, .arg = server};
}
