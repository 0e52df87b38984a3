/* SPDX-License-Identifier: Apache-2.0 */
/* The names of a certificate, whatever is in it: each shows, and the one that it goes by can be listed. */
#include "fuzz.h"

#include "peer_names.h"

#include "utf8.h"

#include <openssl/err.h>
#include <string.h>

static void check(const struct srdma_peer_names *names)
{
	char text[256];

	require(srdma_peer_names_check(names->identity) == 0);
	require(srdma_peer_names_check(names->pin) == 0);
	for (size_t i = 0; i < names->count; i++) {
		size_t length = strlen(names->list[i].text);

		memcpy(text, names->list[i].text, length < sizeof text ? length : sizeof text);
		require(length >= sizeof text || srdma_utf8_make_shown(text, length));
		require(!names->list[i].whole || length > 0);
	}
	srdma_peer_names_format(names, text, sizeof text);
	require(strlen(text) < sizeof text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const char *const orders[] = {NULL, "uri", "dns,email", "email,pin", "cn"};
	const unsigned char *at = data + 1;
	X509 *cert = size > 0 ? d2i_X509(NULL, &at, (long)size - 1) : NULL;
	struct srdma_name_order order;
	struct srdma_peer_names names;

	ERR_clear_error();
	if (!cert)
		return 0;
	require(srdma_name_order_parse(orders[data[0] % (sizeof orders / sizeof *orders)], &order) == 0);
	if (srdma_peer_names_read(cert, &order, &names) == 0) {
		check(&names);
		srdma_peer_names_clear(&names);
	}
	X509_free(cert);
	ERR_clear_error();
	return 0;
}
