/* SPDX-License-Identifier: Apache-2.0 */
/* The secrets of the sealed streams, from a TLS session and from the frames of both ends. */
#include "test.h"

#include "pki.h"
#include "tls_pair.h"
#include "tls_files.h"

#include "keys.h"

typedef uint8_t secrets_t[SRDMA_KEYS][SRDMA_SEAL_SECRET];

/* The frames that an end has sent and received. */
struct told {
	struct srdma_hello hello, welcome;
};

/* Both ends of a TLS channel, and what each knows. */
struct session {
	struct pair pair;
	struct told client, server;
};

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

static void begin(struct session *s)
{
	s->pair = meet(client_of(false), server_of(false), HOST);
	assert_int_equal(s->pair.client.result, 0);
	assert_int_equal(s->pair.server.result, 0);
	say_something(&s->client.hello, 1);
	say_something(&s->client.welcome, 2);
	s->server = s->client;
}

static void secrets_of(const struct end *end, const struct told *told, secrets_t out)
{
	memset(out, 0, sizeof(secrets_t));
	assert_int_equal(srdma_keys_derive(end->tls, &told->hello, &told->welcome, out), 0);
}

static void secrets_of_client(const struct session *s, secrets_t out)
{
	secrets_of(&s->pair.client, &s->client, out);
}

static void secrets_of_server(const struct session *s, secrets_t out)
{
	secrets_of(&s->pair.server, &s->server, out);
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

	begin(&s);
	secrets_of_client(&s, client);
	secrets_of_server(&s, server);
	assert_memory_equal(client, server, sizeof client);
	for (size_t i = 0; i < 4; i++)
		for (size_t j = 0; j < i; j++)
			assert_memory_not_equal(client[i], client[j], SRDMA_SEAL_SECRET);
	part(&s.pair);
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

	begin(&s);
	secrets_of_server(&s, secrets);
	length = srdma_hello_encode(frames, SRDMA_FRAME_HELLO, &s.client.hello);
	length += srdma_hello_encode(frames + length, SRDMA_FRAME_WELCOME, &s.server.welcome);
	for (size_t i = 0; i < 4; i++) {
		assert_int_equal(srdma_tls_export(s.pair.client.tls, labels[i], frames, length, expected, sizeof expected), 0);
		assert_memory_equal(secrets[i], expected, sizeof expected);
	}
	part(&s.pair);
}

/* Inverts each bit of `said`, which is s->client.hello or s->client.welcome, as an attacker on the way would. */
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
			secrets_of_client(s, wrong);
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

	begin(&s);
	secrets_of_server(&s, right);
	turn_each_bit(&s, &s.client.hello, SRDMA_FRAME_HELLO, right);
	turn_each_bit(&s, &s.client.welcome, SRDMA_FRAME_WELCOME, right);
	secrets_of_client(&s, again);
	assert_memory_equal(again, right, sizeof right);
	part(&s.pair);
}

TEST(frames_that_change_places_give_other_secrets)
{
	struct session s;
	secrets_t right, wrong;
	struct srdma_hello hello;

	begin(&s);
	secrets_of_client(&s, right);
	hello = s.client.hello;
	s.client.hello = s.client.welcome;
	s.client.welcome = hello;
	secrets_of_client(&s, wrong);
	assert_all_differ(wrong, right);
	part(&s.pair);
}

TEST(another_session_that_says_the_same_has_other_secrets)
{
	struct session first, second;
	secrets_t a, b;

	begin(&first);
	begin(&second);
	secrets_of_client(&first, a);
	secrets_of_client(&second, b);
	assert_all_differ(a, b);
	part(&first.pair);
	part(&second.pair);
}

RUN_TESTS(make_files, remove_files)
