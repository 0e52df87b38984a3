/* SPDX-License-Identifier: Apache-2.0 */
/* Bad input for each call of the headers: what it must return, by a table that names the call. test_bad_calls.py compares the table
 * with the headers: no call with errors is missing, and each error is in the call's documentation. */
#include "probe.h"
#include "securdma_memory.h"
#include "securdma_stream.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#define SIZE 4096

/* The call must return `expected`, and say why. Notes the name of the call and the error. */
#define BAD(rig, call, expected)                                                                                                           \
	do {                                                                                                                               \
		EXPECT(call, expected);                                                                                                    \
		CHECK(strlen(srdma_error_text()) > 5);                                                                                     \
		note(rig, #call, expected);                                                                                                \
	} while (0)

static void note(struct rig *rig, const char *call, int error)
{
	json_t *rows = json_object_get(rig->facts, "rows");
	size_t length = strcspn(call, "(");

	CHECK(json_array_append_new(rows, json_pack("[s%, i]", call, length, error)) == 0);
}

/* A structure that was not initialised. */
#define UNINITIALISED(type) (&(type){.size = 0})
/* A structure of a newer program, which has set a field that this library does not know. */
#define UNKNOWN_FIELD(type) ((type *)newer(sizeof(type)))

static void *newer(size_t size)
{
	static char room[4096];

	CHECK(size + 8 <= sizeof room);
	memset(room, 0, sizeof room);
	size += 8;
	memcpy(room, &size, sizeof size);
	room[size - 1] = 1;
	return room;
}

/* ---- before there is a connection ------------------------------------------------------------------------------- */

static void try_devices(struct rig *rig)
{
	struct srdma_device_options options;
	struct srdma_device *device = NULL;
	struct sockaddr_un_like {
		sa_family_t family;
		char path[64];
	} unix_address = {AF_UNIX, ""};
	union ibv_gid gid;
	uint8_t index;

	srdma_device_options_init(&options);
	options.name = "";
	BAD(rig, srdma_device_open(&options, &device), -ENODEV);
	options.name = NULL;
	options.port = 255;
	BAD(rig, srdma_device_open(&options, &device), -EINVAL);
	BAD(rig, srdma_device_open(UNINITIALISED(struct srdma_device_options), &device), -EINVAL);
	BAD(rig, srdma_device_open(UNKNOWN_FIELD(struct srdma_device_options), &device), -EINVAL);
	BAD(rig, srdma_device_choose_gid(rig->device, (struct sockaddr *)&unix_address, (struct sockaddr *)&unix_address, &index, &gid),
	    -EADDRNOTAVAIL);
	CHECK(!device);
	srdma_device_unref(&device);
}

static void try_tls(struct rig *rig)
{
	struct srdma_tls_client_options client;
	struct srdma_tls_server_options server;
	struct srdma_tls_context *context = NULL;
	char cert[512], key[512];

	snprintf(cert, sizeof cert, "%s/server.crt", rig->folder);
	snprintf(key, sizeof key, "%s/client.key", rig->folder);
	srdma_tls_client_options_init(&client);
	BAD(rig, srdma_tls_client_new(&client, &context), SRDMA_ECONFIG);
	BAD(rig, srdma_tls_client_check(&client, NULL, NULL), SRDMA_ECONFIG);
	client.pin = "sha256:";
	BAD(rig, srdma_tls_client_new(&client, &context), -EINVAL);
	BAD(rig, srdma_tls_client_check(&client, NULL, NULL), -EINVAL);
	client.pin = NULL;
	client.ca_file = "/nowhere";
	BAD(rig, srdma_tls_client_new(&client, &context), -ENOENT);
	client.ca_file = "/";
	BAD(rig, srdma_tls_client_new(&client, &context), SRDMA_ECONFIG);
	client.ca_file = "/dev/null";
	BAD(rig, srdma_tls_client_new(&client, &context), SRDMA_ECONFIG);
	client.ca_file = cert;
	client.server_name = "not a name";
	BAD(rig, srdma_tls_client_new(&client, &context), -EINVAL);
	BAD(rig, srdma_tls_client_new(UNINITIALISED(struct srdma_tls_client_options), &context), -EINVAL);
	BAD(rig, srdma_tls_client_new(UNKNOWN_FIELD(struct srdma_tls_client_options), &context), -EINVAL);
	srdma_tls_server_options_init(&server);
	BAD(rig, srdma_tls_server_new(&server, &context), SRDMA_ECONFIG);
	server.cert_file = cert;
	server.key_file = key;
	server.client_ca_file = cert;
	BAD(rig, srdma_tls_server_new(&server, &context), SRDMA_ECONFIG);
	BAD(rig, srdma_tls_server_check(&server, NULL, NULL), SRDMA_ECONFIG);
	server.identity_from = "cn,shoe-size";
	BAD(rig, srdma_tls_server_new(&server, &context), -EINVAL);
	BAD(rig, srdma_tls_server_new(UNINITIALISED(struct srdma_tls_server_options), &context), -EINVAL);
	CHECK(!context);
	srdma_tls_context_unref(&context);
}

static void try_certificates(struct rig *rig)
{
	struct srdma_cert_request request;
	struct srdma_cert_info info;
	char longest[80], cert[512], key[512];

	snprintf(cert, sizeof cert, "%s/server.crt", rig->folder);
	snprintf(key, sizeof key, "%s/server.key", rig->folder);
	memset(longest, 'x', sizeof longest);
	longest[sizeof longest - 1] = '\0';
	srdma_cert_request_init(&request);
	request.common_name = "x";
	request.days = 1;
	request.key_file = "/nowhere/x.key";
	BAD(rig, srdma_cert_make(&request), -EINVAL); /* no cert_file */
	request.cert_file = "/nowhere/x.crt";
	BAD(rig, srdma_cert_make(&request), -ENOENT);
	request.days = 0;
	BAD(rig, srdma_cert_make(&request), -EINVAL);
	request.days = 36501;
	BAD(rig, srdma_cert_make(&request), -EINVAL);
	request.days = 1;
	request.common_name = longest;
	BAD(rig, srdma_cert_make(&request), -EINVAL);
	request.common_name = "";
	BAD(rig, srdma_cert_make(&request), -EINVAL);
	request.common_name = NULL;
	BAD(rig, srdma_cert_make(&request), -EINVAL);
	request.common_name = "x";
	request.kind = (enum srdma_cert_kind)99;
	BAD(rig, srdma_cert_make(&request), -EINVAL);
	request.kind = SRDMA_CERT_CA;
	request.cert_file = cert;
	request.key_file = key;
	BAD(rig, srdma_cert_make(&request), -EEXIST);
	BAD(rig, srdma_cert_make(UNINITIALISED(struct srdma_cert_request)), -EINVAL);
	BAD(rig, srdma_cert_make(UNKNOWN_FIELD(struct srdma_cert_request)), -EINVAL);
	BAD(rig, srdma_cert_read(NULL, &info), -EINVAL);
	BAD(rig, srdma_cert_read(cert, NULL), -EINVAL);
	BAD(rig, srdma_cert_read("/nowhere", &info), -ENOENT);
	BAD(rig, srdma_cert_read("/dev/null", &info), SRDMA_ECONFIG);
	BAD(rig, srdma_cert_check(SRDMA_CERT_SERVER, "/nowhere", "/nowhere", NULL, NULL, NULL), -ENOENT);
	BAD(rig, srdma_cert_check(SRDMA_CERT_SERVER, NULL, NULL, NULL, NULL, NULL), -EINVAL);
}

static void try_options(struct rig *rig)
{
	struct srdma_conn *conn = NULL;
	struct srdma_conn_options o;
	struct srdma_qp_options qp;

#define REFUSED(member, value, expected)                                                                                                   \
	do {                                                                                                                               \
		o = rig->client_options;                                                                                                   \
		o.member = value;                                                                                                          \
		BAD(rig, srdma_conn_connect(rig->host, rig->port, rig->client_tls, rig->device, &o, &conn), expected);                     \
	} while (0)
	REFUSED(message_size, 63, -EINVAL);
	REFUSED(message_size, (1u << 20) + 1, -EINVAL);
	REFUSED(depth, 0, -EINVAL);
	REFUSED(depth, 4097, -EINVAL);
	REFUSED(rdma_depth, 0, -EINVAL);
	REFUSED(rdma_depth, 4097, -EINVAL);
	REFUSED(region_access, IBV_ACCESS_REMOTE_ATOMIC, -EINVAL);
	REFUSED(region_size, SIZE_MAX, -EINVAL);
	REFUSED(setup_timeout_ms, 0, -EINVAL);
	REFUSED(busy_retry_ms, -1, -EINVAL);
	REFUSED(timeout_ms, -1, -EINVAL);
	REFUSED(seal, (enum srdma_seal)2, -EINVAL);
	REFUSED(epoch_psns, SRDMA_EPOCH_PSNS_MIN - 1, -EINVAL);
	REFUSED(epoch_psns, SRDMA_EPOCH_PSNS + 1, -EINVAL);
	REFUSED(epoch_ms, 99, -EINVAL);
	REFUSED(epoch_ms, -1, -EINVAL);
	REFUSED(spin, -2, -EINVAL);
	REFUSED(seal_threads, 65, -EINVAL);
	REFUSED(gid_networks, "10.0.0.0/33", -EINVAL);
	REFUSED(private_data_size, 1, -EINVAL);
	REFUSED(qp, UNINITIALISED(struct srdma_qp_options), -EINVAL);
	REFUSED(qp, UNKNOWN_FIELD(struct srdma_qp_options), -EINVAL);
#define REFUSED_QP(member, value)                                                                                                          \
	do {                                                                                                                               \
		srdma_qp_options_init(&qp);                                                                                                \
		qp.member = value;                                                                                                         \
		REFUSED(qp, &qp, -EINVAL);                                                                                                 \
	} while (0)
	REFUSED_QP(path_mtu, 1000);
	REFUSED_QP(timeout, 32);
	REFUSED_QP(retry_count, 8);
	REFUSED_QP(rnr_retry, 8);
	REFUSED_QP(min_rnr_timer, 32);
	REFUSED_QP(max_rd_atomic, 0);
	REFUSED_QP(service_level, 16);
	BAD(rig, srdma_conn_connect(rig->host, rig->port, rig->client_tls, rig->device, UNINITIALISED(struct srdma_conn_options), &conn), -EINVAL);
	BAD(rig, srdma_conn_connect(rig->host, rig->port, rig->client_tls, rig->device, UNKNOWN_FIELD(struct srdma_conn_options), &conn), -EINVAL);
	CHECK(!conn);
	srdma_conn_free(&conn);
}

static void try_connecting(struct rig *rig)
{
	struct srdma_connect *connect = NULL;
	struct srdma_accept *accept = NULL;
	struct srdma_conn *conn = NULL;
	struct srdma_listener *listener = NULL, *again = NULL;
	char port[16], longest[2000];
	int fds[2], file = open("/dev/null", O_RDONLY);

	memset(longest, 'x', sizeof longest);
	longest[sizeof longest - 1] = '\0';
	BAD(rig, srdma_conn_connect(NULL, rig->port, rig->client_tls, rig->device, NULL, &conn), -EINVAL);
	BAD(rig, srdma_conn_connect(rig->host, NULL, rig->client_tls, rig->device, NULL, &conn), -EINVAL);
	BAD(rig, srdma_conn_connect(rig->host, "", rig->client_tls, rig->device, NULL, &conn), -EINVAL);
	BAD(rig, srdma_conn_connect(longest, rig->port, rig->client_tls, rig->device, NULL, &conn), -EHOSTUNREACH);
	BAD(rig, srdma_conn_connect(rig->host, rig->port, rig->server_tls, rig->device, NULL, &conn), -EINVAL);
	BAD(rig, srdma_conn_connect_start(rig->host, rig->port, NULL, rig->device, NULL, &connect), -EINVAL);
	BAD(rig, srdma_conn_connect_start(rig->host, rig->port, rig->client_tls, NULL, NULL, &connect), -EINVAL);
	BAD(rig, srdma_conn_connect_start(NULL, rig->port, rig->client_tls, rig->device, NULL, &connect), -EINVAL);
	BAD(rig, srdma_conn_connect_start(rig->host, NULL, rig->client_tls, rig->device, NULL, &connect), -EINVAL);
	BAD(rig, srdma_conn_connect_start(rig->host, rig->port, rig->server_tls, rig->device, NULL, &connect), -EINVAL);
	BAD(rig, srdma_conn_connect_start(rig->host, rig->port, rig->client_tls, rig->device, UNINITIALISED(struct srdma_conn_options), &connect),
	    -EINVAL);
	EXPECT(srdma_conn_connect_start(rig->host, rig->port, rig->client_tls, rig->device, NULL, &connect), 0);
	note(rig, "srdma_connect_step(", srdma_connect_step(connect, &conn));
	srdma_connect_free(&connect);
	srdma_connect_free(&connect);
	srdma_conn_free(&conn);

	BAD(rig, srdma_listener_listen(NULL, "-1", &listener), -EINVAL);
	BAD(rig, srdma_listener_listen(NULL, "", &listener), -EINVAL);
	EXPECT(srdma_listener_listen(NULL, "0", &listener), 0);
	snprintf(port, sizeof port, "%u", srdma_listener_port(listener));
	BAD(rig, srdma_listener_listen(NULL, port, &again), -EADDRINUSE);
	BAD(rig, srdma_listener_accept(listener, 0), -EAGAIN);
	srdma_listener_free(&listener);
	srdma_listener_free(&listener);
	CHECK(pipe(fds) == 0 && file >= 0);
	BAD(rig, srdma_listener_from_fd(-1, &listener), -EINVAL);
	BAD(rig, srdma_listener_from_fd(fds[0], &listener), -EINVAL);
	BAD(rig, srdma_listener_from_fd(file, &listener), -EINVAL);
	close(fds[1]);
	close(file);

	/* The socket is the library's. */
	CHECK(socketpair(AF_UNIX, SOCK_STREAM, 0, fds) == 0);
	close(fds[1]);
	BAD(rig, srdma_conn_accept_start(fds[0], rig->client_tls, rig->device, NULL, NULL, NULL, &accept), -EINVAL);
	BAD(rig, srdma_conn_accept_start(-1, rig->server_tls, rig->device, NULL, NULL, NULL, &accept), SRDMA_ELOST);
	BAD(rig, srdma_conn_accept(-1, rig->server_tls, rig->device, NULL, NULL, NULL, &conn), SRDMA_ELOST);
	CHECK(socketpair(AF_UNIX, SOCK_STREAM, 0, fds) == 0);
	close(fds[1]);
	BAD(rig, srdma_conn_accept(fds[0], rig->server_tls, rig->device, UNINITIALISED(struct srdma_conn_options), NULL, NULL, &conn), -EINVAL);
	CHECK(!accept && !conn && !again);
	srdma_accept_free(&accept);
}

/* ---- servers and links ------------------------------------------------------------------------------------------- */

static void try_servers(struct rig *rig)
{
	struct srdma_server_options o;
	struct srdma_server_limits limits;
	struct srdma_identity identities[2];
	struct srdma_server *server = NULL;
	char name[SRDMA_NAME_SIZE + 1], text[4];
	int fd = 0;

#define REFUSED_SERVER(member, value)                                                                                                      \
	do {                                                                                                                               \
		srdma_server_options_init(&o);                                                                                             \
		o.port = "0";                                                                                                              \
		o.member = value;                                                                                                          \
		BAD(rig, srdma_server_start(&o, rig->server_tls, rig->device, &server), -EINVAL);                                          \
		BAD(rig, srdma_server_check(&o, rig->device, NULL, NULL), -EINVAL);                                                        \
	} while (0)
	REFUSED_SERVER(workers, -2);
	REFUSED_SERVER(drain_timeout_ms, 0);
	REFUSED_SERVER(drain_timeout_ms, -1);
	REFUSED_SERVER(proxy_networks, "everywhere");
	REFUSED_SERVER(limits, UNINITIALISED(struct srdma_server_limits));
	REFUSED_SERVER(conn, UNINITIALISED(struct srdma_conn_options));
	REFUSED_SERVER(listen_fd_count, 1);
	srdma_server_options_init(&o);
	o.listen_fds = &fd;
	o.listen_fd_count = 100000;
	BAD(rig, srdma_server_start(&o, rig->server_tls, rig->device, &server), -EINVAL);
	srdma_server_options_init(&o);
	o.port = "65536";
	BAD(rig, srdma_server_start(&o, rig->server_tls, rig->device, &server), -EINVAL);
	o.port = "0";
	BAD(rig, srdma_server_start(&o, rig->client_tls, rig->device, &server), -EINVAL);
	BAD(rig, srdma_server_start(UNINITIALISED(struct srdma_server_options), rig->server_tls, rig->device, &server), -EINVAL);
	BAD(rig, srdma_server_start(UNKNOWN_FIELD(struct srdma_server_options), rig->server_tls, rig->device, &server), -EINVAL);
	o.port = "0";
	BAD(rig, srdma_server_start(&o, NULL, rig->device, &server), -EINVAL);
	BAD(rig, srdma_server_start(&o, rig->server_tls, NULL, &server), -EINVAL);
	BAD(rig, srdma_server_set_tls(rig->server, NULL), -EINVAL);
	CHECK(!server);

	memset(name, 'x', sizeof name);
	name[SRDMA_NAME_SIZE] = '\0';
	BAD(rig, srdma_identity_check_name(name), -EINVAL);
	BAD(rig, srdma_identity_check_name(""), -EINVAL);
	BAD(rig, srdma_identity_check_name(NULL), -EINVAL);
	BAD(rig, srdma_identity_check_name("a\nb"), -EINVAL);
	BAD(rig, srdma_identity_check_name("\xff"), -EINVAL);
	BAD(rig, srdma_identity_check_name("sha256:12"), -EINVAL);

	srdma_server_limits_init(&limits);
	limits.identities = identities;
	limits.identity_count = 2;
	srdma_identity_init(&identities[0]);
	srdma_identity_init(&identities[1]);
	identities[0].name = identities[1].name = "twice";
	BAD(rig, srdma_server_set_limits(rig->server, &limits), -EINVAL);
	identities[1].name = NULL;
	BAD(rig, srdma_server_set_limits(rig->server, &limits), -EINVAL);
	identities[1].name = "once";
	identities[1].region_size = -2;
	BAD(rig, srdma_server_set_limits(rig->server, &limits), -EINVAL);
	identities[1].region_size = -1;
	identities[1].region_access = IBV_ACCESS_LOCAL_WRITE;
	BAD(rig, srdma_server_set_limits(rig->server, &limits), -EINVAL);
	identities[1].region_access = -1;
	identities[1].message_size = 1;
	BAD(rig, srdma_server_set_limits(rig->server, &limits), -EINVAL);
	identities[1].message_size = 0;
	limits.max_clients = 0;
	BAD(rig, srdma_server_set_limits(rig->server, &limits), -EINVAL);
	BAD(rig, srdma_server_set_limits(rig->server, UNINITIALISED(struct srdma_server_limits)), -EINVAL);
	BAD(rig, srdma_server_set_tls(rig->server, rig->client_tls), -EINVAL);
	BAD(rig, srdma_server_kick(rig->server, 0, NULL), -ENOENT);
	BAD(rig, srdma_server_kick(rig->server, UINT64_MAX, "x"), -ENOENT);
	BAD(rig, srdma_server_drain(rig->server, -1), -EINVAL);
	BAD(rig, srdma_server_drain(rig->server, INT_MIN), -EINVAL);
	BAD(rig, srdma_server_address(rig->server, 99, text, sizeof text), -ENOENT);
}

static void try_links(struct rig *rig)
{
	struct srdma_endpoint endpoint;
	struct srdma_link_options o;
	struct srdma_conn_options conn;
	struct srdma_link *link = NULL;
	char data[8], large[8192] = "";
	size_t n;

#define REFUSED_LINK(member, value)                                                                                                        \
	do {                                                                                                                               \
		srdma_link_options_init(&o);                                                                                               \
		o.endpoints = &endpoint;                                                                                                   \
		o.endpoint_count = 1;                                                                                                      \
		o.member = value;                                                                                                          \
		BAD(rig, srdma_link_connect(&o, rig->client_tls, rig->device, &link), -EINVAL);                                            \
		BAD(rig, srdma_link_connect_start(&o, rig->client_tls, rig->device, &link), -EINVAL);                                      \
	} while (0)
	srdma_endpoint_init(&endpoint);
	REFUSED_LINK(connect_ms, 0); /* the endpoint has no host */
	endpoint.host = rig->host;
	endpoint.port = rig->port;
	REFUSED_LINK(endpoint_count, 0);
	REFUSED_LINK(connect_ms, -1);
	REFUSED_LINK(reconnect_ms, -1);
	REFUSED_LINK(pause_min_ms, 0);
	REFUSED_LINK(pause_max_ms, 1);
	REFUSED_LINK(endpoints, UNINITIALISED(struct srdma_endpoint));
	srdma_conn_options_init(&conn);
	conn.raw = true;
	REFUSED_LINK(conn, &conn);
	conn.raw = false;
	conn.named_regions = true;
	REFUSED_LINK(conn, &conn);
	REFUSED_LINK(conn, UNINITIALISED(struct srdma_conn_options));
	BAD(rig, srdma_link_connect(UNINITIALISED(struct srdma_link_options), rig->client_tls, rig->device, &link), -EINVAL);
	srdma_link_options_init(&o);
	o.endpoints = &endpoint;
	o.endpoint_count = 1;
	BAD(rig, srdma_link_connect(&o, rig->server_tls, rig->device, &link), -EINVAL);
	CHECK(!link);
	EXPECT(srdma_link_connect(&o, rig->client_tls, rig->device, &link), 0);
	BAD(rig, srdma_link_disconnect_step(link), -EINVAL);
	BAD(rig, srdma_link_disconnect_start(link, NULL, 0), -EINVAL);
	BAD(rig, srdma_link_recv(link, data, sizeof data, &n, 0), -EAGAIN);
	BAD(rig, srdma_link_send(link, large, sizeof large, 0, NULL), -EMSGSIZE);
	BAD(rig, srdma_link_wait(link, 0), -EAGAIN);
	EXPECT(srdma_link_disconnect(link, NULL, -1), 0);
	BAD(rig, srdma_link_send(link, data, 1, 0, NULL), SRDMA_ECLOSED);
	BAD(rig, srdma_link_recv(link, data, 1, &n, 0), SRDMA_ECLOSED);
	BAD(rig, srdma_link_wait(link, 0), SRDMA_ECLOSED);
	BAD(rig, srdma_link_step(link), SRDMA_ECLOSED);
	BAD(rig, srdma_link_reconnect(link), SRDMA_ECLOSED);
	srdma_link_free(&link);
	srdma_link_free(&link);
}

/* ---- one connection ------------------------------------------------------------------------------------------------ */

static void try_one_sided(struct rig *rig, struct srdma_conn *conn, struct srdma_conn *other)
{
	struct srdma_buffer *buffer = NULL, *foreign;
	char data[64] = "";
	uint64_t cookie;

	BAD(rig, srdma_conn_write(conn, data, 1, SIZE, -1), -ERANGE);
	BAD(rig, srdma_conn_write(conn, data, 64, SIZE - 63, -1), -ERANGE);
	BAD(rig, srdma_conn_write(conn, data, 1, UINT64_MAX, -1), -ERANGE);
	BAD(rig, srdma_conn_write(conn, data, SIZE_MAX, 1, -1), -ERANGE);
	BAD(rig, srdma_conn_write(conn, data, 1, 0, 0), -EINVAL);
	BAD(rig, srdma_conn_read(conn, data, 64, SIZE - 63, -1), -ERANGE);
	BAD(rig, srdma_conn_read(conn, data, SIZE_MAX, SIZE_MAX, -1), -ERANGE);
	BAD(rig, srdma_conn_read(conn, data, 1, 0, 0), -EINVAL);
	EXPECT(srdma_conn_write(conn, NULL, 0, SIZE, -1), 0);
	BAD(rig, srdma_conn_write(other, data, 1, 0, -1), -ENXIO); /* the client offers no region */
	BAD(rig, srdma_buffer_new(conn, NULL, 0, &buffer), -EINVAL);
	BAD(rig, srdma_buffer_new(conn, data, 0, &buffer), -EINVAL);
	BAD(rig, srdma_buffer_new(conn, NULL, SIZE_MAX, &buffer), -EINVAL);
	BAD(rig, srdma_buffer_new(conn, NULL, SIZE_MAX / 2, &buffer), -ENOMEM);
	CHECK(!buffer);
	EXPECT(srdma_buffer_new(conn, NULL, 64, &buffer), 0);
	EXPECT(srdma_buffer_new(other, NULL, 64, &foreign), 0);
	BAD(rig, srdma_conn_post_write(conn, buffer, 1, 64, 0, 0), -ERANGE);
	BAD(rig, srdma_conn_post_write(conn, buffer, SIZE_MAX, 2, 0, 0), -ERANGE);
	BAD(rig, srdma_conn_post_write(conn, buffer, 0, 64, SIZE, 0), -ERANGE);
	BAD(rig, srdma_conn_post_write(conn, foreign, 0, 1, 0, 0), -EINVAL);
	BAD(rig, srdma_conn_post_read(conn, buffer, 1, 64, 0, 0), -ERANGE);
	BAD(rig, srdma_conn_post_read(conn, buffer, 0, 64, UINT64_MAX - 1, 0), -ERANGE);
	BAD(rig, srdma_conn_post_read(conn, foreign, 0, 1, 0, 0), -EINVAL);
	BAD(rig, srdma_conn_complete(conn, &cookie, 0, -1), -EINVAL);
	BAD(rig, srdma_conn_complete(conn, &cookie, -1, -1), -EINVAL);
	srdma_buffer_free(&buffer);
	srdma_buffer_free(&buffer);
	srdma_buffer_free(&foreign);
}

static void try_messages(struct rig *rig, struct srdma_conn *conn, struct srdma_conn *other)
{
	char large[SRDMA_CONTROL_MESSAGE_MAX + 1] = "", huge[8192] = "";
	struct srdma_conn *both[2] = {NULL, NULL};
	size_t n;

	BAD(rig, srdma_conn_send(conn, huge, sizeof huge, -1), -EMSGSIZE);
	BAD(rig, srdma_conn_send(conn, huge, SIZE_MAX, -1), -EMSGSIZE);
	BAD(rig, srdma_conn_recv(conn, huge, sizeof huge, &n, 0), -EAGAIN);
	EXPECT(srdma_conn_send(other, "four", 4, -1), 0);
	EXPECT(srdma_conn_wait(conn, -1), 0);
	BAD(rig, srdma_conn_recv(conn, huge, 3, &n, -1), -EMSGSIZE);
	EXPECT(n, 4);
	BAD(rig, srdma_conn_recv(conn, NULL, 0, &n, -1), -EMSGSIZE);
	EXPECT(srdma_conn_recv(conn, huge, 4, &n, -1), 0);
	BAD(rig, srdma_conn_control_send(conn, large, sizeof large, -1), -EMSGSIZE);
	BAD(rig, srdma_conn_control_send(conn, large, SIZE_MAX, -1), -EMSGSIZE);
	BAD(rig, srdma_conn_control_recv(conn, large, sizeof large, &n, 0), -EAGAIN);
	BAD(rig, srdma_conn_wait(conn, 0), -EAGAIN);
	BAD(rig, srdma_conn_wait(conn, 1), -ETIMEDOUT);
	BAD(rig, srdma_conn_disconnect_step(conn), -EINVAL);
	BAD(rig, srdma_conn_disconnect_start(conn, NULL, 0), -EINVAL);
	EXPECT(srdma_conn_disconnect_all(both, 2, NULL, -1), 0);
	EXPECT(srdma_conn_disconnect_all(NULL, 0, NULL, -1), 0);
}

static void try_memory(struct rig *rig, struct srdma_conn *conn, struct srdma_conn *other)
{
	struct srdma_memory *memory = NULL, *local, *into;
	struct srdma_peer_region region;
	struct srdma_request request;
	struct srdma_piece piece;
	struct srdma_notice notice;
	uint64_t changes = 0, address;
	char data[64] = "", name[65];
	uint32_t id, lkey;
	void *none = mmap(NULL, SIZE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0), *fixed = mmap(NULL, SIZE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	memset(name, 'x', sizeof name);
	name[64] = '\0';
	CHECK(none != MAP_FAILED && fixed != MAP_FAILED);
	BAD(rig, srdma_memory_register(rig->device, NULL, 64, 0, &memory), -EINVAL);
	BAD(rig, srdma_memory_register(rig->device, data, 0, 0, &memory), -EINVAL);
	BAD(rig, srdma_memory_register(rig->device, data, SIZE_MAX, 0, &memory), -EINVAL);
	BAD(rig, srdma_memory_register(rig->device, data, 64, 1u << 30, &memory), -EINVAL);
	BAD(rig, srdma_memory_register(rig->device, none, 64, 0, &memory), -EFAULT);
	BAD(rig, srdma_memory_register(rig->device, fixed, 64, IBV_ACCESS_LOCAL_WRITE, &memory), -EFAULT);
	BAD(rig, srdma_memory_register_dmabuf(rig->device, -1, 0, 64, 0, &memory), -EINVAL);
	BAD(rig, srdma_memory_register_dmabuf(rig->device, 0, 0, 0, 0, &memory), -EINVAL);
	BAD(rig, srdma_memory_register_dmabuf(rig->device, 0, 0, 64, 1u << 30, &memory), -EINVAL);
	CHECK(!memory);
	EXPECT(srdma_memory_register(rig->device, data, 64, IBV_ACCESS_REMOTE_READ, &memory), 0);
	EXPECT(srdma_memory_register(rig->device, data, 64, 0, &local), 0);
	EXPECT(srdma_memory_register(rig->device, data, 64, IBV_ACCESS_LOCAL_WRITE, &into), 0);
	BAD(rig, srdma_conn_local_memory(conn, memory, &address, &lkey), -EOPNOTSUPP);
	BAD(rig, srdma_conn_offer(conn, memory, 0, 0, IBV_ACCESS_REMOTE_READ, NULL, &id), -ERANGE);
	BAD(rig, srdma_conn_offer(conn, memory, 1, 64, IBV_ACCESS_REMOTE_READ, NULL, &id), -ERANGE);
	BAD(rig, srdma_conn_offer(conn, memory, UINT64_MAX, 2, IBV_ACCESS_REMOTE_READ, NULL, &id), -ERANGE);
	BAD(rig, srdma_conn_offer(conn, memory, 0, 64, 0, NULL, &id), -EINVAL);
	BAD(rig, srdma_conn_offer(conn, memory, 0, 64, IBV_ACCESS_REMOTE_READ | 1u << 30, NULL, &id), -EINVAL);
	BAD(rig, srdma_conn_offer(conn, memory, 0, 64, IBV_ACCESS_REMOTE_WRITE, NULL, &id), -EACCES);
	BAD(rig, srdma_conn_offer(conn, memory, 0, 64, IBV_ACCESS_REMOTE_READ, name, &id), -EINVAL);
	BAD(rig, srdma_conn_offer(conn, memory, 0, 64, IBV_ACCESS_REMOTE_READ, "a\tb", &id), -EINVAL);
	BAD(rig, srdma_conn_withdraw(conn, 0), -ENXIO);
	BAD(rig, srdma_conn_withdraw(conn, UINT32_MAX), -ENXIO);
	BAD(rig, srdma_conn_find_region(conn, NULL, 0, &region), -EINVAL);
	BAD(rig, srdma_conn_find_region(conn, "", 0, &region), -EINVAL);
	BAD(rig, srdma_conn_find_region(conn, name, 0, &region), -EINVAL);
	BAD(rig, srdma_conn_get_region(conn, UINT32_MAX, &region), -ENXIO);
	BAD(rig, srdma_conn_region_at(conn, SIZE_MAX, &region), -ENOENT);
	BAD(rig, srdma_conn_wait_regions(conn, &changes, 0), -EAGAIN);
	BAD(rig, srdma_conn_recv_notice(conn, &notice, 0), -EAGAIN);

	EXPECT(srdma_conn_offer(other, memory, 0, 64, IBV_ACCESS_REMOTE_READ, "r", &id), 0);
	EXPECT(srdma_conn_find_region(conn, "r", -1, &region), 0);
	srdma_piece_init(&piece);
	srdma_request_init(&request);
	BAD(rig, srdma_conn_post(conn, UNINITIALISED(struct srdma_request)), -EINVAL);
	BAD(rig, srdma_conn_post(conn, UNKNOWN_FIELD(struct srdma_request)), -EINVAL);
	request.kind = (enum srdma_request_kind)99;
	BAD(rig, srdma_conn_post(conn, &request), -EINVAL);
	request.kind = SRDMA_REQUEST_READ;
	request.region = region.id;
	request.piece_count = 1;
	BAD(rig, srdma_conn_post(conn, &request), -EINVAL); /* no pieces */
	request.pieces = &piece;
	BAD(rig, srdma_conn_post(conn, &request), -EINVAL); /* no memory */
	piece.memory = local;
	piece.length = 64;
	BAD(rig, srdma_conn_post(conn, &request), -EACCES); /* into memory without local write */
	request.kind = SRDMA_REQUEST_WRITE;
	BAD(rig, srdma_conn_post(conn, &request), -EACCES); /* the region is for reading */
	request.region = 12345;
	BAD(rig, srdma_conn_post(conn, &request), -ENXIO);
	request.region = region.id;
	request.kind = SRDMA_REQUEST_READ;
	piece.memory = into;
	piece.offset = 1;
	BAD(rig, srdma_conn_post(conn, &request), -ERANGE);
	piece.offset = UINT64_MAX;
	BAD(rig, srdma_conn_post(conn, &request), -ERANGE);
	request.piece_count = SRDMA_PIECES_MAX + 1;
	BAD(rig, srdma_conn_post(conn, &request), -E2BIG);
	EXPECT(srdma_conn_forget(conn, memory), 0);
	EXPECT(srdma_conn_forget(other, memory), 0);
	BAD(rig, srdma_conn_withdraw(other, id), -ENXIO);
	srdma_memory_unref(&memory);
	srdma_memory_unref(&memory);
	srdma_memory_unref(&local);
	srdma_memory_unref(&into);
	munmap(none, SIZE);
	munmap(fixed, SIZE);
}

static void try_streams(struct rig *rig, struct srdma_conn *conn)
{
	struct srdma_stream_options options;
	struct srdma_stream *stream = NULL, *second = NULL;
	const void *data;
	void *room;

	srdma_stream_options_init(&options);
	options.buffer_size = 4095;
	BAD(rig, srdma_stream_new(conn, &options, &stream), -EINVAL);
	options.buffer_size = (1u << 30) + (size_t)1;
	BAD(rig, srdma_stream_new(conn, &options, &stream), -EINVAL);
	BAD(rig, srdma_stream_new(conn, UNINITIALISED(struct srdma_stream_options), &stream), -EINVAL);
	CHECK(!stream);
	EXPECT(srdma_stream_new(conn, NULL, &stream), 0);
	BAD(rig, srdma_stream_new(conn, NULL, &second), -EBUSY);
	BAD(rig, srdma_stream_wait(stream, POLLPRI, 0), -EINVAL);
	BAD(rig, srdma_stream_commit(stream, 1), -EINVAL);
	BAD(rig, srdma_stream_commit(stream, SIZE_MAX), -EINVAL);
	BAD(rig, srdma_stream_consume(stream, 1), -EINVAL);
	BAD(rig, srdma_stream_consume(stream, SIZE_MAX), -EINVAL);
	BAD(rig, srdma_stream_peek(stream, &data, 0), -EAGAIN);
	BAD(rig, srdma_stream_read(stream, &options, 1, 0), -EAGAIN);
	BAD(rig, srdma_stream_wait(stream, POLLIN, 0), -EAGAIN);
	EXPECT(srdma_stream_write(stream, NULL, 0, 0), 0);
	EXPECT(srdma_stream_shutdown(stream), 0);
	BAD(rig, srdma_stream_write(stream, "x", 1, 0), -EPIPE);
	BAD(rig, srdma_stream_reserve(stream, &room, 0), -EPIPE);
	BAD(rig, srdma_stream_flush(stream, 0), -EAGAIN); /* the peer has made no stream */
	EXPECT(srdma_stream_abort(stream, NULL), 0);
	BAD(rig, srdma_stream_shutdown(stream), -ECONNABORTED);
	BAD(rig, srdma_stream_read(stream, &options, 1, 0), -ECONNABORTED);
	srdma_stream_free(&stream);
	srdma_stream_free(&stream);
}

/* After the end, with both ends gone. */
static void try_the_dead(struct rig *rig, struct srdma_conn *conn)
{
	struct srdma_stream *stream = NULL;
	struct srdma_memory *memory;
	struct srdma_peer_region region;
	struct srdma_buffer *buffer = NULL;
	char data[64] = "";
	uint64_t changes = 0, address;
	uint32_t id, rkey;
	size_t n;

	EXPECT(srdma_memory_register(rig->device, data, 64, IBV_ACCESS_REMOTE_READ, &memory), 0);
	BAD(rig, srdma_conn_recv(conn, data, sizeof data, &n, -1), SRDMA_ELOST);
	BAD(rig, srdma_conn_send(conn, data, 1, -1), SRDMA_ELOST);
	BAD(rig, srdma_conn_wait(conn, -1), SRDMA_ELOST);
	BAD(rig, srdma_conn_write(conn, data, 1, 0, -1), SRDMA_ELOST);
	BAD(rig, srdma_conn_read(conn, data, 1, 0, -1), SRDMA_ELOST);
	BAD(rig, srdma_conn_control_send(conn, data, 1, -1), SRDMA_ELOST);
	BAD(rig, srdma_conn_control_recv(conn, data, 1, &n, -1), SRDMA_ELOST);
	BAD(rig, srdma_conn_offer(conn, memory, 0, 64, IBV_ACCESS_REMOTE_READ, NULL, &id), SRDMA_ELOST);
	BAD(rig, srdma_conn_find_region(conn, "x", -1, &region), SRDMA_ELOST);
	EXPECT(srdma_conn_wait_regions(conn, &changes, -1), 0);
	BAD(rig, srdma_conn_wait_regions(conn, &changes, -1), SRDMA_ELOST);
	BAD(rig, srdma_stream_new(conn, NULL, &stream), -ENXIO);
	BAD(rig, srdma_conn_disconnect(conn, NULL, -1), SRDMA_ELOST);
	BAD(rig, srdma_conn_disconnect_all(&conn, 1, NULL, -1), SRDMA_ELOST);
	note(rig, "srdma_conn_withdraw_region(", srdma_conn_withdraw_region(conn));
	note(rig, "srdma_conn_peer_region(", srdma_conn_peer_region(conn, &address, &rkey, &n));
	note(rig, "srdma_buffer_new(", srdma_buffer_new(conn, NULL, 64, &buffer));
	note(rig, "srdma_conn_forget(", srdma_conn_forget(conn, memory));
	note(rig, "srdma_conn_renew(", srdma_conn_renew(conn));
	srdma_buffer_free(&buffer);
	srdma_memory_unref(&memory);
}

void mode_bad_calls(struct rig *rig, char **args)
{
	struct srdma_conn *conn, *other;
	char data[64];
	size_t n;

	CHECK(json_object_set_new(rig->facts, "rows", json_array()) == 0);
	try_devices(rig);
	try_tls(rig);
	try_certificates(rig);
	rig_serve(rig);
	try_options(rig);
	try_connecting(rig);
	try_servers(rig);
	try_links(rig);
	rig_stop(rig, 0);

	rig->client_options.named_regions = rig->server_conn.named_regions = true;
	rig->client_options.control_messages = rig->server_conn.control_messages = true;
	rig->server_conn.region_size = SIZE;
	rig_pair(rig, &conn, &other);
	try_messages(rig, conn, other);
	try_one_sided(rig, conn, other);
	try_memory(rig, conn, other);
	BAD(rig, srdma_conn_withdraw_region(conn), -ENXIO);
	try_streams(rig, other);
	srdma_conn_free(&other);
	/* Its peer is gone: the first call that looks says so. */
	while (srdma_conn_recv(conn, data, sizeof data, &n, 15000 * rig->scale) == 0)
		; /* what the stream had sent */
	try_the_dead(rig, conn);
	srdma_conn_free(&conn);
	srdma_conn_free(&conn);
}
