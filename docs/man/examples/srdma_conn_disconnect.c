/* SPDX-License-Identifier: Apache-2.0 */
/* Leaves two peers that may leave at the same moment. */
#include <securdma.h>

int leave(struct srdma_conn *left, struct srdma_conn *right)
{
	struct srdma_conn *conns[] = {left, right};
	int ret = srdma_conn_disconnect_all(conns, 2, "done", SRDMA_DEFAULT_TIMEOUT);

	srdma_conn_free(&conns[0]);
	srdma_conn_free(&conns[1]);
	return ret;
}
