/* SPDX-License-Identifier: Apache-2.0 */
/* A message of a stream, as the peer sent it. */
#include "fuzz.h"

#include "securdma.h"
#include "stream_frame.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	/* A block of that size, so that the sanitizer sees what is read beyond it. */
	uint8_t *copy = malloc(size ? size : 1), again[SRDMA_STREAM_HEADER];
	struct srdma_stream_frame frame;
	int ret;

	if (size > 0)
		memcpy(copy, data, size);
	ret = srdma_stream_frame_decode(copy, size, &frame);
	require(ret == 0 || ret == SRDMA_EPROTOCOL);
	if (ret == 0) {
		size_t header = srdma_stream_frame_encode(again, &frame);

		/* What is left out of the header is the data, and the header is the only one that means this. */
		require(header + frame.length == size && memcmp(again, copy, header) == 0);
		require(frame.length == 0 || frame.data == copy + header);
		require(frame.type == SRDMA_STREAM_DATA || frame.length <= SRDMA_STREAM_REASON_MAX);
	}
	free(copy);
	return 0;
}
