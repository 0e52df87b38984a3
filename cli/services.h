/* SPDX-License-Identifier: Apache-2.0 */
/* What `securdma serve` does for a client: the echo service, or what the client's private data asks for. */
#ifndef CLI_SERVICES_H
#define CLI_SERVICES_H

#include "securdma_server.h"
#include "securdma_stream.h"

/* One service besides the echo. A client asks for it with private data that begin with `word` and a NUL; what follows is the service's.
 * The functions are those of struct srdma_server_options; `client` is what `connect` has set. */
struct service {
	const char *word;
	/* Whether the client is let in. Fills reject->text and returns another value than 0 if it is not. */
	int (*admit)(void *state, const struct srdma_admit_request *request, struct srdma_reject *reject);
	int (*connect)(void *state, struct srdma_conn *conn, const void *data, size_t size, void **client);
	int (*stream)(void *client, struct srdma_stream *stream, char *reason);
	int (*wake)(void *client, char *reason);
	void (*disconnect)(void *client);
};

#define SERVICES_MAX 4

struct services {
	const struct service *services[SERVICES_MAX];
	void *states[SERVICES_MAX];
	size_t count;
};

/* Offers a service from now on, before the server starts. */
void services_add(struct services *services, const struct service *service, void *state);
/* Makes a server's options call them. Without any service the library's echo stays, and clients that ask for one are turned away. */
void services_use(struct services *services, struct srdma_server_options *options);

#endif
