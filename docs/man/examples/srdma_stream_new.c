/* SPDX-License-Identifier: Apache-2.0 */
/* A stream at the connecting end. */
#include <securdma_stream.h>

int connect_stream(const char *host, struct srdma_tls_context *tls, struct srdma_device *device, struct srdma_conn **conn, struct srdma_stream **stream)
{
	struct srdma_conn_options options;
	int ret;

	srdma_stream_conn_options_init(&options);
	ret = srdma_conn_connect(host, SRDMA_DEFAULT_PORT, tls, device, &options, conn);
	if (ret == 0)
		ret = srdma_stream_new(*conn, NULL, stream);
	return ret;
}
