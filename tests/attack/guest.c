/* SPDX-License-Identifier: Apache-2.0 */
/* A client of securdma with a valid certificate, for what the command does not do: use up PSNs, load the server,
 * measure.
 * The variable GUEST_DEVICE names the device.
 *
 * guest FOLDER NAME HOST PORT [--mtu N] [--seal [--seal-threads N]] [--no-epochs] [--recoveries N]
 *     FOLDER/ca.crt, FOLDER/NAME.crt, FOLDER/NAME.key
 * Commands on standard input: send TEXT (and awaits its echo); tell TEXT (awaits nothing); many COUNT (long numbered messages, with
 * --seal-threads; awaits nothing); spend PSNS (by writes of the
 * server's region); drain PSNS (by reads); flood MS (writes as fast as they go); ping MS (echoes one by one: their latency); renew MS (new PSNs
 * again and again); kill TIMES (its own queue pair, with an echo after each); count N (that many numbered echoes, one by
 * one: each must come once, and in its turn); write BYTES, read BYTES (of known content); watch MS (the present epoch, and each one
 * that comes in that time: what an attacker would like to know of it). Events on standard output, each
 * a line of JSON; what the library logs is among them.
 * guest FOLDER NAME listen PORT [the same]        a server: shows what comes, see guest_host.c */
#include "guest.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { MESSAGE = 1024, SAMPLES = 1 << 20, IN_FLIGHT = 8, WAIT_MS = 30000, LINE = 32 };
#define LIMIT_NS 240000000000u

struct guest {
	struct srdma_conn *conn;
	struct srdma_buffer *buffer;
	size_t region; /* of the peer */
	uint32_t mtu;
};

static void print_record(const struct srdma_log_record *record, void *arg)
{
	(void)arg;
	fprintf(stderr, "guest: %s\n", record->text);
	if (strcmp(record->event, SRDMA_LOG_PLAIN) != 0)
		printf("{\"event\": \"log\", \"which\": \"%s\", \"security\": %s}\n", record->event, record->security ? "true" : "false");
}

void guest_check(int error, const char *doing)
{
	if (error == 0)
		return;
	printf("{\"event\": \"broken\", \"doing\": \"%s\", \"error\": %d}\n", doing, error);
	fprintf(stderr, "guest: %s: %s\n", doing, srdma_error_text());
	exit(1);
}

void guest_fill(unsigned char *bytes, size_t size)
{
	for (size_t at = 0; at < size; at += LINE) {
		char line[2 * LINE];

		snprintf(line, sizeof(line), "%s %015zu\n", GUEST_KNOWN, at);
		memcpy(bytes + at, line, size - at < LINE ? size - at : LINE);
	}
}

void guest_print_bytes(const unsigned char *bytes, size_t size)
{
	unsigned char *right = malloc(size);
	size_t known = 0, zero = 0;

	if (right == NULL)
		exit(2);
	guest_fill(right, size);
	for (size_t i = 0; i < size; i++) {
		known += bytes[i] == right[i];
		zero += bytes[i] == 0;
	}
	printf("\"known\": %zu, \"zero\": %zu, \"other\": %zu", known, zero, size - known - zero);
	free(right);
}

void guest_print_seal_bytes(const struct srdma_conn *conn)
{
	uint64_t bytes[65];
	unsigned count = srdma_conn_seal_bytes(conn, bytes, 65);

	printf(", \"seal_bytes\": [");
	for (unsigned i = 0; i < count; i++)
		printf("%s%llu", i > 0 ? ", " : "", (unsigned long long)bytes[i]);
	printf("]");
}

static uint64_t now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

static void echo(struct guest *guest, const char *text)
{
	char answer[MESSAGE + SRDMA_ECHO_OVERHEAD];
	size_t length;

	guest_check(srdma_conn_send(guest->conn, text, strlen(text), WAIT_MS), "send");
	guest_check(srdma_conn_recv(guest->conn, answer, sizeof(answer), &length, WAIT_MS), "recv");
}

/* As fast as they go, so that several arrive before the server's program takes the first. */
static void send_many(struct guest *guest, uint64_t count)
{
	unsigned char *bytes = malloc(GUEST_LONG);
	uint64_t sent = 0;
	int error = 0;

	if (bytes == NULL)
		exit(2);
	guest_fill(bytes, GUEST_LONG);
	for (; sent < count && error == 0; sent += error == 0) {
		char number[GUEST_NUMBER + 1];

		snprintf(number, sizeof(number), "number %03u", (unsigned)sent);
		memcpy(bytes, number, GUEST_NUMBER);
		error = srdma_conn_send(guest->conn, bytes, GUEST_LONG, WAIT_MS);
	}
	printf("{\"event\": \"sent\", \"count\": %llu, \"error\": %d}\n", (unsigned long long)sent, error);
	free(bytes);
}

static unsigned collect(struct guest *guest)
{
	uint64_t done[IN_FLIGHT];
	int n = srdma_conn_complete(guest->conn, done, IN_FLIGHT, WAIT_MS);

	guest_check(n < 0 ? n : 0, "write");
	return (unsigned)n;
}

static int post(struct guest *guest, bool read, uint64_t length)
{
	return read ? srdma_conn_post_read(guest->conn, guest->buffer, 0, length, 0, 0)
		    : srdma_conn_post_write(guest->conn, guest->buffer, 0, length, 0, 0);
}

/* Writes or reads of at most the region until `psns` are used up or it is `end`; returns the bytes. */
static uint64_t transfer_much(struct guest *guest, bool read, uint64_t psns, uint64_t end)
{
	uint64_t whole = guest->region / guest->mtu, bytes = 0;
	uint64_t limit = now_ns() + LIMIT_NS;
	unsigned waiting = 0;

	while ((psns > 0 && now_ns() < end) || waiting > 0) {
		uint64_t part = psns < whole ? psns : whole;
		int error = part > 0 && waiting < IN_FLIGHT && now_ns() < end
				    ? post(guest, read, part * guest->mtu)
				    : -EAGAIN;
		if (error == 0) {
			psns -= part;
			bytes += part * guest->mtu;
			waiting++;
		} else if (error == -EAGAIN && waiting > 0) {
			waiting -= collect(guest);
		} else if (error == -EAGAIN && now_ns() < limit) {
			srdma_conn_wait(guest->conn, 1); /* between two epochs nothing is taken */
		} else {
			guest_check(error, read ? "read" : "write");
		}
	}
	return bytes;
}

static int compare(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

	return x < y ? -1 : x > y;
}

static void ping(struct guest *guest, uint64_t ms)
{
	uint32_t *sample = calloc(SAMPLES, sizeof(*sample));
	uint64_t end = now_ns() + ms * 1000000;
	size_t count = 0;

	if (sample == NULL)
		exit(2);
	while (now_ns() < end && count < SAMPLES) {
		uint64_t began = now_ns();
		echo(guest, "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcde");
		sample[count++] = (uint32_t)((now_ns() - began) / 1000);
	}
	qsort(sample, count, sizeof(*sample), compare);
	printf("{\"event\": \"pinged\", \"count\": %zu, \"p50_us\": %u, \"p99_us\": %u, \"max_us\": %u}\n", count,
	       sample[count / 2], sample[count * 99 / 100], sample[count - 1]);
	free(sample);
}

/* How often the PSNs were drawn anew. */
static unsigned epoch(struct guest *guest)
{
	struct srdma_conn_info info;

	srdma_conn_get_info(guest->conn, &info);
	return info.epoch;
}

static void renew(struct guest *guest, uint64_t end)
{
	unsigned first = epoch(guest);

	while (now_ns() < end) {
		guest_check(srdma_conn_renew(guest->conn), "renew");
		srdma_conn_wait(guest->conn, 1);
	}
	echo(guest, "renewed");
	printf("{\"event\": \"renewed\", \"epochs\": %u}\n", epoch(guest) - first);
}

/* The server's QPN, and the PSN that it expects next. */
static void tell_epoch(const struct srdma_conn_info *info)
{
	printf("{\"event\": \"epoch\", \"epoch\": %u, \"recoveries\": %u, \"qpn\": %u, \"expected\": %u, \"at\": %.6f}\n",
	       info->epoch, info->recoveries, info->peer_qpn, (unsigned)((info->psn + info->epoch_psns) & 0xffffff),
	       (double)now_ns() / 1e9);
}

static void watch(struct guest *guest, uint64_t end)
{
	struct srdma_conn_info info;
	uint32_t told;

	srdma_conn_get_info(guest->conn, &info);
	tell_epoch(&info);
	for (told = info.epoch; now_ns() < end; told = info.epoch) {
		int ret = srdma_conn_wait(guest->conn, 10);

		guest_check(ret == -ETIMEDOUT ? 0 : ret, "wait");
		srdma_conn_get_info(guest->conn, &info);
		if (info.epoch != told)
			tell_epoch(&info);
	}
	puts("{\"event\": \"watched\"}");
}

static void kill_often(struct guest *guest, uint64_t times)
{
	struct ibv_qp_attr attr = {.qp_state = IBV_QPS_ERR};

	for (uint64_t i = 0; i < times; i++) {
		guest_check(-ibv_modify_qp(srdma_conn_qp(guest->conn), &attr, IBV_QP_STATE), "kill");
		echo(guest, "killed");
		puts("{\"event\": \"killed\"}");
	}
}

/* Whatever becomes of it, the buffer then shows what has reached it. */
static void transfer(struct guest *guest, bool write, size_t size)
{
	unsigned char *bytes = srdma_buffer_data(guest->buffer);
	uint64_t done;
	int error;

	memset(bytes, 0, guest->region);
	if (write)
		guest_fill(bytes, size);
	error = post(guest, !write, size);
	if (error == 0)
		error = srdma_conn_complete(guest->conn, &done, 1, WAIT_MS);
	printf("{\"event\": \"%s\", \"error\": %d, ", write ? "wrote" : "read", error < 0 ? error : 0);
	guest_print_bytes(bytes, size);
	guest_print_seal_bytes(guest->conn);
	puts("}");
}

static void print_times(const char *name, uint32_t *sample, unsigned count)
{
	qsort(sample, count, sizeof(*sample), compare);
	printf(", \"%s_p50_us\": %u, \"%s_p99_us\": %u, \"%s_max_us\": %u", name, count == 0 ? 0 : sample[count / 2], name,
	       count == 0 ? 0 : sample[count * 99 / 100], name, count == 0 ? 0 : sample[count - 1]);
}

/* Of each recovery: how long the connection stood still, and how long the program waited for its echo. */
static void count_echoes(struct guest *guest, unsigned echoes)
{
	uint32_t *pause = calloc(echoes + 1, sizeof(*pause)), *wait = calloc(echoes + 1, sizeof(*wait));
	struct srdma_conn_info info;
	unsigned recoveries = 0, seen = 0, samples = 0, wrong = 0;

	if (pause == NULL || wait == NULL)
		exit(2);
	for (unsigned i = 0; i < echoes; i++) {
		char text[64], answer[MESSAGE];
		size_t length;
		uint64_t began = now_ns();
		int n = snprintf(text, sizeof(text), "number %08u, " GUEST_KNOWN, i);

		guest_check(srdma_conn_send(guest->conn, text, (size_t)n, WAIT_MS), "send");
		guest_check(srdma_conn_recv(guest->conn, answer, sizeof(answer), &length, WAIT_MS), "recv");
		wrong += length != (size_t)n + SRDMA_ECHO_OVERHEAD || memcmp(answer + SRDMA_ECHO_OVERHEAD, text, (size_t)n) != 0;
		srdma_conn_get_info(guest->conn, &info);
		seen += info.recoveries - recoveries;
		if (info.recoveries != recoveries) {
			pause[samples] = info.pause_us;
			wait[samples++] = (uint32_t)((now_ns() - began) / 1000);
		}
		recoveries = info.recoveries;
	}
	printf("{\"event\": \"counted\", \"echoes\": %u, \"wrong\": %u, \"left\": %d, \"recoveries\": %u", echoes, wrong,
	       srdma_conn_wait(guest->conn, 20) == 0, seen);
	print_times("pause", pause, samples);
	print_times("wait", wait, samples);
	puts("}");
	free(pause);
	free(wait);
}

static void command(struct guest *guest, char *line)
{
	char *rest = strchr(line, ' ');

	line[strcspn(line, "\n")] = '\0';
	rest = rest == NULL ? line + strlen(line) : rest + 1;
	uint64_t number = strtoull(rest, NULL, 0), forever = UINT64_MAX;
	if (strncmp(line, "send ", 5) == 0) {
		echo(guest, rest);
		puts("{\"event\": \"echo\"}");
	} else if (strncmp(line, "tell ", 5) == 0) {
		guest_check(srdma_conn_send(guest->conn, rest, strlen(rest), WAIT_MS), "send");
		puts("{\"event\": \"told\"}");
	} else if (strncmp(line, "many ", 5) == 0) {
		send_many(guest, number);
	} else if (strncmp(line, "count ", 6) == 0) {
		count_echoes(guest, (unsigned)number);
	} else if (strncmp(line, "write ", 6) == 0 || strncmp(line, "read ", 5) == 0) {
		transfer(guest, line[0] == 'w', number);
	} else if (strncmp(line, "spend ", 6) == 0) {
		transfer_much(guest, false, number, forever);
		printf("{\"event\": \"spent\", \"epoch\": %u}\n", epoch(guest));
	} else if (strncmp(line, "drain ", 6) == 0) {
		transfer_much(guest, true, number, forever);
		printf("{\"event\": \"drained\", \"epoch\": %u}\n", epoch(guest));
	} else if (strncmp(line, "flood ", 6) == 0) {
		uint64_t bytes = transfer_much(guest, false, forever, now_ns() + number * 1000000);
		printf("{\"event\": \"flooded\", \"bytes\": %llu}\n", (unsigned long long)bytes);
	} else if (strncmp(line, "ping ", 5) == 0) {
		ping(guest, number);
	} else if (strncmp(line, "renew ", 6) == 0) {
		renew(guest, now_ns() + number * 1000000);
	} else if (strncmp(line, "kill ", 5) == 0) {
		kill_often(guest, number);
	} else if (strncmp(line, "watch ", 6) == 0) {
		watch(guest, now_ns() + number * 1000000);
	}
}

void guest_options(struct srdma_conn_options *options, struct srdma_qp_options *qp, int argc, char **argv)
{
	srdma_conn_options_init(options);
	srdma_qp_options_init(qp);
	options->qp = qp;
	options->rdma_depth = IN_FLIGHT;
	for (int i = 5; i < argc; i++) {
		if (strcmp(argv[i], "--mtu") == 0 && i + 1 < argc)
			qp->path_mtu = (uint32_t)atoi(argv[++i]);
		else if (strcmp(argv[i], "--no-epochs") == 0)
			options->epoch_psns = options->recoveries = 0;
		else if (strcmp(argv[i], "--recoveries") == 0 && i + 1 < argc)
			options->recoveries = (unsigned)atoi(argv[++i]);
		else if (strcmp(argv[i], "--seal") == 0)
			options->seal = SRDMA_SEAL_REQUIRED;
		else if (strcmp(argv[i], "--seal-threads") == 0 && i + 1 < argc)
			options->seal_threads = (unsigned)atoi(argv[++i]);
	}
	/* Shorter messages are nothing for the threads. */
	if (options->seal_threads > 0)
		options->message_size = GUEST_LONG;
}

int main(int argc, char **argv)
{
	struct srdma_tls_client_options tls;
	struct srdma_device_options any;
	struct srdma_conn_options options;
	struct srdma_qp_options qp;
	struct srdma_tls_context *context;
	struct srdma_device *device;
	struct guest guest = {.mtu = 1024};
	char ca[256], cert[256], key[256], line[MESSAGE];

	if (argc < 5)
		return 2;
	setvbuf(stdout, NULL, _IOLBF, 0);
	srdma_log_set(SRDMA_LOG_WARN, print_record, NULL);
	if (strcmp(argv[3], "listen") == 0)
		return guest_host(argc, argv);
	snprintf(ca, sizeof(ca), "%s/ca.crt", argv[1]);
	snprintf(cert, sizeof(cert), "%s/%s.crt", argv[1], argv[2]);
	snprintf(key, sizeof(key), "%s/%s.key", argv[1], argv[2]);
	srdma_tls_client_options_init(&tls);
	tls.ca_file = ca;
	tls.cert_file = cert;
	tls.key_file = key;
	srdma_device_options_init(&any);
	any.name = getenv("GUEST_DEVICE"); /* NULL: the first */
	guest_options(&options, &qp, argc, argv);
	guest_check(srdma_tls_client_new(&tls, &context), "certificates");
	guest_check(srdma_device_open(&any, &device), "device");
	guest_check(srdma_conn_connect(argv[3], argv[4], context, device, &options, &guest.conn), "connect");
	struct srdma_conn_info info;
	srdma_conn_get_info(guest.conn, &info);
	guest.mtu = info.path_mtu;
	guest.region = info.peer_region_size;
	guest_check(srdma_buffer_new(guest.conn, NULL, guest.region, &guest.buffer), "buffer");
	printf("{\"event\": \"connected\", \"region\": %zu, \"mtu\": %u}\n", guest.region, guest.mtu);
	while (fgets(line, sizeof(line), stdin) != NULL)
		command(&guest, line);
	srdma_buffer_free(&guest.buffer);
	srdma_conn_free(&guest.conn);
	srdma_device_unref(&device);
	srdma_tls_context_unref(&context);
	return 0;
}
