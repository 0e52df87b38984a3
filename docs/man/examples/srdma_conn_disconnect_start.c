/* SPDX-License-Identifier: Apache-2.0 */
/* Ends a connection in an event loop. */
#include <errno.h>
#include <securdma.h>

/* First with `begun` false, then whenever srdma_conn_fd() is readable. -EAGAIN: it goes on. */
int leave_step(struct srdma_conn *conn, bool begun)
{
	int ret = begun ? 0 : srdma_conn_disconnect_start(conn, "done", SRDMA_DEFAULT_TIMEOUT);

	return ret == 0 ? srdma_conn_disconnect_step(conn) : ret;
}
