/* SPDX-License-Identifier: Apache-2.0 */
/* A field of a later version is read only if the library has filled it. */
#include <securdma.h>
#include <stdio.h>

void print_info(const struct srdma_conn *conn)
{
	struct srdma_conn_info info;

	srdma_conn_get_info(conn, &info);
	printf("%s, %s, %llu messages\n", info.peer_name, info.seal[0] ? info.seal : "plain", (unsigned long long)info.messages_received);
	if (SRDMA_HAS_FIELD(&info, worker))
		printf("worker %d\n", info.worker);
}
