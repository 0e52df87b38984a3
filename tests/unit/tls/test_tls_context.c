/* SPDX-License-Identifier: Apache-2.0 */
/* The files and options of a context, and the errors that name the bad ones. */
#include "test.h"

#include "pki.h"
#include "tls_pair.h"
#include "tls_files.h"

#include <sys/wait.h>

static int make_all_files(void **state)
{
	FILE *out;

	if (make_files(state) != 0)
		return -1;
	out = fopen("encrypted.key", "w");
	assert_non_null(out);
	assert_int_equal(PEM_write_PrivateKey(out, client_cert.key, EVP_aes_256_cbc(), NULL, 0, NULL, (void *)"password"), 1);
	fclose(out);
	write_text("garbage.pem", "-----BEGIN CERTIFICATE-----\nnothing of the kind\n-----END CERTIFICATE-----\n");
	write_text("empty.pem", "");
	return 0;
}

TEST(server_without_what_it_needs_is_refused)
{
	static const struct {
		const char *cert, *key, *client_ca;
		int error;
		const char *words;
	} cases[] = {
		{"server.crt", "server.key", NULL, SRDMA_ECONFIG, "--client-ca"},
		{NULL, NULL, "ca.crt", SRDMA_ECONFIG, ""},
		{"server.crt", NULL, "ca.crt", SRDMA_ECONFIG, ""},
		{NULL, "server.key", "ca.crt", SRDMA_ECONFIG, ""},
		{"server.crt", "client.key", "ca.crt", SRDMA_ECONFIG, "server.crt"}, /* the key of another certificate */
		{"server.crt", "server.key", "nowhere.crt", -ENOENT, "nowhere.crt"},
	};

	for (size_t i = 0; i < COUNT(cases); i++) {
		struct srdma_tls_server_options so = server_options();

		so.cert_file = cases[i].cert;
		so.key_file = cases[i].key;
		so.client_ca_file = cases[i].client_ca;
		assert_int_equal(try_server(so), cases[i].error);
		assert_error_says(cases[i].words);
	}
}

TEST(client_without_what_it_needs_is_refused)
{
	static const struct {
		const char *ca, *cert, *key;
		int error;
		const char *words, *more_words;
	} cases[] = {
		{NULL, "client.crt", "client.key", SRDMA_ECONFIG, "--ca", "--pin"},
		/* A certificate without its key is half a credential. */
		{"ca.crt", "client.crt", NULL, SRDMA_ECONFIG, "give both", ""},
		{"ca.crt", NULL, "client.key", SRDMA_ECONFIG, "give both", ""},
		{"ca.crt", "client.crt", "server.key", SRDMA_ECONFIG, "client.crt", "server.key"},
		{"nowhere.crt", "client.crt", "client.key", -ENOENT, "nowhere.crt", ""},
		{"ca.crt", "gone.crt", "client.key", -ENOENT, "gone.crt", ""},
		{"ca.crt", "client.crt", "gone.key", -ENOENT, "gone.key", ""},
		{"garbage.pem", "client.crt", "client.key", SRDMA_ECONFIG, "garbage.pem", ""},
		{"empty.pem", "client.crt", "client.key", SRDMA_ECONFIG, "empty.pem", ""},
		{"client.key", "client.crt", "client.key", SRDMA_ECONFIG, "client.key", ""},
		{".", "client.crt", "client.key", SRDMA_ECONFIG, ".", ""},
		{"ca.crt", "garbage.pem", "client.key", SRDMA_ECONFIG, "garbage.pem", ""},
		{"ca.crt", "empty.pem", "client.key", SRDMA_ECONFIG, "empty.pem", ""},
		{"ca.crt", "client.key", "client.key", SRDMA_ECONFIG, "client.key", ""},
		{"ca.crt", ".", "client.key", SRDMA_ECONFIG, ".", ""},
		{"ca.crt", "client.crt", "garbage.pem", SRDMA_ECONFIG, "garbage.pem", ""},
	};

	for (size_t i = 0; i < COUNT(cases); i++) {
		struct srdma_tls_client_options co = client_with(cases[i].cert, cases[i].key);

		co.ca_file = cases[i].ca;
		if (try_client(co) != cases[i].error)
			fail_msg("case %zu, CA %s, certificate %s, key %s: '%s'", i, cases[i].ca, cases[i].cert, cases[i].key,
				 srdma_error_text());
		assert_error_says(cases[i].words);
		assert_error_says(cases[i].more_words);
	}
}

/* A prompt would read the standard input, or the terminal; neither may be touched. */
TEST(encrypted_key_is_refused_without_asking)
{
	int pipe_fds[2], saved = dup(STDIN_FILENO);
	char first = 0;
	uint64_t start = srdma_clock_us();

	assert_int_equal(pipe(pipe_fds), 0);
	assert_int_equal(write(pipe_fds[1], "password\n", 9), 9);
	assert_true(dup2(pipe_fds[0], STDIN_FILENO) == STDIN_FILENO);
	assert_int_equal(try_client(client_with("client.crt", "encrypted.key")), SRDMA_ECONFIG);
	assert_error_says("unencrypted");
	assert_error_says("encrypted.key");
	assert_int_equal(read(STDIN_FILENO, &first, 1), 1);
	assert_int_equal(first, 'p');
	assert_true(srdma_clock_us() - start < 5000000);
	dup2(saved, STDIN_FILENO);
	close(saved);
	close(pipe_fds[0]);
	close(pipe_fds[1]);
}

TEST(unreadable_key_is_named)
{
	int status = -1;
	pid_t child;

	assert_int_equal(chmod(".", 0755), 0);
	assert_int_equal(chmod("client.key", 0), 0);
	child = fork();
	assert_true(child >= 0);
	if (child == 0) {
		/* Root reads everything, so the child is another user. */
		if (geteuid() == 0 && setuid(65534) != 0)
			_exit(2);
		if (try_client(client_options()) != -EACCES)
			_exit(3);
		_exit(strstr(srdma_error_text(), "client.key") ? 0 : 4);
	}
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_int_equal(chmod("client.key", 0600), 0);
	assert_int_equal(status, 0);
}

TEST(malformed_pin_is_refused)
{
	static const char *const bad[] = {"", "sha256:", "sha256:1234", "md5:00", "not a pin"};

	for (size_t i = 0; i < COUNT(bad); i++) {
		struct srdma_tls_client_options co = client_options();

		co.pin = bad[i];
		assert_true(try_client(co) < 0);
		assert_error_says("sha256:");
	}
}

RUN_TESTS(make_all_files, remove_files)
