/* SPDX-License-Identifier: Apache-2.0 */
/* Checksums of a copy: GMAC with AES-256, under a key that the client draws for one connection and that crosses in TLS. So a checksum
 * finds accidents, and changes by anyone on the network, also where the connection is plain. */
#ifndef FILES_MAC_H
#define FILES_MAC_H

#include <stddef.h>
#include <stdint.h>

#define FILES_KEY_SIZE 32

/* What a checksum is of: no two may have the same `use`, `part` and `number`. */
enum files_mac_use { FILES_MAC_CLIENT = 1, FILES_MAC_SERVER, FILES_MAC_PART };

struct files_mac;

/* Errors: -ENOMEM, or -EIO: OpenSSL has no such cipher. */
int files_mac_new(const uint8_t key[FILES_KEY_SIZE], struct files_mac **out);
void files_mac_free(struct files_mac **mac);

/* One checksum, in three steps. A failure shows in the last one: -EIO. `part` below 2^24. */
void files_mac_begin(struct files_mac *mac, enum files_mac_use use, uint32_t part, uint64_t number);
void files_mac_add(struct files_mac *mac, const void *data, size_t length);
int files_mac_end(struct files_mac *mac, uint8_t tag[16]);

#endif
