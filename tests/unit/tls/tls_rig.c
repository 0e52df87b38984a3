/* SPDX-License-Identifier: Apache-2.0 */

#include "test.h"

#include "tls_rig.h"

#include "clock.h"
#include "control.h"
#include "net.h"

#include <dirent.h>
#include <errno.h>
#include <openssl/pem.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
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

int tls_rig_make_files(void **state)
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

int tls_rig_remove_files(void **state)
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

struct srdma_tls_server_options server_options(void)
{
	struct srdma_tls_server_options o;

	srdma_tls_server_options_init(&o);
	o.cert_file = "server.crt";
	o.key_file = "server.key";
	o.client_ca_file = "ca.crt";
	return o;
}

struct srdma_tls_client_options client_options(void)
{
	struct srdma_tls_client_options o;

	srdma_tls_client_options_init(&o);
	o.ca_file = "ca.crt";
	o.cert_file = "client.crt";
	o.key_file = "client.key";
	return o;
}

struct srdma_tls_client_options client_with(const char *cert, const char *key)
{
	struct srdma_tls_client_options co = client_options();

	co.cert_file = cert;
	co.key_file = key;
	return co;
}

struct srdma_tls_context *server_context(struct srdma_tls_server_options o)
{
	struct srdma_tls_context *context = NULL;

	if (srdma_tls_server_new(&o, &context) != 0)
		fail_msg("server context: %s", srdma_error_text());
	return context;
}

struct srdma_tls_context *client_context(struct srdma_tls_client_options o)
{
	struct srdma_tls_context *context = NULL;

	if (srdma_tls_client_new(&o, &context) != 0)
		fail_msg("client context: %s", srdma_error_text());
	return context;
}

int try_server(struct srdma_tls_server_options o)
{
	struct srdma_tls_context *context = NULL;
	int ret = srdma_tls_server_new(&o, &context);

	assert_int_equal(context != NULL, ret == 0);
	srdma_tls_context_unref(&context);
	return ret;
}

int try_client(struct srdma_tls_client_options o)
{
	struct srdma_tls_context *context = NULL;
	int ret = srdma_tls_client_new(&o, &context);

	assert_int_equal(context != NULL, ret == 0);
	srdma_tls_context_unref(&context);
	return ret;
}

const char *pin_of(const char *cert_file)
{
	static struct srdma_cert_info info;

	assert_int_equal(srdma_cert_read(cert_file, &info), 0);
	return info.pin;
}

void assert_error_says(const char *words)
{
	if (!strstr(srdma_error_text(), words))
		fail_msg("'%s' is not in '%s'", words, srdma_error_text());
}

/* ---- the two ends ---------------------------------------------------------------------------------------------- */

void tls_rig_linger(struct srdma_tls *tls)
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
		tls_rig_linger(end->tls);
	return NULL;
}

int tls_rig_read_some(struct srdma_tls *tls, void *data, size_t size)
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

int tls_rig_first_read(struct srdma_tls *tls)
{
	char byte;

	return tls_rig_read_some(tls, &byte, 1);
}

struct session tls_rig_meet(struct srdma_tls_server_options so, struct srdma_tls_client_options co, const char *host)
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
		tls_rig_linger(s.client.tls);
	sem_wait(&s.server.judged);
	if (s.client.result == 0 && s.server.result != 0) {
		s.client.result = tls_rig_first_read(s.client.tls);
		snprintf(s.client.text, sizeof s.client.text, "%s", srdma_error_text());
		shutdown(srdma_tls_fd(s.client.tls), SHUT_WR);
	}
	pthread_join(thread, NULL);
	sem_destroy(&s.server.judged);
	return s;
}

void tls_rig_part(struct session *s)
{
	srdma_tls_delete(&s->client.tls);
	srdma_tls_delete(&s->server.tls);
	srdma_tls_context_unref(&s->client_context);
	srdma_tls_context_unref(&s->server_context);
}

void assert_meets(struct srdma_tls_server_options so, struct srdma_tls_client_options co, const char *host)
{
	struct session s = tls_rig_meet(so, co, host);

	if (s.client.result != 0 || s.server.result != 0)
		fail_msg("client: %s; server: %s", s.client.text, s.server.text);
	tls_rig_part(&s);
}

void assert_refused(struct srdma_tls_server_options so, struct srdma_tls_client_options co, const char *host,
			   int client_error, const char *client_words, int server_error, const char *server_words)
{
	struct session s = tls_rig_meet(so, co, host);

	assert_true(s.client.result < 0);
	assert_true(s.server.result < 0);
	if ((client_error && s.client.result != client_error) || !strstr(s.client.text, client_words))
		fail_msg("client: %s: '%s'; wanted %s, '%s'", srdma_strerror(s.client.result), s.client.text,
			 srdma_strerror(client_error), client_words);
	if ((server_error && s.server.result != server_error) || !strstr(s.server.text, server_words))
		fail_msg("server: %s: '%s'; wanted %s, '%s'", srdma_strerror(s.server.result), s.server.text,
			 srdma_strerror(server_error), server_words);
	tls_rig_part(&s);
}
