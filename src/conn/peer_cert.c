/* SPDX-License-Identifier: Apache-2.0 */
/* The peer's certificate, for programs. */
#include "cert.h"
#include "conn.h"
#include "log.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* A struct srdma_peer_cert and the memory that it points to. */
struct copy {
	struct srdma_peer_cert public; /* first */
	struct srdma_cert_info info;
	struct srdma_peer_names names;
	const struct srdma_cert_name **list;
	unsigned char *der;
};

void srdma_peer_cert_free(struct srdma_peer_cert **out)
{
	struct copy *copy = (struct copy *)*out;

	*out = NULL;
	if (!copy)
		return;
	srdma_peer_names_clear(&copy->names);
	free(copy->list);
	OPENSSL_free(copy->der);
	free(copy);
}

static int fill(const struct srdma_conn *conn, X509 *cert, struct copy *copy)
{
	int length = i2d_X509(cert, &copy->der);
	int ret = length > 0 ? srdma_cert_describe(cert, &copy->info)
			     : srdma_fail_openssl(-ENOMEM, "the peer's certificate can't be encoded");

	if (ret == 0)
		ret = srdma_tls_peer_names(conn->tls, &copy->names);
	if (ret == 0)
		copy->list = calloc(copy->names.count + 1, sizeof(struct srdma_cert_name *));
	if (ret == 0 && !copy->list)
		ret = srdma_fail(-ENOMEM, "out of memory");
	if (ret != 0)
		return ret;
	for (size_t i = 0; i < copy->names.count; i++)
		copy->list[i] = &copy->names.list[i];
	copy->public.size = sizeof copy->public;
	copy->public.info = &copy->info;
	copy->public.der = copy->der;
	copy->public.der_length = (size_t)length;
	copy->public.names = copy->list;
	copy->public.name_count = copy->names.count;
	memcpy(copy->public.identity, conn->names.identity, sizeof copy->public.identity);
	return 0;
}

int srdma_conn_peer_cert(struct srdma_conn *conn, struct srdma_peer_cert **out)
{
	X509 *cert = srdma_tls_peer_cert(conn->tls);
	struct srdma_peer_cert *made;
	struct copy *copy;
	int ret;

	if (!cert)
		return srdma_fail(-ENOENT, "the peer showed no certificate");
	copy = calloc(1, sizeof *copy);
	ret = copy ? fill(conn, cert, copy) : srdma_fail(-ENOMEM, "out of memory");
	X509_free(cert);
	made = (struct srdma_peer_cert *)copy;
	if (ret != 0)
		srdma_peer_cert_free(&made);
	else
		*out = made;
	return ret;
}
