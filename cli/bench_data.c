/* SPDX-License-Identifier: Apache-2.0 */
/* Latency and bandwidth over one connection. */
#include "bench.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#define WARM_UP           100
#define SEAL_THREADS_MAX  64
#define LONGEST_NS        5000000000 /* per bandwidth figure */
#define SEND_MESSAGE_SIZE 65536

static const size_t latency_sizes[] = {64, 256, 1024, 4096};
static const size_t bandwidth_sizes[] = {4096, 65536, 1048576};

/* A connection with room to work in. */
struct line {
	struct bench *bench;
	struct srdma_conn *conn;
	struct srdma_conn_info info;
	char *data;
	size_t size; /* of data */
};

static const size_t *sizes_of(const struct bench *bench, const size_t *own, size_t own_count, size_t *count)
{
	*count = bench->size_count ? bench->size_count : own_count;
	return bench->size_count ? bench->size_list : own;
}

static size_t largest(const size_t *sizes, size_t count)
{
	size_t size = 0;

	for (size_t i = 0; i < count; i++)
		if (sizes[i] > size)
			size = sizes[i];
	return size;
}

static int fail(int error, const char *what)
{
	return cli_fail(error, "bench: %s", what);
}

static int open_line(struct line *line, struct bench *bench, const struct srdma_conn_options *options, size_t region)
{
	int code = CLI_EXIT_OK;

	*line = (struct line){.bench = bench, .size = options->message_size + SRDMA_ECHO_OVERHEAD};
	line->data = calloc(1, line->size);
	if (!line->data)
		return fail(-ENOMEM, "buffer");
	if (bench->local) {
		struct srdma_conn_options server = *options;

		server.region_size = region;
		code = bench_local_start(bench, &server);
	}
	if (code == CLI_EXIT_OK)
		code = bench_connect(bench, options, &line->conn);
	if (code == CLI_EXIT_OK)
		srdma_conn_get_info(line->conn, &line->info);
	return code;
}

static int close_line(struct line *line, int code)
{
	int end = line->conn && code == CLI_EXIT_OK ? bench_disconnect(&line->conn) : CLI_EXIT_OK;

	srdma_conn_free(&line->conn);
	bench_local_stop(line->bench);
	free(line->data);
	return code == CLI_EXIT_OK ? end : code;
}

/* The longest message that can also come back. */
static size_t message_limit(const struct line *line)
{
	size_t overhead = line->bench->local ? 0 : SRDMA_ECHO_OVERHEAD;

	return line->info.message_size > overhead ? line->info.message_size - overhead : 0;
}

/* The i-th size, or 0 to leave it out because the connection does not allow it. When nobody asked for just these sizes,
 * the limit takes the place of the first one beyond it. */
static size_t usable(const struct line *line, const char *operation, const size_t *sizes, size_t i, size_t limit)
{
	if (sizes[i] <= limit)
		return sizes[i];
	if (line->bench->size_count == 0)
		return i == 0 || sizes[i - 1] < limit ? limit : 0;
	cli_error("bench: skipped %s of %zu byte%s: the connection allows %zu at most", operation, sizes[i],
		  CLI_S(sizes[i]), limit);
	return 0;
}

static int ping_pong(struct line *line, size_t size, struct samples *samples)
{
	uint64_t start;
	size_t length;
	int ret = 0;

	for (int64_t i = -WARM_UP; i < line->bench->iterations; i++) {
		line->data[0] = BENCH_ECHO;
		start = samples_now();
		ret = srdma_conn_send(line->conn, line->data, size, SRDMA_DEFAULT_TIMEOUT);
		if (ret == 0)
			ret = srdma_conn_recv(line->conn, line->data, line->size, &length, SRDMA_DEFAULT_TIMEOUT);
		if (ret < 0)
			return fail(ret, "ping-pong");
		if (i >= 0)
			samples_add(samples, (samples_now() - start) / 2);
		if (i % 256 == 0 && bench_interrupted())
			return CLI_EXIT_FAILED;
	}
	return CLI_EXIT_OK;
}

static int latency_of(struct line *line, size_t size, json_t *list)
{
	struct samples samples;
	int code;

	if (samples_init(&samples, (size_t)line->bench->iterations) < 0)
		return fail(-ENOMEM, "latency");
	code = ping_pong(line, size, &samples);
	if (code == CLI_EXIT_OK && list)
		json_array_append_new(list, json_pack("{s:s, s:I, s:I, s:f, s:f}", "operation", "send", "size",
						      (json_int_t)size, "iterations", (json_int_t)samples.count,
						      "p50_us", samples_percentile(&samples, 50), "p99_us",
						      samples_percentile(&samples, 99)));
	else if (code == CLI_EXIT_OK)
		printf("  %-6s %10zu %12zu %10.2f %10.2f\n", "send", size, samples.count,
		       samples_percentile(&samples, 50), samples_percentile(&samples, 99));
	fflush(stdout);
	samples_free(&samples);
	return code;
}

int bench_latency(struct bench *bench)
{
	size_t count;
	const size_t *sizes = sizes_of(bench, latency_sizes, sizeof latency_sizes / sizeof latency_sizes[0], &count);
	json_t *list = bench->result ? json_array() : NULL;
	struct srdma_conn_options options;
	struct srdma_qp_options qp;
	struct line line;
	size_t size;
	int code;

	settings_conn_options(&bench->settings, &options, &qp);
	if (options.message_size < largest(sizes, count))
		options.message_size = (uint32_t)largest(sizes, count);
	code = open_line(&line, bench, &options, 0);
	if (code == CLI_EXIT_OK && !list)
		printf("latency, half a round trip, microseconds (spin %d)\n  %-6s %10s %12s %10s %10s\n", options.spin,
		       "", "bytes", "iterations", "p50", "p99");
	for (size_t i = 0; i < count && code == CLI_EXIT_OK; i++)
		if ((size = usable(&line, "send", sizes, i, message_limit(&line))) > 0)
			code = latency_of(&line, size, list);
	if (list)
		json_object_set_new(bench->result, "latency", list);
	return close_line(&line, code);
}

/* Sends `count` messages; a server elsewhere echoes each, so then up to `depth` of them are on their way. */
static int send_some(struct line *line, size_t size, uint64_t *count)
{
	uint64_t start = samples_now(), sent = 0, received = 0, echoed = line->bench->local ? 0 : *count;
	uint64_t depth = line->info.depth;
	size_t length;
	int ret = 0;

	line->data[0] = BENCH_DROP;
	while ((sent < *count || received < echoed) && ret == 0) {
		if (sent < *count && (!echoed || sent - received < depth)) {
			ret = srdma_conn_send(line->conn, line->data, size, SRDMA_DEFAULT_TIMEOUT);
			sent += ret == 0;
		} else {
			ret = srdma_conn_recv(line->conn, line->data, line->size, &length, SRDMA_DEFAULT_TIMEOUT);
			received += ret == 0;
			line->data[0] = BENCH_DROP;
		}
		if (sent % 64 == 0 && samples_now() - start > LONGEST_NS && sent < *count) {
			*count = sent;
			echoed = echoed ? sent : 0;
		}
	}
	if (ret == 0 && line->bench->local) {
		line->data[0] = BENCH_LAST;
		ret = srdma_conn_send(line->conn, line->data, 1, SRDMA_DEFAULT_TIMEOUT);
		if (ret == 0)
			ret = srdma_conn_recv(line->conn, line->data, line->size, &length, SRDMA_DEFAULT_TIMEOUT);
	}
	return ret;
}

typedef int post_fn(struct srdma_conn *conn, struct srdma_buffer *buffer, size_t buffer_offset, size_t length,
		    uint64_t offset, uint64_t cookie);

/* Keeps the queue full until `count` operations have completed, or time is up: *count is then how many there were. */
static int post_some(struct line *line, post_fn *post, struct srdma_buffer *buffer, size_t size, uint64_t *count)
{
	uint64_t start = samples_now(), posted = 0, done = 0, cookies[64];
	int ret;

	while (done < *count) {
		while (posted < *count) {
			ret = post(line->conn, buffer, 0, size, 0, posted);
			if (ret == -EAGAIN)
				break;
			if (ret < 0)
				return ret;
			posted++;
		}
		ret = srdma_conn_complete(line->conn, cookies, 64, SRDMA_DEFAULT_TIMEOUT);
		if (ret < 0)
			return ret;
		done += (uint64_t)ret;
		if (posted < *count && samples_now() - start > LONGEST_NS)
			*count = posted;
	}
	return 0;
}

static int run_some(struct line *line, post_fn *post, struct srdma_buffer *buffer, size_t size, uint64_t *count)
{
	return post ? post_some(line, post, buffer, size, count) : send_some(line, size, count);
}

/* Measures one figure; post NULL: messages. */
static int bandwidth_of(struct line *line, const char *operation, post_fn *post, struct srdma_buffer *buffer, size_t size, json_t *list)
{
	uint64_t warm_up = 32, count = (uint64_t)line->bench->iterations, start, elapsed;
	double rate;
	int ret;

	if (bench_interrupted())
		return CLI_EXIT_FAILED;
	ret = run_some(line, post, buffer, size, &warm_up);
	start = samples_now();
	if (ret == 0)
		ret = run_some(line, post, buffer, size, &count);
	elapsed = samples_now() - start;
	if (ret < 0)
		return fail(ret, operation);
	rate = (double)count * (double)size * 1e9 / (double)elapsed / (1 << 20);
	if (list)
		json_array_append_new(list, json_pack("{s:s, s:I, s:I, s:f, s:f}", "operation", operation, "size",
						      (json_int_t)size, "iterations", (json_int_t)count, "mib_per_s",
						      rate, "operations_per_s", (double)count * 1e9 / (double)elapsed));
	else
		printf("  %-6s %10zu %12llu %12.1f %14.0f\n", operation, size, (unsigned long long)count, rate,
		       (double)count * 1e9 / (double)elapsed);
	fflush(stdout);
	return CLI_EXIT_OK;
}

static int bandwidth_rows(struct line *line, const char *operation, post_fn *post, struct srdma_buffer *buffer,
			  const size_t *sizes, size_t count, size_t limit, json_t *list)
{
	int code = CLI_EXIT_OK;
	size_t size;

	for (size_t i = 0; i < count && code == CLI_EXIT_OK; i++)
		if ((size = usable(line, operation, sizes, i, limit)) > 0)
			code = bandwidth_of(line, operation, post, buffer, size, list);
	return code;
}

static int bandwidth_table(struct line *line, const size_t *sizes, size_t count, json_t *list)
{
	size_t region = line->info.peer_region_size, room = largest(sizes, count);
	struct srdma_buffer *buffer = NULL;
	int code, ret;

	if (room > region)
		room = region;
	ret = room > 0 ? srdma_buffer_new(line->conn, NULL, room, &buffer) : 0;
	if (ret < 0)
		return fail(ret, "buffer");
	code = bandwidth_rows(line, "send", NULL, NULL, sizes, count, message_limit(line), list);
	if (code == CLI_EXIT_OK)
		code = bandwidth_rows(line, "write", srdma_conn_post_write, buffer, sizes, count, region, list);
	if (code == CLI_EXIT_OK)
		code = bandwidth_rows(line, "read", srdma_conn_post_read, buffer, sizes, count, region, list);
	srdma_buffer_free(&buffer);
	return code;
}

/* How the work was shared among the threads of --seal-threads. */
static void tell_seal_bytes(struct bench *bench, const struct line *line)
{
	uint64_t bytes[1 + SEAL_THREADS_MAX];
	unsigned count = srdma_conn_seal_bytes(line->conn, bytes, 1 + SEAL_THREADS_MAX);
	json_t *list = bench->result && count > 0 ? json_array() : NULL;

	if (count > 0 && !list)
		printf("sealed and opened by this end (MiB)\n  own thread %.0f", (double)bytes[0] / 1048576);
	for (unsigned i = 0; i < count && i <= SEAL_THREADS_MAX; i++) {
		if (list)
			json_array_append_new(list, json_integer((json_int_t)bytes[i]));
		else if (i > 0)
			printf(", seal thread %u %.0f", i, (double)bytes[i] / 1048576);
	}
	if (count > 0 && !list)
		putchar('\n');
	if (list)
		json_object_set_new(bench->result, "seal_bytes", list);
}

int bench_bandwidth(struct bench *bench)
{
	size_t count;
	const size_t *sizes = sizes_of(bench, bandwidth_sizes, sizeof bandwidth_sizes / sizeof bandwidth_sizes[0], &count);
	json_t *list = bench->result ? json_array() : NULL;
	struct srdma_conn_options options;
	struct srdma_qp_options qp;
	struct line line;
	int code;

	settings_conn_options(&bench->settings, &options, &qp);
	if (options.message_size < SEND_MESSAGE_SIZE)
		options.message_size = SEND_MESSAGE_SIZE;
	code = open_line(&line, bench, &options, largest(sizes, count));
	if (code == CLI_EXIT_OK && !list)
		printf("bandwidth (message depth %u, RDMA depth %u%s)\n  %-6s %10s %12s %12s %14s\n", line.info.depth,
		       line.info.rdma_depth, bench->local ? "" : "; sends are echoed", "", "bytes", "iterations",
		       "MiB/s", "operations/s");
	if (code == CLI_EXIT_OK)
		code = bandwidth_table(&line, sizes, count, list);
	if (list)
		json_object_set_new(bench->result, "bandwidth", list);
	if (code == CLI_EXIT_OK)
		tell_seal_bytes(bench, &line);
	return close_line(&line, code);
}
