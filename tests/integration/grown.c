/* SPDX-License-Identifier: Apache-2.0 */
/* Uses every structure of the interface. test_interface.py compiles it with the headers as they are and with headers whose structures
 * have grown (GROWN), and runs each program with each library.
 * usage: grown FOLDER ADDRESS LIBRARY   FOLDER: for certificates; LIBRARY: "same", "older" or "newer" than the program's headers */
#include <securdma_link.h>
#include <securdma_server.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define GUARD 0xA5

/* A structure as it lies on the program's stack, before something else. */
#define GUARDED(type)                                                                                                            \
	struct {                                                                                                                 \
		struct type value;                                                                                               \
		unsigned char guard[256];                                                                                        \
	}
#define BUILD_GUARD(guarded) memset(&(guarded), GUARD, sizeof(guarded))
#define CHECK_GUARD(guarded) check_guard((guarded).guard, sizeof(guarded).guard, __LINE__)

#define CHECK(condition)                                                                                                         \
	do {                                                                                                                     \
		if (!(condition))                                                                                                \
			die(#condition, __LINE__);                                                                               \
	} while (0)
#define EXPECT(call, expected)                                                                                                   \
	do {                                                                                                                     \
		long long got_ = (call);                                                                                         \
		if (got_ != (expected)) {                                                                                        \
			fprintf(stderr, "got %lld\n", got_);                                                                     \
			die(#call, __LINE__);                                                                                    \
		}                                                                                                                \
	} while (0)

/* An options structure with its defaults, and nothing behind it touched. */
#define INIT(guarded, type)                                                                                                      \
	do {                                                                                                                     \
		BUILD_GUARD(guarded);                                                                                            \
		type##_init(&(guarded).value);                                                                                   \
		CHECK((guarded).value.size == sizeof(guarded).value);                                                            \
		CHECK_GUARD(guarded);                                                                                            \
	} while (0)
/* A structure that the library fills. */
#define FILL(guarded, call)                                                                                                      \
	do {                                                                                                                     \
		BUILD_GUARD(guarded);                                                                                            \
		call;                                                                                                            \
		CHECK_GUARD(guarded);                                                                                            \
		CHECK_FILLED(&(guarded).value);                                                                                  \
	} while (0)

#ifdef GROWN
/* A field that an older library does not have is zero, and counts as not filled; if it is set, the call fails. */
#define CHECK_FILLED(pointer)  CHECK(SRDMA_HAS_FIELD(pointer, grown) == !is_older && (is_older || (pointer)->size == sizeof *(pointer)))
#define REFUSED(options, call)                                                                                                   \
	do {                                                                                                                     \
		(options)->grown[3] = 1;                                                                                         \
		if (is_older) {                                                                                                  \
			EXPECT(call, -EINVAL);                                                                                   \
			CHECK(strstr(srdma_error_text(), "does not have"));                                                      \
		}                                                                                                                \
		(options)->grown[3] = 0;                                                                                         \
	} while (0)
#else
#define CHECK_FILLED(pointer)  CHECK((pointer)->size == sizeof *(pointer))
#define REFUSED(options, call) (void)0
#endif

static bool is_older;
static struct {
	char ca[512], ca_key[512], server[512], server_key[512], client[512], client_key[512];
} files;
static const char *address;
static char port[16];
static struct srdma_tls_context *server_context, *client_context;
static struct srdma_device *device;
static unsigned long records, fields, findings;

static void die(const char *what, int line)
{
	fprintf(stderr, "grown.c:%d: %s (%s)\n", line, what, srdma_error_text());
	exit(1);
}

static void check_guard(const unsigned char *guard, size_t size, int line)
{
	for (size_t i = 0; i < size; i++)
		if (guard[i] != GUARD)
			die("the library wrote behind a structure", line);
}

/* ---- what the library calls ------------------------------------------------------------------------------------ */

static void take_record(const struct srdma_log_record *record, void *arg)
{
	CHECK(arg == &records && record->size > 0 && record->text && record->event);
	for (size_t i = 0; i < record->field_count; i++)
		CHECK(record->fields[i]->name[0] != '\0');
	__atomic_add_fetch(&records, 1, __ATOMIC_RELAXED);
	__atomic_add_fetch(&fields, record->field_count, __ATOMIC_RELAXED);
}

static void take_finding(const struct srdma_check *check, void *arg)
{
	CHECK(arg == &findings && check->size > 0 && check->what[0] && check->text[0]);
	CHECK(check->result != SRDMA_CHECK_FAIL);
	findings++;
}

struct seen {
	GUARDED(srdma_conn_info) last;
	unsigned count;
};

static void visit(const struct srdma_conn_info *info, void *arg)
{
	struct seen *seen = arg;

	BUILD_GUARD(seen->last);
	seen->last.value = *info;
	CHECK_GUARD(seen->last);
	seen->count++;
}

static int answer(struct srdma_conn *conn, const void *data, size_t length, char *reason, void *client_arg, void *arg)
{
	(void)reason, (void)client_arg;
	CHECK(arg == &files);
	return srdma_conn_send(conn, data, length, SRDMA_DEFAULT_TIMEOUT);
}

/* ---- steps ----------------------------------------------------------------------------------------------------- */

static void make_certificate(enum srdma_cert_kind kind, const char *name, const char *cert, const char *key)
{
	GUARDED(srdma_cert_request) request;
	GUARDED(srdma_cert_info) info;

	INIT(request, srdma_cert_request);
	request.value.kind = kind;
	request.value.common_name = name;
	request.value.days = 1;
	request.value.cert_file = cert;
	request.value.key_file = key;
	if (kind == SRDMA_CERT_SERVER) {
		request.value.names = &address;
		request.value.name_count = 1;
	}
	if (kind != SRDMA_CERT_CA) {
		request.value.ca_cert_file = files.ca;
		request.value.ca_key_file = files.ca_key;
	}
	REFUSED(&request.value, srdma_cert_make(&request.value));
	EXPECT(srdma_cert_make(&request.value), 0);
	FILL(info, EXPECT(srdma_cert_read(cert, &info.value), 0));
	CHECK(strcmp(info.value.common_name, name) == 0);
}

static void make_credentials(void)
{
	GUARDED(srdma_tls_server_options) server;
	GUARDED(srdma_tls_client_options) client;

	make_certificate(SRDMA_CERT_CA, "ca", files.ca, files.ca_key);
	make_certificate(SRDMA_CERT_SERVER, "server", files.server, files.server_key);
	make_certificate(SRDMA_CERT_CLIENT, "alice", files.client, files.client_key);
	INIT(server, srdma_tls_server_options);
	server.value.cert_file = files.server;
	server.value.key_file = files.server_key;
	server.value.client_ca_file = files.ca;
	REFUSED(&server.value, srdma_tls_server_new(&server.value, &server_context));
	EXPECT(srdma_tls_server_check(&server.value, take_finding, &findings), 0);
	EXPECT(srdma_tls_server_new(&server.value, &server_context), 0);
	INIT(client, srdma_tls_client_options);
	client.value.ca_file = files.ca;
	client.value.cert_file = files.client;
	client.value.key_file = files.client_key;
	REFUSED(&client.value, srdma_tls_client_new(&client.value, &client_context));
	EXPECT(srdma_tls_client_check(&client.value, take_finding, &findings), 0);
	EXPECT(srdma_tls_client_new(&client.value, &client_context), 0);
	CHECK(findings > 0);
}

static void open_device(void)
{
	GUARDED(srdma_device_options) options;
	struct srdma_port_info *ports = NULL;
	size_t count = 0;

	INIT(options, srdma_device_options);
	CHECK(options.value.gid_index == -1);
	REFUSED(&options.value, srdma_device_open(&options.value, &device));
	EXPECT(srdma_device_open(&options.value, &device), 0);
	EXPECT(srdma_device_list(&ports, &count), 0);
	CHECK(count > 0);
	/* Each is where the program looks for it. */
	for (size_t i = 0; i < count; i++) {
		CHECK_FILLED(&ports[i]);
		CHECK(ports[i].device[0] != '\0' && ports[i].port > 0);
	}
	srdma_device_list_free(&ports);
}

static struct srdma_server *serve(void)
{
	GUARDED(srdma_server_options) options;
	GUARDED(srdma_server_limits) limits;
	GUARDED(srdma_conn_options) conn;
	GUARDED(srdma_qp_options) qp;
	struct {
		struct srdma_identity list[3];
		unsigned char guard[256];
	} identities;
	static const char *const names[] = {"zoe", "alice", "mallory"};
	struct srdma_server *server = NULL;

	BUILD_GUARD(identities);
	for (size_t i = 0; i < 3; i++) {
		srdma_identity_init(&identities.list[i]);
		identities.list[i].name = names[i];
		identities.list[i].denied = i == 2;
	}
	CHECK_GUARD(identities);
	INIT(limits, srdma_server_limits);
	limits.value.max_clients = 7;
	limits.value.only_listed_identities = true;
	limits.value.identities = identities.list;
	limits.value.identity_count = 3;
	INIT(qp, srdma_qp_options);
	CHECK(qp.value.hop_limit == 64 && qp.value.retry_count == 6);
	qp.value.retry_count = 5;
	BUILD_GUARD(conn);
	srdma_server_conn_options_init(&conn.value);
	CHECK_GUARD(conn);
	CHECK(conn.value.region_size == 65536);
	conn.value.qp = &qp.value;
	conn.value.region_size = 8192;
	INIT(options, srdma_server_options);
	options.value.address = address;
	options.value.port = "0";
	options.value.limits = &limits.value;
	options.value.conn = &conn.value;
	options.value.on_message = answer;
	options.value.arg = &files;
	REFUSED(&options.value, srdma_server_start(&options.value, server_context, device, &server));
	REFUSED(&limits.value, srdma_server_start(&options.value, server_context, device, &server));
	REFUSED(&identities.list[1], srdma_server_start(&options.value, server_context, device, &server));
	REFUSED(&conn.value, srdma_server_start(&options.value, server_context, device, &server));
	REFUSED(&qp.value, srdma_server_start(&options.value, server_context, device, &server));
	EXPECT(srdma_server_check(&options.value, device, take_finding, &findings), 0);
	EXPECT(srdma_server_start(&options.value, server_context, device, &server), 0);
	REFUSED(&limits.value, srdma_server_set_limits(server, &limits.value));
	EXPECT(srdma_server_set_limits(server, &limits.value), 0);
	snprintf(port, sizeof port, "%u", srdma_server_port(server));
	return server;
}

static void exchange(struct srdma_conn *conn)
{
	char text[16];
	size_t length = 0;

	EXPECT(srdma_conn_send(conn, "hello", 5, SRDMA_DEFAULT_TIMEOUT), 0);
	EXPECT(srdma_conn_recv(conn, text, sizeof text, &length, SRDMA_DEFAULT_TIMEOUT), 0);
	CHECK(length == 5 && memcmp(text, "hello", 5) == 0);
}

static void look_at_connection(struct srdma_conn *conn)
{
	GUARDED(srdma_conn_info) info;
	GUARDED(srdma_conn_timing) timing;
	struct srdma_peer_cert *cert = NULL;

	FILL(info, srdma_conn_get_info(conn, &info.value));
	CHECK(info.value.message_size == 4096 && info.value.peer_region_size == 8192);
	CHECK(info.value.messages_sent == 1 && info.value.messages_received == 1);
	FILL(timing, srdma_conn_get_timing(conn, &timing.value));
	CHECK(timing.value.total > 0 && timing.value.tls > 0);
	EXPECT(srdma_conn_peer_cert(conn, &cert), 0);
	CHECK(strcmp(cert->info->common_name, "server") == 0 && cert->name_count == 2);
	for (size_t i = 0; i < cert->name_count; i++)
		CHECK(strcmp(cert->names[i]->text, i == 0 ? "server" : address) == 0);
	srdma_peer_cert_free(&cert);
}

static void look_at_server(struct srdma_server *server)
{
	GUARDED(srdma_server_status) status;
	struct srdma_server_metrics *metrics = NULL;
	struct seen seen = {.count = 0};
	uint64_t setups = 0;

	FILL(status, srdma_server_get_status(server, &status.value));
	CHECK(status.value.clients == 1 && status.value.accepted == 1 && status.value.max_clients == 7);
	EXPECT(srdma_server_each(server, visit, &seen), 0);
	CHECK_FILLED(&seen.last.value);
	CHECK(seen.count == 1 && strcmp(seen.last.value.peer_name, "alice") == 0 && seen.last.value.connected_at > 0);
	EXPECT(srdma_server_get_metrics(server, &metrics), 0);
	CHECK(metrics->clients == 1 && metrics->accepted == 1 && metrics->worker_load_count >= 1 && metrics->worker_load[0] == 1);
	CHECK(metrics->rejected_count > SRDMA_REJECT_BUSY && metrics->rejected[SRDMA_REJECT_REFUSED] == 0);
	CHECK(metrics->setup_time_count > SRDMA_PHASE_TOTAL);
	for (size_t i = 0; i < metrics->setup_time[SRDMA_PHASE_TOTAL]->bucket_count; i++)
		setups += metrics->setup_time[SRDMA_PHASE_TOTAL]->counts[i];
	CHECK(setups == 1 && metrics->setup_time[SRDMA_PHASE_TOTAL]->sum_us > 0);
	srdma_server_metrics_free(&metrics);
	CHECK(metrics == NULL);
}

static void connect_once(struct srdma_server *server)
{
	GUARDED(srdma_conn_options) options;
	GUARDED(srdma_reject) reject;
	struct srdma_conn *conn = NULL;

	INIT(options, srdma_conn_options);
	CHECK(options.value.depth == 16);
	REFUSED(&options.value, srdma_conn_connect(address, port, client_context, device, &options.value, &conn));
	EXPECT(srdma_conn_connect(address, port, client_context, device, &options.value, &conn), 0);
	exchange(conn);
	look_at_connection(conn);
	look_at_server(server);
	EXPECT(srdma_conn_disconnect(conn, "done", SRDMA_DEFAULT_TIMEOUT), 0);
	srdma_conn_free(&conn);
	/* One end sealed, the other not. */
	options.value.seal = SRDMA_SEAL_REQUIRED;
	EXPECT(srdma_conn_connect(address, port, client_context, device, &options.value, &conn), SRDMA_EREJECTED);
	FILL(reject, srdma_reject_last(&reject.value));
	CHECK(reject.value.reason == SRDMA_REJECT_FEATURE && strstr(reject.value.text, "seal"));
}

static void connect_link(void)
{
	GUARDED(srdma_link_options) options;
	GUARDED(srdma_link_info) info;
	GUARDED(srdma_link_loss) loss;
	struct srdma_endpoint endpoints[2];
	struct srdma_link *link = NULL;

	for (size_t i = 0; i < 2; i++) {
		srdma_endpoint_init(&endpoints[i]);
		endpoints[i].host = address;
		endpoints[i].port = i == 0 ? "1" : port; /* nothing listens at the first */
	}
	INIT(options, srdma_link_options);
	options.value.endpoints = endpoints;
	options.value.endpoint_count = 2;
	REFUSED(&options.value, srdma_link_connect(&options.value, client_context, device, &link));
	REFUSED(&endpoints[1], srdma_link_connect(&options.value, client_context, device, &link));
	EXPECT(srdma_link_connect(&options.value, client_context, device, &link), 0);
	FILL(info, srdma_link_get_info(link, &info.value));
	CHECK(info.value.connected && strcmp(info.value.port, port) == 0);
	FILL(loss, srdma_link_get_loss(link, &loss.value));
	CHECK(loss.value.error == 0);
	exchange(srdma_link_conn(link));
	EXPECT(srdma_link_disconnect(link, NULL, SRDMA_DEFAULT_TIMEOUT), 0);
	srdma_link_free(&link);
}

int main(int argc, char **argv)
{
	struct srdma_server *server;

	if (argc != 4)
		return 2;
	address = argv[2];
	is_older = strcmp(argv[3], "older") == 0;
	snprintf(files.ca, sizeof files.ca, "%s/ca.crt", argv[1]);
	snprintf(files.ca_key, sizeof files.ca_key, "%s/ca.key", argv[1]);
	snprintf(files.server, sizeof files.server, "%s/server.crt", argv[1]);
	snprintf(files.server_key, sizeof files.server_key, "%s/server.key", argv[1]);
	snprintf(files.client, sizeof files.client, "%s/client.crt", argv[1]);
	snprintf(files.client_key, sizeof files.client_key, "%s/client.key", argv[1]);
	srdma_log_set(SRDMA_LOG_INFO, take_record, &records);
	make_credentials();
	open_device();
	server = serve();
	connect_once(server);
	connect_link();
	EXPECT(srdma_server_stop(&server), 0);
	CHECK(records > 0 && fields > 0);
	srdma_device_unref(&device);
	srdma_tls_context_unref(&server_context);
	srdma_tls_context_unref(&client_context);
	printf("library %s, conn_options of %zu bytes: ok\n", srdma_version(), sizeof(struct srdma_conn_options));
	return 0;
}
