/* SPDX-License-Identifier: Apache-2.0 */
/* Whom the client takes for the server, and the server for a client. */
#include "test.h"

#include "tls_rig.h"

#include "clock.h"
#include "control.h"
#include "net.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

/* ---- the client judges the server ------------------------------------------------------------------------------ */

TEST(server_of_another_ca_is_refused)
{
	struct srdma_tls_client_options co = client_options();

	co.ca_file = "other-ca.crt";
	assert_refused(server_options(), co, "host.example.com", SRDMA_ECERT, "not acceptable", SRDMA_ECERT,
		       "does not accept our certificate");
}

TEST(expired_server_is_refused)
{
	struct srdma_tls_server_options so = server_options();

	so.cert_file = "expired-server.crt";
	so.key_file = "expired-server.key";
	assert_refused(so, client_options(), "host.example.com", SRDMA_ECERT, "expired", SRDMA_ECERT, "expired");
}

TEST(client_certificate_serves_no_server)
{
	struct srdma_tls_server_options so = server_options();

	so.cert_file = "client.crt";
	so.key_file = "client.key";
	assert_refused(so, client_options(), "host.example.com", SRDMA_ECERT, "purpose", SRDMA_ECERT, "");
}

TEST(name_must_be_the_certificates)
{
	static const char *const wrong[] = {"other.example.com", "example.com", "a.host.example.com",           "host",
					    "127.0.0.2",         "::2",         "host.example.com.evil.example"};

	for (size_t i = 0; i < COUNT(wrong); i++)
		assert_refused(server_options(), client_options(), wrong[i], SRDMA_ECERT, "not for this name", 0, "");
	assert_meets(server_options(), client_options(), "HOST.example.COM");
}

TEST(address_is_checked_against_address_names)
{
	assert_meets(server_options(), client_options(), "127.0.0.1");
	assert_meets(server_options(), client_options(), "::1");
	assert_meets(server_options(), client_options(), "0:0:0:0:0:0:0:1");
}

TEST(server_name_stands_instead_of_the_host)
{
	struct srdma_tls_client_options co = client_options();

	co.server_name = "host.example.com";
	assert_meets(server_options(), co, "192.0.2.99");
	co.server_name = "other.example.com";
	assert_refused(server_options(), co, "host.example.com", SRDMA_ECERT, "--server-name", 0, "");
}

TEST(client_without_a_name_to_check_does_not_start)
{
	struct srdma_tls_context *client = client_context(client_options());

	for (int i = 0; i < 2; i++) {
		struct srdma_tls *tls = NULL;
		int client_fd, server_fd;

		connect_sockets(&client_fd, &server_fd);
		assert_int_equal(srdma_tls_new(client, client_fd, i ? "" : NULL, &tls), -EINVAL);
		assert_null(tls);
		/* The socket was taken over, and is closed. */
		assert_int_equal(fcntl(client_fd, F_GETFD), -1);
		close(server_fd);
	}
	srdma_tls_context_unref(&client);
}

static struct srdma_tls_server_options self_signed_server(const char *cert, const char *key)
{
	struct srdma_tls_server_options so = server_options();

	so.cert_file = cert;
	so.key_file = key;
	return so;
}

TEST(pinned_key_is_accepted_without_a_ca)
{
	struct srdma_tls_client_options co = client_options();

	co.ca_file = NULL;
	co.pin = pin_of("self.crt");
	assert_meets(self_signed_server("self.crt", "self.key"), co, "host.example.com");
	/* The key is who the server is, whatever it is called. */
	assert_meets(self_signed_server("self.crt", "self.key"), co, "192.0.2.99");
}

TEST(other_key_than_the_pinned_one_is_refused)
{
	struct srdma_tls_client_options co = client_options();

	co.ca_file = NULL;
	co.pin = pin_of("server.crt");
	assert_refused(self_signed_server("self.crt", "self.key"), co, "host.example.com", SRDMA_ECERT, "pin", 0, "");
}

TEST(pinned_key_does_not_outlive_its_certificate)
{
	struct srdma_tls_client_options co = client_options();

	co.ca_file = NULL;
	co.pin = pin_of("expired-self.crt");
	assert_refused(self_signed_server("expired-self.crt", "expired-self.key"), co, "host.example.com", SRDMA_ECERT,
		       "expired", SRDMA_ECERT, "expired");
}

TEST(pin_and_ca_must_both_hold)
{
	struct srdma_tls_client_options co = client_options();

	co.pin = pin_of("server.crt");
	assert_meets(server_options(), co, "host.example.com");
	assert_refused(server_options(), co, "other.example.com", SRDMA_ECERT, "name", 0, "");
	co.ca_file = "other-ca.crt";
	assert_refused(server_options(), co, "host.example.com", SRDMA_ECERT, "", 0, "");
	co = client_options();
	co.pin = pin_of("self.crt");
	assert_refused(server_options(), co, "host.example.com", SRDMA_ECERT, "pin", 0, "");
}

/* ---- the server judges the client ------------------------------------------------------------------------------ */

/* assert_refused takes the client's first read where its handshake succeeded. */
TEST(missing_client_certificate_is_told_in_the_first_read)
{
	assert_refused(server_options(), client_with(NULL, NULL), "host.example.com", SRDMA_ECERT,
		       "does not accept our certificate", SRDMA_ECERT, "showed no certificate");
}

TEST(expired_client_is_refused)
{
	assert_refused(server_options(), client_with("expired-client.crt", "expired-client.key"), "host.example.com",
		       SRDMA_ECERT, "expired", SRDMA_ECERT, "expired");
}

TEST(client_of_another_ca_is_refused)
{
	assert_refused(server_options(), client_with("other-client.crt", "other-client.key"), "host.example.com",
		       SRDMA_ECERT, "does not accept our certificate", SRDMA_ECERT, "not acceptable");
	assert_refused(server_options(), client_with("self.crt", "self.key"), "host.example.com", SRDMA_ECERT,
		       "does not accept our certificate", SRDMA_ECERT, "not acceptable");
}

TEST(server_certificate_serves_no_client)
{
	assert_refused(server_options(), client_with("server.crt", "server.key"), "host.example.com", SRDMA_ECERT,
		       "does not accept our certificate", SRDMA_ECERT, "purpose");
}

TEST(anonymous_client_is_served_where_that_is_allowed)
{
	struct srdma_tls_server_options so = server_options();
	struct session s;
	struct srdma_peer_names names;

	so.insecure_anonymous_clients = true;
	s = tls_rig_meet(so, client_with(NULL, NULL), "host.example.com");
	assert_int_equal(s.client.result, 0);
	assert_int_equal(s.server.result, 0);
	assert_int_equal(srdma_tls_peer_names(s.server.tls, &names), 0);
	assert_string_equal(names.identity, "");
	assert_string_equal(names.pin, "");
	assert_int_equal(names.count, 0);
	tls_rig_part(&s);
	so.client_ca_file = NULL;
	assert_meets(so, client_with(NULL, NULL), "host.example.com");
}

TEST(certificate_that_is_shown_must_verify_even_where_none_is_needed)
{
	struct srdma_tls_server_options so = server_options();

	so.insecure_anonymous_clients = true;
	assert_meets(so, client_options(), "host.example.com");
	assert_refused(so, client_with("other-client.crt", "other-client.key"), "host.example.com", SRDMA_ECERT, "",
		       SRDMA_ECERT, "not acceptable");
}

RUN_TESTS(tls_rig_make_files, tls_rig_remove_files)
