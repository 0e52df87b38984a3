/* SPDX-License-Identifier: Apache-2.0 */
/* A Certificate message before OpenSSL decodes it. What is let through has few certificates, and each key that OpenSSL then finds in them
 * is one of those that were looked for. */
#include "fuzz.h"

#include "peer_chain.h"

#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/x509.h>
#include <string.h>

static void check_key(EVP_PKEY *key)
{
	static const char *const curves[] = {"prime256v1", "secp384r1", "secp521r1"};
	int type = EVP_PKEY_get_base_id(key), bits = EVP_PKEY_get_bits(key);
	char group[64] = "";

	if (type == EVP_PKEY_RSA || type == EVP_PKEY_RSA_PSS) {
		require(bits >= (int)SRDMA_RSA_BITS_MIN && bits <= (int)SRDMA_RSA_BITS_MAX);
	} else if (type == EVP_PKEY_EC) {
		bool known = false;

		EVP_PKEY_get_group_name(key, group, sizeof group, NULL);
		for (size_t i = 0; i < sizeof curves / sizeof *curves; i++)
			known = known || strcmp(group, curves[i]) == 0;
		require(known);
	} else {
		/* ML-DSA has no number. */
		require(type == EVP_PKEY_ED25519 || type == EVP_PKEY_ED448 || type <= 0);
	}
}

/* As OpenSSL goes through it. */
static void check_chain(const uint8_t *at, size_t left, bool tls13)
{
	unsigned count = 0;

	if (tls13) {
		size_t context = 1u + at[0];

		at += context;
		left -= context;
	}
	at += 3;
	left -= 3;
	while (left > 0) {
		size_t length = (size_t)at[0] << 16 | (size_t)at[1] << 8 | at[2];
		const unsigned char *der = at + 3;
		X509 *cert = d2i_X509(NULL, &der, (long)length);
		EVP_PKEY *key = cert ? X509_get0_pubkey(cert) : NULL;

		if (key)
			check_key(key);
		X509_free(cert);
		at += 3 + length;
		left -= 3 + length;
		if (tls13) {
			size_t extensions = 2u + ((size_t)at[0] << 8 | at[1]);

			at += extensions;
			left -= extensions;
		}
		count++;
	}
	require(count <= SRDMA_CHAIN_CERTS);
	ERR_clear_error();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	bool tls13;
	uint8_t *copy;

	if (size < 1)
		return 0;
	tls13 = data[0] & 1;
	/* From a block of that size, so that the sanitizer sees what is read beyond it. */
	copy = malloc(size);
	memcpy(copy, data + 1, size - 1);
	copy = realloc(copy, size - 1 ? size - 1 : 1);
	if (!srdma_chain_problem(copy, size - 1, tls13))
		check_chain(copy, size - 1, tls13);
	free(copy);
	return 0;
}
