/* SPDX-License-Identifier: Apache-2.0 */
/* Own certificates and keys: either end refuses at its start the ones that no peer would accept. */
#include "test.h"

#include "pki.h"
#include "tls_pair.h"
#include "tls_files.h"

#include <openssl/rsa.h>

static struct srdma_tls_server_options own_server(void)
{
	struct srdma_tls_server_options options = server_options();

	options.cert_file = "own.crt";
	options.key_file = "own.key";
	return options;
}

/* Neither end makes a context of it, for this reason. */
static void assert_no_context(const char *words)
{
	for (int i = 0; i < 2; i++) {
		assert_int_equal(i ? try_server(own_server()) : try_client(client_with("own.crt", "own.key")), SRDMA_ECONFIG);
		assert_error_says(words);
		assert_error_says("own.crt");
	}
}

static void write_own(struct pki own)
{
	PKI_WRITE("own.crt", &own);
	/* The library refuses a public half that is too long before it reads the private one. */
	pki_write_key("own.key", EVP_PKEY_get_bits(own.key) > 4096 && EVP_PKEY_get_base_id(own.key) == EVP_PKEY_RSA ? &ca : &own);
}

/* Of both purposes. */
static struct pki own_with(EVP_PKEY *key, const char *usage)
{
	return pki_make((struct pki_request){
		.name = "own", .issuer = &ca, .key = key, .usage = usage, .extended = "serverAuth,clientAuth", .names = "DNS:" HOST});
}

static void assert_useless(struct pki own, const char *words)
{
	struct srdma_cert_info info;

	write_own(own);
	assert_no_context(words);
	assert_int_equal(srdma_cert_read("own.crt", &info), 0);
	assert_text_says(info.key_problem, words);
}

static void assert_useful(struct pki own)
{
	struct srdma_cert_info info;

	write_own(own);
	assert_int_equal(srdma_cert_read("own.crt", &info), 0);
	assert_string_equal(info.key_problem, "");
	assert_meets(ours_client(client_with("own.crt", "own.key")), ours_server(own_server()), HOST);
}

static EVP_PKEY *generate(const char *kind)
{
	EVP_PKEY *key = EVP_PKEY_Q_keygen(NULL, NULL, kind);

	assert_non_null(key);
	return key;
}

TEST(keys_of_tls13_are_taken)
{
	static const char *const curves[] = {"P-256", "P-384", "P-521"};

	for (size_t i = 0; i < COUNT(curves); i++)
		assert_useful(own_with(pki_key(curves[i]), NULL));
	assert_useful(own_with(generate("ED25519"), NULL));
	assert_useful(own_with(generate("ED448"), NULL));
	assert_useful(own_with(EVP_RSA_gen(2048), NULL));
	assert_useful(own_with(EVP_RSA_gen(3072), NULL));
	/* With one more usage, as some CAs have it. */
	assert_useful(own_with(EVP_RSA_gen(2048), "digitalSignature,keyEncipherment"));
}

/* For signatures with this digest alone; NULL: any. */
static EVP_PKEY *rsa_pss(const EVP_MD *digest)
{
	EVP_PKEY_CTX *context = EVP_PKEY_CTX_new_from_name(NULL, "RSA-PSS", NULL);
	EVP_PKEY *key = NULL;

	assert_int_equal(EVP_PKEY_keygen_init(context), 1);
	assert_int_equal(EVP_PKEY_CTX_set_rsa_keygen_bits(context, 2048), 1);
	if (digest)
		assert_int_equal(EVP_PKEY_CTX_set_rsa_pss_keygen_md(context, digest), 1);
	assert_int_equal(EVP_PKEY_generate(context, &key), 1);
	EVP_PKEY_CTX_free(context);
	return key;
}

TEST(rsa_pss_key_is_taken)
{
	assert_useful(own_with(rsa_pss(NULL), NULL));
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

/* The library has no rule for this; its trial handshake finds it. TLS has no RSASSA-PSS signature with SHA-224. */
TEST(key_that_cannot_do_what_it_looks_like_is_refused_at_the_start)
{
	write_own(own_with(rsa_pss(EVP_sha224()), NULL));
	assert_no_context("a TLS 1.3 handshake fails with own.crt");
}

TEST(chain_that_no_peer_would_take_is_refused_at_the_start)
{
	struct pki middle = pki_make((struct pki_request){.name = "Middle", .issuer = &ca, .key = pki_key("brainpoolP256r1"), .ca = true});
	struct pki own = pki_make((struct pki_request){.name = "own", .issuer = &middle, .extended = "serverAuth,clientAuth"});
	const struct pki *many[10] = {&own};

	PKI_WRITE("own.crt", &own, &middle);
	pki_write_key("own.key", &own);
	assert_no_context("the chain of own.crt cannot be used");
	for (size_t i = 1; i < 10; i++)
		many[i] = &ca;
	pki_write("own.crt", many, 10);
	assert_no_context("has 10 certificates");
}

/* The intermediate certificate is in the file of the CAs instead of the certificate's file. */
TEST(chain_is_completed_from_the_cas)
{
	struct pki middle = pki_make((struct pki_request){.name = "Middle", .issuer = &ca, .ca = true});
	struct srdma_tls_server_options so = own_server();

	write_own(pki_make((struct pki_request){
		.name = "own", .issuer = &middle, .extended = "serverAuth", .names = "DNS:" HOST}));
	PKI_WRITE("cas.crt", &middle, &ca);
	so.client_ca_file = "cas.crt";
	so.insecure_anonymous_clients = true;
	assert_meets(ours_client(client_with(NULL, NULL)), ours_server(so), HOST);
}

RUN_TESTS(make_files, remove_files)
