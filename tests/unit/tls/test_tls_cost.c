/* SPDX-License-Identifier: Apache-2.0 */
/* The work that a peer can cause before it has proved its identity. */
#include "test.h"

#include "pki.h"
#include "tls_pair.h"
#include "tls_files.h"

#include "peer_chain.h"

#include <sys/ioctl.h>

/* ---- key exchange ---------------------------------------------------------------------------------------------- */

static struct end with_groups(struct end end, const char *groups)
{
	assert_int_equal(SSL_CTX_set1_groups_list(end.raw_context, (char *)(uintptr_t)groups), 1);
	ERR_clear_error();
	return end;
}

TEST(only_cheap_groups_are_agreed_on)
{
	static const char *const good[] = {"X25519", "P-256", "P-384"};
	static const char *const bad[] = {"ffdhe2048", "ffdhe3072", "ffdhe4096", "ffdhe6144", "ffdhe8192", "X448", "P-521"};

	for (size_t i = 0; i < COUNT(good); i++) {
		assert_meets(with_groups(raw_client(), good[i]), server_of(false), NULL);
		assert_meets(client_of(false), with_groups(raw_server(), good[i]), HOST);
	}
	for (size_t i = 0; i < COUNT(bad); i++) {
		assert_server_refuses(with_groups(raw_client(), bad[i]), server_of(false), SRDMA_ETLS, "no suitable");
		assert_client_refuses(client_of(false), with_groups(raw_server(), bad[i]), HOST, SRDMA_ETLS, "");
	}
}

/* A peer that prefers an expensive group has a cheap one all the same. */
TEST(expensive_group_that_is_preferred_is_not_taken)
{
	struct pair pair = meet(with_groups(raw_client(), "ffdhe8192:ffdhe2048:X25519"), server_of(false), NULL);

	assert_int_equal(pair.server.result, 0);
	assert_string_equal(srdma_tls_group(pair.server.tls), "x25519");
	part(&pair);
}

static bool has_hybrid(void)
{
	SSL_CTX *context = SSL_CTX_new(TLS_method());
	bool has = SSL_CTX_set1_groups_list(context, (char *)(uintptr_t) "X25519MLKEM768") == 1;

	SSL_CTX_free(context);
	ERR_clear_error();
	return has;
}

TEST(hybrid_group_comes_first_where_openssl_has_it)
{
	struct pair pair = meet(client_of(false), server_of(false), HOST);
	const char *group = srdma_tls_group(pair.client.tls);

	assert_int_equal(pair.client.result, 0);
	assert_string_equal(group, srdma_tls_group(pair.server.tls));
	assert_string_equal(group, has_hybrid() ? "X25519MLKEM768" : "x25519");
	part(&pair);
	if (has_hybrid()) {
		assert_meets(with_groups(raw_client(), "X25519MLKEM768"), server_of(false), NULL);
		assert_meets(client_of(false), with_groups(raw_server(), "X25519MLKEM768"), HOST);
		assert_meets(client_of(false), with_groups(raw_server(), "X25519"), HOST);
	}
}

static struct end with_ciphers(struct end end, const char *list, int version)
{
	speaking(end, version);
	if (version == TLS1_3_VERSION)
		assert_int_equal(SSL_CTX_set_ciphersuites(end.raw_context, list), 1);
	else
		assert_int_equal(SSL_CTX_set_cipher_list(end.raw_context, list), 1);
	return end;
}

TEST(ciphers_are_those_of_the_document)
{
	assert_meets(with_ciphers(raw_client(), "TLS_AES_256_GCM_SHA384", TLS1_3_VERSION), server_of(false), NULL);
	assert_meets(with_ciphers(raw_client(), "TLS_CHACHA20_POLY1305_SHA256", TLS1_3_VERSION), server_of(false), NULL);
	assert_meets(with_ciphers(raw_client(), "TLS_AES_128_GCM_SHA256", TLS1_3_VERSION), server_of(false), NULL);
	assert_server_refuses(with_ciphers(raw_client(), "TLS_AES_128_CCM_SHA256", TLS1_3_VERSION), server_of(false), SRDMA_ETLS, "cipher");
	assert_meets(with_ciphers(raw_client(), "ECDHE-ECDSA-AES128-GCM-SHA256", TLS1_2_VERSION), server_of(true), NULL);
	assert_meets(with_ciphers(raw_client(), "ECDHE-ECDSA-CHACHA20-POLY1305", TLS1_2_VERSION), server_of(true), NULL);
	assert_server_refuses(with_ciphers(raw_client(), "ECDHE-ECDSA-AES256-SHA384", TLS1_2_VERSION), server_of(true), SRDMA_ETLS, "cipher");
	assert_server_refuses(with_ciphers(raw_client(), "DHE-RSA-AES256-GCM-SHA384", TLS1_2_VERSION), server_of(true), SRDMA_ETLS, "cipher");
}

static struct end with_signatures(struct end end, const char *list)
{
	assert_int_equal(SSL_CTX_set1_sigalgs_list(end.raw_context, list), 1);
	return end;
}

TEST(signatures_are_those_of_the_document)
{
	assert_meets(with_signatures(raw_client(), "ecdsa_secp256r1_sha256"), server_of(false), NULL);
	assert_server_refuses(with_signatures(raw_client(), "ECDSA+SHA1:rsa_pss_rsae_sha256"), server_of(false), SRDMA_ETLS, "");
	assert_server_refuses(with_signatures(with_ciphers(raw_client(), "ECDHE-ECDSA-AES128-GCM-SHA256", TLS1_2_VERSION), "ECDSA+SHA1:ECDSA+SHA224"),
			      server_of(true), SRDMA_ETLS, "");
}

/* ---- bytes ----------------------------------------------------------------------------------------------------- */

/* The handshake of an end of ours against a peer that sends these bytes and then waits. *left: at least so many of them the end has not
 * read. */
static int face(struct end end, bool server, const void *bytes, size_t length, int *left)
{
	uint64_t deadline = srdma_deadline(PATIENCE_MS);
	size_t sent = 0;
	int client_fd, server_fd, peer, ret;

	connect_sockets(&client_fd, &server_fd);
	peer = server ? client_fd : server_fd;
	set_out(&end, server, server ? server_fd : client_fd, HOST);
	do {
		ssize_t n = send(peer, (const char *)bytes + sent, length - sent, MSG_NOSIGNAL);

		sent += n > 0 ? (size_t)n : 0;
		ret = srdma_tls_handshake(end.tls);
	} while (ret == -EAGAIN && (sent < length || srdma_net_wait(fd_of(&end), POLLIN, srdma_deadline(200)) == 0) &&
		 srdma_deadline_left_ms(deadline) > 0);
	ioctl(fd_of(&end), FIONREAD, left);
	*left += (int)(length - sent);
	close(peer);
	end_free(&end);
	return ret;
}

/* A handshake message of 60,000 bytes, each in a record of its own. */
static size_t make_crumbs(uint8_t *out, uint8_t type)
{
	const uint8_t header[] = {type, 0, 60000 >> 8, 60000 & 0xff};

	for (size_t i = 0; i < 60000; i++) {
		const uint8_t record[] = {22, 3, 3, 0, 1, i < sizeof header ? header[i] : 0};

		memcpy(out + i * sizeof record, record, sizeof record);
	}
	return 360000;
}

TEST(message_in_crumbs_comes_to_an_end)
{
	static uint8_t bytes[360000];
	int left;

	assert_int_equal(face(server_of(false), true, bytes, make_crumbs(bytes, SSL3_MT_CLIENT_HELLO), &left), SRDMA_EPROTOCOL);
	assert_error_says("8192 bytes");
	assert_true(left > 0);
	assert_int_equal(face(client_of(false), false, bytes, make_crumbs(bytes, SSL3_MT_SERVER_HELLO), &left), SRDMA_EPROTOCOL);
	assert_error_says("65536 bytes");
}

/* ---- certificates ---------------------------------------------------------------------------------------------- */

/* The same end with more in its chain, which takes it over. */
static struct end with_chain(struct end end, X509 *cert)
{
	assert_int_equal(SSL_CTX_add_extra_chain_cert(end.raw_context, cert), 1);
	return end;
}

static X509 *cert_of(EVP_PKEY *key)
{
	struct pki made = pki_make((struct pki_request){.name = "intermediate", .issuer = &ca, .key = key, .ca = true});

	X509_up_ref(made.cert);
	return made.cert;
}

TEST(key_that_costs_is_not_decoded)
{
	for (int version = TLS1_2_VERSION; version <= TLS1_3_VERSION; version++) {
		struct end client = with_chain(raw_client(), cert_of(pki_explicit_key()));
		struct end server = with_chain(raw_server(), cert_of(pki_explicit_key()));

		assert_server_refuses(speaking(client, version), server_of(true), SRDMA_ECERT, "on a curve that TLS 1.3 does not");
		assert_client_refuses(client_of(true), speaking(server, version), HOST, SRDMA_ECERT, "on a curve that TLS 1.3 does not");
	}
}

TEST(huge_and_small_rsa_keys_are_refused)
{
	static const int bad[] = {1024, 8192, 16384};

	for (size_t i = 0; i < COUNT(bad); i++) {
		assert_server_refuses(with_chain(raw_client(), cert_of(pki_rsa(bad[i]))), server_of(false), SRDMA_ECERT, "2048 to 4096 bits");
		assert_client_refuses(client_of(false), with_chain(raw_server(), cert_of(pki_rsa(bad[i]))), HOST, SRDMA_ECERT,
				      "2048 to 4096 bits");
	}
	/* One that is not needed does no harm. */
	assert_meets(with_chain(raw_client(), cert_of(pki_rsa(4096))), server_of(false), NULL);
}

TEST(other_curves_are_refused)
{
	static const char *const bad[] = {"brainpoolP256r1", "secp256k1", "secp224r1", "sect571r1"};

	for (size_t i = 0; i < COUNT(bad); i++) {
		struct end client = with_chain(raw_client(), cert_of(pki_key(bad[i])));

		assert_server_refuses(client, server_of(false), SRDMA_ECERT, "P-256, P-384 and P-521");
	}
}

TEST(chain_has_an_end)
{
	struct end client = raw_client(), server = raw_server(), enough = raw_client();

	for (unsigned i = 0; i < SRDMA_CHAIN_CERTS; i++) {
		with_chain(client, X509_dup(ca.cert));
		with_chain(server, X509_dup(ca.cert));
		if (i < SRDMA_CHAIN_CERTS - 1)
			with_chain(enough, X509_dup(ca.cert));
	}
	assert_server_refuses(client, server_of(false), SRDMA_ECERT, "more than 8 certificates");
	assert_client_refuses(client_of(false), server, HOST, SRDMA_ECERT, "more than 8 certificates");
	assert_meets(enough, server_of(false), NULL);
}

TEST(bulky_chain_is_refused_before_it_is_read)
{
	static char content[60000];
	struct end client = raw_client();
	X509 *bulky = X509_dup(ca.cert);
	X509_EXTENSION *extension = pki_extension("1.2.3.4", false, content, sizeof content);

	X509_add_ext(bulky, extension, -1);
	X509_EXTENSION_free(extension);
	assert_true(X509_sign(bulky, ca.key, EVP_sha256()) > 0);
	assert_server_refuses(with_chain(client, bulky), server_of(false), SRDMA_ETLS, "excessive message size");
}

/* A list of CAs is no secret, but no message of a server may be longer than its client accepts. */
static int told_cas(const char *ca_file)
{
	struct srdma_tls_server_options options = server_options();
	struct pair pair;
	int count;

	options.client_ca_file = ca_file;
	pair = meet(raw_client(), ours_server(options), NULL);
	count = sk_X509_NAME_num(SSL_get0_peer_CA_list(pair.client.raw));
	assert_int_equal(pair.server.result, 0);
	assert_int_equal(pair.client.result, 0);
	part(&pair);
	return count;
}

TEST(clients_are_told_the_cas_unless_they_are_many)
{
	char name[64];

	assert_int_equal(told_cas("ca.crt"), 1);
	PKI_WRITE("cas.crt", &ca);
	for (int i = 0; i < 60; i++) {
		struct pki one;
		FILE *out = fopen("cas.crt", "a");

		snprintf(name, sizeof name, "%060d", i);
		one = pki_make((struct pki_request){.name = name, .ca = true});
		PEM_write_X509(out, one.cert);
		fclose(out);
	}
	assert_true(told_cas("cas.crt") <= 0);
}

/* ---- TLS 1.2 --------------------------------------------------------------------------------------------------- */

TEST(nothing_is_negotiated_twice)
{
	struct pair pair = meet(speaking(raw_client(), TLS1_2_VERSION), server_of(true), NULL);
	uint64_t deadline = srdma_deadline(PATIENCE_MS);
	char byte;
	int ret;

	assert_int_equal(pair.server.result, 0);
	assert_string_equal(srdma_tls_version(pair.server.tls), "TLSv1.2");
	assert_int_equal(SSL_renegotiate(pair.client.raw), 1);
	SSL_do_handshake(pair.client.raw);
	do {
		srdma_net_wait(srdma_tls_fd(pair.server.tls), POLLIN, srdma_deadline(100));
		ret = srdma_tls_read(pair.server.tls, &byte, 1);
		if (SSL_read(pair.client.raw, &byte, 1) <= 0 && ERR_GET_REASON(ERR_peek_error()) == SSL_R_NO_RENEGOTIATION)
			ret = SRDMA_ETLS;
		ERR_clear_error();
	} while (ret == -EAGAIN && srdma_deadline_left_ms(deadline) > 0);
	assert_true(ret < 0 && ret != -EAGAIN);
	assert_null(SSL_get_current_compression(pair.client.raw));
	part(&pair);
}

RUN_TESTS(make_files, remove_files)
