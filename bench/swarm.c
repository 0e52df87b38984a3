/* SPDX-License-Identifier: Apache-2.0 */
/* Many clients in one process, for measuring and testing a server.
 * usage: swarm HOST PORT CA CERT KEY CLIENTS BUSY SECONDS [THREADS [SIZE]]
 * Connects CLIENTS at once from THREADS threads (default 16), sends a message on each and verifies its echo, writes a line of
 * JSON and waits for a line of input; then for SECONDS has BUSY of them echo messages of SIZE bytes (default 64), each as soon
 * as the one before is back, and writes a second line; then disconnects all. Small rings: 4 messages. Exit status 0: every
 * client connected, every message came back right, and all ended in order. */
#include <securdma.h>

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

enum { MAX_THREADS = 256, MAX_SIZE = 1024, SAMPLES = 1 << 16 };

struct client {
	struct srdma_conn *conn;
	uint64_t id, setup_us, sent;
};

struct thread {
	pthread_t thread;
	unsigned first, count, busy; /* of the clients */
	unsigned failures;
	uint32_t *latency_us; /* a reservoir of SAMPLES */
	uint64_t samples;
};

static struct {
	const char *host, *port;
	struct srdma_tls_context *context;
	struct srdma_device *device;
	struct client *clients;
	unsigned total, busy, seconds, size;
	pthread_barrier_t barrier;
	struct srdma_conn_options options;
} swarm;

static uint64_t now_us(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000 + (uint64_t)t.tv_nsec / 1000;
}

static void complain(struct thread *thread, unsigned index, const char *doing)
{
	if (thread->failures++ < 3)
		fprintf(stderr, "swarm: client %u, %s: %s\n", index, doing, srdma_error_text());
}

/* Each message says whose it is and which; the echo adds the server's number for the client before it. */
static bool exchange(struct thread *thread, unsigned index)
{
	struct client *client = &swarm.clients[index];
	unsigned char message[MAX_SIZE], answer[MAX_SIZE + SRDMA_ECHO_OVERHEAD];
	uint64_t id = 0;
	size_t length;
	int ret;

	for (unsigned i = 0; i < swarm.size; i++)
		message[i] = (unsigned char)(index * 31 + client->sent * 7 + i);
	memcpy(message, &index, sizeof index);
	ret = srdma_conn_send(client->conn, message, swarm.size, -1);
	if (ret == 0)
		ret = srdma_conn_recv(client->conn, answer, sizeof answer, &length, -1);
	if (ret != 0) {
		complain(thread, index, "echo");
		return false;
	}
	for (int i = 0; i < 8; i++)
		id = id << 8 | answer[i];
	client->sent++;
	if (length != swarm.size + SRDMA_ECHO_OVERHEAD || id != client->id ||
	    memcmp(answer + SRDMA_ECHO_OVERHEAD, message, swarm.size) != 0) {
		fprintf(stderr, "swarm: client %u: a wrong echo\n", index);
		thread->failures++;
		return false;
	}
	return true;
}

static void connect_all(struct thread *thread)
{
	for (unsigned i = thread->first; i < thread->first + thread->count; i++) {
		struct client *client = &swarm.clients[i];
		struct srdma_conn_info info;
		uint64_t began = now_us();

		if (srdma_conn_connect(swarm.host, swarm.port, swarm.context, swarm.device, &swarm.options, &client->conn) != 0) {
			complain(thread, i, "connect");
			continue;
		}
		client->setup_us = now_us() - began;
		srdma_conn_get_info(client->conn, &info);
		client->id = info.client_id;
		exchange(thread, i);
	}
}

static void note_latency(struct thread *thread, uint64_t us)
{
	uint64_t at = thread->samples++;

	if (at >= SAMPLES)
		at = (uint64_t)random() % thread->samples;
	if (at < SAMPLES)
		thread->latency_us[at] = us > UINT32_MAX ? UINT32_MAX : (uint32_t)us;
}

static void be_busy(struct thread *thread)
{
	uint64_t until = now_us() + (uint64_t)swarm.seconds * 1000000;

	while (thread->busy > 0 && now_us() < until) {
		for (unsigned i = thread->first; i < thread->first + thread->busy; i++) {
			uint64_t began = now_us();

			if (!swarm.clients[i].conn || !exchange(thread, i))
				return;
			note_latency(thread, now_us() - began);
		}
	}
}

static void *run(void *arg)
{
	struct thread *thread = arg;

	pthread_barrier_wait(&swarm.barrier);
	connect_all(thread);
	pthread_barrier_wait(&swarm.barrier);
	/* The main thread tells what came of it, and waits to be told to go on. */
	pthread_barrier_wait(&swarm.barrier);
	be_busy(thread);
	pthread_barrier_wait(&swarm.barrier);
	for (unsigned i = thread->first; i < thread->first + thread->count; i++) {
		struct client *client = &swarm.clients[i];

		if (client->conn && srdma_conn_disconnect(client->conn, NULL, -1) != 0)
			complain(thread, i, "disconnect");
		srdma_conn_free(&client->conn);
	}
	return NULL;
}

static int by_value(const void *a, const void *b)
{
	const uint64_t *x = a, *y = b;

	return (*x > *y) - (*x < *y);
}

static uint64_t part(const uint64_t *sorted, size_t count, unsigned percent)
{
	return count == 0 ? 0 : sorted[(count - 1) * percent / 100];
}

static void tell_connected(uint64_t took_us)
{
	uint64_t *setup = calloc(swarm.total + 1, sizeof *setup);
	size_t n = 0;

	for (unsigned i = 0; setup && i < swarm.total; i++)
		if (swarm.clients[i].conn)
			setup[n++] = swarm.clients[i].setup_us;
	if (!setup)
		exit(1);
	qsort(setup, n, sizeof *setup, by_value);
	printf("{\"connected\": %zu, \"seconds\": %.3f, \"setup_p50_us\": %llu, \"setup_p99_us\": %llu, \"setup_max_us\": %llu}\n", n,
	       (double)took_us / 1e6, (unsigned long long)part(setup, n, 50), (unsigned long long)part(setup, n, 99),
	       (unsigned long long)part(setup, n, 100));
	fflush(stdout);
	free(setup);
}

static unsigned tell_busy(struct thread *threads, unsigned count)
{
	uint64_t *latency, *messages = calloc(swarm.total + 1, sizeof *messages), total = 0, samples = 0;
	unsigned failures = 0, busy = 0;

	for (unsigned i = 0; i < count; i++) {
		samples += threads[i].samples < SAMPLES ? threads[i].samples : SAMPLES;
		failures += threads[i].failures;
		for (unsigned j = 0; messages && j < threads[i].busy; j++)
			total += messages[busy++] = swarm.clients[threads[i].first + j].sent - 1;
	}
	latency = calloc(samples + 1, sizeof *latency);
	if (!latency || !messages)
		exit(1);
	samples = 0;
	for (unsigned i = 0; i < count; i++)
		for (uint64_t j = 0; j < threads[i].samples && j < SAMPLES; j++)
			latency[samples++] = threads[i].latency_us[j];
	qsort(latency, samples, sizeof *latency, by_value);
	qsort(messages, busy, sizeof *messages, by_value);
	printf("{\"failures\": %u, \"messages\": %llu, \"messages_per_second\": %.0f, \"latency_p50_us\": %llu, "
	       "\"latency_p99_us\": %llu, \"slowest\": %llu, \"median\": %llu}\n",
	       failures, (unsigned long long)total, swarm.seconds ? (double)total / swarm.seconds : 0.0,
	       (unsigned long long)part(latency, samples, 50), (unsigned long long)part(latency, samples, 99),
	       (unsigned long long)part(messages, busy, 0), (unsigned long long)part(messages, busy, 50));
	fflush(stdout);
	free(latency);
	free(messages);
	return failures;
}

/* Four descriptors a client, and some; beyond the hard limit only root can have them. */
static void raise_descriptors(void)
{
	rlim_t need = (rlim_t)swarm.total * 4 + 256;
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur >= need)
		return;
	limit.rlim_cur = need;
	if (limit.rlim_max < need)
		limit.rlim_max = need;
	if (setrlimit(RLIMIT_NOFILE, &limit) != 0)
		perror("swarm: file descriptors");
}

static void set_up(char **argv)
{
	struct srdma_tls_client_options tls;
	struct srdma_device_options device;

	srdma_tls_client_options_init(&tls);
	tls.ca_file = argv[3];
	tls.cert_file = argv[4];
	tls.key_file = argv[5];
	srdma_device_options_init(&device);
	srdma_conn_options_init(&swarm.options);
	swarm.options.depth = 4;
	swarm.options.rdma_depth = 1;
	swarm.options.message_size = MAX_SIZE + 64;
	swarm.options.setup_timeout_ms = swarm.options.timeout_ms = swarm.options.busy_retry_ms = 120000;
	swarm.host = argv[1];
	swarm.port = argv[2];
	if (srdma_tls_client_new(&tls, &swarm.context) != 0 || srdma_device_open(&device, &swarm.device) != 0) {
		fprintf(stderr, "swarm: %s\n", srdma_error_text());
		exit(1);
	}
}

/* The shares of a whole, as even as can be. */
static unsigned share(unsigned whole, unsigned parts, unsigned index)
{
	return whole / parts + (index < whole % parts);
}

int main(int argc, char **argv)
{
	static struct thread threads[MAX_THREADS];
	unsigned count = argc > 9 ? (unsigned)atoi(argv[9]) : 16, failures = 0, next = 0;
	uint64_t began;

	swarm.size = argc > 10 ? (unsigned)atoi(argv[10]) : 64;
	if (argc < 9 || count < 1 || count > MAX_THREADS || swarm.size < sizeof(unsigned) || swarm.size > MAX_SIZE) {
		fprintf(stderr, "usage: swarm HOST PORT CA CERT KEY CLIENTS BUSY SECONDS [THREADS [SIZE]]\n");
		return 2;
	}
	swarm.total = (unsigned)atoi(argv[6]);
	swarm.busy = (unsigned)atoi(argv[7]);
	swarm.seconds = (unsigned)atoi(argv[8]);
	raise_descriptors();
	set_up(argv);
	swarm.clients = calloc(swarm.total + 1, sizeof *swarm.clients);
	pthread_barrier_init(&swarm.barrier, NULL, count + 1);
	for (unsigned i = 0; swarm.clients && i < count; i++) {
		threads[i].first = next;
		threads[i].count = share(swarm.total, count, i);
		threads[i].busy = share(swarm.busy, count, i) < threads[i].count ? share(swarm.busy, count, i) : threads[i].count;
		threads[i].latency_us = calloc(SAMPLES, sizeof *threads[i].latency_us);
		next += threads[i].count;
		if (!threads[i].latency_us || pthread_create(&threads[i].thread, NULL, run, &threads[i]) != 0)
			return 1;
	}
	pthread_barrier_wait(&swarm.barrier);
	began = now_us();
	pthread_barrier_wait(&swarm.barrier);
	tell_connected(now_us() - began);
	getchar();
	pthread_barrier_wait(&swarm.barrier);
	pthread_barrier_wait(&swarm.barrier);
	tell_busy(threads, count);
	for (unsigned i = 0; i < count; i++) {
		pthread_join(threads[i].thread, NULL);
		failures += threads[i].failures;
		free(threads[i].latency_us);
	}
	free(swarm.clients);
	pthread_barrier_destroy(&swarm.barrier);
	srdma_device_unref(&swarm.device);
	srdma_tls_context_unref(&swarm.context);
	return failures == 0 ? 0 : 1;
}
