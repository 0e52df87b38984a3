/* SPDX-License-Identifier: Apache-2.0 */
#include "services.h"

#include "cli.h"

#include <endian.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* All services' words begin so. */
#define PREFIX "securdma-"
/* As the library's, which it describes in its header. */
#define REASON_SIZE 128

struct client {
	const struct service *service; /* NULL: the echo */
	void *of_service;
	uint64_t id; /* for the echo, as it goes on the wire */
	size_t message_size;
	uint8_t reply[];
};

void services_add(struct services *services, const struct service *service, void *state)
{
	services->services[services->count] = service;
	services->states[services->count++] = state;
}

/* Which service private data ask for; -1: none. Its own part begins at *own. */
static int find(const struct services *services, const void *data, size_t size, const uint8_t **own, size_t *own_size)
{
	for (size_t i = 0; i < services->count; i++) {
		size_t length = strlen(services->services[i]->word) + 1;

		if (size < length || memcmp(data, services->services[i]->word, length) != 0)
			continue;
		*own = (const uint8_t *)data + length;
		*own_size = size - length;
		return (int)i;
	}
	return -1;
}

static int on_admit(const struct srdma_admit_request *request, struct srdma_admit_answer *answer, void *arg)
{
	const struct services *services = arg;
	const uint8_t *own;
	size_t own_size;
	int index = find(services, request->private_data, request->private_data_size, &own, &own_size);

	if (index >= 0)
		return services->services[index]->admit(services->states[index], request, answer->reject);
	if (request->private_data_size < strlen(PREFIX) || memcmp(request->private_data, PREFIX, strlen(PREFIX)) != 0)
		return 0;
	snprintf(answer->reject->text, sizeof answer->reject->text, "this server does not offer the service that the client asks for");
	return -1;
}

static int on_connect(struct srdma_conn *conn, void **client_arg, void *arg)
{
	const struct services *services = arg;
	struct srdma_conn_info info;
	struct client *client;
	const uint8_t *own;
	size_t size, own_size;
	const void *data = srdma_conn_peer_private_data(conn, &size);
	int index = data ? find(services, data, size, &own, &own_size) : -1, ret = 0;

	srdma_conn_get_info(conn, &info);
	client = calloc(1, sizeof *client + (index < 0 ? info.message_size : 0));
	if (!client)
		return -ENOMEM;
	client->id = htobe64(info.client_id);
	client->message_size = info.message_size;
	if (index >= 0) {
		client->service = services->services[index];
		ret = client->service->connect(services->states[index], conn, own, own_size, &client->of_service);
	}
	/* Also after a failure the client's end is told. */
	if (ret != 0)
		client->service = NULL;
	*client_arg = client;
	return ret;
}

/* What the library's own echo does. */
static int echo(struct srdma_conn *conn, struct client *client, const void *data, size_t length, char *reason)
{
	size_t most = client->message_size - SRDMA_ECHO_OVERHEAD;
	int ret;

	if (length > most) {
		snprintf(reason, REASON_SIZE, "a message of %zu byte%s cannot be echoed: at most %zu", length, CLI_S(length), most);
		return -EMSGSIZE;
	}
	memcpy(client->reply, &client->id, sizeof client->id);
	memcpy(client->reply + SRDMA_ECHO_OVERHEAD, data, length);
	ret = srdma_conn_send(conn, client->reply, length + SRDMA_ECHO_OVERHEAD, 0);
	if (ret != 0 && ret != -EAGAIN)
		snprintf(reason, REASON_SIZE, "the echo could not be sent: %s", srdma_strerror(ret));
	return ret;
}

static int on_message(struct srdma_conn *conn, const void *data, size_t length, char *reason, void *client_arg, void *arg)
{
	struct client *client = client_arg;

	(void)arg;
	if (!client->service)
		return echo(conn, client, data, length, reason);
	snprintf(reason, REASON_SIZE, "the service takes a stream, and no messages");
	return SRDMA_EPROTOCOL;
}

static int on_stream(struct srdma_conn *conn, struct srdma_stream *stream, char *reason, void *client_arg, void *arg)
{
	struct client *client = client_arg;

	(void)conn;
	(void)arg;
	return client->service ? client->service->stream(client->of_service, stream, reason) : 0;
}

static int on_wake(struct srdma_conn *conn, char *reason, void *client_arg, void *arg)
{
	struct client *client = client_arg;

	(void)conn;
	(void)arg;
	return client->service ? client->service->wake(client->of_service, reason) : 0;
}

static void on_disconnect(struct srdma_conn *conn, int status, void *client_arg, void *arg)
{
	struct client *client = client_arg;

	(void)conn;
	(void)status;
	(void)arg;
	if (!client)
		return;
	if (client->service)
		client->service->disconnect(client->of_service);
	free(client);
}

void services_use(struct services *services, struct srdma_server_options *options)
{
	options->arg = services;
	options->on_admit = on_admit;
	if (services->count == 0)
		return;
	options->on_connect = on_connect;
	options->on_message = on_message;
	options->on_stream = on_stream;
	options->on_wake = on_wake;
	options->on_disconnect = on_disconnect;
}
