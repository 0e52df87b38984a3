/* SPDX-License-Identifier: Apache-2.0 */
/* TLS 1.3 over one TCP connection on loopback, with OpenSSL alone: what sealed records are compared with. Two processes.
 * usage: tls_stream bandwidth [--chacha] --size N --seconds S
 *        tls_stream latency [--chacha] [--poll] --size N --count N
 * bandwidth: one writes messages of N bytes, the other reads whole messages. latency: they take turns. --poll: nobody sleeps, as
 * both ends of an RDMA connection do that wait for a message. Prints a line of JSON; times and CPU seconds are from the
 * handshake's end on. */
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>

#include <arpa/inet.h>
#include <fcntl.h>
#include <getopt.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { SIZE_MAX_BYTES = 16 << 20, WARM_UP = 200 };

static struct {
	bool bandwidth, chacha, poll;
	size_t size;
	double seconds;
	unsigned count;
	unsigned char *message;
} stream = {.size = 65536, .seconds = 1, .count = 10000};

/* What the receiver tells at the end. */
struct answer {
	uint64_t bytes;
	double cpu;
};

__attribute__((noreturn)) static void die(const char *what)
{
	fprintf(stderr, "tls_stream: %s\n", what);
	ERR_print_errors_fp(stderr);
	exit(1);
}

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static double cpu(void)
{
	struct rusage usage;

	getrusage(RUSAGE_SELF, &usage);
	return (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) + (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6;
}

/* ---- connection ------------------------------------------------------------------------------------------------ */

static SSL_CTX *context(const SSL_METHOD *method)
{
	SSL_CTX *ctx = SSL_CTX_new(method);

	if (!ctx || SSL_CTX_set_min_proto_version(ctx, TLS1_3_VERSION) != 1 ||
	    SSL_CTX_set_ciphersuites(ctx, stream.chacha ? "TLS_CHACHA20_POLY1305_SHA256" : "TLS_AES_256_GCM_SHA384") != 1)
		die("context");
	SSL_CTX_set_num_tickets(ctx, 0);
	return ctx;
}

/* A certificate that neither end checks: its name does not matter to the measurement. */
static SSL_CTX *server_context(void)
{
	SSL_CTX *ctx = context(TLS_server_method());
	EVP_PKEY *key = EVP_EC_gen("P-256");
	X509 *cert = X509_new();

	if (!key || !cert || !X509_gmtime_adj(X509_getm_notBefore(cert), 0) || !X509_gmtime_adj(X509_getm_notAfter(cert), 86400) ||
	    X509_set_pubkey(cert, key) != 1 || X509_sign(cert, key, EVP_sha256()) == 0 || SSL_CTX_use_certificate(ctx, cert) != 1 ||
	    SSL_CTX_use_PrivateKey(ctx, key) != 1)
		die("certificate");
	X509_free(cert);
	EVP_PKEY_free(key);
	return ctx;
}

static SSL *shake(SSL_CTX *ctx, int fd, int (*handshake)(SSL *))
{
	int on = 1;
	SSL *ssl = SSL_new(ctx);

	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
	if (!ssl || SSL_set_fd(ssl, fd) != 1 || handshake(ssl) != 1)
		die("handshake");
	if (stream.poll && fcntl(fd, F_SETFL, O_NONBLOCK) != 0)
		die("non-blocking socket");
	return ssl;
}

/* Nothing is wrong: there was nothing to read, or no room to write, yet. */
static bool is_early(const SSL *ssl, int ret)
{
	int error = SSL_get_error(ssl, ret);

	return stream.poll && (error == SSL_ERROR_WANT_READ || error == SSL_ERROR_WANT_WRITE);
}

static void write_all(SSL *ssl, const void *data, size_t length)
{
	size_t n = 0;
	int ret;

	while ((ret = SSL_write_ex(ssl, data, length, &n)) != 1 && is_early(ssl, ret))
		;
	if (ret != 1 || n != length)
		die("write");
}

/* False: the stream ended in order, at the beginning of the data. */
static bool read_all(SSL *ssl, void *data, size_t length)
{
	size_t done = 0, n;

	while (done < length) {
		int ret = SSL_read_ex(ssl, (char *)data + done, length - done, &n);

		if (ret != 1 && is_early(ssl, ret))
			continue;
		if (ret != 1 && done == 0 && SSL_get_error(ssl, ret) == SSL_ERROR_ZERO_RETURN)
			return false;
		if (ret != 1)
			die("read");
		done += n;
	}
	return true;
}

/* ---- both ends ------------------------------------------------------------------------------------------------- */

static void receive(int listener)
{
	SSL_CTX *ctx = server_context();
	SSL *ssl = shake(ctx, accept(listener, NULL, NULL), SSL_accept);
	struct answer answer = {.bytes = 0};
	double began = cpu();

	while (read_all(ssl, stream.message, stream.size)) {
		answer.bytes += stream.size;
		if (!stream.bandwidth)
			write_all(ssl, stream.message, stream.size);
	}
	answer.cpu = cpu() - began;
	write_all(ssl, &answer, sizeof answer);
	SSL_shutdown(ssl);
	SSL_free(ssl);
	SSL_CTX_free(ctx);
}

static int by_value(const void *a, const void *b)
{
	const double *x = a, *y = b;

	return (*x > *y) - (*x < *y);
}

/* Microseconds of each turn, in order of length. */
static double *take_turns(SSL *ssl)
{
	double *times = calloc(stream.count, sizeof *times);

	if (!times)
		die("memory");
	for (unsigned i = 0; i < stream.count + WARM_UP; i++) {
		double began = now();

		write_all(ssl, stream.message, stream.size);
		if (!read_all(ssl, stream.message, stream.size))
			die("an early end");
		if (i >= WARM_UP)
			times[i - WARM_UP] = (now() - began) * 1e6;
	}
	qsort(times, stream.count, sizeof *times, by_value);
	return times;
}

static void send_all(const struct sockaddr_in *address)
{
	SSL_CTX *ctx = context(TLS_client_method());
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	double *times = NULL, began, cpu_began, took;
	struct answer answer;
	SSL *ssl;

	if (fd < 0 || connect(fd, (const struct sockaddr *)address, sizeof *address) != 0)
		die("connect");
	ssl = shake(ctx, fd, SSL_connect);
	cpu_began = cpu();
	began = now();
	if (stream.bandwidth)
		while (now() - began < stream.seconds)
			write_all(ssl, stream.message, stream.size);
	else
		times = take_turns(ssl);
	SSL_shutdown(ssl);
	if (!read_all(ssl, &answer, sizeof answer))
		die("no answer");
	took = now() - began;
	printf("{\"cipher\": \"%s\", \"size\": %zu, \"seconds\": %.4f, \"bytes\": %llu, \"mb_per_s\": %.2f, \"cpu_seconds\": [%.4f, %.4f]",
	       SSL_get_cipher_name(ssl), stream.size, took, (unsigned long long)answer.bytes, (double)answer.bytes / took / 1e6,
	       cpu() - cpu_began, answer.cpu);
	if (times)
		printf(", \"p50_us\": %.2f, \"p99_us\": %.2f", times[stream.count / 2], times[(size_t)stream.count * 99 / 100]);
	puts("}");
	free(times);
	SSL_free(ssl);
	close(fd);
	SSL_CTX_free(ctx);
}

static bool parse(int argc, char **argv)
{
	static const struct option options[] = {{"size", 1, NULL, 's'}, {"seconds", 1, NULL, 't'}, {"count", 1, NULL, 'c'},
						{"chacha", 0, NULL, 'x'}, {"poll", 0, NULL, 'p'}, {NULL, 0, NULL, 0}};
	int option;

	while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
		switch (option) {
		case 's': stream.size = strtoul(optarg, NULL, 10); break;
		case 't': stream.seconds = strtod(optarg, NULL); break;
		case 'c': stream.count = (unsigned)strtoul(optarg, NULL, 10); break;
		case 'x': stream.chacha = true; break;
		case 'p': stream.poll = true; break;
		default: return false;
		}
	}
	if (optind != argc - 1 || stream.size < 1 || stream.size > SIZE_MAX_BYTES || stream.count < 1)
		return false;
	stream.bandwidth = strcmp(argv[optind], "bandwidth") == 0;
	return stream.bandwidth || strcmp(argv[optind], "latency") == 0;
}

int main(int argc, char **argv)
{
	struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t length = sizeof address;
	int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), status;
	pid_t receiver;

	if (!parse(argc, argv)) {
		fprintf(stderr, "usage: tls_stream bandwidth|latency [--chacha] [--poll] [--size N] [--seconds S] [--count N]\n");
		return 2;
	}
	stream.message = calloc(1, stream.size);
	if (!stream.message || listener < 0 || bind(listener, (struct sockaddr *)&address, length) != 0 || listen(listener, 1) != 0 ||
	    getsockname(listener, (struct sockaddr *)&address, &length) != 0)
		die("listen");
	receiver = fork();
	if (receiver < 0)
		die("fork");
	if (receiver == 0) {
		receive(listener);
		free(stream.message);
		exit(0);
	}
	close(listener);
	send_all(&address);
	free(stream.message);
	return waitpid(receiver, &status, 0) == receiver && status == 0 ? 0 : 1;
}
