/* SPDX-License-Identifier: Apache-2.0 */
/* What the parts of `securdma bench` share. */
#ifndef CLI_BENCH_H
#define CLI_BENCH_H

#include "cli.h"
#include "settings.h"

#define BENCH_MAX_SIZES 32

struct bench_local;

struct bench {
	struct settings settings;
	int64_t connections, iterations;
	char *sizes, *only;

	size_t size_list[BENCH_MAX_SIZES]; /* from --sizes; none: each section's own */
	size_t size_count;
	struct srdma_device *device;
	struct srdma_tls_context *context; /* client's */
	struct bench_local *local;         /* the server in this process; NULL when a HOST was given */
	json_t *result;
};

/* First byte of a message: what the server in this process does with it. The echo service of a server elsewhere echoes
 * them all. */
enum bench_message {
	BENCH_ECHO = 'e', /* sends it back */
	BENCH_DROP = 'd', /* nothing */
	BENCH_LAST = 'l', /* sends one byte, so that the sender knows that all before it have arrived */
};

/* samples.c: measured times, all kept, so that percentiles are exact. */
struct samples {
	uint64_t *values; /* nanoseconds */
	size_t count, room;
};

/* Makes room for `room` samples; those beyond it are not kept. Errors: -ENOMEM. */
int samples_init(struct samples *samples, size_t room);
void samples_free(struct samples *samples);
void samples_add(struct samples *samples, uint64_t nanoseconds);

/* The smallest sample that at least `percent` of them do not exceed, in microseconds; 0 when there are none.
 * Sorts the samples. */
double samples_percentile(struct samples *samples, unsigned percent);

/* Monotonic time in nanoseconds. */
uint64_t samples_now(void);

/* bench_local.c */
/* Makes throw-away credentials for a server in this process and sets bench->context. Prints what failed; returns an
 * exit code. */
int bench_local_new(struct bench *bench);
/* Starts the server, for connections with these options. Returns an exit code. */
int bench_local_start(struct bench *bench, const struct srdma_conn_options *options);
void bench_local_stop(struct bench *bench);
void bench_local_delete(struct bench *bench);
/* Directory that holds ca.crt, server.crt, server.key, client.crt and client.key. */
const char *bench_local_directory(const struct bench *bench);

/* Connects to the server, the one in this process or not. Prints what failed; returns an exit code. */
int bench_connect(struct bench *bench, const struct srdma_conn_options *options, struct srdma_conn **conn);
/* Ends the connection in order and frees it. */
int bench_disconnect(struct srdma_conn **conn);

/* bench_tls.c: what set-up is compared with, a mutual TLS 1.3 handshake through OpenSSL and nothing else. */
struct bench_tls;

/* Starts a server thread on `address`, a free port, with the credentials of `directory` (see bench_local_directory).
 * `cipher` is the suite that both ends use. Errors: -EIO, -ENOMEM. */
int bench_tls_new(const char *directory, const char *address, const char *cipher, struct bench_tls **out);

/* Connects, shakes hands, and waits for the one byte that the server sends after it has verified the client: *tls_ns is
 * the time from the connected socket to that byte, *total_ns has the TCP connect too. Errors: -EIO. */
int bench_tls_connect(struct bench_tls *bench, uint64_t *tls_ns, uint64_t *total_ns);

void bench_tls_delete(struct bench_tls **bench);

/* True once the user asked to stop; then says so. */
bool bench_interrupted(void);

/* The sections. Each prints its lines, or adds to bench->result with --json; each returns an exit code. */
int bench_setup(struct bench *bench);
int bench_latency(struct bench *bench);
int bench_bandwidth(struct bench *bench);

#endif
