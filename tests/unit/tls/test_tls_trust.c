/* SPDX-License-Identifier: Apache-2.0 */
/* Which servers a client accepts, and which clients a server accepts. */
#include "test.h"

#include "pki.h"
#include "tls_pair.h"
#include "tls_files.h"

#include <fcntl.h>

static const char *pin_of(const char *cert)
{
	static struct srdma_cert_info info;
	char path[64];

	snprintf(path, sizeof path, "%s.crt", cert);
	assert_int_equal(srdma_cert_read(path, &info), 0);
	return info.pin;
}

/* Makes NAME.crt and NAME.key. */
static void save(const char *name, struct pki_request request)
{
	struct pki made;

	request.name = name;
	made = pki_make(request);
	pki_save(name, &made);
}

static int make_all_files(void **state)
{
	const char *names = "DNS:" HOST ",IP:127.0.0.1,IP:::1";
	const char *const host = HOST;
	/* As users make it, with the library. */
	const struct srdma_cert_request self = {.size = sizeof self,
						.kind = SRDMA_CERT_SELF_SIGNED,
						.common_name = "self",
						.names = &host,
						.name_count = 1,
						.days = 5,
						.cert_file = "self.crt",
						.key_file = "self.key"};
	struct pki other;

	if (make_files(state) != 0)
		return -1;
	other = pki_make((struct pki_request){.name = "Other", .ca = true});
	pki_save("other-ca", &other);
	save("other-client", (struct pki_request){.issuer = &other, .extended = "clientAuth"});
	save("expired-server", (struct pki_request){.issuer = &ca, .extended = "serverAuth", .names = names, .from = -3 * DAY, .to = -DAY});
	save("expired-client", (struct pki_request){.issuer = &ca, .extended = "clientAuth", .from = -3 * DAY, .to = -DAY});
	assert_int_equal(srdma_cert_make(&self), 0);
	save("expired-self", (struct pki_request){.extended = "serverAuth", .names = names, .from = -3 * DAY, .to = -DAY});
	return 0;
}

/* Two ends, and whether each accepts the other. */
struct meeting {
	const char *name;
	const char *server[2];   /* its certificate and key; NULL: those of "server" */
	const char *client[2];   /* its certificate and key; NULL: those of "client" */
	bool bare_client;        /* has no certificate */
	bool anonymous;          /* the server takes clients without a certificate */
	bool no_client_ca;
	const char *ca;          /* of the client; NULL: ca.crt */
	bool no_ca;
	const char *pin;         /* the key of this certificate; NULL: none */
	const char *server_name; /* NULL: none */
	const char *host;        /* NULL: host.example.com */
	const char *client_says; /* NULL, as server_says: each accepts the other */
	const char *server_says; /* NULL: any error */
};

static void check(const struct meeting *m)
{
	struct srdma_tls_server_options so = server_options();
	struct srdma_tls_client_options co = client_options();
	struct pair pair;
	bool refused = m->client_says || m->server_says;

	if (m->server[0]) {
		so.cert_file = m->server[0];
		so.key_file = m->server[1];
	}
	if (m->client[0] || m->bare_client) {
		co.cert_file = m->client[0];
		co.key_file = m->client[1];
	}
	so.client_ca_file = m->no_client_ca ? NULL : "ca.crt";
	so.insecure_anonymous_clients = m->anonymous;
	co.ca_file = m->no_ca ? NULL : m->ca ? m->ca : "ca.crt";
	co.pin = m->pin ? pin_of(m->pin) : NULL;
	co.server_name = m->server_name;
	pair = meet(ours_client(co), ours_server(so), m->host ? m->host : HOST);
	if (!refused && (pair.client.result != 0 || pair.server.result != 0))
		fail_msg("%s: client: %d '%s'; server: %d '%s'", m->name, pair.client.result, pair.client.text, pair.server.result,
			 pair.server.text);
	if (refused) {
		assert_says(&pair.client, m->name, SRDMA_ECERT, m->client_says ? m->client_says : "");
		assert_says(&pair.server, m->name, m->server_says ? SRDMA_ECERT : 0, m->server_says ? m->server_says : "");
	}
	part(&pair);
}

#define OF(name)     {name ".crt", name ".key"}
#define NOT_ACCEPTED "does not accept our certificate"

TEST(client_judges_the_server)
{
	static const struct meeting meetings[] = {
		{"another CA", .ca = "other-ca.crt", .client_says = "not acceptable", .server_says = NOT_ACCEPTED},
		{"expired server", .server = OF("expired-server"), .client_says = "expired", .server_says = "expired"},
		{"client's certificate", .server = OF("client"), .client_says = "purpose", .server_says = ""},
		{"name in capitals", .host = "HOST.example.COM"},
		{"IPv4 address", .host = "127.0.0.1"},
		{"IPv6 address", .host = "::1"},
		{"IPv6 address in full", .host = "0:0:0:0:0:0:0:1"},
		{"another host", .host = "other.example.com", .client_says = "not for this name"},
		{"domain", .host = "example.com", .client_says = "not for this name"},
		{"host below", .host = "a.host.example.com", .client_says = "not for this name"},
		{"first part", .host = "host", .client_says = "not for this name"},
		{"another IPv4 address", .host = "127.0.0.2", .client_says = "not for this name"},
		{"another IPv6 address", .host = "::2", .client_says = "not for this name"},
		{"host in another domain", .host = "host.example.com.evil.example", .client_says = "not for this name"},
		{"server name instead of the host", .server_name = HOST, .host = "192.0.2.99"},
		{"another server name", .server_name = "other.example.com", .client_says = "--server-name"},
		{"pin", .server = OF("self"), .no_ca = true, .pin = "self"},
		/* The key identifies the server; its name does not matter. */
		{"pin and another host", .server = OF("self"), .no_ca = true, .pin = "self", .host = "192.0.2.99"},
		{"another pin", .server = OF("self"), .no_ca = true, .pin = "server", .client_says = "pin"},
		{"pin of an expired certificate", .server = OF("expired-self"), .no_ca = true, .pin = "expired-self",
		 .client_says = "expired", .server_says = "expired"},
		{"pin and CA", .pin = "server"},
		{"pin, CA, another host", .pin = "server", .host = "other.example.com", .client_says = "name"},
		{"pin, another CA", .pin = "server", .ca = "other-ca.crt", .client_says = ""},
		{"another pin, CA", .pin = "self", .client_says = "pin"},
	};

	for (size_t i = 0; i < COUNT(meetings); i++)
		check(&meetings[i]);
}

/* With TLS 1.3 a client learns in its first read that its certificate is refused: meet() does that read. */
TEST(server_judges_the_client)
{
	static const struct meeting meetings[] = {
		{"no certificate", .bare_client = true, .client_says = NOT_ACCEPTED, .server_says = "showed no certificate"},
		{"expired client", .client = OF("expired-client"), .client_says = "expired", .server_says = "expired"},
		{"client of another CA", .client = OF("other-client"), .client_says = NOT_ACCEPTED, .server_says = "not acceptable"},
		{"self-signed client", .client = OF("self"), .client_says = NOT_ACCEPTED, .server_says = "not acceptable"},
		{"server's certificate", .client = OF("server"), .client_says = NOT_ACCEPTED, .server_says = "purpose"},
		{"anonymous client, no CA", .bare_client = true, .anonymous = true, .no_client_ca = true},
		{"certificate where none is needed", .anonymous = true},
		{"bad certificate where none is needed", .anonymous = true, .client = OF("other-client"), .client_says = "",
		 .server_says = "not acceptable"},
	};

	for (size_t i = 0; i < COUNT(meetings); i++)
		check(&meetings[i]);
}

TEST(anonymous_client_has_no_names)
{
	struct srdma_tls_server_options so = server_options();
	struct srdma_peer_names names;
	struct pair pair;

	so.insecure_anonymous_clients = true;
	pair = meet(ours_client(client_with(NULL, NULL)), ours_server(so), HOST);
	assert_int_equal(pair.client.result, 0);
	assert_int_equal(pair.server.result, 0);
	assert_int_equal(srdma_tls_peer_names(pair.server.tls, &names), 0);
	assert_string_equal(names.identity, "");
	assert_string_equal(names.pin, "");
	assert_int_equal(names.count, 0);
	part(&pair);
}

TEST(client_without_a_name_to_check_does_not_start)
{
	struct end client = client_of(false);

	for (int i = 0; i < 2; i++) {
		int client_fd, server_fd;

		connect_sockets(&client_fd, &server_fd);
		assert_int_equal(srdma_tls_new(client.context, client_fd, i ? "" : NULL, &client.tls), -EINVAL);
		assert_null(client.tls);
		/* It has taken the socket over, and closed it. */
		assert_int_equal(fcntl(client_fd, F_GETFD), -1);
		close(server_fd);
	}
	end_free(&client);
}

RUN_TESTS(make_all_files, remove_files)
