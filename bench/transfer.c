/* SPDX-License-Identifier: Apache-2.0 */
/* How fast a connection carries data, and what it costs: two processes, a server with a region of 64 MiB and a client.
 * usage: transfer write|read|messages|latency --host ADDRESS [--seal] [--seal-threads N] [--size N] [--seconds S] [--count N]
 *   [--renew-ms N]
 * write, read: RDMA writes or reads of N bytes, 16 in flight. messages: one way, as fast as they are taken. latency: COUNT
 * messages, each as soon as the one before is echoed. ADDRESS: an address of the RDMA device. --seal: sealed at both ends.
 * --renew-ms: asks for new PSNs that often, and tells how long each pause was. Prints a line of JSON; times and CPU seconds do not
 * cover the set-up, nor a first pass over all memory: a page's first use costs as much as many transfers, and a device that pins
 * memory has it in the set-up. Exit status 77: this build cannot seal. */
#include <securdma_cert.h>

#include <errno.h>
#include <getopt.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { REGION = 64 << 20, DEPTH = 16, WARM_UP = 200, SAMPLES_MAX = 1 << 20, CHECKED = 64 };

static struct {
	enum { WRITE, READ, MESSAGES, LATENCY } mode;
	const char *host;
	bool seal;
	size_t size;
	double seconds;
	unsigned count;
	int renew_ms;
	unsigned seal_threads;
	char cert[64], key[64], folder[32];
} transfer = {.size = 65536, .seconds = 1, .count = 10000};

/* Through it the server's process tells its port. */
static int server_pipe[2];
static pid_t server;

__attribute__((noreturn)) static void die(const char *what)
{
	fprintf(stderr, "transfer: %s: %s\n", what, srdma_error_text());
	exit(1);
}

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

/* Seconds of processor that a process has used; 0: this one. */
static double cpu(pid_t pid)
{
	struct timespec t;
	clockid_t clock;

	if (clock_getcpuclockid(pid, &clock) != 0 || clock_gettime(clock, &t) != 0) {
		fprintf(stderr, "transfer: the processor time of process %d can't be read\n", pid);
		exit(1);
	}
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static struct srdma_conn_options conn_options(void)
{
	struct srdma_conn_options options;

	srdma_conn_options_init(&options);
	options.rdma_depth = DEPTH;
	options.depth = DEPTH;
	if (transfer.mode == MESSAGES || transfer.mode == LATENCY)
		options.message_size = transfer.size < 64 ? 64 : (uint32_t)transfer.size;
	options.seal = transfer.seal ? SRDMA_SEAL_REQUIRED : SRDMA_SEAL_OFF;
	options.seal_threads = transfer.seal_threads;
	return options;
}

static struct srdma_device *open_device(void)
{
	struct srdma_device_options options;
	struct srdma_device *device;

	srdma_device_options_init(&options);
	if (srdma_device_open(&options, &device) != 0)
		die("device");
	return device;
}

/* ---- server ---------------------------------------------------------------------------------------------------- */

static struct srdma_conn *accept_one(struct srdma_tls_context *context, struct srdma_device *device)
{
	struct srdma_conn_options options = conn_options();
	struct srdma_listener *listener;
	struct srdma_conn *conn;
	uint16_t port;
	int socket;

	options.region_size = REGION;
	if (srdma_listener_listen(transfer.host, "0", &listener) != 0)
		die("listen");
	port = srdma_listener_port(listener);
	if (write(server_pipe[1], &port, sizeof port) != sizeof port)
		die("pipe");
	socket = srdma_listener_accept(listener, 10000);
	if (socket < 0 || srdma_conn_accept(socket, context, device, &options, NULL, NULL, &conn) != 0)
		die("accept");
	srdma_listener_free(&listener);
	return conn;
}

static int serve_messages(struct srdma_conn *conn)
{
	size_t size = transfer.size < 64 ? 64 : transfer.size, length;
	char *message = malloc(size);
	int ret = 0;

	while (message && ret == 0) {
		ret = srdma_conn_recv(conn, message, size, &length, SRDMA_DEFAULT_TIMEOUT);
		if (ret == -ETIMEDOUT)
			ret = 0;
		else if (ret == 0 && transfer.mode == LATENCY)
			ret = srdma_conn_send(conn, message, length, SRDMA_DEFAULT_TIMEOUT);
	}
	free(message);
	return ret;
}

static int serve(void)
{
	struct srdma_device *device = open_device();
	struct srdma_tls_server_options tls;
	struct srdma_tls_context *context;
	struct srdma_conn *conn;
	int ret;

	srdma_tls_server_options_init(&tls);
	tls.cert_file = transfer.cert;
	tls.key_file = transfer.key;
	tls.insecure_anonymous_clients = true;
	if (srdma_tls_server_new(&tls, &context) != 0)
		die("TLS");
	conn = accept_one(context, device);
	ret = serve_messages(conn);
	if (ret != SRDMA_ECLOSED)
		die("serve");
	srdma_conn_free(&conn);
	srdma_device_unref(&device);
	srdma_tls_context_unref(&context);
	return 0;
}

/* ---- client ---------------------------------------------------------------------------------------------------- */

struct samples {
	double *values;
	size_t count;
};

static void note(struct samples *samples, double value)
{
	if (!samples->values)
		samples->values = calloc(SAMPLES_MAX, sizeof *samples->values);
	if (!samples->values)
		die("memory");
	if (samples->count < SAMPLES_MAX)
		samples->values[samples->count++] = value;
}

static int by_value(const void *a, const void *b)
{
	const double *x = a, *y = b;

	return (*x > *y) - (*x < *y);
}

static void tell(const char *name, struct samples *samples)
{
	if (samples->count == 0)
		return;
	qsort(samples->values, samples->count, sizeof *samples->values, by_value);
	printf(", \"%ss\": %zu, \"%s_p50_us\": %.2f, \"%s_p99_us\": %.2f, \"%s_max_us\": %.2f", name, samples->count, name,
	       samples->values[samples->count / 2], name, samples->values[samples->count * 99 / 100], name,
	       samples->values[samples->count - 1]);
	free(samples->values);
}

/* Each of them: those of several runs make one distribution. */
static void list(const char *name, const struct samples *samples)
{
	printf(", \"%ss_us\": [", name);
	for (size_t i = 0; i < samples->count; i++)
		printf("%s%.0f", i > 0 ? ", " : "", samples->values[i]);
	printf("]");
}

static struct samples pauses, turns;

/* Asks for new PSNs when it is time to, and notes how long the change before took. */
static void renew_now_and_then(struct srdma_conn *conn)
{
	static double last;
	static uint32_t epoch;
	struct srdma_conn_info info;

	if (transfer.renew_ms == 0)
		return;
	if (last == 0)
		last = now();
	if (now() - last < transfer.renew_ms / 1e3)
		return;
	last = now();
	srdma_conn_get_info(conn, &info);
	if (info.epoch != epoch)
		note(&pauses, (double)info.pause_us);
	epoch = info.epoch;
	if (srdma_conn_renew(conn) != 0)
		die("renew");
}

static int post(struct srdma_conn *conn, bool write, struct srdma_buffer *buffer, uint64_t number)
{
	size_t from = number % DEPTH * transfer.size;
	uint64_t to = number % (REGION / transfer.size) * transfer.size;

	return write ? srdma_conn_post_write(conn, buffer, from, transfer.size, to, number)
		     : srdma_conn_post_read(conn, buffer, from, transfer.size, to, number);
}

/* At most `count`, and none that would begin after `until`. Returns how many there were. */
static uint64_t move(struct srdma_conn *conn, bool write, struct srdma_buffer *buffer, uint64_t count, double until)
{
	uint64_t posted = 0, ended = 0, cookies[DEPTH];

	while (ended < posted || (posted < count && now() < until)) {
		int ret = 0;

		while (ret == 0 && posted < ended + DEPTH && posted < count && now() < until) {
			ret = post(conn, write, buffer, posted);
			posted += ret == 0;
		}
		if (ret != 0 && ret != -EAGAIN)
			die("post");
		if (ended == posted)
			continue;
		ret = srdma_conn_complete(conn, cookies, DEPTH, SRDMA_DEFAULT_TIMEOUT);
		if (ret < 0)
			die("complete");
		ended += (unsigned)ret;
		renew_now_and_then(conn);
	}
	return ended;
}

static struct {
	double began, took, cpu[2]; /* seconds; of the client and of the server */
} measured;

static void begin(void)
{
	measured.cpu[0] = cpu(0);
	measured.cpu[1] = cpu(server);
	measured.began = now();
}

static void end(void)
{
	measured.took = now() - measured.began;
	measured.cpu[0] = cpu(0) - measured.cpu[0];
	measured.cpu[1] = cpu(server) - measured.cpu[1];
}

static uint64_t run_one_sided(struct srdma_conn *conn)
{
	struct srdma_buffer *buffer;
	uint64_t count;

	if (srdma_buffer_new(conn, NULL, DEPTH * transfer.size, &buffer) != 0)
		die("buffer");
	memset(srdma_buffer_data(buffer), 0x5a, DEPTH * transfer.size);
	move(conn, true, buffer, REGION / transfer.size, INFINITY);
	move(conn, transfer.mode == WRITE, buffer, DEPTH, INFINITY);
	begin();
	count = move(conn, transfer.mode == WRITE, buffer, UINT64_MAX, now() + transfer.seconds);
	end();
	srdma_buffer_free(&buffer);
	return count * transfer.size;
}

/* The written bytes are there. */
static void check_written(struct srdma_conn *conn)
{
	char found[CHECKED], expected[CHECKED];

	memset(expected, 0x5a, sizeof expected);
	if (srdma_conn_read(conn, found, sizeof found, 0, SRDMA_DEFAULT_TIMEOUT) != 0)
		die("read");
	if (memcmp(found, expected, sizeof found) != 0) {
		fprintf(stderr, "transfer: the region does not have what was written\n");
		exit(1);
	}
}

static uint64_t send_messages(struct srdma_conn *conn, const char *message, uint64_t count, double until)
{
	uint64_t sent = 0;

	for (; sent < count && now() < until; sent++) {
		if (srdma_conn_send(conn, message, transfer.size, SRDMA_DEFAULT_TIMEOUT) != 0)
			die("send");
		renew_now_and_then(conn);
	}
	return sent;
}

static uint64_t run_messages(struct srdma_conn *conn)
{
	char *message = malloc(transfer.size);
	uint64_t sent;

	if (!message)
		die("memory");
	memset(message, 0x5a, transfer.size);
	send_messages(conn, message, WARM_UP, INFINITY);
	begin();
	sent = send_messages(conn, message, UINT64_MAX, now() + transfer.seconds);
	/* Back when the peer has taken all of them. */
	if (srdma_conn_disconnect(conn, NULL, SRDMA_DEFAULT_TIMEOUT) != 0)
		die("disconnect");
	end();
	free(message);
	return sent * transfer.size;
}

static uint64_t run_latency(struct srdma_conn *conn)
{
	char *message = calloc(1, transfer.size);
	size_t length;

	for (unsigned i = 0; message && i < transfer.count + WARM_UP; i++) {
		double began = now();

		if (i == WARM_UP)
			begin();
		if (srdma_conn_send(conn, message, transfer.size, SRDMA_DEFAULT_TIMEOUT) != 0 ||
		    srdma_conn_recv(conn, message, transfer.size, &length, SRDMA_DEFAULT_TIMEOUT) != 0)
			die("echo");
		if (i >= WARM_UP)
			note(&turns, (now() - began) * 1e6);
		renew_now_and_then(conn);
	}
	end();
	free(message);
	return (uint64_t)transfer.count * transfer.size;
}

static struct srdma_conn *connect_to_server(struct srdma_tls_context **context, struct srdma_device **device)
{
	struct srdma_conn_options options = conn_options();
	struct srdma_tls_client_options tls;
	struct srdma_cert_info cert;
	struct srdma_conn *conn;
	uint16_t port;
	char text[8];

	if (read(server_pipe[0], &port, sizeof port) != sizeof port)
		exit(1); /* the server has said why */
	snprintf(text, sizeof text, "%u", port);
	srdma_tls_client_options_init(&tls);
	if (srdma_cert_read(transfer.cert, &cert) != 0)
		die("certificate");
	tls.pin = cert.pin;
	*device = open_device();
	if (srdma_tls_client_new(&tls, context) != 0 || srdma_conn_connect(transfer.host, text, *context, *device, &options, &conn) != 0)
		die("connect");
	return conn;
}

/* By the client's own thread, and by each of its seal threads. */
static void tell_seal_bytes(const struct srdma_conn *conn)
{
	uint64_t bytes[65];
	unsigned count = srdma_conn_seal_bytes(conn, bytes, 65);

	for (unsigned i = 0; i < count && i < 65; i++)
		printf("%s%llu%s", i > 0 ? ", " : ", \"seal_bytes\": [", (unsigned long long)bytes[i], i + 1 == count ? "]" : "");
}

static void run_client(void)
{
	static const char *const modes[] = {"write", "read", "messages", "latency"};
	struct srdma_tls_context *context;
	struct srdma_device *device;
	struct srdma_conn *conn = connect_to_server(&context, &device);
	uint64_t bytes = transfer.mode == LATENCY    ? run_latency(conn)
			 : transfer.mode == MESSAGES ? run_messages(conn)
						     : run_one_sided(conn);

	if (transfer.mode == WRITE && bytes > 0)
		check_written(conn);
	if (transfer.mode != MESSAGES && srdma_conn_disconnect(conn, NULL, SRDMA_DEFAULT_TIMEOUT) != 0)
		die("disconnect");
	printf("{\"mode\": \"%s\", \"seal\": %s, \"size\": %zu, \"seconds\": %.4f, \"bytes\": %llu, \"mb_per_s\": %.2f, "
	       "\"cpu_seconds\": [%.4f, %.4f]",
	       modes[transfer.mode], transfer.seal ? "true" : "false", transfer.size, measured.took,
	       (unsigned long long)bytes, (double)bytes / measured.took / 1e6, measured.cpu[0], measured.cpu[1]);
	tell_seal_bytes(conn);
	if (pauses.count > 0)
		list("pause", &pauses);
	tell("turn", &turns);
	tell("pause", &pauses);
	puts("}");
	srdma_conn_free(&conn);
	srdma_device_unref(&device);
	srdma_tls_context_unref(&context);
}

/* ---- both ------------------------------------------------------------------------------------------------------ */

/* A self-signed certificate, which the client knows by its pin. */
static void make_certificate(void)
{
	const char *names[] = {transfer.host};
	struct srdma_cert_request request;

	srdma_cert_request_init(&request);
	request.kind = SRDMA_CERT_SELF_SIGNED;
	request.common_name = "transfer";
	request.names = names;
	request.name_count = 1;
	request.days = 1;
	request.cert_file = transfer.cert;
	request.key_file = transfer.key;
	snprintf(transfer.folder, sizeof transfer.folder, "/tmp/transfer.XXXXXX");
	if (!mkdtemp(transfer.folder)) {
		perror("transfer: a folder for the certificate");
		exit(1);
	}
	snprintf(transfer.cert, sizeof transfer.cert, "%s/cert", transfer.folder);
	snprintf(transfer.key, sizeof transfer.key, "%s/key", transfer.folder);
	if (srdma_cert_make(&request) != 0)
		die("certificate");
}

static void remove_certificate(void)
{
	unlink(transfer.cert);
	unlink(transfer.key);
	rmdir(transfer.folder);
}

static bool parse(int argc, char **argv)
{
	static const char *const modes[] = {"write", "read", "messages", "latency"};
	static const struct option options[] = {{"host", 1, NULL, 'h'},    {"size", 1, NULL, 's'},  {"seconds", 1, NULL, 't'},
						{"count", 1, NULL, 'c'},   {"renew-ms", 1, NULL, 'r'}, {"seal", 0, NULL, 'x'}, {"seal-threads", 1, NULL, 'w'},
						{NULL, 0, NULL, 0}};
	int option;

	while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
		switch (option) {
		case 'h': transfer.host = optarg; break;
		case 's': transfer.size = strtoul(optarg, NULL, 10); break;
		case 't': transfer.seconds = strtod(optarg, NULL); break;
		case 'c': transfer.count = (unsigned)strtoul(optarg, NULL, 10); break;
		case 'r': transfer.renew_ms = atoi(optarg); break;
		case 'x': transfer.seal = true; break;
		case 'w': transfer.seal_threads = (unsigned)strtoul(optarg, NULL, 10); break;
		default: return false;
		}
	}
	if (optind != argc - 1 || !transfer.host || transfer.size < 1 || transfer.size > 1 << 20 || transfer.renew_ms < 0)
		return false;
	for (unsigned i = 0; i < sizeof modes / sizeof *modes; i++) {
		transfer.mode = i;
		if (strcmp(argv[optind], modes[i]) == 0)
			return true;
	}
	return false;
}

int main(int argc, char **argv)
{
	int status = 1;

	if (!parse(argc, argv)) {
		fprintf(stderr, "usage: transfer write|read|messages|latency --host ADDRESS [--seal] [--size N] [--seconds S] "
				"[--count N] [--renew-ms N]\n");
		return 2;
	}
	make_certificate();
	/* Before the device is opened: its threads and mappings do not survive a fork. */
	if (pipe(server_pipe) != 0 || (server = fork()) < 0) {
		perror("transfer");
		return 1;
	}
	if (server == 0) {
		close(server_pipe[0]);
		return serve();
	}
	close(server_pipe[1]);
	atexit(remove_certificate);
	run_client();
	return waitpid(server, &status, 0) == server && status == 0 ? 0 : 1;
}
