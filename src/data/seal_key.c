/* SPDX-License-Identifier: Apache-2.0 */
#include "seal_key.h"

#include "log.h"

#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/err.h>
#include <openssl/kdf.h>
#include <openssl/params.h>
#include <string.h>

bool srdma_seal_expand(const uint8_t secret[SRDMA_SEAL_SECRET], const char *info, uint8_t *out, size_t size)
{
	EVP_KDF *kdf = EVP_KDF_fetch(NULL, "HKDF", NULL);
	EVP_KDF_CTX *context = EVP_KDF_CTX_new(kdf);
	int mode = EVP_KDF_HKDF_MODE_EXPAND_ONLY;
	const OSSL_PARAM params[] = {
		OSSL_PARAM_construct_int(OSSL_KDF_PARAM_MODE, &mode),
		OSSL_PARAM_construct_utf8_string(OSSL_KDF_PARAM_DIGEST, (char *)"SHA256", 0),
		OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_KEY, (void *)(uintptr_t)secret, SRDMA_SEAL_SECRET),
		OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_INFO, (void *)(uintptr_t)info, strlen(info)),
		OSSL_PARAM_construct_end(),
	};
	bool done = context && EVP_KDF_derive(context, out, size, params) == 1;

	EVP_KDF_CTX_free(context);
	EVP_KDF_free(kdf);
	return done;
}

int srdma_seal_ratchet_start(struct srdma_seal_ratchet *ratchet, enum srdma_cipher cipher, const uint8_t secret[SRDMA_SEAL_SECRET])
{
	ratchet->cipher = EVP_CIPHER_fetch(NULL, srdma_cipher_name(cipher), NULL);
	if (!ratchet->cipher)
		return srdma_fail_openssl(SRDMA_ESEAL, "this OpenSSL does not offer %s", srdma_cipher_name(cipher));
	memcpy(ratchet->secret, secret, SRDMA_SEAL_SECRET);
	return 0;
}

void srdma_seal_ratchet_end(struct srdma_seal_ratchet *ratchet)
{
	EVP_CIPHER_free(ratchet->cipher);
	OPENSSL_cleanse(ratchet, sizeof *ratchet);
}

void srdma_seal_key_drop(struct srdma_seal_key *key)
{
	EVP_CIPHER_CTX_free(key->context);
	OPENSSL_cleanse(key, sizeof *key);
}

int srdma_seal_ratchet_turn(struct srdma_seal_ratchet *ratchet, bool seal, struct srdma_seal_key *out)
{
	struct srdma_seal_key key = {.context = EVP_CIPHER_CTX_new(), .cipher = ratchet->cipher, .generation = ratchet->generation};
	uint8_t next[SRDMA_SEAL_SECRET];
	int ret = 0;

	if (key.context && srdma_seal_expand(ratchet->secret, "securdma seal key", key.bytes, sizeof key.bytes) &&
	    srdma_seal_expand(ratchet->secret, "securdma seal iv", key.iv, sizeof key.iv) &&
	    srdma_seal_expand(ratchet->secret, "securdma seal next", next, sizeof next) &&
	    EVP_CipherInit_ex(key.context, ratchet->cipher, NULL, key.bytes, NULL, seal) == 1) {
		*out = key;
		memcpy(ratchet->secret, next, sizeof next);
		ratchet->generation++;
	} else {
		srdma_seal_key_drop(&key);
		ret = srdma_fail_openssl(SRDMA_ESEAL, "cannot make the key for records");
	}
	OPENSSL_cleanse(next, sizeof next);
	OPENSSL_cleanse(&key, sizeof key);
	return ret;
}

bool srdma_seal_key_copy(const struct srdma_seal_key *key, bool seal, struct srdma_seal_key *out)
{
	EVP_CIPHER_CTX *context = EVP_CIPHER_CTX_new();

	if (!context || EVP_CipherInit_ex(context, key->cipher, NULL, key->bytes, NULL, seal) != 1) {
		EVP_CIPHER_CTX_free(context);
		return false;
	}
	*out = *key;
	out->context = context;
	out->prepared = false;
	return true;
}

/* Gives the key's context the nonce and the header of one record. False: OpenSSL failed. */
static bool begin(const struct srdma_seal_key *key, uint64_t number, const void *header, size_t header_length)
{
	uint8_t nonce[SRDMA_SEAL_IV];
	int n;

	memcpy(nonce, key->iv, sizeof nonce);
	for (unsigned i = 0; i < sizeof number; i++)
		nonce[SRDMA_SEAL_IV - 1 - i] ^= (uint8_t)(number >> 8 * i);
	/* The context keeps the expanded key, since expanding it again would cost more than sealing a short record. */
	if (EVP_CipherInit_ex(key->context, NULL, NULL, NULL, nonce, -1) != 1)
		return false;
	return header_length == 0 || EVP_CipherUpdate(key->context, NULL, &n, header, (int)header_length) == 1;
}

static bool is_prepared(const struct srdma_seal_key *key, uint64_t number, const void *header, size_t header_length)
{
	return key->prepared && key->number == number && key->header_length == header_length && memcmp(key->header, header, header_length) == 0;
}

void srdma_seal_key_prepare(struct srdma_seal_key *key, uint64_t number, const void *header, size_t header_length)
{
	if (header_length == 0 || header_length > sizeof key->header || is_prepared(key, number, header, header_length))
		return;
	key->prepared = begin(key, number, header, header_length);
	key->number = number;
	key->header_length = header_length;
	memcpy(key->header, header, header_length);
	/* The record itself will fail with an error of its own. */
	if (!key->prepared)
		ERR_clear_error();
}

/* Feeds the key's context a record. False: OpenSSL failed. */
static bool feed(struct srdma_seal_key *key, uint64_t number, const void *header, size_t header_length, const void *data, size_t length,
		 void *out)
{
	bool begun = is_prepared(key, number, header, header_length) || begin(key, number, header, header_length);
	int n;

	/* Whatever comes of it, the context has gone on from there. */
	key->prepared = false;
	return begun && (length == 0 || EVP_CipherUpdate(key->context, out, &n, data, (int)length) == 1);
}

static bool finish_sealing(const struct srdma_seal_key *key, uint8_t *tag)
{
	OSSL_PARAM params[] = {
		OSSL_PARAM_construct_octet_string(OSSL_CIPHER_PARAM_AEAD_TAG, tag, SRDMA_SEAL_OVERHEAD),
		OSSL_PARAM_construct_end(),
	};
	uint8_t none[1];
	int n;

	return EVP_CipherFinal_ex(key->context, none, &n) == 1 && EVP_CIPHER_CTX_get_params(key->context, params) == 1;
}

/* Whether the tag authenticates the record that feed() took. */
static bool finish_opening(const struct srdma_seal_key *key, uint8_t tag[SRDMA_SEAL_OVERHEAD])
{
	const OSSL_PARAM params[] = {
		OSSL_PARAM_construct_octet_string(OSSL_CIPHER_PARAM_AEAD_TAG, tag, SRDMA_SEAL_OVERHEAD),
		OSSL_PARAM_construct_end(),
	};
	uint8_t none[1];
	int n;

	return EVP_CIPHER_CTX_set_params(key->context, params) == 1 && EVP_CipherFinal_ex(key->context, none, &n) == 1;
}

bool srdma_seal_key_seal(struct srdma_seal_key *key, uint64_t number, const void *header, size_t header_length, const void *data,
			 size_t length, void *out)
{
	return feed(key, number, header, header_length, data, length, out) && finish_sealing(key, (uint8_t *)out + length);
}

bool srdma_seal_key_open(struct srdma_seal_key *key, uint64_t number, const void *header, size_t header_length, const void *data,
			 size_t length, uint8_t tag[SRDMA_SEAL_OVERHEAD], void *out)
{
	return feed(key, number, header, header_length, data, length, out) && finish_opening(key, tag);
}
