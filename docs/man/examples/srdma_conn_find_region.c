/* SPDX-License-Identifier: Apache-2.0 */
/* Follows what the peer offers. */
#include <securdma_memory.h>
#include <stdio.h>

/* `*changes` begins with 0. */
int list_when_changed(struct srdma_conn *conn, uint64_t *changes)
{
	struct srdma_peer_region region;
	int ret = srdma_conn_wait_regions(conn, changes, SRDMA_DEFAULT_TIMEOUT);

	for (size_t i = 0; ret == 0 && srdma_conn_region_at(conn, i, &region) == 0; i++)
		printf("%u %s %llu bytes\n", (unsigned)region.id, region.name, (unsigned long long)region.length);
	return ret;
}
