/* SPDX-License-Identifier: Apache-2.0 */
/* Only two clients, and one of them may read alone. */
#include <securdma_server.h>

int allow_two(struct srdma_server *server)
{
	struct srdma_server_limits limits;
	struct srdma_identity identities[2];

	for (int i = 0; i < 2; i++)
		srdma_identity_init(&identities[i]);
	identities[0].name = "writer";
	identities[1].name = "reader";
	identities[1].region_access = IBV_ACCESS_REMOTE_READ;
	srdma_server_limits_init(&limits);
	limits.only_listed_identities = true;
	limits.identities = identities; /* copied */
	limits.identity_count = 2;
	return srdma_server_set_limits(server, &limits);
}
