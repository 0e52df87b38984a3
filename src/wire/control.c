/* SPDX-License-Identifier: Apache-2.0 */
#include "control.h"

#include "log.h"

#include <errno.h>
#include <openssl/crypto.h>
#include <string.h>

int srdma_control_receive(struct srdma_tls *tls, struct srdma_inbox *inbox, unsigned *reads)
{
	/* The caller has used the previous frame by now. */
	if (inbox->have >= SRDMA_FRAME_HEADER && inbox->have == SRDMA_FRAME_HEADER + (size_t)inbox->header.length)
		*inbox = (struct srdma_inbox){0};
	for (;;) {
		size_t want = SRDMA_FRAME_HEADER;
		int n;

		if (inbox->have >= SRDMA_FRAME_HEADER) {
			int ret = srdma_frame_header_decode(inbox->bytes, &inbox->header);

			if (ret != 0)
				return ret;
			want += inbox->header.length;
			if (inbox->have == want)
				return 0;
		}
		if (*reads == 0)
			return srdma_again("the rest of a frame");
		--*reads;
		n = srdma_tls_read(tls, inbox->bytes + inbox->have, want - inbox->have);
		if (n < 0)
			return n;
		inbox->have += (size_t)n;
	}
}

int srdma_control_send(struct srdma_tls *tls, const uint8_t *frame, size_t length)
{
	while (length > 0) {
		int n = srdma_tls_write(tls, frame, length);

		if (n == -EAGAIN)
			return srdma_fail(-ETIMEDOUT, "the peer does not read its TLS channel");
		if (n < 0)
			return n;
		frame += n;
		length -= (size_t)n;
	}
	return 0;
}

int srdma_outbox_flush(struct srdma_tls *tls, struct srdma_outbox *outbox)
{
	size_t sent = 0;
	int ret = 0;

	while (sent < outbox->have) {
		int n = srdma_tls_write(tls, outbox->bytes + sent, outbox->have - sent);

		if (n < 0) {
			ret = n;
			break;
		}
		sent += (size_t)n;
	}
	outbox->have -= sent;
	memmove(outbox->bytes, outbox->bytes + sent, outbox->have);
	OPENSSL_cleanse(outbox->bytes + outbox->have, sent);
	return ret == -EAGAIN ? 0 : ret;
}

int srdma_outbox_send(struct srdma_tls *tls, struct srdma_outbox *outbox, const uint8_t *frame, size_t length)
{
	if (length > sizeof outbox->bytes - outbox->have)
		return srdma_fail(-ETIMEDOUT, "the peer did not read its TLS channel: %zu bytes wait there", outbox->have);
	memcpy(outbox->bytes + outbox->have, frame, length);
	outbox->have += length;
	return srdma_outbox_flush(tls, outbox);
}
