/* SPDX-License-Identifier: Apache-2.0 */
/* Writes a header and a body from two memories in one request, and tells the peer's program. */
#include <securdma_memory.h>

int write_and_tell(struct srdma_conn *conn, struct srdma_memory *header, uint64_t header_length, struct srdma_memory *body, uint64_t body_length,
		   const struct srdma_peer_region *region, uint32_t number)
{
	struct srdma_piece pieces[2];
	struct srdma_request request;

	for (int i = 0; i < 2; i++)
		srdma_piece_init(&pieces[i]);
	pieces[0].memory = header;
	pieces[0].length = header_length;
	pieces[1].memory = body;
	pieces[1].length = body_length;
	srdma_request_init(&request);
	request.kind = SRDMA_REQUEST_WRITE_NOTIFY;
	request.region = region->id;
	request.pieces = pieces; /* copied */
	request.piece_count = 2;
	request.notice = number;
	request.cookie = number;
	return srdma_conn_post(conn, &request);
}
