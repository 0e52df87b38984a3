/* SPDX-License-Identifier: Apache-2.0 */
/* Keeps as many writes in flight as there may be. */
#include <errno.h>
#include <securdma.h>

enum { PIECE = 65536 };

int write_all(struct srdma_conn *conn, struct srdma_buffer *buffer, size_t pieces)
{
	uint64_t cookies[16];
	size_t posted = 0, done = 0;
	int ret = 0;

	while (done < pieces) {
		for (ret = 0; ret == 0 && posted < pieces; posted += ret == 0)
			ret = srdma_conn_post_write(conn, buffer, posted * PIECE, PIECE, posted * PIECE, posted);
		if (ret != 0 && ret != -EAGAIN)
			return ret;
		ret = srdma_conn_complete(conn, cookies, 16, SRDMA_DEFAULT_TIMEOUT);
		if (ret < 0)
			return ret;
		done += (size_t)ret;
	}
	return 0;
}
