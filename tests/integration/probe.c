/* SPDX-License-Identifier: Apache-2.0 */
/* usage: probe CERTIFICATES HOST MODE [ARGUMENT...]; SECURDMA_TEST_SCALE stretches time limits. */
#include "probe.h"

#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define MODE(name, function, args) {name, mode_##function, args},

static const struct mode {
	const char *name;
	void (*run)(struct rig *rig, char **args);
	int args;
} modes[] = {PROBE_MODES(MODE) PROBE_WRAPPED_MODES(MODE)};

_Noreturn void probe_die(const char *file, int line, const char *condition)
{
	fprintf(stderr, "%s:%d: %s does not hold; the library's last error: %s\n", file, line, condition,
		srdma_error_text());
	_exit(1);
}

_Noreturn void probe_die_value(const char *file, int line, const char *call, long long got, long long expected)
{
	fprintf(stderr, "%s:%d: %s is %lld, expected %lld; the library's last error: %s\n", file, line, call, got, expected,
		srdma_error_text());
	_exit(1);
}

uint64_t clock_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

void pause_ms(int ms)
{
	struct timespec time = {.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000L};

	nanosleep(&time, NULL);
}

void fill(void *data, size_t length, unsigned seed)
{
	unsigned char *bytes = data;

	for (size_t i = 0; i < length; i++)
		bytes[i] = (unsigned char)(seed * 31 + i * 7 + (i >> 8));
}

bool is_filled(const void *data, size_t length, unsigned seed)
{
	const unsigned char *bytes = data;

	for (size_t i = 0; i < length; i++)
		if (bytes[i] != (unsigned char)(seed * 31 + i * 7 + (i >> 8)))
			return false;
	return true;
}

void fact(struct rig *rig, const char *name, long long value)
{
	CHECK(json_object_set_new(rig->facts, name, json_integer(value)) == 0);
}

void fact_text(struct rig *rig, const char *name, const char *text)
{
	CHECK(json_object_set_new(rig->facts, name, json_string(text)) == 0);
}

/* ---- the rig --------------------------------------------------------------------------------------------------- */

/* The same modes, sealed or with new PSNs all the time: SECURDMA_PROBE_SEAL, SECURDMA_PROBE_EPOCH_MS, SECURDMA_PROBE_EPOCH_PSNS. */
static void choose_protection(struct srdma_conn_options *options)
{
	const char *seal = getenv("SECURDMA_PROBE_SEAL"), *ms = getenv("SECURDMA_PROBE_EPOCH_MS");
	const char *psns = getenv("SECURDMA_PROBE_EPOCH_PSNS");

	if (seal && seal[0])
		options->seal = SRDMA_SEAL_REQUIRED;
	if (getenv("SECURDMA_PROBE_SEAL_THREADS"))
		options->seal_threads = (unsigned)atoi(getenv("SECURDMA_PROBE_SEAL_THREADS"));
	if (ms)
		options->epoch_ms = atoi(ms);
	if (psns)
		options->epoch_psns = (uint32_t)atoi(psns);
}

static void open_rig(struct rig *rig)
{
	char server_cert[512], server_key[512], client_cert[512], client_key[512], ca[512];
	struct srdma_device_options device;
	struct srdma_tls_server_options server;
	struct srdma_tls_client_options client;
	const char *scale = getenv("SECURDMA_TEST_SCALE");

	snprintf(server_cert, sizeof server_cert, "%s/server.crt", rig->folder);
	snprintf(server_key, sizeof server_key, "%s/server.key", rig->folder);
	snprintf(client_cert, sizeof client_cert, "%s/client.crt", rig->folder);
	snprintf(client_key, sizeof client_key, "%s/client.key", rig->folder);
	snprintf(ca, sizeof ca, "%s/ca.crt", rig->folder);
	rig->scale = scale && atoi(scale) > 0 ? atoi(scale) : 1;
	rig->facts = json_object();
	srdma_device_options_init(&device);
	EXPECT(srdma_device_open(&device, &rig->device), 0);
	srdma_tls_server_options_init(&server);
	server.cert_file = server_cert;
	server.key_file = server_key;
	server.client_ca_file = ca;
	EXPECT(srdma_tls_server_new(&server, &rig->server_tls), 0);
	srdma_tls_client_options_init(&client);
	client.ca_file = ca;
	client.cert_file = client_cert;
	client.key_file = client_key;
	EXPECT(srdma_tls_client_new(&client, &rig->client_tls), 0);
	srdma_server_options_init(&rig->server_options);
	rig->server_options.port = "0";
	rig->server_options.arg = rig;
	srdma_server_limits_init(&rig->server_limits);
	srdma_server_conn_options_init(&rig->server_conn);
	rig->server_options.limits = &rig->server_limits;
	rig->server_options.conn = &rig->server_conn;
	srdma_conn_options_init(&rig->client_options);
	choose_protection(&rig->client_options);
	choose_protection(&rig->server_conn);
}

void rig_serve(struct rig *rig)
{
	EXPECT(srdma_server_start(&rig->server_options, rig->server_tls, rig->device, &rig->server), 0);
	snprintf(rig->port, sizeof rig->port, "%u", srdma_server_port(rig->server));
}

void rig_stop(struct rig *rig, int unclean)
{
	EXPECT(srdma_server_stop(&rig->server), unclean);
	CHECK(rig->server == NULL);
}

struct srdma_conn *rig_connect(struct rig *rig)
{
	struct srdma_conn *conn;

	EXPECT(srdma_conn_connect(rig->host, rig->port, rig->client_tls, rig->device, &rig->client_options, &conn), 0);
	return conn;
}

struct srdma_conn *rig_accept(struct rig *rig, const char *port)
{
	struct srdma_listener *listener;
	struct srdma_conn *conn;
	int socket;

	EXPECT(srdma_listener_listen(NULL, port, &listener), 0);
	socket = srdma_listener_accept(listener, 15000 * rig->scale);
	CHECK(socket >= 0);
	EXPECT(srdma_conn_accept(socket, rig->server_tls, rig->device, &rig->server_conn, NULL, NULL, &conn), 0);
	srdma_listener_free(&listener);
	return conn;
}

void rig_leave(struct srdma_conn **conn)
{
	EXPECT(srdma_conn_disconnect(*conn, NULL, -1), 0);
	srdma_conn_free(conn);
}

void rig_wait_clients(struct rig *rig, unsigned clients)
{
	uint64_t deadline = clock_ms() + 15000 * (unsigned)rig->scale;
	struct srdma_server_status status;

	do {
		srdma_server_get_status(rig->server, &status);
		/* A client that was turned away is counted a little after it learns so. */
		if (status.clients == clients && status.pending == 0)
			return;
		pause_ms(5);
	} while (clock_ms() < deadline);
	EXPECT(status.clients, clients);
}

void rig_poll(struct rig *rig, struct srdma_conn *conn)
{
	struct pollfd fd = {.fd = srdma_conn_fd(conn), .events = POLLIN};

	EXPECT(poll(&fd, 1, 15000 * rig->scale), 1);
}

struct accepting {
	struct rig *rig;
	struct srdma_listener *listener;
	struct srdma_conn *conn;
};

static void *accept_one(void *arg)
{
	struct accepting *a = arg;
	int socket = srdma_listener_accept(a->listener, 15000 * a->rig->scale);

	CHECK(socket >= 0);
	EXPECT(srdma_conn_accept(socket, a->rig->server_tls, a->rig->device, &a->rig->server_conn, NULL, NULL, &a->conn),
	       0);
	return NULL;
}

void rig_pair(struct rig *rig, struct srdma_conn **client, struct srdma_conn **accepted)
{
	struct accepting accepting = {.rig = rig};
	pthread_t thread;

	EXPECT(srdma_listener_listen(NULL, "0", &accepting.listener), 0);
	CHECK(srdma_listener_fd(accepting.listener) >= 0);
	EXPECT(srdma_listener_accept(accepting.listener, 0), -EAGAIN);
	snprintf(rig->port, sizeof rig->port, "%u", srdma_listener_port(accepting.listener));
	CHECK(pthread_create(&thread, NULL, accept_one, &accepting) == 0);
	*client = rig_connect(rig);
	CHECK(pthread_join(thread, NULL) == 0);
	srdma_listener_free(&accepting.listener);
	*accepted = accepting.conn;
}

int main(int argc, char **argv)
{
	struct rig rig = {.folder = argc > 3 ? argv[1] : NULL, .host = argc > 3 ? argv[2] : NULL};
	char *text;

	for (size_t i = 0; argc > 3 && i < sizeof modes / sizeof *modes; i++) {
		if (!modes[i].run || strcmp(modes[i].name, argv[3]) != 0 || argc - 4 != modes[i].args)
			continue;
		open_rig(&rig);
		modes[i].run(&rig, argv + 4);
		srdma_tls_context_unref(&rig.server_tls);
		srdma_tls_context_unref(&rig.client_tls);
		srdma_device_unref(&rig.device);
		text = json_dumps(rig.facts, 0);
		CHECK(text != NULL);
		puts(text);
		free(text);
		json_decref(rig.facts);
		return 0;
	}
	fprintf(stderr, "usage: probe CERTIFICATES HOST MODE [ARGUMENT...]\n");
	return 2;
}
