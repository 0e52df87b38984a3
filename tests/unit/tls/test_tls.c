/* SPDX-License-Identifier: Apache-2.0 */
/* Version, protocol and bytes between two ends. An end that must misbehave is plain OpenSSL (raw_*), without securdma's rules. */
#include "test.h"

#include "pki.h"
#include "tls_pair.h"
#include "tls_files.h"

/* ---- two ends of ours ------------------------------------------------------------------------------------------ */

static struct pair meet_ours(bool allow_tls12)
{
	struct pair pair = meet(client_of(allow_tls12), server_of(allow_tls12), HOST);

	assert_int_equal(pair.client.result, 0);
	assert_int_equal(pair.server.result, 0);
	return pair;
}

static void assert_peer_is(const struct end *end, const char *identity)
{
	struct srdma_peer_names names;

	assert_int_equal(srdma_tls_peer_names(end->tls, &names), 0);
	assert_string_equal(names.identity, identity);
	srdma_peer_names_clear(&names);
}

/* Also where both allow TLS 1.2. */
TEST(tls13_and_the_protocol_are_agreed)
{
	for (int allow_tls12 = 0; allow_tls12 < 2; allow_tls12++) {
		struct pair pair = meet_ours(allow_tls12);

		assert_string_equal(srdma_tls_version(pair.client.tls), "TLSv1.3");
		assert_string_equal(srdma_tls_version(pair.server.tls), "TLSv1.3");
		assert_string_equal(srdma_tls_cipher(pair.client.tls), srdma_tls_cipher(pair.server.tls));
		assert_peer_is(&pair.server, "client");
		assert_peer_is(&pair.client, "server");
		part(&pair);
	}
}

TEST(bytes_cross_in_both_directions)
{
	struct pair pair = meet_ours(false);
	static uint8_t sent[200000], received[sizeof sent];

	for (size_t i = 0; i < sizeof sent; i++)
		sent[i] = (uint8_t)(i * 2654435761u >> 24);
	for (int direction = 0; direction < 2; direction++) {
		struct srdma_tls *from = direction ? pair.server.tls : pair.client.tls;
		struct srdma_tls *to = direction ? pair.client.tls : pair.server.tls;
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
	part(&pair);
}

TEST(context_outlives_its_users_reference)
{
	struct pair pair = meet_ours(false);
	char byte = 'x';

	srdma_tls_context_unref(&pair.client.context);
	srdma_tls_context_unref(&pair.server.context);
	assert_null(pair.client.context);
	assert_int_equal(srdma_tls_write(pair.client.tls, &byte, 1), 1);
	assert_int_equal(read_some(pair.server.tls, &byte, 1), 1);
	part(&pair);
}

/* ---- an end that is OpenSSL's own ------------------------------------------------------------------------------ */

/* This ALPN list, in wire form, instead of ours; NULL: none. */
static struct end with_alpn(struct end raw, const char *alpn)
{
	SSL_CTX_set_alpn_select_cb(raw.raw_context, NULL, NULL);
	SSL_CTX_set_alpn_protos(raw.raw_context, (const unsigned char *)alpn, alpn ? (unsigned)strlen(alpn) : 0);
	return raw;
}

/* An end of ours meets such a peer: the result of our handshake, with `words` in its error. `version`: agreed; NULL: any. */
static int face(bool server, bool allow_tls12, struct end raw, const char *words, const char *version)
{
	struct pair pair = server ? meet(raw, server_of(allow_tls12), HOST) : meet(client_of(allow_tls12), raw, HOST);
	const struct end *own = server ? &pair.server : &pair.client;
	int result = own->result;

	assert_text_says(own->text, words);
	if (version)
		assert_string_equal(srdma_tls_version(own->tls), version);
	part(&pair);
	return result;
}

TEST(tls12_is_accepted_only_when_allowed)
{
	assert_int_equal(face(true, false, speaking(raw_client(), TLS1_2_VERSION), "unsupported protocol", NULL), SRDMA_ETLS);
	assert_int_equal(face(false, false, speaking(raw_server(), TLS1_2_VERSION), "", NULL), SRDMA_ETLS);
	/* With 1.3 the same peers are welcome, so the version was the reason. */
	assert_int_equal(face(true, false, speaking(raw_client(), TLS1_3_VERSION), "", "TLSv1.3"), 0);
	assert_int_equal(face(false, false, speaking(raw_server(), TLS1_3_VERSION), "", "TLSv1.3"), 0);
	assert_int_equal(face(true, true, speaking(raw_client(), TLS1_2_VERSION), "", "TLSv1.2"), 0);
	assert_int_equal(face(false, true, speaking(raw_server(), TLS1_2_VERSION), "", "TLSv1.2"), 0);
}

TEST(tls11_is_never_accepted)
{
	for (int version = TLS1_VERSION; version <= TLS1_1_VERSION; version++) {
		assert_int_equal(face(true, true, speaking(raw_client(), version), "unsupported protocol", NULL), SRDMA_ETLS);
		assert_int_equal(face(false, true, speaking(raw_server(), version), "", NULL), SRDMA_ETLS);
	}
}

TEST(peer_of_another_protocol_is_refused)
{
	assert_int_equal(face(true, false, with_alpn(raw_client(), "\002h2\010http/1.1"), "", NULL), SRDMA_ETLS);
	assert_int_equal(face(true, false, with_alpn(raw_client(), "\012securdma/2"), "", NULL), SRDMA_ETLS);
	/* Without ALPN the handshake itself succeeds: the check after it counts. */
	assert_int_equal(face(true, false, with_alpn(raw_client(), NULL), "securdma/1", NULL), SRDMA_EPROTOCOL);
	assert_int_equal(face(false, false, with_alpn(raw_server(), NULL), "securdma/1", NULL), SRDMA_EPROTOCOL);
	/* One of several is enough. */
	assert_int_equal(face(true, false, with_alpn(raw_client(), "\002h2" ALPN), "", NULL), 0);
}

static struct end with_protocol(struct end own, const char *protocol)
{
	assert_int_equal(srdma_tls_context_set_alpn(own.context, protocol), 0);
	return own;
}

TEST(context_can_have_another_protocol_and_then_speaks_no_other)
{
	struct pair pair = meet(with_protocol(client_of(false), "securdma-agent/1"), with_protocol(server_of(false), "securdma-agent/1"), HOST);

	assert_int_equal(pair.client.result, 0);
	assert_int_equal(pair.server.result, 0);
	part(&pair);
	assert_server_refuses(client_of(false), with_protocol(server_of(false), "securdma-agent/1"), SRDMA_ETLS, "");
	assert_server_refuses(with_protocol(client_of(false), "securdma-agent/1"), server_of(false), SRDMA_ETLS, "");
	pair.server = server_of(false);
	assert_int_equal(srdma_tls_context_set_alpn(pair.server.context, ""), -EINVAL);
	assert_int_equal(srdma_tls_context_set_alpn(pair.server.context, "123456789012345678901234567890123"), -EINVAL);
	srdma_tls_context_unref(&pair.server.context);
}

TEST(own_names_are_those_of_the_certificate)
{
	struct end server = server_of(false);
	struct srdma_peer_names names;
	char text[256];

	assert_int_equal(srdma_tls_context_own_names(server.context, &names), 0);
	srdma_peer_names_format(&names, text, sizeof text);
	assert_text_says(text, "ip:127.0.0.1");
	assert_string_equal(names.identity, "server");
	srdma_peer_names_clear(&names);
	srdma_tls_context_unref(&server.context);
}

/* An attacker could replay a session that can be resumed. */
TEST(server_gives_nothing_to_resume_with)
{
	for (int version = TLS1_2_VERSION; version <= TLS1_3_VERSION; version++) {
		struct pair pair = meet(speaking(raw_client(), version), server_of(true), NULL);
		uint64_t deadline = srdma_deadline(PATIENCE_MS);
		char byte = 'x';

		assert_int_equal(pair.server.result, 0);
		assert_int_equal(srdma_tls_write(pair.server.tls, &byte, 1), 1);
		/* Tickets would come before the byte. */
		while (SSL_read(pair.client.raw, &byte, 1) != 1)
			assert_int_equal(srdma_net_wait(pair.client.fd, POLLIN, deadline), 0);
		assert_int_equal(SSL_SESSION_is_resumable(SSL_get0_session(pair.client.raw)), 0);
		assert_int_equal(SSL_SESSION_get_max_early_data(SSL_get0_session(pair.client.raw)), 0);
		part(&pair);
	}
}

RUN_TESTS(make_files, remove_files)
