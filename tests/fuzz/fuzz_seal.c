/* SPDX-License-Identifier: Apache-2.0 */
/* An opener with a record, a header and a number that somebody else chose: it opens nothing but what was sealed, as it was
 * sealed, and leaves nothing behind when it does not.
 *
 * Input: 1 byte: bit 0 the cipher, bit 1: what follows is changes (XOR) to a record that was sealed, else it is a record as it
 * is; 8 bytes that change the number; 8 that change the header; the record. */
#include "fuzz.h"

#include "securdma.h"
#include "seal.h"

#include <string.h>

enum { HEADER = 8, DATA = 40, RECORD = DATA + SRDMA_SEAL_OVERHEAD, START = 1 + 8 + HEADER, NUMBER = 3 };

/* Record NUMBER of a stream. */
static void seal_one(enum srdma_cipher cipher, const uint8_t *secret, const uint8_t *header, uint8_t *record)
{
	static const uint8_t plain[DATA] = "what nobody else shall read";
	struct srdma_sealer *sealer;

	require(srdma_sealer_new(cipher, secret, &sealer) == 0);
	for (unsigned i = 0; i <= NUMBER; i++)
		require(srdma_sealer_seal(sealer, header, HEADER, plain, DATA, record) == 0);
	srdma_sealer_delete(&sealer);
}

static bool is_zero(const uint8_t *bytes, size_t length)
{
	for (size_t i = 0; i < length; i++)
		if (bytes[i] != 0)
			return false;
	return true;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const uint8_t secret[SRDMA_SEAL_SECRET] = "a secret of no importance";
	uint8_t genuine[RECORD], header[HEADER] = "header!";
	enum srdma_cipher cipher;
	struct srdma_opener *opener;
	uint8_t *record, *out;
	uint64_t number;
	size_t length;
	int ret;

	if (size < START)
		return 0;
	cipher = data[0] & 1 ? SRDMA_CIPHER_CHACHA20_POLY1305 : SRDMA_CIPHER_AES_256_GCM;
	memcpy(&number, data + 1, sizeof number);
	number ^= NUMBER;
	seal_one(cipher, secret, header, genuine);
	for (unsigned i = 0; i < HEADER; i++)
		header[i] ^= data[9 + i];
	length = size - START;
	/* One byte more than what is written, of a known value, so that a write past the end is seen. */
	record = malloc(length + 1);
	out = malloc(length + 1);
	require(record && out);
	memcpy(record, data + START, length);
	for (size_t i = 0; data[0] & 2 && i < length && i < RECORD; i++)
		record[i] ^= genuine[i];
	memset(out, 0xa5, length + 1);
	require(srdma_opener_new(cipher, secret, &opener) == 0);
	ret = srdma_opener_open(opener, number, header, HEADER, record, length, out);
	if (number == NUMBER && is_zero(data + 9, HEADER) && length == RECORD && memcmp(record, genuine, RECORD) == 0) {
		require(ret == 0);
	} else {
		require(ret == SRDMA_ESEAL);
		require(length <= SRDMA_SEAL_OVERHEAD || is_zero(out, length - SRDMA_SEAL_OVERHEAD));
	}
	require(out[length > SRDMA_SEAL_OVERHEAD ? length - SRDMA_SEAL_OVERHEAD : 0] == 0xa5);
	srdma_opener_delete(&opener);
	free(record);
	free(out);
	return 0;
}
