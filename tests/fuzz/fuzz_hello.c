/* SPDX-License-Identifier: Apache-2.0 */
/* A frame with a HELLO or WELCOME, as the set-up reads it: header, body, validation. */
#include "fuzz.h"

#include "frames.h"

#include <string.h>

/* What the queue pair relies on, told apart from how srdma_hello_validate finds it out. */
static void check_accepted(const struct srdma_hello *h)
{
	require(h->psn >> 24 == 0 && h->qpn >> 24 == 0 && h->qpn > 1);
	require(h->path_mtu >= 1 && h->path_mtu <= 5);
	require(h->link_layer == 1 || h->link_layer == 2);
	if (h->link_layer == 1)
		require(h->lid > 0 && h->lid < 0xc000);
	else
		require((h->gid.global.subnet_prefix | h->gid.global.interface_id) != 0 && h->gid.raw[0] != 0xff);
	require(h->depth <= 4096 && h->message_size <= 1 << 20);
	require((h->depth == 0) == !(h->features & 1) && (h->message_size < 64) == !(h->features & 1));
	require(h->region_address + h->region_size >= h->region_address);
	require((h->region_access & ~6u) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct srdma_frame_header header;
	struct srdma_hello hello;
	struct srdma_reject reject;
	uint8_t again[SRDMA_FRAME_MAX];

	if (size < SRDMA_FRAME_HEADER || srdma_frame_header_decode(data, &header) != 0)
		return 0;
	require(header.length <= SRDMA_FRAME_BODY_MAX);
	/* The set-up reads as many bytes as the header says; fewer came here when the connection was cut. */
	if (header.length > size - SRDMA_FRAME_HEADER ||
	    srdma_hello_decode(SRDMA_FRAME_HELLO, data + SRDMA_FRAME_HEADER, header.length, &hello))
		return 0;

	size_t length = srdma_hello_encode(again, (enum srdma_frame_type)header.type, &hello);
	require(length == SRDMA_FRAME_HEADER + (size_t)header.length);
	again[2] = header.version; /* which is not the body decoder's business */
	require(memcmp(again, data, length) == 0);

	memset(&reject, 0, sizeof reject);
	if (srdma_hello_validate(&hello, header.type == SRDMA_FRAME_WELCOME, &reject) == 0)
		check_accepted(&hello);
	else
		require(reject.reason != SRDMA_REJECT_NONE && reject.text[0] != '\0');
	return 0;
}
