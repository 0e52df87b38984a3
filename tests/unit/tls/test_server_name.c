/* SPDX-License-Identifier: Apache-2.0 */
#include "test.h"

#include "pki.h"
#include "tls_pair.h"
#include "tls_files.h"

#include "server_name.h"

/* ---- typed names ----------------------------------------------------------------------------------------------- */

TEST(names_and_addresses_are_told_apart_from_how_they_are_typed)
{
	static const struct {
		const char *typed, *dns, *address; /* one of the two is NULL */
	} cases[] = {
		{"host.example.com", "host.example.com", NULL},
		{"host.example.com.", "host.example.com", NULL},
		{"HOST.Example.COM", "host.example.com", NULL},
		{"localhost", "localhost", NULL},
		{"xn--bcher-kva.example", "xn--bcher-kva.example", NULL},
		{"a_b-c.example", "a_b-c.example", NULL},
		{"1.example", "1.example", NULL},
		/* Every form in which connect() takes an address. */
		{"127.0.0.1", NULL, "127.0.0.1"},
		{"127.1", NULL, "127.0.0.1"},
		{"0x7f000001", NULL, "127.0.0.1"},
		{"127.0.0.1.", NULL, "127.0.0.1"},
		{"::1", NULL, "::1"},
		{"[::1]", NULL, "::1"},
		{"0:0:0:0:0:0:0:1", NULL, "::1"},
		{"FD00::7", NULL, "fd00::7"},
		{"fe80::1%eth0", NULL, "fe80::1"},
		{"[fe80::1%25eth0]", NULL, "fe80::1"},
		{"fe80::1%no-such-device", NULL, "fe80::1"},
		{"::ffff:127.0.0.1", NULL, "127.0.0.1"},
	};

	for (size_t i = 0; i < COUNT(cases); i++) {
		int family = cases[i].address && strchr(cases[i].address, ':') ? AF_INET6 : AF_INET;
		unsigned length = !cases[i].address ? 0 : family == AF_INET ? 4 : 16;
		struct srdma_server_name name;
		unsigned char bytes[16];

		if (srdma_server_name_parse(cases[i].typed, &name) != 0)
			fail_msg("%s", srdma_error_text());
		assert_string_equal(name.dns, cases[i].dns ? cases[i].dns : "");
		assert_int_equal(name.address_length, length);
		if (cases[i].address) {
			assert_int_equal(inet_pton(family, cases[i].address, bytes), 1);
			assert_memory_equal(name.address, bytes, length);
		}
	}
}

TEST(bad_name_is_refused_with_the_reason)
{
	static const struct {
		const char *typed, *words;
	} cases[] = {
		{"", "give the name"},
		{NULL, "give the name"},
		{".", "empty"},
		{"..", "empty"},
		{"host..", "empty"},
		{".example.com", "empty"}, /* to OpenSSL everything below it */
		{"a..b", "empty"},
		{"*.example.com", "characters"},
		{"host.example.com\n", "characters"},
		{"host name", "characters"},
		{"b\xc3\xbc" "cher.example", "xn--"},
		{"host%eth0", "characters"},
		{"host:4433", "characters"},
		{"a123456789012345678901234567890123456789012345678901234567890123.example", "63"},
	};
	struct srdma_server_name name;
	char text[300];

	for (size_t i = 0; i < COUNT(cases); i++) {
		assert_int_equal(srdma_server_name_parse(cases[i].typed, &name), -EINVAL);
		if (!strstr(srdma_error_text(), cases[i].words))
			fail_msg("'%s': %s", cases[i].typed, srdma_error_text());
	}
	memset(text, 'a', sizeof text);
	for (size_t i = 50; i < sizeof text; i += 51)
		text[i] = '.';
	text[253] = '\0';
	assert_int_equal(srdma_server_name_parse(text, &name), 0);
	text[253] = 'a';
	text[254] = '\0';
	assert_int_equal(srdma_server_name_parse(text, &name), -EINVAL);
	text[253] = '.'; /* the dot at the end does not count */
	assert_int_equal(srdma_server_name_parse(text, &name), 0);
	text[254] = 'a';
	text[299] = '\0';
	assert_int_equal(srdma_server_name_parse(text, &name), -EINVAL);
}

/* ---- names on the wire and in the certificate ------------------------------------------------------------------ */

static char heard[300];

static int hear(SSL *ssl, int *alert, void *arg)
{
	const char *name = SSL_get_servername(ssl, TLSEXT_NAMETYPE_host_name);

	snprintf(heard, sizeof heard, "%s", name ? name : "");
	return SSL_TLSEXT_ERR_OK;
}

static struct end client_for(const char *server_name)
{
	struct srdma_tls_client_options options = client_with(NULL, NULL);

	options.server_name = server_name;
	return ours_client(options);
}

static struct end listening_server(void)
{
	struct end end = raw_server();

	SSL_CTX_set_tlsext_servername_callback(end.raw_context, hear);
	strcpy(heard, "nothing");
	return end;
}

TEST(server_gets_the_name_in_its_certificates_form)
{
	static const char *const names[] = {"host.example.com", "host.example.com.", "HOST.EXAMPLE.COM", "HOST.example.com."};
	static const char *const addresses[] = {"127.0.0.1", "127.1", "::ffff:127.0.0.1", "fe80::1%lo", "fe80::1%eth7", "fd00::7", "FD00:0::7", "[fd00::7]"};

	for (size_t i = 0; i < COUNT(names); i++) {
		assert_meets(client_for(NULL), listening_server(), names[i]);
		assert_string_equal(heard, "host.example.com");
		assert_meets(client_for(names[i]), listening_server(), "192.0.2.1");
		assert_string_equal(heard, "host.example.com");
	}
	/* RFC 6066, 3: no addresses. */
	for (size_t i = 0; i < COUNT(addresses); i++) {
		assert_meets(client_for(NULL), listening_server(), addresses[i]);
		assert_string_equal(heard, "");
		assert_meets(client_for(addresses[i]), listening_server(), "host.example.com");
		assert_string_equal(heard, "");
	}
}

TEST(other_names_do_not_pass)
{
	static const char *const wrong[] = {"example.com.", "other.example.com.", "127.0.0.2", "127.2", "fe80::2%lo", "::ffff:127.0.0.2"};

	for (size_t i = 0; i < COUNT(wrong); i++)
		assert_client_refuses(client_for(NULL), raw_server(), wrong[i], SRDMA_ECERT, "not for this name");
}

TEST(bad_name_is_refused_before_any_connection)
{
	struct srdma_tls_client_options options = client_with(NULL, NULL);

	options.server_name = ".example.com";
	assert_int_equal(try_client(options), -EINVAL);
}

RUN_TESTS(make_files, remove_files)
