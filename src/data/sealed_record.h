/* SPDX-License-Identifier: Apache-2.0 */
/* Control records of sealed writes and reads: one header or more, each 28 bytes. docs/PROTOCOL.md, "Sealed writes and reads". */
#ifndef SRDMA_SEALED_RECORD_H
#define SRDMA_SEALED_RECORD_H

#include <stdbool.h>
#include <stdint.h>

#define SRDMA_SEALED_HEADER 28u
/* Headers in one record. */
#define SRDMA_SEALED_BATCH 8u

enum srdma_sealed_type {
	SRDMA_SEALED_WRITE = 1,  /* a chunk for the receiver's region */
	SRDMA_SEALED_ANSWER = 2, /* a chunk that the receiver asked for */
	SRDMA_SEALED_READ = 3,
	SRDMA_SEALED_ACK = 4,
};

struct srdma_sealed_header {
	uint8_t type;
	bool within;      /* WRITE, ANSWER: the bytes follow; else the receiver pulls them */
	uint32_t length;  /* WRITE, ANSWER: of the chunk; ACK: number of announcements */
	uint64_t offset;  /* WRITE, READ: in the region; ANSWER: in the bytes asked for */
	uint64_t address; /* WRITE, ANSWER: of the chunk; READ: number of bytes */
	uint32_t rkey;
	uint16_t region;  /* WRITE, READ: its id; 0: the one that HELLO or WELCOME describes */
};

void srdma_sealed_encode(uint8_t out[SRDMA_SEALED_HEADER], const struct srdma_sealed_header *header);
/* Decodes the headers of a record of `length` bytes. The record is authentic, but its sender may still break the protocol. Returns
 * their number, or SRDMA_EPROTOCOL. A chunk within the record lies behind its header, which is then the only one. All headers are
 * chunks, or all are READs, or the only one is an ACK. */
int srdma_sealed_decode(const void *data, uint32_t length, struct srdma_sealed_header out[SRDMA_SEALED_BATCH]);

#endif
