/* SPDX-License-Identifier: Apache-2.0 */
/* Set-up of connections, phase by phase, beside a bare TLS handshake. */
#include "bench.h"

#include <errno.h>
#include <stdio.h>

#define WARM_UP 3

enum series { TCP, TLS, EXCHANGE, QP, PSN, TOTAL, BARE_TLS, BARE_TOTAL, SERIES_COUNT };

static const char *const series_names[] = {"tcp", "tls", "exchange", "qp", "psn", "total", "bare_tls", "bare_total"};
static const char *const series_help[] = {
	"resolve and connect",
	"TLS handshake",
	"HELLO, WELCOME, READY",
	"PD, CQs, QP, memory, transitions",
	"drawing the PSN (part of qp)",
	"total",
	"TLS handshake by OpenSSL alone, both certificates verified",
	"TCP connect and that handshake",
};

/* One connection by securdma; its phases are recorded unless it is for warming up. */
static int measure_one(struct bench *bench, const struct srdma_conn_options *options, struct samples *series,
		       bool record, char *cipher, size_t cipher_size)
{
	struct srdma_conn *conn = NULL;
	struct srdma_conn_info info;
	struct srdma_conn_timing timing;
	int code;

	code = bench_connect(bench, options, &conn);
	if (code != CLI_EXIT_OK)
		return code;
	srdma_conn_get_info(conn, &info);
	srdma_conn_get_timing(conn, &timing);
	snprintf(cipher, cipher_size, "%s", info.tls_cipher);
	if (record) {
		samples_add(&series[TCP], timing.tcp * 1000);
		samples_add(&series[TLS], timing.tls * 1000);
		samples_add(&series[EXCHANGE], timing.exchange * 1000);
		samples_add(&series[QP], timing.qp * 1000);
		samples_add(&series[PSN], timing.psn * 1000);
		samples_add(&series[TOTAL], timing.total * 1000);
	}
	return bench_disconnect(&conn);
}

static int measure_bare(struct bench_tls *bare, struct samples *series, bool record)
{
	uint64_t tls, total;

	if (bench_tls_connect(bare, &tls, &total) < 0)
		return cli_failed(CLI_EXIT_FAILED, "the bare TLS handshake, for comparison, failed");
	if (record) {
		samples_add(&series[BARE_TLS], tls);
		samples_add(&series[BARE_TOTAL], total);
	}
	return CLI_EXIT_OK;
}

/* The two kinds take turns, so that whatever else the machine does hits both alike. */
static int measure(struct bench *bench, const struct srdma_conn_options *options, struct samples *series)
{
	struct bench_tls *bare = NULL;
	char cipher[64] = "";
	int code = CLI_EXIT_OK;

	for (int64_t i = -WARM_UP; i < bench->connections && code == CLI_EXIT_OK; i++) {
		if (bench_interrupted()) {
			code = CLI_EXIT_FAILED;
			break;
		}
		code = measure_one(bench, options, series, i >= 0, cipher, sizeof cipher);
		if (code != CLI_EXIT_OK || !bench->local)
			continue;
		if (!bare && bench_tls_new(bench_local_directory(bench), bench->settings.host, cipher, &bare) < 0) {
			cli_error("cannot start the bare TLS server for comparison");
			code = CLI_EXIT_FAILED;
			break;
		}
		code = measure_bare(bare, series, i >= 0);
	}
	bench_tls_delete(&bare);
	return code;
}

static void report_text(const struct bench *bench, struct samples *series)
{
	double bare = samples_percentile(&series[BARE_TOTAL], 50);

	printf("set-up of %zu connection%s, microseconds\n  %-12s %10s %10s\n", series[TOTAL].count,
	       CLI_S(series[TOTAL].count), "phase", "p50", "p99");
	for (int i = 0; i < SERIES_COUNT; i++)
		if (series[i].count > 0)
			printf("  %-12s %10.1f %10.1f   %s\n", series_names[i], samples_percentile(&series[i], 50),
			       samples_percentile(&series[i], 99), series_help[i]);
	if (bench->local && bare > 0)
		printf("  total is %.2f times bare_total (p50)\n", samples_percentile(&series[TOTAL], 50) / bare);
	fflush(stdout);
}

static void report_json(const struct bench *bench, struct samples *series)
{
	double bare = samples_percentile(&series[BARE_TOTAL], 50);
	json_t *object = json_pack("{s:I}", "connections", (json_int_t)series[TOTAL].count);

	for (int i = 0; i < SERIES_COUNT; i++)
		if (series[i].count > 0)
			json_object_set_new(object, series_names[i],
					    json_pack("{s:f, s:f}", "p50_us", samples_percentile(&series[i], 50),
						      "p99_us", samples_percentile(&series[i], 99)));
	if (bench->local && bare > 0)
		json_object_set_new(object, "ratio_p50", json_real(samples_percentile(&series[TOTAL], 50) / bare));
	json_object_set_new(bench->result, "setup", object);
}

int bench_setup(struct bench *bench)
{
	struct samples series[SERIES_COUNT] = {0};
	struct srdma_conn_options options, server;
	struct srdma_qp_options qp;
	int code = CLI_EXIT_OK;

	for (int i = 0; i < SERIES_COUNT && code == CLI_EXIT_OK; i++)
		if (samples_init(&series[i], (size_t)bench->connections) < 0)
			code = cli_fail(-ENOMEM, "bench");
	if (code != CLI_EXIT_OK)
		goto out;
	settings_conn_options(&bench->settings, &options, &qp);
	srdma_server_conn_options_init(&server);
	/* Polling is for latency; here each end mostly waits for the other. */
	if (options.spin < 0)
		options.spin = server.spin;
	if (bench->local) {
		server.spin = options.spin;
		server.message_size = options.message_size;
		server.depth = options.depth;
		code = bench_local_start(bench, &server);
	}
	if (code == CLI_EXIT_OK)
		code = measure(bench, &options, series);
	bench_local_stop(bench);
	if (code == CLI_EXIT_OK && bench->result)
		report_json(bench, series);
	else if (code == CLI_EXIT_OK)
		report_text(bench, series);
out:
	for (int i = 0; i < SERIES_COUNT; i++)
		samples_free(&series[i]);
	return code;
}
