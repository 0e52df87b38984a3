/* SPDX-License-Identifier: Apache-2.0 */
/* Each client has a part of one memory for itself, and all may read another part. */
#include <securdma_memory.h>

enum { COMMON = 4096, OWN = 4096 };

/* The memory was registered for remote reads and writes. */
int offer_parts(struct srdma_conn *conn, struct srdma_memory *memory, unsigned client)
{
	uint32_t common, own;
	int ret = srdma_conn_offer(conn, memory, 0, COMMON, IBV_ACCESS_REMOTE_READ, "common", &common);

	if (ret == 0)
		ret = srdma_conn_offer(conn, memory, COMMON + (uint64_t)client * OWN, OWN, IBV_ACCESS_REMOTE_READ | IBV_ACCESS_REMOTE_WRITE, "own", &own);
	return ret;
}
