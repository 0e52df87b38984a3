/* SPDX-License-Identifier: Apache-2.0 */
/* From a file into the stream, and from the stream into a file, without a copy in the program. */
#include <errno.h>
#include <securdma_stream.h>
#include <unistd.h>

int from_file(struct srdma_stream *stream, int fd)
{
	void *room;
	ssize_t n = srdma_stream_reserve(stream, &room, SRDMA_DEFAULT_TIMEOUT);

	if (n > 0)
		n = read(fd, room, (size_t)n); /* 0: the end of the file */
	return n > 0 ? srdma_stream_commit(stream, (size_t)n) : (int)n;
}

int to_file(struct srdma_stream *stream, int fd)
{
	const void *data;
	ssize_t n = srdma_stream_peek(stream, &data, SRDMA_DEFAULT_TIMEOUT);

	if (n <= 0)
		return (int)n; /* 0: the end of the stream */
	n = write(fd, data, (size_t)n);
	return n < 0 ? -errno : srdma_stream_consume(stream, (size_t)n);
}
