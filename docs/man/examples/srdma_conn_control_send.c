/* SPDX-License-Identifier: Apache-2.0 */
/* Tells the peer of a raw connection where a buffer is. */
#include <securdma.h>
#include <string.h>

struct place {
	uint64_t address; /* in the byte order of both ends' machines */
	uint32_t rkey;
};

int tell_place(struct srdma_conn *conn, const struct ibv_mr *mr)
{
	struct place place;

	memset(&place, 0, sizeof place);
	place.address = (uintptr_t)mr->addr;
	place.rkey = mr->rkey;
	return srdma_conn_control_send(conn, &place, sizeof place, SRDMA_DEFAULT_TIMEOUT);
}
