/* SPDX-License-Identifier: Apache-2.0 */
/* Frames over a TLS channel. */
#ifndef SRDMA_CONTROL_H
#define SRDMA_CONTROL_H

#include "hello.h"
#include "tls.h"

/* A frame being received. */
struct srdma_inbox {
	uint8_t bytes[SRDMA_FRAME_MAX];
	size_t have;
	struct srdma_frame_header header; /* valid, with the body, after srdma_control_receive returned 0 */
};

static inline const uint8_t *srdma_inbox_body(const struct srdma_inbox *inbox)
{
	return inbox->bytes + SRDMA_FRAME_HEADER;
}

/* Receives the next frame without blocking: 0 when it is whole, -EAGAIN, or an error of srdma_tls_read, or
 * SRDMA_EPROTOCOL for an oversized one. */
int srdma_control_receive(struct srdma_tls *tls, struct srdma_inbox *inbox);
/* The same, waiting; also -ETIMEDOUT. */
int srdma_control_await(struct srdma_tls *tls, struct srdma_inbox *inbox, uint64_t deadline);
/* Sends a whole frame, waiting for room. Errors as above. */
int srdma_control_send(struct srdma_tls *tls, const uint8_t *frame, size_t length, uint64_t deadline);
/* Runs the handshake to its end. */
int srdma_control_handshake(struct srdma_tls *tls, uint64_t deadline);

#endif
