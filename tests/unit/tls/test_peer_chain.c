/* SPDX-License-Identifier: Apache-2.0 */
#include "test.h"

#include "pki.h"

#include "peer_chain.h"

/* A Certificate message with `count` times the same certificate. */
struct message {
	uint8_t bytes[200000];
	size_t length;
};

static void put_u24(struct message *m, size_t value)
{
	m->bytes[m->length++] = (uint8_t)(value >> 16);
	m->bytes[m->length++] = (uint8_t)(value >> 8);
	m->bytes[m->length++] = (uint8_t)value;
}

static struct message *message_of(const uint8_t *der, size_t length, unsigned count, bool tls13)
{
	static struct message m;
	size_t entry = 3 + length + (tls13 ? 2 : 0);

	m.length = 0;
	if (tls13)
		m.bytes[m.length++] = 0;
	put_u24(&m, entry * count);
	for (unsigned i = 0; i < count; i++) {
		put_u24(&m, length);
		memcpy(m.bytes + m.length, der, length);
		m.length += length;
		if (tls13) {
			m.bytes[m.length++] = 0;
			m.bytes[m.length++] = 0;
		}
	}
	return &m;
}

/* Takes the key over. */
static struct message *message_with(EVP_PKEY *key, unsigned count, bool tls13)
{
	static struct pki signer;
	struct pki made;
	unsigned char *der = NULL;
	struct message *m;
	int length;

	if (!signer.cert)
		signer = pki_make((struct pki_request){.name = "CA", .ca = true});
	made = pki_make((struct pki_request){.name = "x", .issuer = &signer, .key = key});
	length = i2d_X509(made.cert, &der);
	m = message_of(der, (size_t)length, count, tls13);
	OPENSSL_free(der);
	return m;
}

/* Of the key alone. */
static const char *problem_of(EVP_PKEY *key)
{
	unsigned char *der = NULL;
	int length = i2d_PUBKEY(key, &der);
	const char *problem = srdma_key_problem(der, (size_t)length);

	OPENSSL_free(der);
	return problem;
}

/* Of the key alone and in a chain, which must be the same. Takes the key over. */
static const char *judge(EVP_PKEY *key)
{
	const char *alone = problem_of(key);

	for (int tls13 = 0; tls13 < 2; tls13++) {
		EVP_PKEY_up_ref(key);
		struct message *m = message_with(key, 1, tls13);

		assert_ptr_equal(srdma_chain_problem(m->bytes, m->length, tls13), alone);
	}
	EVP_PKEY_free(key);
	return alone;
}

static EVP_PKEY *key_with_point(const char *curve, const char *form)
{
	EVP_PKEY *key = pki_key(curve);

	assert_int_equal(EVP_PKEY_set_utf8_string_param(key, "point-format", form), 1);
	return key;
}

TEST(keys_of_tls13_are_fit)
{
	static const char *const curves[] = {"P-256", "P-384", "P-521"};

	for (size_t i = 0; i < COUNT(curves); i++) {
		assert_null(judge(pki_key(curves[i])));
		assert_null(judge(key_with_point(curves[i], "compressed")));
	}
	assert_null(judge(EVP_PKEY_Q_keygen(NULL, NULL, "ED25519")));
	assert_null(judge(EVP_PKEY_Q_keygen(NULL, NULL, "ED448")));
	assert_null(judge(pki_rsa(2048)));
	assert_null(judge(pki_rsa(3072)));
	assert_null(judge(pki_rsa(4096)));
	assert_null(judge(EVP_PKEY_Q_keygen(NULL, NULL, "RSA", (size_t)2048)));
}

TEST(ml_dsa_is_fit_where_openssl_has_it)
{
	static const char *const kinds[] = {"ML-DSA-44", "ML-DSA-65", "ML-DSA-87"};

	for (size_t i = 0; i < COUNT(kinds); i++) {
		EVP_PKEY *key = EVP_PKEY_Q_keygen(NULL, NULL, kinds[i]);

		if (key)
			assert_null(problem_of(key));
		EVP_PKEY_free(key);
		ERR_clear_error();
	}
}

TEST(other_curves_are_not_fit)
{
	static const char *const curves[] = {"secp224r1", "secp256k1", "brainpoolP256r1", "brainpoolP384r1", "brainpoolP512r1", "sect571r1"};

	for (size_t i = 0; i < COUNT(curves); i++)
		assert_text_says(judge(pki_key(curves[i])), "curve");
	/* The same curve, but described: the description could be of any. */
	assert_non_null(strstr(judge(pki_explicit_key()), "curve"));
	assert_non_null(judge(key_with_point("P-256", "hybrid")));
}

TEST(other_sizes_and_kinds_are_not_fit)
{
	static const int sizes[] = {512, 1024, 2047, 4097, 8192, 16384};

	for (size_t i = 0; i < COUNT(sizes); i++) {
		EVP_PKEY *key = pki_rsa(sizes[i]);

		assert_text_says(problem_of(key), "2048 to 4096");
		EVP_PKEY_free(key);
	}
	assert_non_null(strstr(judge(EVP_PKEY_Q_keygen(NULL, NULL, "X25519")), "neither"));
}

TEST(expensive_exponent_is_not_fit)
{
	/* RSA of 2048 bits: {n, e} with e of 64 and of 65 bits. */
	static uint8_t spki[] = {0x30, 0x82, 0x01, 0x29, 0x30, 0x0d, 6, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 1, 5, 0, 0x03, 0x82, 0x01,
				 0x16, 0, 0x30, 0x82, 0x01, 0x11, 0x02, 0x82, 0x01, 0x01, 0, [33 + 256] = 0x02, 0x0a};
	uint8_t key[512];
	size_t length = 33 + 256;

	for (int bits = 64; bits <= 65; bits++) {
		uint8_t exponent[] = {0x02, 9, bits == 64 ? 0 : 1, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff};

		memset(spki + 33, 0xff, 256);
		memcpy(key, spki, length);
		memcpy(key + length, exponent, sizeof exponent);
		/* The lengths of the enclosing fields. */
		key[3] = (uint8_t)(length + sizeof exponent - 4);
		key[22] = (uint8_t)(length + sizeof exponent - 23);
		key[27] = (uint8_t)(length + sizeof exponent - 28);
		if (bits == 64)
			assert_null(srdma_key_problem(key, length + sizeof exponent));
		else
			assert_non_null(strstr(srdma_key_problem(key, length + sizeof exponent), "exponent"));
	}
}

TEST(number_and_bytes_have_a_limit)
{
	struct message *m;

	m = message_with(pki_rsa(4096), SRDMA_CHAIN_CERTS, true);
	assert_null(srdma_chain_problem(m->bytes, m->length, true));
	m = message_with(pki_rsa(4096), SRDMA_CHAIN_CERTS + 1, true);
	assert_non_null(strstr(srdma_chain_problem(m->bytes, m->length, true), "more than 8"));
	m = message_with(pki_rsa(4096), 60, true);
	assert_non_null(strstr(srdma_chain_problem(m->bytes, m->length, true), "32768 bytes"));
	m = message_with(pki_rsa(4096), 0, true);
	assert_null(srdma_chain_problem(m->bytes, m->length, true));
}

/* OpenSSL never gets a message with missing or extra bytes, which it might read in another way. */
TEST(cut_and_changed_messages_are_never_fit)
{
	for (int tls13 = 0; tls13 < 2; tls13++) {
		struct message *m = message_with(pki_key("P-256"), 2, tls13);
		uint8_t *copy;

		for (size_t length = 0; length < m->length; length++) {
			/* In a block of that size, so that a sanitizer sees a read past the end. */
			copy = malloc(length ? length : 1);
			memcpy(copy, m->bytes, length);
			assert_non_null(srdma_chain_problem(copy, length, tls13));
			free(copy);
		}
		m->bytes[m->length] = 0;
		assert_non_null(srdma_chain_problem(m->bytes, m->length + 1, tls13));
		/* No change makes it read beyond the end; most make it unfit. */
		copy = malloc(m->length);
		for (size_t at = 0; at < m->length; at++) {
			memcpy(copy, m->bytes, m->length);
			copy[at] ^= 0x80;
			srdma_chain_problem(copy, m->length, tls13);
		}
		free(copy);
	}
}

/* BER has more than one way to write a length; another reader could take another key out of it. */
TEST(other_forms_of_a_length_are_not_fit)
{
	static const uint8_t long_form[] = {0x30, 0x81, 0x2a, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 3, 0x21, 0};
	static const uint8_t indefinite[] = {0x30, 0x80, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 3, 0x21, 0};
	static const uint8_t good[] = {0x30, 0x2a, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 3, 0x21, 0};
	uint8_t key[64] = {0};

	memcpy(key, good, sizeof good);
	assert_null(srdma_key_problem(key, sizeof good + 32));
	memcpy(key, long_form, sizeof long_form);
	assert_non_null(srdma_key_problem(key, sizeof long_form + 32));
	memcpy(key, indefinite, sizeof indefinite);
	memset(key + sizeof indefinite, 0, sizeof key - sizeof indefinite);
	assert_non_null(srdma_key_problem(key, sizeof indefinite + 34));
}

static int free_keys(void **state)
{
	pki_free_all();
	return 0;
}

RUN_TESTS(NULL, free_keys)
