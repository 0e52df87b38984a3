/* SPDX-License-Identifier: Apache-2.0 */
/* Accepts clients one after the other, and turns away those whose first name is not on a list. */
#include <securdma.h>
#include <string.h>

int admit(const struct srdma_admit_request *request, struct srdma_admit_answer *answer, void *arg)
{
	const char *allowed = (const char *)arg;

	(void)answer; /* says "refused" already */
	return strcmp(request->peer_name, allowed) == 0 ? 0 : -1;
}

int accept_one(struct srdma_listener *listener, struct srdma_tls_context *tls, struct srdma_device *device, char *allowed, struct srdma_conn **out)
{
	int socket = srdma_listener_accept(listener, SRDMA_DEFAULT_TIMEOUT);

	/* The socket is the library's from here on, also when the call fails. */
	return socket < 0 ? socket : srdma_conn_accept(socket, tls, device, NULL, admit, allowed, out);
}
