/* SPDX-License-Identifier: Apache-2.0 */
/* A stream in an event loop, when its descriptor is readable. */
#include <errno.h>
#include <poll.h>
#include <securdma_stream.h>

int on_readable(struct srdma_stream *stream, int (*take)(struct srdma_stream *stream))
{
	/* Also moves on what is on its way. */
	int events = srdma_stream_wait(stream, POLLIN, 0);

	if (events == -EAGAIN)
		return 0;
	return events < 0 ? events : take(stream);
}
