/* SPDX-License-Identifier: Apache-2.0 */
/* Bare mutual TLS 1.3 handshakes over loopback TCP, with OpenSSL alone: what the rate of a server's set-ups is compared with.
 * usage: tls_rate CA SERVER_CERT SERVER_KEY CLIENT_CERT CLIENT_KEY COUNT THREADS
 * Prints handshakes per second. Each of THREADS clients connects, shakes hands and closes; as many threads as there are
 * processors (at most 4) serve. */
#include <openssl/err.h>
#include <openssl/ssl.h>

#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { SERVERS_MAX = 4, CLIENTS_MAX = 256 };

static struct {
	SSL_CTX *server, *client;
	int listener;
	struct sockaddr_in address;
	atomic_int left;
	atomic_uint failures;
} rate;

__attribute__((noreturn)) static void die(const char *what)
{
	fprintf(stderr, "tls_rate: %s\n", what);
	ERR_print_errors_fp(stderr);
	exit(1);
}

static SSL_CTX *context(const SSL_METHOD *method, const char *ca, const char *cert, const char *key)
{
	SSL_CTX *ctx = SSL_CTX_new(method);

	if (!ctx || SSL_CTX_load_verify_file(ctx, ca) != 1 || SSL_CTX_use_certificate_chain_file(ctx, cert) != 1 ||
	    SSL_CTX_use_PrivateKey_file(ctx, key, SSL_FILETYPE_PEM) != 1)
		die("credentials");
	SSL_CTX_set_min_proto_version(ctx, TLS1_3_VERSION);
	SSL_CTX_set_verify(ctx, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, NULL);
	SSL_CTX_set_num_tickets(ctx, 0);
	return ctx;
}

/* A handshake, and the close that follows it. */
static void shake(SSL_CTX *ctx, int fd, int (*handshake)(SSL *))
{
	int on = 1;
	SSL *ssl = SSL_new(ctx);
	char byte;

	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
	if (!ssl || SSL_set_fd(ssl, fd) != 1 || handshake(ssl) != 1)
		atomic_fetch_add(&rate.failures, 1);
	else if (handshake == SSL_connect) /* in TLS 1.3 its end is over first: the server must have judged the certificate */
		SSL_shutdown(ssl), SSL_read(ssl, &byte, 1);
	else
		SSL_read(ssl, &byte, 1), SSL_shutdown(ssl);
	SSL_free(ssl);
	close(fd);
}

static void *serve(void *arg)
{
	(void)arg;
	for (;;) {
		int fd = accept(rate.listener, NULL, NULL);

		if (fd < 0)
			return NULL;
		shake(rate.server, fd, SSL_accept);
	}
}

static void *connect_often(void *arg)
{
	(void)arg;
	while (atomic_fetch_sub(&rate.left, 1) > 0) {
		int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

		if (fd < 0 || connect(fd, (struct sockaddr *)&rate.address, sizeof rate.address) != 0)
			die("connect");
		shake(rate.client, fd, SSL_connect);
	}
	return NULL;
}

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

int main(int argc, char **argv)
{
	pthread_t servers[SERVERS_MAX], clients[CLIENTS_MAX];
	long processors = sysconf(_SC_NPROCESSORS_ONLN);
	int serving = processors > SERVERS_MAX ? SERVERS_MAX : (int)processors, count, threads;
	socklen_t length = sizeof rate.address;
	double began;

	count = argc == 8 ? atoi(argv[6]) : 0;
	threads = argc == 8 ? atoi(argv[7]) : 0;
	if (count < 1 || threads < 1 || threads > CLIENTS_MAX) {
		fprintf(stderr, "usage: tls_rate CA SERVER_CERT SERVER_KEY CLIENT_CERT CLIENT_KEY COUNT THREADS\n");
		return 2;
	}
	rate.server = context(TLS_server_method(), argv[1], argv[2], argv[3]);
	rate.client = context(TLS_client_method(), argv[1], argv[4], argv[5]);
	rate.address = (struct sockaddr_in){.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	rate.listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (rate.listener < 0 || bind(rate.listener, (struct sockaddr *)&rate.address, length) != 0 ||
	    listen(rate.listener, 4096) != 0 || getsockname(rate.listener, (struct sockaddr *)&rate.address, &length) != 0)
		die("listen");
	atomic_store(&rate.left, count);
	for (int i = 0; i < serving; i++)
		if (pthread_create(&servers[i], NULL, serve, NULL) != 0)
			die("thread");
	began = now();
	for (int i = 0; i < threads; i++)
		if (pthread_create(&clients[i], NULL, connect_often, NULL) != 0)
			die("thread");
	for (int i = 0; i < threads; i++)
		pthread_join(clients[i], NULL);
	printf("%.1f\n", count / (now() - began));
	shutdown(rate.listener, SHUT_RDWR);
	for (int i = 0; i < serving; i++)
		pthread_join(servers[i], NULL);
	SSL_CTX_free(rate.server);
	SSL_CTX_free(rate.client);
	return atomic_load(&rate.failures) == 0 ? 0 : 1;
}
