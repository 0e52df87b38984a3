/* SPDX-License-Identifier: Apache-2.0 */
/* Sealed records: an AEAD with a key of its own for each stream. A stream is one direction of one kind of traffic; its records
 * are numbered from 0, and the number is the nonce.
 *
 * Generation g of a stream's keys serves the records from g << SRDMA_SEAL_UPDATE_SHIFT on:
 *     S_0 = the stream's secret, S_(g+1) = HKDF-Expand(S_g, "securdma seal next", 32)
 *     key = HKDF-Expand(S_g, "securdma seal key", 32), iv = HKDF-Expand(S_g, "securdma seal iv", 12)
 *     nonce = iv XOR the record's number, 64 bits big-endian, right-aligned
 * HKDF-Expand is RFC 5869's with SHA-256, and the quoted text is its whole info.
 *
 * A sealer or opener is used by one thread at a time. */
#ifndef SRDMA_SEAL_H
#define SRDMA_SEAL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define SRDMA_SEAL_OVERHEAD 16u
#define SRDMA_SEAL_SECRET   32u
/* A new key each 2^18 records: at 1 MiB each that is 2^34 AES blocks, the limit RFC 8446 5.5 derives for records of TLS. */
#define SRDMA_SEAL_UPDATE_SHIFT 18
/* The longest data of a record (1 MiB, and room for the sender's prefix), and the longest header. */
#define SRDMA_SEAL_MAX ((1u << 20) + 4096)

enum srdma_cipher { SRDMA_CIPHER_AES_256_GCM, SRDMA_CIPHER_CHACHA20_POLY1305 };

/* Whether this CPU has instructions for AES and carry-less multiplication. Without them AES is slow, and its timing leaks key bits. */
bool srdma_cipher_aes_is_fast(void);
/* "AES-256-GCM", "ChaCha20-Poly1305" */
const char *srdma_cipher_name(enum srdma_cipher cipher);

struct srdma_sealer;
struct srdma_opener;

/* The secret is copied; the caller wipes its own. */
int srdma_sealer_new(enum srdma_cipher cipher, const uint8_t secret[SRDMA_SEAL_SECRET], struct srdma_sealer **out);
void srdma_sealer_delete(struct srdma_sealer **sealer);
/* Seals data under the next number; header is authenticated, not sent. out has length + SRDMA_SEAL_OVERHEAD bytes: ciphertext,
 * then the tag; it may be data itself. Returns 0; -EINVAL: longer than SRDMA_SEAL_MAX; SRDMA_ESEAL when OpenSSL fails or the
 * numbers are used up (2^48 records). After SRDMA_ESEAL out is wiped, and the number is never used again. */
int srdma_sealer_seal(struct srdma_sealer *sealer, const void *header, size_t header_length, const void *data, size_t length, void *out);
/* Does the part of the next srdma_sealer_seal that comes before the data, for a thread that would wait otherwise. A record with another
 * header does it again. */
void srdma_sealer_prepare(struct srdma_sealer *sealer, const void *header, size_t header_length);
/* The number that the next record will have. */
uint64_t srdma_sealer_next(const struct srdma_sealer *sealer);

/* For records that other threads seal or open with copies of the key (seal_lane.h). */
struct srdma_seal_key;
/* Takes the next number, and changes the key when the number belongs to the next one. Errors: SRDMA_ESEAL, as above. */
int srdma_sealer_reserve(struct srdma_sealer *sealer, uint64_t *number);
/* Whether the next number belongs to the next key. */
bool srdma_sealer_key_changes(const struct srdma_sealer *sealer);
/* The key of the number that was reserved last. */
const struct srdma_seal_key *srdma_sealer_key(const struct srdma_sealer *sealer);

int srdma_opener_new(enum srdma_cipher cipher, const uint8_t secret[SRDMA_SEAL_SECRET], struct srdma_opener **out);
void srdma_opener_delete(struct srdma_opener **opener);
/* Opens the record with this number. Records of the present key and of the one before may be opened out of order; the
 * first record that authenticates under the next key makes that key the present one. The caller must not open a number twice. out
 * has sealed_length - SRDMA_SEAL_OVERHEAD bytes, and may be sealed itself. The peer must not be able to write to sealed meanwhile.
 * On failure the function wipes out and returns SRDMA_ESEAL. */
int srdma_opener_open(struct srdma_opener *opener, uint64_t number, const void *header, size_t header_length, const void *sealed,
		      size_t sealed_length, void *out);
/* As srdma_sealer_prepare, for the record with this number. */
void srdma_opener_prepare(struct srdma_opener *opener, uint64_t number, const void *header, size_t header_length);
/* The present key, if the record with this number has it; else NULL: srdma_opener_open must open the record. */
const struct srdma_seal_key *srdma_opener_key(const struct srdma_opener *opener, uint64_t number);

#endif
