/* SPDX-License-Identifier: Apache-2.0 */
/* Withdrawal of the region that either end offered. */
#include "conn.h"
#include "log.h"

#include <errno.h>

int srdma_conn_take_withdrawal(struct srdma_conn *conn)
{
	if (conn->inbox.header.length != 0)
		return srdma_fail(SRDMA_EPROTOCOL, "the peer sent a malformed WITHDRAW of %u byte%s", conn->inbox.header.length,
				  SRDMA_S(conn->inbox.header.length));
	if (conn->peer.region_size == 0)
		return srdma_fail(SRDMA_EPROTOCOL, "the peer sent a WITHDRAW of a region that it does not offer");
	conn->peer.region_size = 0;
	conn->peer.region_access = conn->peer.region_rkey = conn->queues.region_rkey = 0;
	conn->region_withdrawn = true;
	return 0;
}

int srdma_conn_withdraw_region(struct srdma_conn *conn)
{
	int ret = srdma_conn_check(conn);

	if (ret != 0)
		return ret;
	if (!conn->region.address || conn->own.region_size == 0)
		return srdma_fail(-ENXIO, "this end offers no region, or has withdrawn it before");
	conn->own.region_size = 0;
	conn->own.region_access = conn->own.region_rkey = 0;
	/* Another thread may be at a chunk of the region. */
	srdma_sealed_rdma_settle(&conn->sealed_rdma);
	ret = srdma_region_withdraw(&conn->region);
	if (ret == 0)
		ret = srdma_conn_send_empty(conn, SRDMA_FRAME_WITHDRAW);
	return ret == 0 ? 0 : srdma_conn_end(conn, ret);
}
