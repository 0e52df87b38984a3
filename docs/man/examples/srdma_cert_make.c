/* SPDX-License-Identifier: Apache-2.0 */
/* Makes a client's certificate for a month. */
#include <securdma_cert.h>

int make_client(const char *name)
{
	struct srdma_cert_request request;

	srdma_cert_request_init(&request);
	request.kind = SRDMA_CERT_CLIENT;
	request.common_name = name;
	request.days = 30;
	request.ca_cert_file = "ca.crt";
	request.ca_key_file = "ca.key";
	request.cert_file = "client.crt";
	request.key_file = "client.key";
	return srdma_cert_make(&request);
}
