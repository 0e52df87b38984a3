/* SPDX-License-Identifier: Apache-2.0 */
#include "seal_parts.h"

#include "log.h"

#include <errno.h>
#include <openssl/crypto.h>
#include <stdlib.h>
#include <string.h>
#if defined(__x86_64__) || defined(__i386__)
#include <cpuid.h>
#elif defined(__aarch64__)
#include <asm/hwcap.h>
#include <sys/auxv.h>
#endif

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

int srdma_sealer_new(enum srdma_cipher cipher, const uint8_t secret[SRDMA_SEAL_SECRET], struct srdma_sealer **out)
{
	struct srdma_sealer *sealer = calloc(1, sizeof *sealer);
	int ret;

	if (!sealer)
		return srdma_fail(-ENOMEM, "out of memory");
	ret = srdma_seal_ratchet_start(&sealer->ratchet, cipher, secret);
	if (ret == 0)
		ret = srdma_seal_ratchet_turn(&sealer->ratchet, true, &sealer->key);
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
	srdma_seal_key_drop(&sealer->key);
	srdma_seal_ratchet_end(&sealer->ratchet);
	free(sealer);
}

uint64_t srdma_sealer_next(const struct srdma_sealer *sealer)
{
	return sealer->next;
}

static int renew_sealing_key(struct srdma_sealer *sealer)
{
	struct srdma_seal_key key;
	int ret = srdma_seal_ratchet_turn(&sealer->ratchet, true, &key);

	if (ret != 0)
		return ret;
	srdma_seal_key_drop(&sealer->key);
	sealer->key = key;
	OPENSSL_cleanse(&key, sizeof key);
	return 0;
}

bool srdma_sealer_key_changes(const struct srdma_sealer *sealer)
{
	return sealer->next >> SRDMA_SEAL_UPDATE_SHIFT != sealer->key.generation;
}

const struct srdma_seal_key *srdma_sealer_key(const struct srdma_sealer *sealer)
{
	return &sealer->key;
}

int srdma_sealer_reserve(struct srdma_sealer *sealer, uint64_t *number)
{
	int ret = 0;

	if (sealer->next >= SRDMA_SEAL_NUMBERS)
		return srdma_fail(SRDMA_ESEAL, "all numbers of sealed records are used up; connect again");
	if (srdma_sealer_key_changes(sealer))
		ret = renew_sealing_key(sealer);
	/* The number is counted before it is used, so that no failure can make two records share it. */
	if (ret == 0)
		*number = sealer->next++;
	return ret;
}

void srdma_sealer_prepare(struct srdma_sealer *sealer, const void *header, size_t header_length)
{
	if (sealer->next < SRDMA_SEAL_NUMBERS && !srdma_sealer_key_changes(sealer))
		srdma_seal_key_prepare(&sealer->key, sealer->next, header, header_length);
}

int srdma_sealer_seal(struct srdma_sealer *sealer, const void *header, size_t header_length, const void *data, size_t length, void *out)
{
	uint64_t number;
	int ret;

	if (length > SRDMA_SEAL_MAX || header_length > SRDMA_SEAL_MAX)
		return srdma_fail(-EINVAL, "a record of %zu bytes with a header of %zu is too long to be sealed; %u is the limit",
				  length, header_length, SRDMA_SEAL_MAX);
	ret = srdma_sealer_reserve(sealer, &number);
	if (ret == 0) {
		if (srdma_seal_key_seal(&sealer->key, number, header, header_length, data, length, out))
			return 0;
		ret = srdma_fail_openssl(SRDMA_ESEAL, "cannot seal record %llu of %zu byte%s", (unsigned long long)number, length,
					 SRDMA_S(length));
	}
	OPENSSL_cleanse(out, length + SRDMA_SEAL_OVERHEAD);
	return ret;
}

int srdma_opener_new(enum srdma_cipher cipher, const uint8_t secret[SRDMA_SEAL_SECRET], struct srdma_opener **out)
{
	struct srdma_opener *opener = calloc(1, sizeof *opener);
	int ret;

	if (!opener)
		return srdma_fail(-ENOMEM, "out of memory");
	ret = srdma_seal_ratchet_start(&opener->ratchet, cipher, secret);
	if (ret == 0)
		ret = srdma_seal_ratchet_turn(&opener->ratchet, false, &opener->present);
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
	srdma_seal_key_drop(&opener->before);
	srdma_seal_key_drop(&opener->present);
	srdma_seal_key_drop(&opener->after);
	srdma_seal_ratchet_end(&opener->ratchet);
	free(opener);
}

const struct srdma_seal_key *srdma_opener_key(const struct srdma_opener *opener, uint64_t number)
{
	return number >> SRDMA_SEAL_UPDATE_SHIFT == opener->present.generation ? &opener->present : NULL;
}

void srdma_opener_prepare(struct srdma_opener *opener, uint64_t number, const void *header, size_t header_length)
{
	if (number >> SRDMA_SEAL_UPDATE_SHIFT == opener->present.generation)
		srdma_seal_key_prepare(&opener->present, number, header, header_length);
}

/* Finds the key of the record with this number; NULL: that key is discarded, or not made yet. */
static struct srdma_seal_key *find_opening_key(struct srdma_opener *opener, uint64_t number)
{
	uint64_t generation = number >> SRDMA_SEAL_UPDATE_SHIFT;

	if (number >= SRDMA_SEAL_NUMBERS)
		return NULL;
	if (generation == opener->present.generation)
		return &opener->present;
	if (opener->before.context && generation == opener->before.generation)
		return &opener->before;
	if (generation != opener->present.generation + 1)
		return NULL;
	if (!opener->after.context && srdma_seal_ratchet_turn(&opener->ratchet, false, &opener->after) != 0)
		return NULL;
	return &opener->after;
}

static void move_to_next_key(struct srdma_opener *opener)
{
	srdma_seal_key_drop(&opener->before);
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
	struct srdma_seal_key *key;
	size_t length;

	if (sealed_length < SRDMA_SEAL_OVERHEAD || sealed_length > SRDMA_SEAL_MAX + SRDMA_SEAL_OVERHEAD || header_length > SRDMA_SEAL_MAX)
		return refuse(number, sealed_length, out);
	key = find_opening_key(opener, number);
	if (!key)
		return refuse(number, sealed_length, out);
	length = sealed_length - SRDMA_SEAL_OVERHEAD;
	memcpy(tag, (const uint8_t *)sealed + length, sizeof tag);
	if (!srdma_seal_key_open(key, number, header, header_length, sealed, length, tag, out))
		return refuse(number, sealed_length, out);
	if (key == &opener->after)
		move_to_next_key(opener);
	return 0;
}
