/* SPDX-License-Identifier: Apache-2.0 */
/* Frames over a TLS channel. */
#ifndef SRDMA_CONTROL_H
#define SRDMA_CONTROL_H

#include "frames.h"
#include "tls.h"

/* A healthy connection has at most the frames of one epoch and one disconnect on their way. */
#define SRDMA_OUTBOX_SIZE (8 * SRDMA_FRAME_MAX)

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

/* Frames on their way to the peer. A connection queues them here, so that it never waits for the peer to read. */
struct srdma_outbox {
	uint8_t bytes[SRDMA_OUTBOX_SIZE];
	size_t have;
};

/* Receives the next frame without blocking: 0 when it is whole, -EAGAIN, or an error of srdma_tls_read, or
 * SRDMA_EPROTOCOL for an oversized one. Each read of the channel uses up one of `*reads`; with none left the result is also -EAGAIN, so
 * that a peer that goes on sending cannot hold the reader. */
int srdma_control_receive(struct srdma_tls *tls, struct srdma_inbox *inbox, unsigned *reads);
/* Queues a frame and sends as much as there is room for, without blocking. Returns 0 even if the frame is still queued; errors of
 * srdma_tls_write; -ETIMEDOUT: the peer has read nothing for so long that the outbox is full. */
int srdma_outbox_send(struct srdma_tls *tls, struct srdma_outbox *outbox, const uint8_t *frame, size_t length);
/* Whether there is room for one more frame, besides those of an epoch and of a disconnect. */
static inline bool srdma_outbox_has_room(const struct srdma_outbox *outbox)
{
	return outbox->have + 3 * SRDMA_FRAME_MAX <= sizeof outbox->bytes;
}

/* Sends as much as there is room for: 0, or an error of srdma_tls_write. */
int srdma_outbox_flush(struct srdma_tls *tls, struct srdma_outbox *outbox);
/* Sends a whole frame at once, past the outbox. -ETIMEDOUT: the peer does not read, so there is no room for it. */
int srdma_control_send(struct srdma_tls *tls, const uint8_t *frame, size_t length);

#endif
