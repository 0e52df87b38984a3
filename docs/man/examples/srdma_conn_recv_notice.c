/* SPDX-License-Identifier: Apache-2.0 */
/* Takes messages and notices in the order in which the peer sent them. */
#include <errno.h>
#include <securdma_memory.h>

int take_next(struct srdma_conn *conn, char *data, size_t size, size_t *length, struct srdma_notice *notice, bool *is_notice)
{
	int ret = srdma_conn_recv(conn, data, size, length, SRDMA_DEFAULT_TIMEOUT);

	*is_notice = ret == -ENOMSG;
	return *is_notice ? srdma_conn_recv_notice(conn, notice, 0) : ret;
}
