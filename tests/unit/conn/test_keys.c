/* SPDX-License-Identifier: Apache-2.0 */
/* The secrets of the sealed streams, from a TLS session and from what both ends said. */
#include "test.h"

#include "keys.h"

#include "clock.h"
#include "net.h"
#include "tls.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "loopback.h"

typedef uint8_t secrets_t[SRDMA_KEYS][SRDMA_SEAL_SECRET];

static char workdir[] = "/tmp/securdma-keys-XXXXXX";

static int make_certificate(void **state)
{
	static const char *const name = "127.0.0.1";
	struct srdma_cert_request request = {
		.size = sizeof(struct srdma_cert_request),
		.kind = SRDMA_CERT_SELF_SIGNED,
		.common_name = "keys",
		.names = &name,
		.name_count = 1,
		.days = 1,
		.cert_file = "self.crt",
		.key_file = "self.key",
	};

	return !mkdtemp(workdir) || chdir(workdir) != 0 || srdma_cert_make(&request) != 0 ? -1 : 0;
}

static int remove_certificate(void **state)
{
	remove("self.crt");
	remove("self.key");
	return chdir("/") || rmdir(workdir) ? -1 : 0;
}

/* One end of a TLS session, and what it knows of both. */
struct end {
	struct srdma_tls *tls;
	struct srdma_hello hello, welcome;
};

struct session {
	struct srdma_tls_context *server_context, *client_context;
	struct end client, server;
};

static void *run_server(void *arg)
{
	struct end *end = arg;

	return srdma_control_handshake(end->tls, srdma_deadline(PATIENCE_MS)) == 0 ? end : NULL;
}

static void say_something(struct srdma_hello *hello, uint32_t seed)
{
	*hello = (struct srdma_hello){
		.link_layer = IBV_LINK_LAYER_ETHERNET,
		.path_mtu = IBV_MTU_1024,
		.gid.raw = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 10, 0, 0, (uint8_t)seed},
		.qpn = 17 + seed,
		.psn = 0x123456 + seed,
		.features = SRDMA_FEATURE_MESSAGES | SRDMA_FEATURE_SEALED | SRDMA_FEATURE_EPOCHS,
		.message_size = 4096,
		.depth = 16,
		.rd_initiator = 16,
		.rd_responder = 16,
		.region_size = 65536 * seed,
	};
}

static void meet(struct session *s)
{
	struct srdma_tls_server_options so;
	struct srdma_tls_client_options co;
	struct srdma_cert_info info;
	pthread_t thread;
	int client, server;
	void *done;

	memset(s, 0, sizeof *s);
	assert_int_equal(srdma_cert_read("self.crt", &info), 0);
	srdma_tls_server_options_init(&so);
	so.cert_file = "self.crt";
	so.key_file = "self.key";
	so.insecure_anonymous_clients = true;
	srdma_tls_client_options_init(&co);
	co.pin = info.pin;
	assert_int_equal(srdma_tls_server_new(&so, &s->server_context), 0);
	assert_int_equal(srdma_tls_client_new(&co, &s->client_context), 0);
	connect_sockets(&client, &server);
	assert_int_equal(srdma_tls_new(s->server_context, server, NULL, &s->server.tls), 0);
	assert_int_equal(srdma_tls_new(s->client_context, client, "127.0.0.1", &s->client.tls), 0);
	assert_int_equal(pthread_create(&thread, NULL, run_server, &s->server), 0);
	assert_int_equal(srdma_control_handshake(s->client.tls, srdma_deadline(PATIENCE_MS)), 0);
	assert_int_equal(pthread_join(thread, &done), 0);
	assert_non_null(done);
	say_something(&s->client.hello, 1);
	say_something(&s->client.welcome, 2);
	s->server.hello = s->client.hello;
	s->server.welcome = s->client.welcome;
}

static void part(struct session *s)
{
	srdma_tls_delete(&s->client.tls);
	srdma_tls_delete(&s->server.tls);
	srdma_tls_context_unref(&s->client_context);
	srdma_tls_context_unref(&s->server_context);
}

static void secrets_of(const struct end *end, secrets_t out)
{
	memset(out, 0, sizeof(secrets_t));
	assert_int_equal(srdma_keys_derive(end->tls, &end->hello, &end->welcome, out), 0);
}

static void assert_all_differ(secrets_t a, secrets_t b)
{
	for (size_t i = 0; i < 4; i++)
		for (size_t j = 0; j < 4; j++)
			assert_memory_not_equal(a[i], b[j], SRDMA_SEAL_SECRET);
}

TEST(both_ends_derive_the_same_and_each_stream_its_own)
{
	struct session s;
	secrets_t client, server;

	meet(&s);
	secrets_of(&s.client, client);
	secrets_of(&s.server, server);
	assert_memory_equal(client, server, sizeof client);
	for (size_t i = 0; i < 4; i++)
		for (size_t j = 0; j < i; j++)
			assert_memory_not_equal(client[i], client[j], SRDMA_SEAL_SECRET);
	part(&s);
}

/* docs/PROTOCOL.md, "Keys". */
TEST(secret_is_the_exporters_for_its_label_and_both_frames)
{
	static const char *const labels[] = {"EXPORTER-securdma-client-messages", "EXPORTER-securdma-client-chunks",
					     "EXPORTER-securdma-server-messages", "EXPORTER-securdma-server-chunks"};
	uint8_t frames[2 * SRDMA_FRAME_MAX], expected[SRDMA_SEAL_SECRET];
	struct session s;
	secrets_t secrets;
	size_t length;

	meet(&s);
	secrets_of(&s.server, secrets);
	length = srdma_hello_encode(frames, SRDMA_FRAME_HELLO, &s.client.hello);
	length += srdma_hello_encode(frames + length, SRDMA_FRAME_WELCOME, &s.server.welcome);
	for (size_t i = 0; i < 4; i++) {
		assert_int_equal(srdma_tls_export(s.client.tls, labels[i], frames, length, expected, sizeof expected), 0);
		assert_memory_equal(secrets[i], expected, sizeof expected);
	}
	part(&s);
}

/* Each bit of what is said in `said`, one of s->client.hello and s->client.welcome, turned over as if on the way. */
static void turn_each_bit(struct session *s, struct srdma_hello *said, enum srdma_frame_type type, secrets_t right)
{
	uint8_t before[SRDMA_FRAME_MAX] = {0}, after[SRDMA_FRAME_MAX], touched[SRDMA_FRAME_MAX] = {0};
	size_t length = srdma_hello_encode(before, type, said);

	for (size_t bit = 0; bit < 8 * sizeof *said; bit++) {
		uint8_t *byte = (uint8_t *)said + bit / 8;
		secrets_t wrong;

		*byte ^= (uint8_t)(1u << bit % 8);
		memset(after, 0, sizeof after);
		assert_int_equal(srdma_hello_encode(after, type, said), length);
		/* Else it is not on the wire: padding. */
		if (memcmp(before, after, length) != 0) {
			secrets_of(&s->client, wrong);
			assert_all_differ(wrong, right);
		}
		for (size_t i = 0; i < length; i++)
			touched[i] |= before[i] ^ after[i];
		*byte ^= (uint8_t)(1u << bit % 8);
	}
	/* That was all but the frame's header and the 8 reserved bytes at its end. */
	for (size_t i = SRDMA_FRAME_HEADER; i < length - 8; i++)
		assert_int_equal(touched[i], 0xff);
}

TEST(one_bit_of_hello_or_welcome_changed_gives_other_secrets)
{
	struct session s;
	secrets_t right, again;

	meet(&s);
	secrets_of(&s.server, right);
	turn_each_bit(&s, &s.client.hello, SRDMA_FRAME_HELLO, right);
	turn_each_bit(&s, &s.client.welcome, SRDMA_FRAME_WELCOME, right);
	secrets_of(&s.client, again);
	assert_memory_equal(again, right, sizeof right);
	part(&s);
}

TEST(frames_that_change_places_give_other_secrets)
{
	struct session s;
	secrets_t right, wrong;
	struct srdma_hello hello;

	meet(&s);
	secrets_of(&s.client, right);
	hello = s.client.hello;
	s.client.hello = s.client.welcome;
	s.client.welcome = hello;
	secrets_of(&s.client, wrong);
	assert_all_differ(wrong, right);
	part(&s);
}

TEST(another_session_that_says_the_same_has_other_secrets)
{
	struct session first, second;
	secrets_t a, b;

	meet(&first);
	meet(&second);
	secrets_of(&first.client, a);
	secrets_of(&second.client, b);
	assert_all_differ(a, b);
	part(&first);
	part(&second);
}

RUN_TESTS(make_certificate, remove_certificate)
