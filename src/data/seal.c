/* SPDX-License-Identifier: Apache-2.0 */
#include "seal.h"

#include "log.h"

#include <errno.h>
#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/kdf.h>
#include <openssl/params.h>
#include <stdlib.h>
#include <string.h>
#if defined(__x86_64__) || defined(__i386__)
#include <cpuid.h>
#elif defined(__aarch64__)
#include <asm/hwcap.h>
#include <sys/auxv.h>
#endif

#define KEY_SIZE 32u
#define IV_SIZE  12u
#define NUMBERS  (1ull << 48)

/* One generation's key. */
struct key {
	EVP_CIPHER_CTX *context; /* NULL: there is none */
	uint64_t generation;
	uint8_t iv[IV_SIZE];
};

/* Makes keys, each generation's once: it only ever has the secret of the one to come. */
struct ratchet {
	EVP_CIPHER *cipher;
	uint64_t generation;
	uint8_t secret[SRDMA_SEAL_SECRET];
};

struct srdma_sealer {
	struct ratchet ratchet;
	struct key key;
	uint64_t next;
};

struct srdma_opener {
	struct ratchet ratchet;
	struct key before, present, after; /* after: made for a record that may yet turn out to be forged */
};

/* ---- ciphers --------------------------------------------------------------------------------------------------- */

bool srdma_cipher_aes_is_fast(void)
{
#if defined(__x86_64__) || defined(__i386__)
	unsigned a, b, c, d;

	return __get_cpuid(1, &a, &b, &c, &d) && (c & bit_AES) && (c & bit_PCLMUL);
#elif defined(__aarch64__)
	const unsigned long wanted = HWCAP_AES | HWCAP_PMULL;

	return (getauxval(AT_HWCAP) & wanted) == wanted;
#else
	return false;
#endif
}

const char *srdma_cipher_name(enum srdma_cipher cipher)
{
	return cipher == SRDMA_CIPHER_AES_256_GCM ? "AES-256-GCM" : "ChaCha20-Poly1305";
}

/* ---- keys ------------------------------------------------------------------------------------------------------ */

/* HKDF-Expand of RFC 5869 with SHA-256. False: OpenSSL failed. */
static bool expand(const uint8_t secret[SRDMA_SEAL_SECRET], const char *info, uint8_t *out, size_t size)
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

static int start_ratchet(struct ratchet *ratchet, enum srdma_cipher cipher, const uint8_t secret[SRDMA_SEAL_SECRET])
{
	ratchet->cipher = EVP_CIPHER_fetch(NULL, srdma_cipher_name(cipher), NULL);
	if (!ratchet->cipher)
		return srdma_fail_openssl(SRDMA_ESEAL, "this OpenSSL does not offer %s", srdma_cipher_name(cipher));
	memcpy(ratchet->secret, secret, SRDMA_SEAL_SECRET);
	return 0;
}

static void end_ratchet(struct ratchet *ratchet)
{
	EVP_CIPHER_free(ratchet->cipher);
	OPENSSL_cleanse(ratchet, sizeof *ratchet);
}

static void drop_key(struct key *key)
{
	EVP_CIPHER_CTX_free(key->context);
	OPENSSL_cleanse(key, sizeof *key);
}

/* Makes the key of the ratchet's generation and goes on to the next one; on failure nothing has changed. */
static int turn_ratchet(struct ratchet *ratchet, bool seal, struct key *out)
{
	struct key key = {.context = EVP_CIPHER_CTX_new(), .generation = ratchet->generation};
	uint8_t bytes[KEY_SIZE], next[SRDMA_SEAL_SECRET];
	int ret = 0;

	if (key.context && expand(ratchet->secret, "securdma seal key", bytes, sizeof bytes) &&
	    expand(ratchet->secret, "securdma seal iv", key.iv, sizeof key.iv) &&
	    expand(ratchet->secret, "securdma seal next", next, sizeof next) &&
	    EVP_CipherInit_ex(key.context, ratchet->cipher, NULL, bytes, NULL, seal) == 1) {
		*out = key;
		memcpy(ratchet->secret, next, sizeof next);
		ratchet->generation++;
	} else {
		drop_key(&key);
		ret = srdma_fail_openssl(SRDMA_ESEAL, "cannot make the key for records");
	}
	OPENSSL_cleanse(bytes, sizeof bytes);
	OPENSSL_cleanse(next, sizeof next);
	OPENSSL_cleanse(&key, sizeof key);
	return ret;
}

/* ---- records --------------------------------------------------------------------------------------------------- */

/* The key's context, made ready for one record and fed all of it. False: OpenSSL failed. */
static bool feed(const struct key *key, uint64_t number, const void *header, size_t header_length, const void *data,
		 size_t length, void *out)
{
	uint8_t nonce[IV_SIZE];
	int n;

	memcpy(nonce, key->iv, sizeof nonce);
	for (unsigned i = 0; i < sizeof number; i++)
		nonce[IV_SIZE - 1 - i] ^= (uint8_t)(number >> 8 * i);
	/* The key stays: its expansion costs more than a short record. */
	if (EVP_CipherInit_ex(key->context, NULL, NULL, NULL, nonce, -1) != 1)
		return false;
	if (header_length > 0 && EVP_CipherUpdate(key->context, NULL, &n, header, (int)header_length) != 1)
		return false;
	return length == 0 || EVP_CipherUpdate(key->context, out, &n, data, (int)length) == 1;
}

static bool finish_sealing(const struct key *key, uint8_t *tag)
{
	OSSL_PARAM params[] = {
		OSSL_PARAM_construct_octet_string(OSSL_CIPHER_PARAM_AEAD_TAG, tag, SRDMA_SEAL_OVERHEAD),
		OSSL_PARAM_construct_end(),
	};
	uint8_t none[1];
	int n;

	return EVP_CipherFinal_ex(key->context, none, &n) == 1 && EVP_CIPHER_CTX_get_params(key->context, params) == 1;
}

/* Whether the tag matches the data. */
static bool finish_opening(const struct key *key, uint8_t tag[SRDMA_SEAL_OVERHEAD])
{
	const OSSL_PARAM params[] = {
		OSSL_PARAM_construct_octet_string(OSSL_CIPHER_PARAM_AEAD_TAG, tag, SRDMA_SEAL_OVERHEAD),
		OSSL_PARAM_construct_end(),
	};
	uint8_t none[1];
	int n;

	return EVP_CIPHER_CTX_set_params(key->context, params) == 1 && EVP_CipherFinal_ex(key->context, none, &n) == 1;
}

/* ---- sealer ---------------------------------------------------------------------------------------------------- */

int srdma_sealer_new(enum srdma_cipher cipher, const uint8_t secret[SRDMA_SEAL_SECRET], struct srdma_sealer **out)
{
	struct srdma_sealer *sealer = calloc(1, sizeof *sealer);
	int ret;

	if (!sealer)
		return srdma_fail(-ENOMEM, "out of memory");
	ret = start_ratchet(&sealer->ratchet, cipher, secret);
	if (ret == 0)
		ret = turn_ratchet(&sealer->ratchet, true, &sealer->key);
	if (ret != 0) {
		srdma_sealer_delete(&sealer);
		return ret;
	}
	*out = sealer;
	return 0;
}

void srdma_sealer_delete(struct srdma_sealer **out)
{
	struct srdma_sealer *sealer = *out;

	*out = NULL;
	if (!sealer)
		return;
	drop_key(&sealer->key);
	end_ratchet(&sealer->ratchet);
	free(sealer);
}

uint64_t srdma_sealer_next(const struct srdma_sealer *sealer)
{
	return sealer->next;
}

static int renew_sealing_key(struct srdma_sealer *sealer)
{
	struct key key;
	int ret = turn_ratchet(&sealer->ratchet, true, &key);

	if (ret != 0)
		return ret;
	drop_key(&sealer->key);
	sealer->key = key;
	OPENSSL_cleanse(&key, sizeof key);
	return 0;
}

int srdma_sealer_seal(struct srdma_sealer *sealer, const void *header, size_t header_length, const void *data, size_t length,
		      void *out)
{
	int ret = 0;

	if (length > SRDMA_SEAL_MAX || header_length > SRDMA_SEAL_MAX)
		return srdma_fail(-EINVAL, "a record of %zu bytes with a header of %zu is too long to be sealed; %u is the limit",
				  length, header_length, SRDMA_SEAL_MAX);
	if (sealer->next >= NUMBERS)
		ret = srdma_fail(SRDMA_ESEAL, "all numbers of sealed records are used up; connect again");
	else if (sealer->next >> SRDMA_SEAL_UPDATE_SHIFT != sealer->key.generation)
		ret = renew_sealing_key(sealer);
	if (ret == 0) {
		/* Before anything is sealed under it, so that no failure makes it serve twice. */
		uint64_t number = sealer->next++;

		if (feed(&sealer->key, number, header, header_length, data, length, out) &&
		    finish_sealing(&sealer->key, (uint8_t *)out + length))
			return 0;
		ret = srdma_fail_openssl(SRDMA_ESEAL, "cannot seal record %llu of %zu bytes", (unsigned long long)number, length);
	}
	OPENSSL_cleanse(out, length + SRDMA_SEAL_OVERHEAD);
	return ret;
}

/* ---- opener ---------------------------------------------------------------------------------------------------- */

int srdma_opener_new(enum srdma_cipher cipher, const uint8_t secret[SRDMA_SEAL_SECRET], struct srdma_opener **out)
{
	struct srdma_opener *opener = calloc(1, sizeof *opener);
	int ret;

	if (!opener)
		return srdma_fail(-ENOMEM, "out of memory");
	ret = start_ratchet(&opener->ratchet, cipher, secret);
	if (ret == 0)
		ret = turn_ratchet(&opener->ratchet, false, &opener->present);
	if (ret != 0) {
		srdma_opener_delete(&opener);
		return ret;
	}
	*out = opener;
	return 0;
}

void srdma_opener_delete(struct srdma_opener **out)
{
	struct srdma_opener *opener = *out;

	*out = NULL;
	if (!opener)
		return;
	drop_key(&opener->before);
	drop_key(&opener->present);
	drop_key(&opener->after);
	end_ratchet(&opener->ratchet);
	free(opener);
}

/* The key that the record with this number would have; NULL: there is none any more, or not yet. */
static struct key *find_opening_key(struct srdma_opener *opener, uint64_t number)
{
	uint64_t generation = number >> SRDMA_SEAL_UPDATE_SHIFT;

	if (number >= NUMBERS)
		return NULL;
	if (generation == opener->present.generation)
		return &opener->present;
	if (opener->before.context && generation == opener->before.generation)
		return &opener->before;
	if (generation != opener->present.generation + 1)
		return NULL;
	if (!opener->after.context && turn_ratchet(&opener->ratchet, false, &opener->after) != 0)
		return NULL;
	return &opener->after;
}

static void move_to_next_key(struct srdma_opener *opener)
{
	drop_key(&opener->before);
	opener->before = opener->present;
	opener->present = opener->after;
	OPENSSL_cleanse(&opener->after, sizeof opener->after);
}

static int refuse(uint64_t number, size_t sealed_length, void *out)
{
	if (sealed_length > SRDMA_SEAL_OVERHEAD)
		OPENSSL_cleanse(out, sealed_length - SRDMA_SEAL_OVERHEAD);
	return srdma_fail_openssl(SRDMA_ESEAL, "sealed record %llu of %zu bytes did not authenticate: something between the two "
					       "ends changed or forged it; find out what, and connect again",
				  (unsigned long long)number, sealed_length);
}

int srdma_opener_open(struct srdma_opener *opener, uint64_t number, const void *header, size_t header_length, const void *sealed,
		      size_t sealed_length, void *out)
{
	uint8_t tag[SRDMA_SEAL_OVERHEAD];
	struct key *key;
	size_t length;

	if (sealed_length < SRDMA_SEAL_OVERHEAD || sealed_length > SRDMA_SEAL_MAX + SRDMA_SEAL_OVERHEAD ||
	    header_length > SRDMA_SEAL_MAX)
		return refuse(number, sealed_length, out);
	key = find_opening_key(opener, number);
	if (!key)
		return refuse(number, sealed_length, out);
	length = sealed_length - SRDMA_SEAL_OVERHEAD;
	memcpy(tag, (const uint8_t *)sealed + length, sizeof tag);
	if (!feed(key, number, header, header_length, sealed, length, out) || !finish_opening(key, tag))
		return refuse(number, sealed_length, out);
	if (key == &opener->after)
		move_to_next_key(opener);
	return 0;
}
