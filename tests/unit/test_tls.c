/* SPDX-License-Identifier: Apache-2.0 */
/* Both ends of a TLS channel over TCP on loopback: the server's in a thread of its own, the client's in the main one.
 * Where one end must misbehave, it is OpenSSL's own (raw_*), which knows no rules of ours. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "loopback.h"

#include "clock.h"
#include "control.h"
#include "net.h"
#include "tls.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <openssl/pem.h>
#include <poll.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define LINGER_MS   1000

static char workdir[64];
static const char *const server_names[] = {"host.example.com", "127.0.0.1", "::1"};

/* ---- certificates ---------------------------------------------------------------------------------------------- */

enum issuer { CA, OTHER_CA };

static void make_cert(enum srdma_cert_kind kind, const char *file, enum issuer issuer, int64_t not_after)
{
	static const char *const ca_cert[] = {"ca.crt", "other-ca.crt"}, *const ca_key[] = {"ca.key", "other-ca.key"};
	bool has_names = kind == SRDMA_CERT_SERVER || kind == SRDMA_CERT_SELF_SIGNED;
	bool has_issuer = kind == SRDMA_CERT_SERVER || kind == SRDMA_CERT_CLIENT;
	char cert[64], key[64];
	struct srdma_cert_request request = {
		.size = sizeof(struct srdma_cert_request),
		.kind = kind,
		.common_name = file,
		.names = has_names ? server_names : NULL,
		.name_count = has_names ? sizeof server_names / sizeof *server_names : 0,
		.days = 10,
		.not_after = not_after,
		.ca_cert_file = has_issuer ? ca_cert[issuer] : NULL,
		.ca_key_file = has_issuer ? ca_key[issuer] : NULL,
		.cert_file = cert,
		.key_file = key,
	};

	snprintf(cert, sizeof cert, "%s.crt", file);
	snprintf(key, sizeof key, "%s.key", file);
	if (srdma_cert_make(&request) != 0)
		fail_msg("%s: %s", file, srdma_error_text());
}

static void write_text(const char *path, const char *text)
{
	FILE *file = fopen(path, "w");

	assert_non_null(file);
	fputs(text, file);
	fclose(file);
}

static void encrypt_key(const char *from, const char *to)
{
	FILE *in = fopen(from, "r"), *out = fopen(to, "w");
	EVP_PKEY *key = in ? PEM_read_PrivateKey(in, NULL, NULL, NULL) : NULL;

	assert_non_null(key);
	assert_non_null(out);
	assert_int_equal(PEM_write_PrivateKey(out, key, EVP_aes_256_cbc(), NULL, 0, NULL, (void *)"password"), 1);
	EVP_PKEY_free(key);
	fclose(in);
	fclose(out);
}

static int make_files(void **state)
{
	int64_t yesterday = (int64_t)time(NULL) - 86400;

	(void)state;
	strcpy(workdir, "/tmp/securdma-tls-XXXXXX");
	if (!mkdtemp(workdir) || chdir(workdir) != 0)
		return -1;
	make_cert(SRDMA_CERT_CA, "ca", CA, 0);
	make_cert(SRDMA_CERT_CA, "other-ca", CA, 0);
	make_cert(SRDMA_CERT_SERVER, "server", CA, 0);
	make_cert(SRDMA_CERT_SERVER, "expired-server", CA, yesterday);
	make_cert(SRDMA_CERT_CLIENT, "client", CA, 0);
	make_cert(SRDMA_CERT_CLIENT, "expired-client", CA, yesterday);
	make_cert(SRDMA_CERT_CLIENT, "other-client", OTHER_CA, 0);
	make_cert(SRDMA_CERT_SELF_SIGNED, "self", CA, 0);
	make_cert(SRDMA_CERT_SELF_SIGNED, "expired-self", CA, yesterday);
	encrypt_key("client.key", "encrypted.key");
	write_text("garbage.pem", "-----BEGIN CERTIFICATE-----\nnothing of the kind\n-----END CERTIFICATE-----\n");
	write_text("empty.pem", "");
	return 0;
}

static int remove_files(void **state)
{
	DIR *directory = opendir(".");
	struct dirent *entry;

	(void)state;
	while (directory && (entry = readdir(directory)))
		if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
			remove(entry->d_name);
	if (directory)
		closedir(directory);
	return chdir("/") || rmdir(workdir) ? -1 : 0;
}

/* ---- contexts -------------------------------------------------------------------------------------------------- */

/* The ordinary case; each test changes what it is about. */
static struct srdma_tls_server_options server_options(void)
{
	struct srdma_tls_server_options o;

	srdma_tls_server_options_init(&o);
	o.cert_file = "server.crt";
	o.key_file = "server.key";
	o.client_ca_file = "ca.crt";
	return o;
}

static struct srdma_tls_client_options client_options(void)
{
	struct srdma_tls_client_options o;

	srdma_tls_client_options_init(&o);
	o.ca_file = "ca.crt";
	o.cert_file = "client.crt";
	o.key_file = "client.key";
	return o;
}

static struct srdma_tls_context *server_context(struct srdma_tls_server_options o)
{
	struct srdma_tls_context *context = NULL;

	if (srdma_tls_server_new(&o, &context) != 0)
		fail_msg("server context: %s", srdma_error_text());
	return context;
}

static struct srdma_tls_context *client_context(struct srdma_tls_client_options o)
{
	struct srdma_tls_context *context = NULL;

	if (srdma_tls_client_new(&o, &context) != 0)
		fail_msg("client context: %s", srdma_error_text());
	return context;
}

static int try_server(struct srdma_tls_server_options o)
{
	struct srdma_tls_context *context = NULL;
	int ret = srdma_tls_server_new(&o, &context);

	assert_int_equal(context != NULL, ret == 0);
	srdma_tls_context_unref(&context);
	return ret;
}

static int try_client(struct srdma_tls_client_options o)
{
	struct srdma_tls_context *context = NULL;
	int ret = srdma_tls_client_new(&o, &context);

	assert_int_equal(context != NULL, ret == 0);
	srdma_tls_context_unref(&context);
	return ret;
}

static const char *pin_of(const char *cert_file)
{
	static struct srdma_cert_info info;

	assert_int_equal(srdma_cert_read(cert_file, &info), 0);
	return info.pin;
}

static void assert_error_says(const char *words)
{
	if (!strstr(srdma_error_text(), words))
		fail_msg("'%s' is not in '%s'", words, srdma_error_text());
}

/* ---- the two ends ---------------------------------------------------------------------------------------------- */

struct end {
	struct srdma_tls *tls;
	sem_t judged; /* result and text are there */
	int result;   /* of the handshake */
	char text[768];
};

struct session {
	struct srdma_tls_context *server_context, *client_context;
	struct end server, client;
};

static void linger(struct srdma_tls *tls)
{
	uint64_t deadline = srdma_deadline(LINGER_MS);

	while (srdma_tls_linger(tls) == -EAGAIN && srdma_deadline_left_ms(deadline) > 0)
		srdma_net_wait(srdma_tls_fd(tls), srdma_tls_events(tls), deadline);
}

/* As the library's accept does it: a refusal lingers, so that the alert arrives. */
static void *run_server(void *arg)
{
	struct end *end = arg;

	end->result = srdma_control_handshake(end->tls, srdma_deadline(PATIENCE_MS));
	snprintf(end->text, sizeof end->text, "%s", srdma_error_text());
	sem_post(&end->judged);
	if (end->result != 0)
		linger(end->tls);
	return NULL;
}

/* Waits for bytes from the peer: their number, or why there won't be any. */
static int read_some(struct srdma_tls *tls, void *data, size_t size)
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

static int first_read(struct srdma_tls *tls)
{
	char byte;

	return read_some(tls, &byte, 1);
}

/* Runs both handshakes. With TLS 1.3 the client's is over before the server has judged its certificate: the client then
 * learns of it in its first read, which is done here while the server lingers; its outcome is the client's result. */
static struct session meet(struct srdma_tls_server_options so, struct srdma_tls_client_options co, const char *host)
{
	struct session s = {.server_context = server_context(so), .client_context = client_context(co)};
	pthread_t thread;
	int client, server;

	connect_sockets(&client, &server);
	assert_int_equal(srdma_tls_new(s.server_context, server, NULL, &s.server.tls), 0);
	assert_int_equal(srdma_tls_new(s.client_context, client, host, &s.client.tls), 0);
	sem_init(&s.server.judged, 0, 0);
	assert_int_equal(pthread_create(&thread, NULL, run_server, &s.server), 0);
	s.client.result = srdma_control_handshake(s.client.tls, srdma_deadline(PATIENCE_MS));
	snprintf(s.client.text, sizeof s.client.text, "%s", srdma_error_text());
	if (s.client.result != 0)
		linger(s.client.tls);
	sem_wait(&s.server.judged);
	if (s.client.result == 0 && s.server.result != 0) {
		s.client.result = first_read(s.client.tls);
		snprintf(s.client.text, sizeof s.client.text, "%s", srdma_error_text());
		shutdown(srdma_tls_fd(s.client.tls), SHUT_WR);
	}
	pthread_join(thread, NULL);
	sem_destroy(&s.server.judged);
	return s;
}

static void part(struct session *s)
{
	srdma_tls_delete(&s->client.tls);
	srdma_tls_delete(&s->server.tls);
	srdma_tls_context_unref(&s->client_context);
	srdma_tls_context_unref(&s->server_context);
}

static void assert_meets(struct srdma_tls_server_options so, struct srdma_tls_client_options co, const char *host)
{
	struct session s = meet(so, co, host);

	if (s.client.result != 0 || s.server.result != 0)
		fail_msg("client: %s; server: %s", s.client.text, s.server.text);
	part(&s);
}

/* Neither end may take the other for good. 0 for an error: any. */
static void assert_refused(struct srdma_tls_server_options so, struct srdma_tls_client_options co, const char *host,
			   int client_error, const char *client_words, int server_error, const char *server_words)
{
	struct session s = meet(so, co, host);

	assert_true(s.client.result < 0);
	assert_true(s.server.result < 0);
	if ((client_error && s.client.result != client_error) || !strstr(s.client.text, client_words))
		fail_msg("client: %s: '%s'; wanted %s, '%s'", srdma_strerror(s.client.result), s.client.text,
			 srdma_strerror(client_error), client_words);
	if ((server_error && s.server.result != server_error) || !strstr(s.server.text, server_words))
		fail_msg("server: %s: '%s'; wanted %s, '%s'", srdma_strerror(s.server.result), s.server.text,
			 srdma_strerror(server_error), server_words);
	part(&s);
}

/* ---- what is agreed -------------------------------------------------------------------------------------------- */

static void tls13_and_the_protocol_are_agreed(void **state)
{
	struct session s = meet(server_options(), client_options(), "host.example.com");
	struct srdma_peer_names names;

	(void)state;
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
	part(&s);
}

static void allowing_tls12_still_prefers_tls13(void **state)
{
	struct srdma_tls_server_options so = server_options();
	struct srdma_tls_client_options co = client_options();
	struct session s;

	(void)state;
	so.allow_tls12 = co.allow_tls12 = true;
	s = meet(so, co, "host.example.com");
	assert_int_equal(s.client.result, 0);
	assert_string_equal(srdma_tls_version(s.server.tls), "TLSv1.3");
	part(&s);
}

static void bytes_cross_in_both_directions(void **state)
{
	struct session s = meet(server_options(), client_options(), "host.example.com");
	static uint8_t sent[200000], received[sizeof sent];

	(void)state;
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
	part(&s);
}

static void context_outlives_its_users_reference(void **state)
{
	struct session s = meet(server_options(), client_options(), "host.example.com");
	char byte = 'x';

	(void)state;
	srdma_tls_context_unref(&s.client_context);
	srdma_tls_context_unref(&s.server_context);
	assert_null(s.client_context);
	assert_int_equal(srdma_tls_write(s.client.tls, &byte, 1), 1);
	assert_int_equal(read_some(s.server.tls, &byte, 1), 1);
	part(&s);
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
	(void)ssl;
	(void)arg;
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
		linger(tls);
		assert_string_equal(text, srdma_error_text());
	}
	raw_finish(&raw);
	srdma_tls_delete(&tls);
	return ret;
}

static void tls12_is_refused_by_default(void **state)
{
	struct srdma_tls_context *server = server_context(server_options()), *client = client_context(client_options());

	(void)state;
	assert_int_equal(face(server, true, TLS1_2_VERSION, ALPN, NULL), SRDMA_ETLS);
	assert_error_says("unsupported protocol");
	assert_int_equal(face(client, false, TLS1_2_VERSION, ALPN, NULL), SRDMA_ETLS);
	/* The same peers with 1.3 are welcome, so the version was the reason. */
	assert_int_equal(face(server, true, TLS1_3_VERSION, ALPN, NULL), 0);
	assert_int_equal(face(client, false, TLS1_3_VERSION, ALPN, NULL), 0);
	srdma_tls_context_unref(&server);
	srdma_tls_context_unref(&client);
}

static void tls12_is_accepted_when_allowed(void **state)
{
	struct srdma_tls_server_options so = server_options();
	struct srdma_tls_client_options co = client_options();
	struct srdma_tls_context *server, *client;
	char version[16];

	(void)state;
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

static void tls11_is_never_accepted(void **state)
{
	struct srdma_tls_server_options so = server_options();
	struct srdma_tls_client_options co = client_options();
	struct srdma_tls_context *server, *client;

	(void)state;
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

static void peer_of_another_protocol_is_refused(void **state)
{
	struct srdma_tls_context *server = server_context(server_options()), *client = client_context(client_options());

	(void)state;
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
static void server_gives_nothing_to_resume_with(void **state)
{
	struct srdma_tls_server_options so = server_options();
	struct srdma_tls_context *server;

	(void)state;
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

/* ---- the client judges the server ------------------------------------------------------------------------------ */

static void server_of_another_ca_is_refused(void **state)
{
	struct srdma_tls_client_options co = client_options();

	(void)state;
	co.ca_file = "other-ca.crt";
	assert_refused(server_options(), co, "host.example.com", SRDMA_ECERT, "not acceptable", SRDMA_ECERT,
		       "does not accept our certificate");
}

static void expired_server_is_refused(void **state)
{
	struct srdma_tls_server_options so = server_options();

	(void)state;
	so.cert_file = "expired-server.crt";
	so.key_file = "expired-server.key";
	assert_refused(so, client_options(), "host.example.com", SRDMA_ECERT, "expired", SRDMA_ECERT, "expired");
}

static void client_certificate_serves_no_server(void **state)
{
	struct srdma_tls_server_options so = server_options();

	(void)state;
	so.cert_file = "client.crt";
	so.key_file = "client.key";
	assert_refused(so, client_options(), "host.example.com", SRDMA_ECERT, "purpose", SRDMA_ECERT, "");
}

static void name_must_be_the_certificates(void **state)
{
	static const char *const wrong[] = {"other.example.com", "example.com", "a.host.example.com",           "host",
					    "127.0.0.2",         "::2",         "host.example.com.evil.example"};

	(void)state;
	for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++)
		assert_refused(server_options(), client_options(), wrong[i], SRDMA_ECERT, "not for this name", 0, "");
	assert_meets(server_options(), client_options(), "HOST.example.COM");
}

static void address_is_checked_against_address_names(void **state)
{
	(void)state;
	assert_meets(server_options(), client_options(), "127.0.0.1");
	assert_meets(server_options(), client_options(), "::1");
	assert_meets(server_options(), client_options(), "0:0:0:0:0:0:0:1");
}

static void server_name_stands_instead_of_the_host(void **state)
{
	struct srdma_tls_client_options co = client_options();

	(void)state;
	co.server_name = "host.example.com";
	assert_meets(server_options(), co, "192.0.2.99");
	co.server_name = "other.example.com";
	assert_refused(server_options(), co, "host.example.com", SRDMA_ECERT, "--server-name", 0, "");
}

static void client_without_a_name_to_check_does_not_start(void **state)
{
	struct srdma_tls_context *client = client_context(client_options());

	(void)state;
	for (int i = 0; i < 2; i++) {
		struct srdma_tls *tls = NULL;
		int client_fd, server_fd;

		connect_sockets(&client_fd, &server_fd);
		assert_int_equal(srdma_tls_new(client, client_fd, i ? "" : NULL, &tls), -EINVAL);
		assert_null(tls);
		/* The socket was taken over, and is closed. */
		assert_int_equal(fcntl(client_fd, F_GETFD), -1);
		close(server_fd);
	}
	srdma_tls_context_unref(&client);
}

static struct srdma_tls_server_options self_signed_server(const char *cert, const char *key)
{
	struct srdma_tls_server_options so = server_options();

	so.cert_file = cert;
	so.key_file = key;
	return so;
}

static void pinned_key_is_accepted_without_a_ca(void **state)
{
	struct srdma_tls_client_options co = client_options();

	(void)state;
	co.ca_file = NULL;
	co.pin = pin_of("self.crt");
	assert_meets(self_signed_server("self.crt", "self.key"), co, "host.example.com");
	/* The key is who the server is, whatever it is called. */
	assert_meets(self_signed_server("self.crt", "self.key"), co, "192.0.2.99");
}

static void other_key_than_the_pinned_one_is_refused(void **state)
{
	struct srdma_tls_client_options co = client_options();

	(void)state;
	co.ca_file = NULL;
	co.pin = pin_of("server.crt");
	assert_refused(self_signed_server("self.crt", "self.key"), co, "host.example.com", SRDMA_ECERT, "pin", 0, "");
}

static void pinned_key_does_not_outlive_its_certificate(void **state)
{
	struct srdma_tls_client_options co = client_options();

	(void)state;
	co.ca_file = NULL;
	co.pin = pin_of("expired-self.crt");
	assert_refused(self_signed_server("expired-self.crt", "expired-self.key"), co, "host.example.com", SRDMA_ECERT,
		       "expired", SRDMA_ECERT, "expired");
}

static void pin_and_ca_must_both_hold(void **state)
{
	struct srdma_tls_client_options co = client_options();

	(void)state;
	co.pin = pin_of("server.crt");
	assert_meets(server_options(), co, "host.example.com");
	assert_refused(server_options(), co, "other.example.com", SRDMA_ECERT, "name", 0, "");
	co.ca_file = "other-ca.crt";
	assert_refused(server_options(), co, "host.example.com", SRDMA_ECERT, "", 0, "");
	co = client_options();
	co.pin = pin_of("self.crt");
	assert_refused(server_options(), co, "host.example.com", SRDMA_ECERT, "pin", 0, "");
}

/* ---- the server judges the client ------------------------------------------------------------------------------ */

static struct srdma_tls_client_options client_with(const char *cert, const char *key)
{
	struct srdma_tls_client_options co = client_options();

	co.cert_file = cert;
	co.key_file = key;
	return co;
}

/* assert_refused takes the client's first read where its handshake succeeded. */
static void missing_client_certificate_is_told_in_the_first_read(void **state)
{
	(void)state;
	assert_refused(server_options(), client_with(NULL, NULL), "host.example.com", SRDMA_ECERT,
		       "does not accept our certificate", SRDMA_ECERT, "showed no certificate");
}

static void expired_client_is_refused(void **state)
{
	(void)state;
	assert_refused(server_options(), client_with("expired-client.crt", "expired-client.key"), "host.example.com",
		       SRDMA_ECERT, "expired", SRDMA_ECERT, "expired");
}

static void client_of_another_ca_is_refused(void **state)
{
	(void)state;
	assert_refused(server_options(), client_with("other-client.crt", "other-client.key"), "host.example.com",
		       SRDMA_ECERT, "does not accept our certificate", SRDMA_ECERT, "not acceptable");
	assert_refused(server_options(), client_with("self.crt", "self.key"), "host.example.com", SRDMA_ECERT,
		       "does not accept our certificate", SRDMA_ECERT, "not acceptable");
}

static void server_certificate_serves_no_client(void **state)
{
	(void)state;
	assert_refused(server_options(), client_with("server.crt", "server.key"), "host.example.com", SRDMA_ECERT,
		       "does not accept our certificate", SRDMA_ECERT, "purpose");
}

static void anonymous_client_is_served_where_that_is_allowed(void **state)
{
	struct srdma_tls_server_options so = server_options();
	struct session s;
	struct srdma_peer_names names;

	(void)state;
	so.insecure_anonymous_clients = true;
	s = meet(so, client_with(NULL, NULL), "host.example.com");
	assert_int_equal(s.client.result, 0);
	assert_int_equal(s.server.result, 0);
	assert_int_equal(srdma_tls_peer_names(s.server.tls, &names), 0);
	assert_string_equal(names.identity, "");
	assert_string_equal(names.pin, "");
	assert_int_equal(names.count, 0);
	part(&s);
	so.client_ca_file = NULL;
	assert_meets(so, client_with(NULL, NULL), "host.example.com");
}

static void certificate_that_is_shown_must_verify_even_where_none_is_needed(void **state)
{
	struct srdma_tls_server_options so = server_options();

	(void)state;
	so.insecure_anonymous_clients = true;
	assert_meets(so, client_options(), "host.example.com");
	assert_refused(so, client_with("other-client.crt", "other-client.key"), "host.example.com", SRDMA_ECERT, "",
		       SRDMA_ECERT, "not acceptable");
}

/* ---- what a context is made of --------------------------------------------------------------------------------- */

static void client_needs_something_to_verify_with(void **state)
{
	struct srdma_tls_client_options co = client_options();

	(void)state;
	co.ca_file = NULL;
	assert_int_equal(try_client(co), SRDMA_ECONFIG);
	assert_error_says("--ca");
	assert_error_says("--pin");
}

static void server_needs_certificate_key_and_client_ca(void **state)
{
	struct srdma_tls_server_options so = server_options();

	(void)state;
	so.client_ca_file = NULL;
	assert_int_equal(try_server(so), SRDMA_ECONFIG);
	assert_error_says("--client-ca");
	so = server_options();
	so.cert_file = so.key_file = NULL;
	assert_int_equal(try_server(so), SRDMA_ECONFIG);
	so = server_options();
	so.key_file = NULL;
	assert_int_equal(try_server(so), SRDMA_ECONFIG);
	so = server_options();
	so.cert_file = NULL;
	assert_int_equal(try_server(so), SRDMA_ECONFIG);
}

static void certificate_without_its_key_is_half_a_credential(void **state)
{
	(void)state;
	assert_int_equal(try_client(client_with("client.crt", NULL)), SRDMA_ECONFIG);
	assert_error_says("give both");
	assert_int_equal(try_client(client_with(NULL, "client.key")), SRDMA_ECONFIG);
	assert_error_says("give both");
}

static void key_of_another_certificate_is_found_out(void **state)
{
	struct srdma_tls_server_options so = server_options();

	(void)state;
	assert_int_equal(try_client(client_with("client.crt", "server.key")), SRDMA_ECONFIG);
	assert_error_says("client.crt");
	assert_error_says("server.key");
	so.key_file = "client.key";
	assert_int_equal(try_server(so), SRDMA_ECONFIG);
	assert_error_says("server.crt");
}

/* A prompt would read the standard input, or the terminal; neither may be touched. */
static void encrypted_key_is_refused_without_asking(void **state)
{
	int pipe_fds[2], saved = dup(STDIN_FILENO);
	char first = 0;
	uint64_t start = srdma_clock_us();

	(void)state;
	assert_int_equal(pipe(pipe_fds), 0);
	assert_int_equal(write(pipe_fds[1], "password\n", 9), 9);
	assert_true(dup2(pipe_fds[0], STDIN_FILENO) == STDIN_FILENO);
	assert_int_equal(try_client(client_with("client.crt", "encrypted.key")), SRDMA_ECONFIG);
	assert_error_says("unencrypted");
	assert_error_says("encrypted.key");
	assert_int_equal(read(STDIN_FILENO, &first, 1), 1);
	assert_int_equal(first, 'p');
	assert_true(srdma_clock_us() - start < 5000000);
	dup2(saved, STDIN_FILENO);
	close(saved);
	close(pipe_fds[0]);
	close(pipe_fds[1]);
}

static void missing_file_is_named(void **state)
{
	struct srdma_tls_client_options co = client_options();
	struct srdma_tls_server_options so = server_options();

	(void)state;
	co.ca_file = "nowhere.crt";
	assert_int_equal(try_client(co), -ENOENT);
	assert_error_says("nowhere.crt");
	assert_int_equal(try_client(client_with("gone.crt", "client.key")), -ENOENT);
	assert_error_says("gone.crt");
	assert_int_equal(try_client(client_with("client.crt", "gone.key")), -ENOENT);
	assert_error_says("gone.key");
	so.client_ca_file = "nowhere.crt";
	assert_int_equal(try_server(so), -ENOENT);
	assert_error_says("nowhere.crt");
}

static void unreadable_key_is_named(void **state)
{
	int status = -1;
	pid_t child;

	(void)state;
	assert_int_equal(chmod(".", 0755), 0);
	assert_int_equal(chmod("client.key", 0), 0);
	child = fork();
	assert_true(child >= 0);
	if (child == 0) {
		/* Root reads everything, so the child is somebody else. */
		if (geteuid() == 0 && setuid(65534) != 0)
			_exit(2);
		if (try_client(client_options()) != -EACCES)
			_exit(3);
		_exit(strstr(srdma_error_text(), "client.key") ? 0 : 4);
	}
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_int_equal(chmod("client.key", 0600), 0);
	assert_int_equal(status, 0);
}

static void malformed_file_is_named(void **state)
{
	static const char *const bad[] = {"garbage.pem", "empty.pem", "client.key", "."};
	struct srdma_tls_client_options co;

	(void)state;
	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
		co = client_options();
		co.ca_file = bad[i];
		assert_int_equal(try_client(co), SRDMA_ECONFIG);
		assert_error_says(bad[i]);
		assert_int_equal(try_client(client_with(bad[i], "client.key")), SRDMA_ECONFIG);
		assert_error_says(bad[i]);
	}
	assert_int_equal(try_client(client_with("client.crt", "garbage.pem")), SRDMA_ECONFIG);
	assert_error_says("garbage.pem");
}

static void malformed_pin_is_refused(void **state)
{
	static const char *const bad[] = {"", "sha256:", "sha256:1234", "md5:00", "not a pin"};

	(void)state;
	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
		struct srdma_tls_client_options co = client_options();

		co.pin = bad[i];
		assert_true(try_client(co) < 0);
		assert_error_says("sha256:");
	}
}

/* ---- the end of a channel -------------------------------------------------------------------------------------- */

static void close_notify_is_an_end_in_order(void **state)
{
	struct session s = meet(server_options(), client_options(), "host.example.com");
	char byte = 'x';

	(void)state;
	assert_int_equal(srdma_tls_write(s.server.tls, &byte, 1), 1);
	srdma_tls_delete(&s.server.tls);
	/* What was sent before still comes. */
	assert_int_equal(read_some(s.client.tls, &byte, 1), 1);
	assert_int_equal(first_read(s.client.tls), SRDMA_ECLOSED);
	assert_int_equal(first_read(s.client.tls), SRDMA_ECLOSED);
	part(&s);
}

static void end_without_close_notify_is_a_loss(void **state)
{
	struct session s = meet(server_options(), client_options(), "host.example.com");

	(void)state;
	assert_int_equal(shutdown(srdma_tls_fd(s.server.tls), SHUT_WR), 0);
	assert_int_equal(first_read(s.client.tls), SRDMA_ELOST);
	part(&s);
}

static void reset_is_a_loss(void **state)
{
	struct session s = meet(server_options(), client_options(), "host.example.com");
	struct linger at_once = {.l_onoff = 1};
	int fd = srdma_tls_fd(s.server.tls);

	(void)state;
	assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once), 0);
	/* Kept as a number by its owner, so that it closes nothing else later. */
	assert_true(dup2(STDERR_FILENO, fd) == fd);
	assert_int_equal(first_read(s.client.tls), SRDMA_ELOST);
	part(&s);
}

static volatile sig_atomic_t sigpipes;

static void count_sigpipe(int number)
{
	(void)number;
	sigpipes++;
}

static void writing_to_a_peer_that_is_gone_raises_no_signal(void **state)
{
	struct session s = meet(server_options(), client_options(), "host.example.com");
	struct sigaction count = {.sa_handler = count_sigpipe}, old;
	char data[4096] = {0};
	int n = 0;

	(void)state;
	sigaction(SIGPIPE, &count, &old);
	srdma_tls_delete(&s.server.tls);
	for (int i = 0; i < 1000 && (n >= 0 || n == -EAGAIN); i++) {
		n = srdma_tls_write(s.client.tls, data, sizeof data);
		usleep(100);
	}
	assert_int_equal(n, SRDMA_ELOST);
	part(&s);
	sigaction(SIGPIPE, &old, NULL);
	assert_int_equal(sigpipes, 0);
}

/* ---- peers that speak no TLS ----------------------------------------------------------------------------------- */

/* Our end's handshake against a peer that sends these bytes, and then closes its side or says nothing more. */
static int face_bytes(struct srdma_tls_context *context, bool serve, const void *bytes, size_t length, bool close_side,
		      int timeout_ms)
{
	struct srdma_tls *tls = NULL;
	int client, server, peer, ret;

	connect_sockets(&client, &server);
	peer = serve ? client : server;
	assert_int_equal(srdma_tls_new(context, serve ? server : client, serve ? NULL : "127.0.0.1", &tls), 0);
	assert_int_equal(write(peer, bytes, length), length);
	if (close_side)
		shutdown(peer, SHUT_WR);
	ret = srdma_control_handshake(tls, srdma_deadline(timeout_ms));
	srdma_tls_delete(&tls);
	close(peer);
	return ret;
}

static void garbage_is_refused_by_both_ends(void **state)
{
	static const char http[] = "GET / HTTP/1.1\r\nHost: host.example.com\r\n\r\n";
	static const char ssh[] = "SSH-2.0-OpenSSH_9.2\r\n";
	static const unsigned char zeroes[600];
	/* A record header that is right, and a handshake message that is not. */
	static const unsigned char record[] = {22, 3, 1, 0, 5, 1, 0xff, 0xff, 0xff, 0};
	static const unsigned char alert[] = {21, 3, 3, 0, 2, 2, 40};
	static const struct {
		const void *bytes;
		size_t length;
	} garbage[] = {
		{http, sizeof http - 1}, {ssh, sizeof ssh - 1}, {zeroes, sizeof zeroes},
		{record, sizeof record}, {alert, sizeof alert},
	};
	struct srdma_tls_context *server = server_context(server_options()), *client = client_context(client_options());

	(void)state;
	for (size_t i = 0; i < sizeof garbage / sizeof *garbage; i++) {
		for (int serve = 0; serve < 2; serve++) {
			int ret = face_bytes(serve ? server : client, serve, garbage[i].bytes, garbage[i].length, false,
					     PATIENCE_MS);

			if (ret != SRDMA_ETLS)
				fail_msg("garbage %zu to the %s: %s: %s", i, serve ? "server" : "client",
					 srdma_strerror(ret), srdma_error_text());
			assert_true(strlen(srdma_error_text()) > 0);
		}
	}
	srdma_tls_context_unref(&server);
	srdma_tls_context_unref(&client);
}

static void random_bytes_never_get_through(void **state)
{
	struct srdma_tls_context *server = server_context(server_options());
	unsigned char bytes[300];
	uint32_t random = 12345;

	(void)state;
	for (int round = 0; round < 100; round++) {
		for (size_t i = 0; i < sizeof bytes; i++) {
			random = random * 1664525 + 1013904223;
			bytes[i] = (unsigned char)(random >> 24);
		}
		/* Every other one passes for a handshake record, so that the parser behind is reached. */
		if (round % 2)
			memcpy(bytes, "\026\003\001\001\047\001\000\001\043\003\003", 11);
		int ret = face_bytes(server, true, bytes, sizeof bytes, true, PATIENCE_MS);
		assert_true(ret == SRDMA_ETLS || ret == SRDMA_ELOST);
	}
	srdma_tls_context_unref(&server);
}

static void peer_that_leaves_during_the_handshake_is_lost(void **state)
{
	static const unsigned char half[] = {22, 3, 1, 1, 0, 1};
	struct srdma_tls_context *server = server_context(server_options()), *client = client_context(client_options());

	(void)state;
	assert_int_equal(face_bytes(server, true, "", 0, true, PATIENCE_MS), SRDMA_ELOST);
	assert_int_equal(face_bytes(client, false, "", 0, true, PATIENCE_MS), SRDMA_ELOST);
	assert_int_equal(face_bytes(server, true, half, sizeof half, true, PATIENCE_MS), SRDMA_ELOST);
	assert_int_equal(face_bytes(client, false, half, sizeof half, true, PATIENCE_MS), SRDMA_ELOST);
	srdma_tls_context_unref(&server);
	srdma_tls_context_unref(&client);
}

static void silent_peer_is_given_up_at_the_deadline(void **state)
{
	static const unsigned char half[] = {22, 3, 1, 1, 0, 1};
	struct srdma_tls_context *server = server_context(server_options()), *client = client_context(client_options());
	uint64_t start = srdma_clock_us();

	(void)state;
	assert_int_equal(face_bytes(server, true, "", 0, false, 100), -ETIMEDOUT);
	assert_error_says("timed out waiting for the peer (TLS handshake)");
	assert_int_equal(face_bytes(client, false, "", 0, false, 100), -ETIMEDOUT);
	assert_int_equal(face_bytes(server, true, half, sizeof half, false, 100), -ETIMEDOUT);
	assert_true(srdma_clock_us() - start >= 300000);
	srdma_tls_context_unref(&server);
	srdma_tls_context_unref(&client);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(tls13_and_the_protocol_are_agreed),
		cmocka_unit_test(allowing_tls12_still_prefers_tls13),
		cmocka_unit_test(bytes_cross_in_both_directions),
		cmocka_unit_test(context_outlives_its_users_reference),
		cmocka_unit_test(tls12_is_refused_by_default),
		cmocka_unit_test(tls12_is_accepted_when_allowed),
		cmocka_unit_test(tls11_is_never_accepted),
		cmocka_unit_test(peer_of_another_protocol_is_refused),
		cmocka_unit_test(server_gives_nothing_to_resume_with),
		cmocka_unit_test(server_of_another_ca_is_refused),
		cmocka_unit_test(expired_server_is_refused),
		cmocka_unit_test(client_certificate_serves_no_server),
		cmocka_unit_test(name_must_be_the_certificates),
		cmocka_unit_test(address_is_checked_against_address_names),
		cmocka_unit_test(server_name_stands_instead_of_the_host),
		cmocka_unit_test(client_without_a_name_to_check_does_not_start),
		cmocka_unit_test(pinned_key_is_accepted_without_a_ca),
		cmocka_unit_test(other_key_than_the_pinned_one_is_refused),
		cmocka_unit_test(pinned_key_does_not_outlive_its_certificate),
		cmocka_unit_test(pin_and_ca_must_both_hold),
		cmocka_unit_test(missing_client_certificate_is_told_in_the_first_read),
		cmocka_unit_test(expired_client_is_refused),
		cmocka_unit_test(client_of_another_ca_is_refused),
		cmocka_unit_test(server_certificate_serves_no_client),
		cmocka_unit_test(anonymous_client_is_served_where_that_is_allowed),
		cmocka_unit_test(certificate_that_is_shown_must_verify_even_where_none_is_needed),
		cmocka_unit_test(client_needs_something_to_verify_with),
		cmocka_unit_test(server_needs_certificate_key_and_client_ca),
		cmocka_unit_test(certificate_without_its_key_is_half_a_credential),
		cmocka_unit_test(key_of_another_certificate_is_found_out),
		cmocka_unit_test(encrypted_key_is_refused_without_asking),
		cmocka_unit_test(missing_file_is_named),
		cmocka_unit_test(unreadable_key_is_named),
		cmocka_unit_test(malformed_file_is_named),
		cmocka_unit_test(malformed_pin_is_refused),
		cmocka_unit_test(close_notify_is_an_end_in_order),
		cmocka_unit_test(end_without_close_notify_is_a_loss),
		cmocka_unit_test(reset_is_a_loss),
		cmocka_unit_test(writing_to_a_peer_that_is_gone_raises_no_signal),
		cmocka_unit_test(garbage_is_refused_by_both_ends),
		cmocka_unit_test(random_bytes_never_get_through),
		cmocka_unit_test(peer_that_leaves_during_the_handshake_is_lost),
		cmocka_unit_test(silent_peer_is_given_up_at_the_deadline),
	};

	return cmocka_run_group_tests(tests, make_files, remove_files);
}
