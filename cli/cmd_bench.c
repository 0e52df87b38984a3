/* SPDX-License-Identifier: Apache-2.0 */
#include "bench.h"
#include "command_line.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char about[] =
	"Measures connection set-up phase by phase, message latency, and bandwidth of messages, RDMA writes and "
	"reads.\n"
	"Without HOST the server runs inside the process, on an address of the device, with temporary credentials, and the\n"
	"command compares set-up with a bare TLS handshake. By default both ends poll (--spin).";
static const char details[] =
	"With --json: one object {device, in_process, setup, latency, bandwidth}; with --seal-threads also seal_bytes: the\n"
	"bytes that this end's own thread and each seal thread sealed or opened.\n\n"
	"Exit codes: 0 success, 1 something failed, 2 usage, settings or credentials, 3 no connection, 4 TLS,\n"
	"5 rejected by the server, 6 RDMA device, 7 connection lost.\n\n"
	"Examples:\n"
	"  securdma bench\n"
	"  securdma bench --only latency --sizes 64 --iterations 10000 --json\n"
	"  securdma bench --ca ca.crt --cert client.crt --key client.key server.example\n";

#define AT(field) OPTION_AT(struct bench, field)
static const struct option bench_options[] = {
	{"--connections", NULL, NULL, OPTION_NUMBER, FOR_BENCH, AT(connections), 1, 1000000, "N",
	 "connections to set up"},
	{"--iterations", NULL, NULL, OPTION_NUMBER, FOR_BENCH, AT(iterations), 1, 100000000, "N",
	 "operations per measurement; bandwidth stops after 5 s"},
	{"--sizes", NULL, NULL, OPTION_TEXT, FOR_BENCH, AT(sizes), 0, 0, "LIST",
	 "sizes in bytes, separated by commas; default: 64,256,1K,4K for latency, 4K,64K,1M for bandwidth"},
	{"--only", NULL, NULL, OPTION_TEXT, FOR_BENCH, AT(only), 0, 0, "LIST",
	 "measurements to run: setup, latency, bandwidth, separated by commas"},
};
#define BENCH_OPTION_COUNT (sizeof bench_options / sizeof bench_options[0])

static const struct section {
	const char *name;
	int (*run)(struct bench *bench);
} sections[] = {
	{"setup", bench_setup},
	{"latency", bench_latency},
	{"bandwidth", bench_bandwidth},
};
#define SECTION_COUNT (sizeof sections / sizeof sections[0])

static volatile sig_atomic_t interrupted;

static void on_signal(int number)
{
	if (interrupted)
		_exit(128 + number);
	interrupted = 1;
}

bool bench_interrupted(void)
{
	if (interrupted)
		cli_error("bench: interrupted");
	return interrupted != 0;
}

int bench_connect(struct bench *bench, const struct srdma_conn_options *options, struct srdma_conn **conn)
{
	struct srdma_conn_options client = *options;
	int ret;

	client.region_size = 0;
	ret = srdma_conn_connect(bench->settings.host, bench->settings.port, bench->context, bench->device, &client, conn);
	return ret < 0 ? cli_fail(ret, "connect") : CLI_EXIT_OK;
}

int bench_disconnect(struct srdma_conn **conn)
{
	int ret = srdma_conn_disconnect(*conn, NULL, SRDMA_DEFAULT_TIMEOUT), code = CLI_EXIT_OK;

	if (ret < 0)
		code = cli_fail(ret, "disconnect");
	srdma_conn_free(conn);
	return code;
}

/* Reads --sizes with the option's own parser, one after the other. */
static int read_sizes(struct bench *bench)
{
	static const struct option number = {.type = OPTION_SIZE, .min = 1, .max = 1 << 30};
	char *rest = bench->sizes, *word;
	char allowed[128];
	int64_t size;

	while (rest && (word = strsep(&rest, ",")) != NULL) {
		if (bench->size_count == BENCH_MAX_SIZES)
			return cli_usage("bench", "--sizes: give at most %d sizes", BENCH_MAX_SIZES);
		if (option_set(&number, &size, word, allowed, sizeof allowed) < 0)
			return cli_usage("bench", "--sizes: '%s' is not valid; allowed: %s", word, allowed);
		bench->size_list[bench->size_count++] = (size_t)size;
	}
	return CLI_EXIT_OK;
}

/* Turns --only into a mask of sections. */
static int read_only(struct bench *bench, unsigned *mask)
{
	char *rest = bench->only, *word;

	*mask = bench->only ? 0 : ~0U;
	while (rest && (word = strsep(&rest, ",")) != NULL) {
		size_t i = 0;

		while (i < SECTION_COUNT && strcmp(word, sections[i].name) != 0)
			i++;
		if (i == SECTION_COUNT)
			return cli_usage("bench", "--only: '%s' is not valid; allowed: setup, latency, bandwidth",
					 word);
		*mask |= 1U << i;
	}
	return CLI_EXIT_OK;
}

static int set_up(struct bench *bench, const char *target)
{
	struct settings *settings = &bench->settings;
	int ret;

	if (target && settings_set_target(settings, target) < 0)
		return cli_usage("bench", "'%s' is not HOST, HOST:PORT or [ADDRESS]:PORT", target);
	if (target && !settings->client_tls.ca_file && !settings->client_tls.pin)
		return cli_usage("bench", "give --ca or --pin, to verify the server with");
	ret = srdma_device_open(&settings->device, &bench->device);
	if (ret < 0) {
		cli_fail(ret, "RDMA device");
		return ret == -EINVAL ? CLI_EXIT_USAGE : CLI_EXIT_DEVICE;
	}
	if (!target)
		return bench_local_new(bench);
	ret = credentials_client(settings, &bench->context);
	if (ret < 0)
		cli_fail(ret, "client credentials");
	return ret < 0 ? CLI_EXIT_USAGE : CLI_EXIT_OK;
}

static int run(struct bench *bench, const char *target)
{
	struct sigaction action = {.sa_handler = on_signal};
	unsigned mask = 0;
	int code;

	code = read_sizes(bench);
	if (code == CLI_EXIT_OK)
		code = read_only(bench, &mask);
	if (code != CLI_EXIT_OK)
		return code;
	sigaction(SIGINT, &action, NULL);
	sigaction(SIGTERM, &action, NULL);
	code = set_up(bench, target);
	if (code == CLI_EXIT_OK && bench->settings.json)
		bench->result = json_pack("{s:s, s:b}", "device", srdma_device_name(bench->device), "in_process",
					  target == NULL);
	for (size_t i = 0; i < SECTION_COUNT && code == CLI_EXIT_OK; i++)
		if (mask & (1U << i))
			code = sections[i].run(bench);
	if (code == CLI_EXIT_OK && bench->result)
		cli_json_print(json_incref(bench->result));
	json_decref(bench->result);
	srdma_tls_context_unref(&bench->context);
	bench_local_delete(bench);
	srdma_device_unref(&bench->device);
	return code;
}

int cmd_bench(int argc, char **argv)
{
	struct bench bench = {.connections = 50, .iterations = 1000};
	const char *target = NULL;
	struct command_line line = {
		.name = "bench",
		.command = FOR_BENCH,
		.synopsis = "[OPTION...] [HOST[:PORT]]",
		.about = about,
		.details = details,
		.options = bench_options,
		.option_count = BENCH_OPTION_COUNT,
		.values = &bench,
		.settings = &bench.settings,
		.operands = &target,
		.max_operands = 1,
	};
	int code;

	settings_init(&bench.settings);
	bench.settings.conn.spin = -1;
	if (command_line_parse(&line, argc, argv, &code))
		code = run(&bench, target);
	options_free(bench_options, BENCH_OPTION_COUNT, &bench);
	settings_free(&bench.settings);
	return code;
}
