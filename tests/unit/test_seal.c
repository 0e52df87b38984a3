/* SPDX-License-Identifier: Apache-2.0 */
#include "seal.h"

#include "securdma.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static const enum srdma_cipher ciphers[] = {SRDMA_CIPHER_AES_256_GCM, SRDMA_CIPHER_CHACHA20_POLY1305};
static const uint8_t secret[SRDMA_SEAL_SECRET] = {1, 2, 3};

static void what_was_sealed_is_opened(void **state)
{
	static const uint8_t data[] = "sixteen and then a few more bytes", header[] = "header";

	(void)state;
	for (size_t c = 0; c < 2; c++) {
		struct srdma_sealer *sealer;
		struct srdma_opener *opener;
		uint8_t record[sizeof data + SRDMA_SEAL_OVERHEAD], opened[sizeof data];

		assert_int_equal(srdma_sealer_new(ciphers[c], secret, &sealer), 0);
		assert_int_equal(srdma_opener_new(ciphers[c], secret, &opener), 0);
		for (uint64_t number = 0; number < 8; number++) {
			assert_true(srdma_sealer_next(sealer) == number);
			assert_int_equal(srdma_sealer_seal(sealer, header, sizeof header, data, sizeof data, record), 0);
			assert_memory_not_equal(record, data, sizeof data);
			assert_int_equal(srdma_opener_open(opener, number, header, sizeof header, record, sizeof record, opened), 0);
			assert_memory_equal(opened, data, sizeof data);
			record[number] ^= 1;
			assert_int_equal(srdma_opener_open(opener, number, header, sizeof header, record, sizeof record, opened),
					 SRDMA_ESEAL);
		}
		srdma_sealer_delete(&sealer);
		srdma_opener_delete(&opener);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_was_sealed_is_opened),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
