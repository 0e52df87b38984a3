/* SPDX-License-Identifier: Apache-2.0 */
/* The start of a balancer's connection, as the set-up reads it: no more than it is asked for. */
#include "fuzz.h"

#include "proxy.h"
#include "securdma.h"

#include <errno.h>
#include <string.h>

/* From a block of that size, so that the sanitizer sees what is read beyond it. */
static int parse(const uint8_t *data, size_t size, struct srdma_proxy *proxy)
{
	uint8_t *copy = malloc(size ? size : 1);
	int ret;

	if (size > 0)
		memcpy(copy, data, size);
	ret = srdma_proxy_parse(copy, size, proxy);
	free(copy);
	require(ret == 0 || ret == -EAGAIN || ret == SRDMA_EPROTOCOL);
	require(ret == SRDMA_EPROTOCOL || proxy->length <= SRDMA_PROXY_MAX);
	return ret;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct srdma_proxy whole, proxy;
	size_t have = 0;
	int all = parse(data, size, &whole), ret;

	while ((ret = parse(data, have, &proxy)) == -EAGAIN) {
		require(proxy.length > have);
		if (proxy.length > size)
			break;
		have = proxy.length;
	}
	/* What is asked for piece by piece comes to the same as the whole, and takes nothing that follows. */
	if (all == 0) {
		require(ret == 0 && have == whole.length && memcmp(&proxy, &whole, sizeof proxy) == 0);
		require(whole.own ? whole.source.ss_family == AF_UNSPEC
				  : whole.source.ss_family == AF_INET || whole.source.ss_family == AF_INET6);
	} else {
		/* One that is cut short may be seen to be bad only with its next byte. */
		require(ret == all || (all == SRDMA_EPROTOCOL && ret == -EAGAIN));
	}
	return 0;
}
