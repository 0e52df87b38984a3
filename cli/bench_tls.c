/* SPDX-License-Identifier: Apache-2.0 */
#include "bench.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <openssl/ssl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#define DEADLINE_S 10

struct bench_tls {
	SSL_CTX *server, *client;
	char host[64];
	struct sockaddr_storage address;
	socklen_t address_length;
	int listener;
	pthread_t thread;
};

static SSL_CTX *new_context(const SSL_METHOD *method, const char *directory, const char *role, const char *cipher)
{
	SSL_CTX *context = SSL_CTX_new(method);
	char ca[512], cert[512], key[512];

	snprintf(ca, sizeof ca, "%s/ca.crt", directory);
	snprintf(cert, sizeof cert, "%s/%s.crt", directory, role);
	snprintf(key, sizeof key, "%s/%s.key", directory, role);
	if (context && SSL_CTX_set_min_proto_version(context, TLS1_3_VERSION) == 1 && SSL_CTX_set_ciphersuites(context, cipher) == 1 &&
	    SSL_CTX_load_verify_file(context, ca) == 1 && SSL_CTX_use_certificate_chain_file(context, cert) == 1 &&
	    SSL_CTX_use_PrivateKey_file(context, key, SSL_FILETYPE_PEM) == 1) {
		/* No tickets and no resumption: each handshake is a full one, as securdma's are. */
		SSL_CTX_set_num_tickets(context, 0);
		SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_OFF);
		SSL_CTX_set_verify(context, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, NULL);
		return context;
	}
	SSL_CTX_free(context);
	return NULL;
}

static void set_socket(int fd)
{
	struct timeval limit = {.tv_sec = DEADLINE_S};
	int on = 1;

	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
	setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
}

static void serve_one(struct bench_tls *bench, int fd)
{
	SSL *ssl = SSL_new(bench->server);
	char byte = 1;

	if (ssl && SSL_set_fd(ssl, fd) == 1 && SSL_accept(ssl) == 1 && SSL_write(ssl, &byte, 1) == 1) {
		SSL_read(ssl, &byte, 1); /* until the client closes */
		SSL_shutdown(ssl);
	}
	SSL_free(ssl);
}

static void *serve(void *arg)
{
	struct bench_tls *bench = arg;
	int fd;

	/* shutdown() of the listener ends this. */
	while ((fd = accept4(bench->listener, NULL, NULL, SOCK_CLOEXEC)) >= 0) {
		set_socket(fd);
		serve_one(bench, fd);
		close(fd);
	}
	return NULL;
}

static int listen_on(struct bench_tls *bench, const char *address)
{
	struct sockaddr_in *v4 = (void *)&bench->address;
	struct sockaddr_in6 *v6 = (void *)&bench->address;

	if (inet_pton(AF_INET, address, &v4->sin_addr) == 1) {
		v4->sin_family = AF_INET;
		bench->address_length = sizeof *v4;
	} else if (inet_pton(AF_INET6, address, &v6->sin6_addr) == 1) {
		v6->sin6_family = AF_INET6;
		bench->address_length = sizeof *v6;
	} else {
		return -EIO;
	}
	bench->listener = socket(bench->address.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (bench->listener < 0 || bind(bench->listener, (void *)&bench->address, bench->address_length) < 0 ||
	    listen(bench->listener, 16) < 0 || getsockname(bench->listener, (void *)&bench->address, &bench->address_length) < 0)
		return -EIO;
	return 0;
}

int bench_tls_new(const char *directory, const char *address, const char *cipher, struct bench_tls **out)
{
	struct bench_tls *bench = calloc(1, sizeof *bench);

	if (!bench)
		return -ENOMEM;
	bench->listener = -1;
	snprintf(bench->host, sizeof bench->host, "%s", address);
	bench->server = new_context(TLS_server_method(), directory, "server", cipher);
	bench->client = new_context(TLS_client_method(), directory, "client", cipher);
	if (bench->server && bench->client && listen_on(bench, address) == 0 && pthread_create(&bench->thread, NULL, serve, bench) == 0) {
		*out = bench;
		return 0;
	}
	if (bench->listener >= 0)
		close(bench->listener);
	SSL_CTX_free(bench->server);
	SSL_CTX_free(bench->client);
	free(bench);
	return -EIO;
}

static int shake_hands(struct bench_tls *bench, int fd)
{
	SSL *ssl = SSL_new(bench->client);
	int ret = -EIO;
	char byte;

	if (ssl && X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(ssl), bench->host) == 1 && SSL_set_fd(ssl, fd) == 1 &&
	    SSL_connect(ssl) == 1 && SSL_read(ssl, &byte, 1) == 1)
		ret = 0;
	SSL_free(ssl);
	return ret;
}

int bench_tls_connect(struct bench_tls *bench, uint64_t *tls_ns, uint64_t *total_ns)
{
	uint64_t start = samples_now(), connected;
	int fd = socket(bench->address.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0), ret = -EIO;

	if (fd < 0)
		return -EIO;
	set_socket(fd);
	if (connect(fd, (void *)&bench->address, bench->address_length) == 0) {
		connected = samples_now();
		ret = shake_hands(bench, fd);
		*tls_ns = samples_now() - connected;
		*total_ns = samples_now() - start;
	}
	close(fd);
	return ret;
}

void bench_tls_delete(struct bench_tls **bench)
{
	struct bench_tls *old = *bench;

	if (!old)
		return;
	shutdown(old->listener, SHUT_RDWR);
	pthread_join(old->thread, NULL);
	close(old->listener);
	SSL_CTX_free(old->server);
	SSL_CTX_free(old->client);
	free(old);
	*bench = NULL;
}
