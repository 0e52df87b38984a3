/* SPDX-License-Identifier: Apache-2.0 */
/* A client of two servers, which goes on at the other when it loses one. */
#include <securdma_link.h>

int connect_either(const char *first, const char *second, struct srdma_tls_context *tls, struct srdma_device *device, struct srdma_link **out)
{
	struct srdma_endpoint endpoints[2];
	struct srdma_link_options options;

	srdma_endpoint_init(&endpoints[0]);
	srdma_endpoint_init(&endpoints[1]);
	endpoints[0].host = first;
	endpoints[1].host = second;
	srdma_link_options_init(&options);
	options.endpoints = endpoints;
	options.endpoint_count = 2;
	options.reconnect_ms = 600000;
	return srdma_link_connect(&options, tls, device, out);
}
