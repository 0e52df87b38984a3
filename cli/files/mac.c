/* SPDX-License-Identifier: Apache-2.0 */
#include "mac.h"

#include <errno.h>
#include <limits.h>
#include <openssl/evp.h>
#include <stdbool.h>
#include <stdlib.h>

struct files_mac {
	EVP_CIPHER_CTX *cipher;
	bool failed;
};

int files_mac_new(const uint8_t key[FILES_KEY_SIZE], struct files_mac **out)
{
	struct files_mac *mac = calloc(1, sizeof *mac);

	if (!mac)
		return -ENOMEM;
	mac->cipher = EVP_CIPHER_CTX_new();
	if (!mac->cipher || EVP_EncryptInit_ex(mac->cipher, EVP_aes_256_gcm(), NULL, key, NULL) != 1) {
		int ret = mac->cipher ? -EIO : -ENOMEM;

		files_mac_free(&mac);
		return ret;
	}
	*out = mac;
	return 0;
}

void files_mac_free(struct files_mac **mac)
{
	if (!*mac)
		return;
	EVP_CIPHER_CTX_free((*mac)->cipher); /* and wipes the key */
	free(*mac);
	*mac = NULL;
}

void files_mac_begin(struct files_mac *mac, enum files_mac_use use, uint32_t part, uint64_t number)
{
	uint8_t nonce[12] = {(uint8_t)use, (uint8_t)(part >> 16), (uint8_t)(part >> 8), (uint8_t)part};

	for (int i = 0; i < 8; i++)
		nonce[4 + i] = (uint8_t)(number >> (56 - 8 * i));
	mac->failed = EVP_EncryptInit_ex(mac->cipher, NULL, NULL, NULL, nonce) != 1;
}

/* GMAC is GCM without a text: all is additional data. */
void files_mac_add(struct files_mac *mac, const void *data, size_t length)
{
	const uint8_t *at = data;
	int done;

	for (size_t step; length > 0; at += step, length -= step) {
		step = length < INT_MAX / 2 ? length : INT_MAX / 2;
		if (EVP_EncryptUpdate(mac->cipher, NULL, &done, at, (int)step) != 1)
			mac->failed = true;
	}
}

int files_mac_end(struct files_mac *mac, uint8_t tag[16])
{
	uint8_t none[16];
	int done;

	if (EVP_EncryptFinal_ex(mac->cipher, none, &done) != 1 || EVP_CIPHER_CTX_ctrl(mac->cipher, EVP_CTRL_AEAD_GET_TAG, 16, tag) != 1)
		mac->failed = true;
	return mac->failed ? -EIO : 0;
}
