/* SPDX-License-Identifier: Apache-2.0 */
/* Receives one message of any length. */
#include <errno.h>
#include <securdma.h>
#include <stdlib.h>

int receive(struct srdma_conn *conn, char **data, size_t *size, size_t *length)
{
	int ret = srdma_conn_recv(conn, *data, *size, length, SRDMA_DEFAULT_TIMEOUT);

	if (ret == -EMSGSIZE) { /* the message stays */
		char *grown = (char *)realloc(*data, *length);

		if (!grown)
			return -ENOMEM;
		*data = grown;
		*size = *length;
		ret = srdma_conn_recv(conn, *data, *size, length, SRDMA_DEFAULT_TIMEOUT);
	}
	return ret;
}
