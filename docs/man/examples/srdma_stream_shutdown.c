/* SPDX-License-Identifier: Apache-2.0 */
/* Ends a connection with a stream in order: this end says that it writes no more, and reads what the peer still writes. */
#include <securdma_stream.h>

int finish(struct srdma_conn **conn, struct srdma_stream **stream)
{
	char data[4096];
	ssize_t n = srdma_stream_shutdown(*stream);

	while (n == 0 && (n = srdma_stream_read(*stream, data, sizeof data, SRDMA_DEFAULT_TIMEOUT)) > 0)
		n = 0;
	if (n == 0)
		n = srdma_stream_flush(*stream, SRDMA_DEFAULT_TIMEOUT);
	if (n == 0)
		n = srdma_conn_disconnect(*conn, NULL, SRDMA_DEFAULT_TIMEOUT);
	srdma_stream_free(stream);
	srdma_conn_free(conn);
	return (int)n;
}
