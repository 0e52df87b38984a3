/* SPDX-License-Identifier: Apache-2.0 */
/* Ends a server when its last client has gone, or a minute has passed. */
#include <poll.h>
#include <securdma_server.h>

int drain_and_stop(struct srdma_server **server)
{
	struct srdma_server_status status;
	struct pollfd fd = {srdma_server_event_fd(*server), POLLIN, 0};
	int ret = srdma_server_drain(*server, 60000);

	for (srdma_server_get_status(*server, &status); ret == 0 && !status.drained && !status.device_failed; srdma_server_get_status(*server, &status))
		poll(&fd, 1, -1);
	return srdma_server_stop(server);
}
