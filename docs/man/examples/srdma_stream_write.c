/* SPDX-License-Identifier: Apache-2.0 */
/* Writes everything, and reads to the end. */
#include <securdma_stream.h>
#include <stdio.h>

int write_everything(struct srdma_stream *stream, const char *data, size_t length)
{
	for (size_t done = 0; done < length;) {
		ssize_t n = srdma_stream_write(stream, data + done, length - done, SRDMA_DEFAULT_TIMEOUT);

		if (n < 0)
			return (int)n;
		done += (size_t)n;
	}
	return 0;
}

int print_to_the_end(struct srdma_stream *stream)
{
	char data[4096];
	ssize_t n;

	while ((n = srdma_stream_read(stream, data, sizeof data, SRDMA_DEFAULT_TIMEOUT)) > 0)
		fwrite(data, 1, (size_t)n, stdout);
	return (int)n;
}
