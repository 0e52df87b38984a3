/* SPDX-License-Identifier: Apache-2.0 */
/* Keys of sealed streams by published vectors, which name a key and a nonce, and what a ratchet keeps. */
#include "test.h"

#include "seal_key.h"

#include <openssl/crypto.h>

static void from_hex(const char *hex, uint8_t *out)
{
	for (; *hex; hex += 2, out++) {
		char digits[3] = {hex[0], hex[1], 0};

		*out = (uint8_t)strtoul(digits, NULL, 16);
	}
}

/* ---- published vectors ----------------------------------------------------------------------------------------- */

TEST(hkdf_expand_agrees_with_rfc_5869)
{
	uint8_t prk[32], okm[42], expected[42];

	from_hex("077709362c2e32df0ddc3f0dc47bba6390b6c73bb50f9c3122ec844ad7c2b3e5", prk);
	from_hex("3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865", expected);
	assert_true(srdma_seal_expand(prk, "\xf0\xf1\xf2\xf3\xf4\xf5\xf6\xf7\xf8\xf9", okm, sizeof okm));
	assert_memory_equal(okm, expected, sizeof okm);
}

/* Number 0 leaves the iv as it is. */
static void check_vector(enum srdma_cipher cipher, const char *key, const char *nonce, const char *header, const char *plain,
			 const char *sealed)
{
	uint8_t k[32], h[64], p[128], expected[144], out[144], back[128];
	size_t length = strlen(plain) / 2, header_length = strlen(header) / 2;

	from_hex(key, k);
	from_hex(header, h);
	from_hex(plain, p);
	from_hex(sealed, expected);
	for (int sealing = 1; sealing >= 0; sealing--) {
		EVP_CIPHER *algorithm = EVP_CIPHER_fetch(NULL, srdma_cipher_name(cipher), NULL);
		struct srdma_seal_key one = {.context = EVP_CIPHER_CTX_new()};

		from_hex(nonce, one.iv);
		assert_int_equal(EVP_CipherInit_ex(one.context, algorithm, NULL, k, NULL, sealing), 1);
		if (sealing) {
			assert_true(srdma_seal_key_seal(&one, 0, h, header_length, p, length, out));
			assert_memory_equal(out, expected, length + SRDMA_SEAL_OVERHEAD);
		} else {
			assert_true(srdma_seal_key_open(&one, 0, h, header_length, out, length, out + length, back));
			assert_memory_equal(back, p, length);
		}
		srdma_seal_key_drop(&one);
		EVP_CIPHER_free(algorithm);
	}
}

TEST(aes_256_gcm_agrees_with_nists_vectors)
{
	/* Test cases 13, 14 and 16 of the GCM specification. */
	check_vector(SRDMA_CIPHER_AES_256_GCM, "0000000000000000000000000000000000000000000000000000000000000000",
		     "000000000000000000000000", "", "", "530f8afbc74536b9a963b4f1c4cb738b");
	check_vector(SRDMA_CIPHER_AES_256_GCM, "0000000000000000000000000000000000000000000000000000000000000000",
		     "000000000000000000000000", "", "00000000000000000000000000000000",
		     "cea7403d4d606b6e074ec5d3baf39d18d0d1c8a799996bf0265b98b5d48ab919");
	check_vector(SRDMA_CIPHER_AES_256_GCM, "feffe9928665731c6d6a8f9467308308feffe9928665731c6d6a8f9467308308",
		     "cafebabefacedbaddecaf888", "feedfacedeadbeeffeedfacedeadbeefabaddad2",
		     "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a72"
		     "1c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657ba637b39",
		     "522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa"
		     "8cb08e48590dbb3da7b08b1056828838c5f61e6393ba7a0abcc9f66276fc6ece0f4e1768cddf8853bb2d551b");
}

TEST(chacha20_poly1305_agrees_with_rfc_8439)
{
	check_vector(SRDMA_CIPHER_CHACHA20_POLY1305, "808182838485868788898a8b8c8d8e8f909192939495969798999a9b9c9d9e9f",
		     "070000004041424344454647", "50515253c0c1c2c3c4c5c6c7",
		     "4c616469657320616e642047656e746c656d656e206f662074686520636c6173"
		     "73206f66202739393a204966204920636f756c64206f6666657220796f75206f"
		     "6e6c79206f6e652074697020666f7220746865206675747572652c2073756e73"
		     "637265656e20776f756c642062652069742e",
		     "d31a8d34648e60db7b86afbc53ef7ec2a4aded51296e08fea9e2b5a736ee62d6"
		     "3dbea45e8ca9671282fafb69da92728b1a71de0a9e060b2905d6a5b67ecd3b36"
		     "92ddbd7f2d778b8c9803aee328091b58fab324e4fad675945585808b4831d7bc"
		     "3ff4def08e4b7a9de576d26586cec64b61161ae10b594f09e26a7e902ecbd0600691");
}

/* ---- memory ---------------------------------------------------------------------------------------------------- */

/* What OpenSSL has allocated so far, with what malloc adds to each block. */
static size_t allocated;

static void *count_malloc(size_t size, const char *file, int line)
{
	allocated += size + 16;
	return malloc(size);
}

static void *count_realloc(void *block, size_t size, const char *file, int line)
{
	allocated += size + 16;
	return realloc(block, size);
}

static void just_free(void *block, const char *file, int line)
{
	free(block);
}

/* OpenSSL lets nobody count once it has allocated anything. */
__attribute__((constructor)) static void count_openssl(void)
{
	if (CRYPTO_set_mem_functions(count_malloc, count_realloc, just_free) != 1)
		abort();
}

/* The server's limits count each context with this many bytes. */
TEST(context_takes_no_more_memory_than_is_counted)
{
	for (int cipher = SRDMA_CIPHER_AES_256_GCM; cipher <= SRDMA_CIPHER_CHACHA20_POLY1305; cipher++) {
		struct srdma_seal_ratchet ratchet = {0};
		struct srdma_seal_key key, copy;
		uint8_t secret[SRDMA_SEAL_SECRET] = {1}, record[100] = {0};

		assert_int_equal(srdma_seal_ratchet_start(&ratchet, (enum srdma_cipher)cipher, secret), 0);
		assert_int_equal(srdma_seal_ratchet_turn(&ratchet, true, &key), 0);
		allocated = 0;
		assert_true(srdma_seal_key_copy(&key, true, &copy));
		assert_true(srdma_seal_key_seal(&copy, 1, record, 4, record, sizeof record - SRDMA_SEAL_OVERHEAD, record));
		assert_uint_in_range(allocated, SRDMA_SEAL_CONTEXT / 4, SRDMA_SEAL_CONTEXT);
		srdma_seal_key_drop(&copy);
		srdma_seal_key_drop(&key);
		srdma_seal_ratchet_end(&ratchet);
	}
}

/* ---- the ratchet ----------------------------------------------------------------------------------------------- */

TEST(past_keys_cannot_be_made_again_from_what_is_kept)
{
	struct srdma_seal_ratchet ratchet = {0};
	uint8_t secret[SRDMA_SEAL_SECRET], next[SRDMA_SEAL_SECRET];

	for (unsigned i = 0; i < sizeof secret; i++)
		secret[i] = (uint8_t)i;
	assert_int_equal(srdma_seal_ratchet_start(&ratchet, SRDMA_CIPHER_AES_256_GCM, secret), 0);
	for (uint64_t generation = 0; generation < 4; generation++) {
		struct srdma_seal_key key;

		assert_true(srdma_seal_expand(secret, "securdma seal next", next, sizeof next));
		assert_int_equal(srdma_seal_ratchet_turn(&ratchet, true, &key), 0);
		assert_true(key.generation == generation);
		/* The only secret it has is the one to come. */
		assert_memory_equal(ratchet.secret, next, sizeof next);
		memcpy(secret, next, sizeof secret);
		srdma_seal_key_drop(&key);
		assert_null(key.context);
	}
	srdma_seal_ratchet_end(&ratchet);
	memset(next, 0, sizeof next);
	assert_memory_equal(ratchet.secret, next, sizeof next);
}

RUN_TESTS(NULL, NULL)
