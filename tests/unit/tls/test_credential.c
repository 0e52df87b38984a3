/* SPDX-License-Identifier: Apache-2.0 */
/* Own certificates and keys: what no peer could use is found out when they are loaded, by either end. */
#include "test.h"

#include <limits.h>
#include "pki.h"

#include "tls_pair.h"

#include <openssl/rsa.h>

static struct pki ca;

static int make_files(void **state)
{
	if (enter_folder() != 0)
		return -1;
	ca = pki_make((struct pki_request){.name = "CA", .ca = true});
	PKI_WRITE("ca.crt", &ca);
	return 0;
}

static int remove_files(void **state)
{
	pki_free(&ca);
	return leave_folder();
}

static struct srdma_tls_server_options server_options(void)
{
	return (struct srdma_tls_server_options){.size = sizeof(struct srdma_tls_server_options), .cert_file = "own.crt", .key_file = "own.key", .client_ca_file = "ca.crt"};
}

static struct srdma_tls_client_options client_options(void)
{
	return (struct srdma_tls_client_options){.size = sizeof(struct srdma_tls_client_options), .cert_file = "own.crt", .key_file = "own.key", .ca_file = "ca.crt"};
}

static void write_own(struct pki own)
{
	PKI_WRITE("own.crt", &own);
	/* What is refused for its public half is refused before the other one is read. */
	pki_write_key("own.key", EVP_PKEY_get_bits(own.key) > 4096 && EVP_PKEY_get_base_id(own.key) == EVP_PKEY_RSA ? &ca : &own);
	pki_free(&own);
}

/* Of both purposes. */
static struct pki own_with(EVP_PKEY *key, const char *usage)
{
	return pki_make((struct pki_request){
		.name = "own", .issuer = &ca, .key = key, .usage = usage, .extended = "serverAuth,clientAuth", .names = "DNS:host.example.com"});
}

static void assert_useless(struct pki own, const char *words)
{
	struct srdma_tls_server_options so = server_options();
	struct srdma_tls_client_options co = client_options();
	struct srdma_tls_context *context = NULL;
	struct srdma_cert_info info;

	write_own(own);
	for (int i = 0; i < 2; i++) {
		int ret = i ? srdma_tls_server_new(&so, &context) : srdma_tls_client_new(&co, &context);

		if (ret != SRDMA_ECONFIG || !strstr(srdma_error_text(), words) || !strstr(srdma_error_text(), "own.crt"))
			fail_msg("%d '%s'; wanted '%s'", ret, srdma_error_text(), words);
		assert_null(context);
	}
	assert_int_equal(srdma_cert_read("own.crt", &info), 0);
	if (!strstr(info.key_problem, words))
		fail_msg("'%s'; wanted '%s'", info.key_problem, words);
}

static void assert_useful(struct pki own)
{
	struct srdma_cert_info info;

	write_own(own);
	assert_int_equal(srdma_cert_read("own.crt", &info), 0);
	assert_string_equal(info.key_problem, "");
	assert_meets(ours_client(client_options()), ours_server(server_options()), "host.example.com");
}

static EVP_PKEY *generate(const char *kind)
{
	EVP_PKEY *key = EVP_PKEY_Q_keygen(NULL, NULL, kind);

	assert_non_null(key);
	return key;
}

TEST(keys_of_tls13_are_taken)
{
	assert_useful(own_with(pki_key("P-256"), NULL));
	assert_useful(own_with(pki_key("P-384"), NULL));
	assert_useful(own_with(pki_key("P-521"), NULL));
	assert_useful(own_with(generate("ED25519"), NULL));
	assert_useful(own_with(generate("ED448"), NULL));
	assert_useful(own_with(EVP_RSA_gen(2048), NULL));
	assert_useful(own_with(EVP_RSA_gen(3072), NULL));
	/* With one more usage, as some CAs have it. */
	assert_useful(own_with(EVP_RSA_gen(2048), "digitalSignature,keyEncipherment"));
}

TEST(rsa_pss_key_is_taken)
{
	EVP_PKEY_CTX *context = EVP_PKEY_CTX_new_from_name(NULL, "RSA-PSS", NULL);
	EVP_PKEY *key = NULL;

	assert_int_equal(EVP_PKEY_keygen_init(context), 1);
	assert_int_equal(EVP_PKEY_CTX_set_rsa_keygen_bits(context, 2048), 1);
	assert_int_equal(EVP_PKEY_generate(context, &key), 1);
	EVP_PKEY_CTX_free(context);
	assert_useful(own_with(key, NULL));
}

TEST(ml_dsa_key_is_taken_where_openssl_has_it)
{
	EVP_PKEY *key = EVP_PKEY_Q_keygen(NULL, NULL, "ML-DSA-65");

	ERR_clear_error();
	if (key)
		assert_useful(own_with(key, NULL));
}

TEST(curve_that_tls13_has_not_is_refused_at_the_start)
{
	static const char *const curves[] = {"brainpoolP256r1", "brainpoolP384r1", "brainpoolP512r1", "secp256k1", "secp224r1", "sect283r1"};

	for (size_t i = 0; i < COUNT(curves); i++)
		assert_useless(own_with(pki_key(curves[i]), NULL), "on a curve that TLS 1.3 does not sign with");
}

TEST(rsa_key_of_another_size_is_refused_at_the_start)
{
	assert_useless(own_with(EVP_RSA_gen(1024), NULL), "2048 to 4096 bits");
	assert_useless(own_with(pki_rsa(8192), NULL), "2048 to 4096 bits");
	assert_useless(own_with(pki_rsa(16384), NULL), "2048 to 4096 bits");
}

TEST(key_that_may_not_sign_is_refused_at_the_start)
{
	assert_useless(own_with(EVP_RSA_gen(2048), "critical,keyEncipherment"), "does not allow digital signatures");
	assert_useless(own_with(pki_key("P-256"), "critical,keyAgreement"), "does not allow digital signatures");
}

/* No rule of ours says so: the rehearsal finds it. TLS has no signature with SHA-224 in RSASSA-PSS. */
TEST(key_that_cannot_do_what_it_looks_like_is_refused_at_the_start)
{
	EVP_PKEY_CTX *context = EVP_PKEY_CTX_new_from_name(NULL, "RSA-PSS", NULL);
	struct srdma_tls_server_options so = server_options();
	struct srdma_tls_client_options co = client_options();
	struct srdma_tls_context *tls = NULL;
	struct pki own;
	EVP_PKEY *key = NULL;

	assert_int_equal(EVP_PKEY_keygen_init(context), 1);
	assert_int_equal(EVP_PKEY_CTX_set_rsa_keygen_bits(context, 2048), 1);
	assert_int_equal(EVP_PKEY_CTX_set_rsa_pss_keygen_md(context, EVP_sha224()), 1);
	assert_int_equal(EVP_PKEY_generate(context, &key), 1);
	EVP_PKEY_CTX_free(context);
	own = own_with(key, NULL);
	write_own(own);
	assert_int_equal(srdma_tls_server_new(&so, &tls), SRDMA_ECONFIG);
	assert_non_null(strstr(srdma_error_text(), "a TLS 1.3 handshake fails with own.crt"));
	assert_int_equal(srdma_tls_client_new(&co, &tls), SRDMA_ECONFIG);
	assert_null(tls);
}

TEST(chain_that_no_peer_would_take_is_refused_at_the_start)
{
	struct pki middle = pki_make((struct pki_request){.name = "Middle", .issuer = &ca, .key = pki_key("brainpoolP256r1"), .ca = true});
	struct pki own = pki_make((struct pki_request){.name = "own", .issuer = &middle, .extended = "serverAuth,clientAuth"});
	const struct pki *many[10] = {&own};
	struct srdma_tls_server_options so = server_options();
	struct srdma_tls_context *context = NULL;

	PKI_WRITE("own.crt", &own, &middle);
	pki_write_key("own.key", &own);
	assert_int_equal(srdma_tls_server_new(&so, &context), SRDMA_ECONFIG);
	assert_non_null(strstr(srdma_error_text(), "the chain of own.crt cannot be used"));
	for (size_t i = 1; i < 10; i++)
		many[i] = &ca;
	pki_write("own.crt", many, 10);
	assert_int_equal(srdma_tls_server_new(&so, &context), SRDMA_ECONFIG);
	assert_non_null(strstr(srdma_error_text(), "has 10 certificates"));
	pki_free(&middle);
	pki_free(&own);
}

/* Without being in the certificate's file: it is in that of the CAs. */
TEST(chain_is_completed_from_the_cas)
{
	struct pki middle = pki_make((struct pki_request){.name = "Middle", .issuer = &ca, .ca = true});
	struct srdma_tls_server_options so = server_options();

	write_own(pki_make((struct pki_request){
		.name = "own", .issuer = &middle, .extended = "serverAuth", .names = "DNS:host.example.com"}));
	PKI_WRITE("cas.crt", &middle, &ca);
	so.client_ca_file = "cas.crt";
	so.insecure_anonymous_clients = true;
	assert_meets(ours_client((struct srdma_tls_client_options){.size = sizeof(struct srdma_tls_client_options), .ca_file = "ca.crt"}), ours_server(so), "host.example.com");
	pki_free(&middle);
}

RUN_TESTS(make_files, remove_files)
