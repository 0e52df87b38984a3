/* SPDX-License-Identifier: Apache-2.0 */
/* A client that trusts one CA, and one that knows its server by the key alone. */
#include <securdma.h>

int trust_ca(struct srdma_tls_context **out)
{
	struct srdma_tls_client_options options;

	srdma_tls_client_options_init(&options);
	options.ca_file = "ca.crt";
	options.cert_file = "client.crt";
	options.key_file = "client.key";
	return srdma_tls_client_new(&options, out);
}

int trust_key(const char *pin, struct srdma_tls_context **out)
{
	struct srdma_tls_client_options options;

	srdma_tls_client_options_init(&options);
	options.pin = pin; /* "sha256:...", as `securdma cert show` prints it */
	return srdma_tls_client_new(&options, out);
}
