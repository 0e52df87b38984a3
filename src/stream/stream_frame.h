/* SPDX-License-Identifier: Apache-2.0 */
/* The messages of a stream. docs/PROTOCOL.md, "Streams", has their layout. */
#ifndef SRDMA_STREAM_FRAME_H
#define SRDMA_STREAM_FRAME_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define SRDMA_STREAM_VERSION 1
#define SRDMA_STREAM_OPEN_SIZE 16
#define SRDMA_STREAM_HEADER 24
#define SRDMA_STREAM_REASON_MAX 127

enum srdma_stream_frame_type {
	SRDMA_STREAM_OPEN = 1,
	SRDMA_STREAM_ADVANCE = 2, /* bytes were written to the ring, or read from it */
	SRDMA_STREAM_DATA = 3,    /* bytes that go to the ring; not while sealed */
	SRDMA_STREAM_FIN = 4,
	SRDMA_STREAM_ABORT = 5,
};

struct srdma_stream_frame {
	enum srdma_stream_frame_type type;
	uint64_t ring_size; /* OPEN */
	bool by_acceptor;   /* OPEN: it comes from the end that accepted the connection */
	uint64_t total;     /* bytes that the sender has written in all, up to this message */
	uint64_t read;      /* bytes that the sender's program has read in all */
	const void *data;   /* DATA: the bytes; ABORT: the reason */
	size_t length;
};

/* Writes the frame without its data. Returns how many bytes that are. */
size_t srdma_stream_frame_encode(uint8_t out[SRDMA_STREAM_HEADER], const struct srdma_stream_frame *frame);
/* The data stays where it is. Errors: SRDMA_EPROTOCOL. */
int srdma_stream_frame_decode(const void *message, size_t length, struct srdma_stream_frame *out);

#endif
