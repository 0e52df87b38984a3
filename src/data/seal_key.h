/* SPDX-License-Identifier: Apache-2.0 */
/* The keys of a sealed stream, one after the other (seal.h has the schedule), and sealing or opening one record with one key. */
#ifndef SRDMA_SEAL_KEY_H
#define SRDMA_SEAL_KEY_H

#include "seal.h"

#include <openssl/evp.h>

#define SRDMA_SEAL_KEY 32u
#define SRDMA_SEAL_IV  12u
/* The longest header that a key can be prepared for. */
#define SRDMA_SEAL_PREPARED 8u
/* The most heap that OpenSSL takes for one key's context. */
#define SRDMA_SEAL_CONTEXT 1536u

/* One generation's key. */
struct srdma_seal_key {
	EVP_CIPHER_CTX *context; /* NULL: there is none */
	const EVP_CIPHER *cipher; /* the ratchet's */
	uint64_t generation;
	uint8_t iv[SRDMA_SEAL_IV];
	uint8_t bytes[SRDMA_SEAL_KEY]; /* for copies; the context holds them, too, in another form */
	/* The context has taken the nonce of this record, and this header. */
	bool prepared;
	uint64_t number;
	uint8_t header[SRDMA_SEAL_PREPARED];
	size_t header_length;
};

/* Makes each generation's key once: it holds only the secret of the next generation. */
struct srdma_seal_ratchet {
	EVP_CIPHER *cipher;
	uint64_t generation;
	uint8_t secret[SRDMA_SEAL_SECRET];
};

/* HKDF-Expand of RFC 5869 with SHA-256. False: OpenSSL failed. */
bool srdma_seal_expand(const uint8_t secret[SRDMA_SEAL_SECRET], const char *info, uint8_t *out, size_t size);

int srdma_seal_ratchet_start(struct srdma_seal_ratchet *ratchet, enum srdma_cipher cipher, const uint8_t secret[SRDMA_SEAL_SECRET]);
/* Makes the key of the ratchet's generation and advances to the next one. A failure changes nothing. */
int srdma_seal_ratchet_turn(struct srdma_seal_ratchet *ratchet, bool seal, struct srdma_seal_key *out);
void srdma_seal_ratchet_end(struct srdma_seal_ratchet *ratchet);

void srdma_seal_key_drop(struct srdma_seal_key *key);
/* Makes the same key with a context of its own, for another thread. It must go before the ratchet ends. False: OpenSSL failed. */
bool srdma_seal_key_copy(const struct srdma_seal_key *key, bool seal, struct srdma_seal_key *out);
/* Does what sealing or opening this record takes before the data, so that it is quicker when the record comes. It may be another record, or
 * have another header. */
void srdma_seal_key_prepare(struct srdma_seal_key *key, uint64_t number, const void *header, size_t header_length);
/* Seals `data` into `out`, and puts the tag behind it. The key must be a sealing key. False: OpenSSL failed. */
bool srdma_seal_key_seal(struct srdma_seal_key *key, uint64_t number, const void *header, size_t header_length, const void *data,
			 size_t length, void *out);
/* Opens `data`, which has this tag, into `out`. The key must be an opening key. False: `data` is not authentic, or OpenSSL failed. */
bool srdma_seal_key_open(struct srdma_seal_key *key, uint64_t number, const void *header, size_t header_length, const void *data,
			 size_t length, uint8_t tag[SRDMA_SEAL_OVERHEAD], void *out);

#endif
