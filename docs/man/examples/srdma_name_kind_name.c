/* SPDX-License-Identifier: Apache-2.0 */
/* Prints the names in a peer's certificate. */
#include <securdma_cert.h>
#include <stdio.h>

int print_names(struct srdma_conn *conn)
{
	struct srdma_peer_cert *cert;
	int ret = srdma_conn_peer_cert(conn, &cert);

	if (ret != 0)
		return ret; /* -ENOENT: the peer showed none */
	for (size_t i = 0; i < cert->name_count; i++) {
		const char *kind = srdma_name_kind_name(cert->names[i]->kind);

		printf("%s %s\n", kind ? kind : "name", cert->names[i]->text);
	}
	srdma_peer_cert_free(&cert);
	return 0;
}
