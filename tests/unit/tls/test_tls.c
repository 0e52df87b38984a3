/* SPDX-License-Identifier: Apache-2.0 */
/* What two ends agree on. Where one end must misbehave, it is OpenSSL's own (raw_*), which knows no rules of ours. */
#include "test.h"

#include "tls_rig.h"

#include "clock.h"
#include "control.h"
#include "net.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* ---- what is agreed -------------------------------------------------------------------------------------------- */

TEST(tls13_and_the_protocol_are_agreed)
{
	struct session s = tls_rig_meet(server_options(), client_options(), "host.example.com");
	struct srdma_peer_names names;

	assert_int_equal(s.client.result, 0);
	assert_int_equal(s.server.result, 0);
	assert_string_equal(srdma_tls_version(s.client.tls), "TLSv1.3");
	assert_string_equal(srdma_tls_version(s.server.tls), "TLSv1.3");
	assert_string_equal(srdma_tls_cipher(s.client.tls), srdma_tls_cipher(s.server.tls));
	assert_int_equal(srdma_tls_peer_names(s.server.tls, &names), 0);
	assert_string_equal(names.identity, "client");
	srdma_peer_names_clear(&names);
	assert_int_equal(srdma_tls_peer_names(s.client.tls, &names), 0);
	assert_string_equal(names.identity, "server");
	srdma_peer_names_clear(&names);
	tls_rig_part(&s);
}

TEST(allowing_tls12_still_prefers_tls13)
{
	struct srdma_tls_server_options so = server_options();
	struct srdma_tls_client_options co = client_options();
	struct session s;

	so.allow_tls12 = co.allow_tls12 = true;
	s = tls_rig_meet(so, co, "host.example.com");
	assert_int_equal(s.client.result, 0);
	assert_string_equal(srdma_tls_version(s.server.tls), "TLSv1.3");
	tls_rig_part(&s);
}

TEST(bytes_cross_in_both_directions)
{
	struct session s = tls_rig_meet(server_options(), client_options(), "host.example.com");
	static uint8_t sent[200000], received[sizeof sent];

	assert_int_equal(s.server.result, 0);
	for (size_t i = 0; i < sizeof sent; i++)
		sent[i] = (uint8_t)(i * 2654435761u >> 24);
	for (int direction = 0; direction < 2; direction++) {
		struct srdma_tls *from = direction ? s.server.tls : s.client.tls;
		struct srdma_tls *to = direction ? s.client.tls : s.server.tls;
		size_t out = 0, in = 0;

		memset(received, 0, sizeof received);
		/* More than the socket holds: writing must end with -EAGAIN and go on where it stood. */
		while (in < sizeof sent) {
			int n = out < sizeof sent ? srdma_tls_write(from, sent + out, sizeof sent - out) : -EAGAIN;

			assert_true(n > 0 || n == -EAGAIN);
			out += n > 0 ? (size_t)n : 0;
			n = srdma_tls_read(to, received + in, sizeof received - in);
			assert_true(n > 0 || n == -EAGAIN);
			in += n > 0 ? (size_t)n : 0;
		}
		assert_memory_equal(sent, received, sizeof sent);
	}
	tls_rig_part(&s);
}

TEST(context_outlives_its_users_reference)
{
	struct session s = tls_rig_meet(server_options(), client_options(), "host.example.com");
	char byte = 'x';

	srdma_tls_context_unref(&s.client_context);
	srdma_tls_context_unref(&s.server_context);
	assert_null(s.client_context);
	assert_int_equal(srdma_tls_write(s.client.tls, &byte, 1), 1);
	assert_int_equal(tls_rig_read_some(s.server.tls, &byte, 1), 1);
	tls_rig_part(&s);
}

/* ---- an end that is OpenSSL's own ------------------------------------------------------------------------------ */

struct raw_peer {
	pthread_t thread;
	SSL_CTX *context;
	SSL *ssl;
	int fd;
	bool accepts;
	bool ok;
};

static int raw_select_alpn(SSL *ssl, const unsigned char **out, unsigned char *length, const unsigned char *in,
			   unsigned in_length, void *arg)
{
	if (in_length < 1u + in[0])
		return SSL_TLSEXT_ERR_NOACK;
	*out = in + 1;
	*length = in[0];
	return SSL_TLSEXT_ERR_OK;
}

static void *run_raw_peer(void *arg)
{
	struct raw_peer *raw = arg;

	raw->ok = (raw->accepts ? SSL_accept(raw->ssl) : SSL_connect(raw->ssl)) == 1;
	if (!raw->ok)
		shutdown(raw->fd, SHUT_WR);
	return NULL;
}

/* Takes any certificate, speaks exactly `version`; `alpn` in wire form, NULL: none. */
static void raw_start(struct raw_peer *raw, bool accepts, int fd, int version, const char *alpn)
{
	*raw = (struct raw_peer){.accepts = accepts, .fd = fd, .context = SSL_CTX_new(TLS_method())};
	assert_non_null(raw->context);
	/* Old versions need the signatures that level 1 forbids. */
	SSL_CTX_set_security_level(raw->context, 0);
	assert_int_equal(SSL_CTX_set_cipher_list(raw->context, "ALL:@SECLEVEL=0"), 1);
	assert_int_equal(SSL_CTX_set_min_proto_version(raw->context, version), 1);
	assert_int_equal(SSL_CTX_set_max_proto_version(raw->context, version), 1);
	assert_int_equal(SSL_CTX_use_certificate_chain_file(raw->context, accepts ? "server.crt" : "client.crt"), 1);
	assert_int_equal(
		SSL_CTX_use_PrivateKey_file(raw->context, accepts ? "server.key" : "client.key", SSL_FILETYPE_PEM), 1);
	if (accepts && alpn)
		SSL_CTX_set_alpn_select_cb(raw->context, raw_select_alpn, NULL);
	else if (alpn)
		assert_int_equal(
			SSL_CTX_set_alpn_protos(raw->context, (const unsigned char *)alpn, (unsigned)strlen(alpn)), 0);
	raw->ssl = SSL_new(raw->context);
	assert_int_equal(fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) & ~O_NONBLOCK), 0);
	assert_int_equal(SSL_set_fd(raw->ssl, fd), 1);
	assert_int_equal(pthread_create(&raw->thread, NULL, run_raw_peer, raw), 0);
}

static void raw_free(struct raw_peer *raw)
{
	SSL_free(raw->ssl);
	SSL_CTX_free(raw->context);
	close(raw->fd);
}

static void raw_finish(struct raw_peer *raw)
{
	pthread_join(raw->thread, NULL);
	raw_free(raw);
}

#define ALPN "\012securdma/1"

/* Our end against such a peer. Returns our handshake's result; *version is what was agreed. */
static int face(struct srdma_tls_context *context, bool serve, int version, const char *alpn, char agreed[16])
{
	struct srdma_tls *tls = NULL;
	struct raw_peer raw;
	int client, server, ret;

	connect_sockets(&client, &server);
	assert_int_equal(srdma_tls_new(context, serve ? server : client, serve ? NULL : "host.example.com", &tls), 0);
	raw_start(&raw, !serve, serve ? client : server, version, alpn);
	ret = srdma_control_handshake(tls, srdma_deadline(PATIENCE_MS));
	if (agreed)
		snprintf(agreed, 16, "%s", srdma_tls_version(tls));
	if (ret != 0) {
		char text[768];

		snprintf(text, sizeof text, "%s", srdma_error_text());
		tls_rig_linger(tls);
		assert_string_equal(text, srdma_error_text());
	}
	raw_finish(&raw);
	srdma_tls_delete(&tls);
	return ret;
}

TEST(tls12_is_refused_by_default)
{
	struct srdma_tls_context *server = server_context(server_options()), *client = client_context(client_options());

	assert_int_equal(face(server, true, TLS1_2_VERSION, ALPN, NULL), SRDMA_ETLS);
	assert_error_says("unsupported protocol");
	assert_int_equal(face(client, false, TLS1_2_VERSION, ALPN, NULL), SRDMA_ETLS);
	/* The same peers with 1.3 are welcome, so the version was the reason. */
	assert_int_equal(face(server, true, TLS1_3_VERSION, ALPN, NULL), 0);
	assert_int_equal(face(client, false, TLS1_3_VERSION, ALPN, NULL), 0);
	srdma_tls_context_unref(&server);
	srdma_tls_context_unref(&client);
}

TEST(tls12_is_accepted_when_allowed)
{
	struct srdma_tls_server_options so = server_options();
	struct srdma_tls_client_options co = client_options();
	struct srdma_tls_context *server, *client;
	char version[16];

	so.allow_tls12 = co.allow_tls12 = true;
	server = server_context(so);
	client = client_context(co);
	assert_int_equal(face(server, true, TLS1_2_VERSION, ALPN, version), 0);
	assert_string_equal(version, "TLSv1.2");
	assert_int_equal(face(client, false, TLS1_2_VERSION, ALPN, version), 0);
	assert_string_equal(version, "TLSv1.2");
	srdma_tls_context_unref(&server);
	srdma_tls_context_unref(&client);
}

TEST(tls11_is_never_accepted)
{
	struct srdma_tls_server_options so = server_options();
	struct srdma_tls_client_options co = client_options();
	struct srdma_tls_context *server, *client;

	so.allow_tls12 = co.allow_tls12 = true;
	server = server_context(so);
	client = client_context(co);
	for (int version = TLS1_VERSION; version <= TLS1_1_VERSION; version++) {
		assert_int_equal(face(server, true, version, ALPN, NULL), SRDMA_ETLS);
		assert_int_equal(face(client, false, version, ALPN, NULL), SRDMA_ETLS);
	}
	srdma_tls_context_unref(&server);
	srdma_tls_context_unref(&client);
}

TEST(peer_of_another_protocol_is_refused)
{
	struct srdma_tls_context *server = server_context(server_options()), *client = client_context(client_options());

	assert_int_equal(face(server, true, TLS1_3_VERSION, "\002h2\010http/1.1", NULL), SRDMA_ETLS);
	assert_int_equal(face(server, true, TLS1_3_VERSION, "\012securdma/2", NULL), SRDMA_ETLS);
	/* Without ALPN the handshake itself succeeds: the check after it counts. */
	assert_int_equal(face(server, true, TLS1_3_VERSION, NULL, NULL), SRDMA_EPROTOCOL);
	assert_error_says("securdma/1");
	assert_int_equal(face(client, false, TLS1_3_VERSION, NULL, NULL), SRDMA_EPROTOCOL);
	assert_error_says("securdma/1");
	/* One of several is enough. */
	assert_int_equal(face(server, true, TLS1_3_VERSION, "\002h2" ALPN, NULL), 0);
	srdma_tls_context_unref(&server);
	srdma_tls_context_unref(&client);
}

/* What could be resumed could be replayed. */
TEST(server_gives_nothing_to_resume_with)
{
	struct srdma_tls_server_options so = server_options();
	struct srdma_tls_context *server;

	so.allow_tls12 = true;
	server = server_context(so);
	for (int version = TLS1_2_VERSION; version <= TLS1_3_VERSION; version++) {
		struct srdma_tls *tls = NULL;
		struct raw_peer raw;
		char byte = 'x';
		int client_fd, server_fd;

		connect_sockets(&client_fd, &server_fd);
		assert_int_equal(srdma_tls_new(server, server_fd, NULL, &tls), 0);
		raw_start(&raw, false, client_fd, version, ALPN);
		assert_int_equal(srdma_control_handshake(tls, srdma_deadline(PATIENCE_MS)), 0);
		assert_int_equal(srdma_tls_write(tls, &byte, 1), 1);
		pthread_join(raw.thread, NULL);
		/* Tickets would come before the byte. */
		assert_int_equal(SSL_read(raw.ssl, &byte, 1), 1);
		assert_int_equal(SSL_SESSION_is_resumable(SSL_get0_session(raw.ssl)), 0);
		assert_int_equal(SSL_SESSION_get_max_early_data(SSL_get0_session(raw.ssl)), 0);
		raw_free(&raw);
		srdma_tls_delete(&tls);
	}
	srdma_tls_context_unref(&server);
}

RUN_TESTS(tls_rig_make_files, tls_rig_remove_files)
