/* SPDX-License-Identifier: Apache-2.0 */
/* The two ends of a TLS channel in one thread, each ours or OpenSSL's own, which knows no rules of ours. Include test.h and pki.h
 * first. */
#ifndef TEST_TLS_PAIR_H
#define TEST_TLS_PAIR_H

#include "folder.h"
#include "loopback.h"

#include "tls.h"

#include <openssl/err.h>

#define ALPN "\012securdma/1"

struct end {
	struct srdma_tls_context *context;
	struct srdma_tls *tls; /* ours, or */
	SSL_CTX *raw_context;
	SSL *raw; /* OpenSSL's */
	int fd;   /* of raw */
	int result; /* of the handshake: -EAGAIN, 0, an error; of raw: -1 for any error */
	char text[768];
	bool read; /* the first read was tried */
};

struct pair {
	struct end client, server;
};

/* ---- ends ------------------------------------------------------------------------------------------------------ */

static inline struct end ours_client(struct srdma_tls_client_options options)
{
	struct end end = {.result = -EAGAIN};

	if (srdma_tls_client_new(&options, &end.context) != 0)
		fail_msg("client context: %s", srdma_error_text());
	return end;
}

static inline struct end ours_server(struct srdma_tls_server_options options)
{
	struct end end = {.result = -EAGAIN};

	if (srdma_tls_server_new(&options, &end.context) != 0)
		fail_msg("server context: %s", srdma_error_text());
	return end;
}

/* The error of making such a context, which is freed again; 0: none. */
static inline int try_server(struct srdma_tls_server_options o)
{
	struct srdma_tls_context *context = NULL;
	int ret = srdma_tls_server_new(&o, &context);

	assert_int_equal(context != NULL, ret == 0);
	srdma_tls_context_unref(&context);
	return ret;
}

static inline int try_client(struct srdma_tls_client_options o)
{
	struct srdma_tls_context *context = NULL;
	int ret = srdma_tls_client_new(&o, &context);

	assert_int_equal(context != NULL, ret == 0);
	srdma_tls_context_unref(&context);
	return ret;
}

static inline int raw_alpn(SSL *ssl, const unsigned char **out, unsigned char *length, const unsigned char *in, unsigned in_length,
			   void *arg)
{
	if (in_length < 1u + in[0])
		return SSL_TLSEXT_ERR_NOACK;
	*out = in + 1;
	*length = in[0];
	return SSL_TLSEXT_ERR_OK;
}

/* Takes any certificate, and shows what it is given. Its security level allows the signatures of the oldest versions. */
static inline struct end raw_end(bool server, const struct pki *credential)
{
	struct end end = {.result = -EAGAIN, .fd = -1, .raw_context = SSL_CTX_new(TLS_method())};

	assert_non_null(end.raw_context);
	SSL_CTX_set_security_level(end.raw_context, 0);
	assert_int_equal(SSL_CTX_set_cipher_list(end.raw_context, "ALL:@SECLEVEL=0"), 1);
	SSL_CTX_set_mode(end.raw_context, SSL_MODE_NO_AUTO_CHAIN);
	if (credential) {
		assert_int_equal(SSL_CTX_use_certificate(end.raw_context, credential->cert), 1);
		assert_int_equal(SSL_CTX_use_PrivateKey(end.raw_context, credential->key), 1);
	}
	if (server)
		SSL_CTX_set_alpn_select_cb(end.raw_context, raw_alpn, NULL);
	else
		assert_int_equal(SSL_CTX_set_alpn_protos(end.raw_context, (const unsigned char *)ALPN, sizeof ALPN - 1), 0);
	return end;
}

/* Speaks this version of TLS alone. */
static inline struct end speaking(struct end end, int version)
{
	assert_int_equal(SSL_CTX_set_min_proto_version(end.raw_context, version), 1);
	assert_int_equal(SSL_CTX_set_max_proto_version(end.raw_context, version), 1);
	return end;
}

static inline void set_out(struct end *end, bool server, int fd, const char *host)
{
	if (end->context) {
		assert_int_equal(srdma_tls_new(end->context, fd, server ? NULL : host, &end->tls), 0);
		return;
	}
	end->raw = SSL_new(end->raw_context);
	end->fd = fd;
	assert_int_equal(SSL_set_fd(end->raw, fd), 1);
	if (server)
		SSL_set_accept_state(end->raw);
	else
		SSL_set_connect_state(end->raw);
}

static inline void step(struct end *end)
{
	if (end->result != -EAGAIN)
		return;
	if (end->tls) {
		end->result = srdma_tls_handshake(end->tls);
		if (end->result == -EAGAIN || end->result == 0)
			return;
		snprintf(end->text, sizeof end->text, "%s", srdma_error_text());
		/* The library does this when an end fails, so that the alert arrives. */
		srdma_tls_linger(end->tls);
		assert_string_equal(srdma_error_text(), end->text);
		return;
	}
	ERR_clear_error();
	int ret = SSL_do_handshake(end->raw), error = SSL_get_error(end->raw, ret);
	if (ret == 1)
		end->result = 0;
	else if (error != SSL_ERROR_WANT_READ && error != SSL_ERROR_WANT_WRITE) {
		const char *reason = ERR_reason_error_string(ERR_peek_error());

		end->result = -1;
		snprintf(end->text, sizeof end->text, "%s", reason ? reason : "the channel ended");
		shutdown(end->fd, SHUT_WR);
	}
	ERR_clear_error();
}

/* With TLS 1.3 the client's handshake is over before the server has judged its certificate: it learns of it in its first read. */
static inline void listen_for_alert(struct end *end)
{
	char byte;
	int ret;

	if (end->result != 0)
		return;
	if (end->tls) {
		ret = srdma_tls_read(end->tls, &byte, 1);
		if (ret < 0 && ret != -EAGAIN) {
			end->result = ret;
			snprintf(end->text, sizeof end->text, "%s", srdma_error_text());
		}
	} else {
		ret = SSL_read(end->raw, &byte, 1);
		if (ret <= 0 && SSL_get_error(end->raw, ret) != SSL_ERROR_WANT_READ)
			end->result = -1;
		ERR_clear_error();
	}
}

static inline int fd_of(const struct end *end)
{
	return end->tls ? srdma_tls_fd(end->tls) : end->fd;
}

/* Both handshakes, until each has come to its end. An end that fails shuts its side down, as it would by closing. */
static inline struct pair meet(struct end client, struct end server, const char *host)
{
	struct pair pair = {.client = client, .server = server};
	uint64_t deadline = srdma_deadline(PATIENCE_MS);
	int client_fd, server_fd;

	connect_sockets(&client_fd, &server_fd);
	set_out(&pair.client, false, client_fd, host);
	set_out(&pair.server, true, server_fd, host);
	while ((pair.client.result == -EAGAIN || pair.server.result == -EAGAIN) && srdma_deadline_left_ms(deadline) > 0) {
		struct end *ends[] = {&pair.client, &pair.server};

		for (int i = 0; i < 2; i++)
			step(ends[i]);
		/* Bytes may take a moment to reach the other end. */
		poll((struct pollfd[]){{.fd = fd_of(&pair.client), .events = POLLIN}, {.fd = fd_of(&pair.server), .events = POLLIN}}, 2, 1);
	}
	if (pair.server.result != 0) {
		poll(&(struct pollfd){.fd = fd_of(&pair.client), .events = POLLIN}, 1, PATIENCE_MS);
		listen_for_alert(&pair.client);
	}
	return pair;
}

static inline void end_free(struct end *end)
{
	srdma_tls_delete(&end->tls);
	srdma_tls_context_unref(&end->context);
	SSL_free(end->raw);
	if (end->raw)
		close(end->fd);
	SSL_CTX_free(end->raw_context);
}

static inline void part(struct pair *pair)
{
	end_free(&pair->client);
	end_free(&pair->server);
}

/* Waits for bytes from the peer: their number, or why there won't be any. */
static inline int read_some(struct srdma_tls *tls, void *data, size_t size)
{
	uint64_t deadline = srdma_deadline(PATIENCE_MS);

	for (;;) {
		int n = srdma_tls_read(tls, data, size);

		if (n != -EAGAIN)
			return n;
		n = srdma_net_wait(srdma_tls_fd(tls), srdma_tls_events(tls), deadline);
		if (n != 0)
			return n;
	}
}

static inline void assert_meets(struct end client, struct end server, const char *host)
{
	struct pair pair = meet(client, server, host);

	if (pair.client.result != 0 || pair.server.result != 0)
		fail_msg("client: %d '%s'; server: %d '%s'", pair.client.result, pair.client.text, pair.server.result, pair.server.text);
	part(&pair);
}

static inline void assert_says(const struct end *end, const char *who, int error, const char *words)
{
	if ((error && end->result != error) || end->result == 0 || !strstr(end->text, words))
		fail_msg("%s: %d '%s'; wanted %d, '%s'", who, end->result, end->text, error, words);
}

/* Both ends must fail; this one says why. */
static inline void assert_server_refuses(struct end client, struct end server, int error, const char *words)
{
	struct pair pair = meet(client, server, "host.example.com");

	assert_says(&pair.server, "server", error, words);
	assert_int_not_equal(pair.client.result, 0);
	part(&pair);
}

static inline void assert_client_refuses(struct end client, struct end server, const char *host, int error, const char *words)
{
	struct pair pair = meet(client, server, host);

	assert_says(&pair.client, "client", error, words);
	assert_int_not_equal(pair.server.result, 0);
	part(&pair);
}

#endif
