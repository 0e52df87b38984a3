/* SPDX-License-Identifier: Apache-2.0 */
/* What an event loop does when the descriptor is readable: it repeats the call until there is nothing more. */
#include <errno.h>
#include <securdma.h>

int on_readable(struct srdma_conn *conn, void (*take)(const char *data, size_t length))
{
	char data[4096];
	size_t length;
	int ret;

	while ((ret = srdma_conn_recv(conn, data, sizeof data, &length, 0)) == 0)
		take(data, length);
	return ret == -EAGAIN ? 0 : ret;
}
