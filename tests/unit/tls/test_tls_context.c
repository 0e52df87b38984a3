/* SPDX-License-Identifier: Apache-2.0 */
/* What a context is made of. */
#include "test.h"

#include "tls_rig.h"

#include "clock.h"
#include "control.h"
#include "net.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

/* ---- what a context is made of --------------------------------------------------------------------------------- */

TEST(client_needs_something_to_verify_with)
{
	struct srdma_tls_client_options co = client_options();

	co.ca_file = NULL;
	assert_int_equal(try_client(co), SRDMA_ECONFIG);
	assert_error_says("--ca");
	assert_error_says("--pin");
}

TEST(server_needs_certificate_key_and_client_ca)
{
	struct srdma_tls_server_options so = server_options();

	so.client_ca_file = NULL;
	assert_int_equal(try_server(so), SRDMA_ECONFIG);
	assert_error_says("--client-ca");
	so = server_options();
	so.cert_file = so.key_file = NULL;
	assert_int_equal(try_server(so), SRDMA_ECONFIG);
	so = server_options();
	so.key_file = NULL;
	assert_int_equal(try_server(so), SRDMA_ECONFIG);
	so = server_options();
	so.cert_file = NULL;
	assert_int_equal(try_server(so), SRDMA_ECONFIG);
}

TEST(certificate_without_its_key_is_half_a_credential)
{
	assert_int_equal(try_client(client_with("client.crt", NULL)), SRDMA_ECONFIG);
	assert_error_says("give both");
	assert_int_equal(try_client(client_with(NULL, "client.key")), SRDMA_ECONFIG);
	assert_error_says("give both");
}

TEST(key_of_another_certificate_is_found_out)
{
	struct srdma_tls_server_options so = server_options();

	assert_int_equal(try_client(client_with("client.crt", "server.key")), SRDMA_ECONFIG);
	assert_error_says("client.crt");
	assert_error_says("server.key");
	so.key_file = "client.key";
	assert_int_equal(try_server(so), SRDMA_ECONFIG);
	assert_error_says("server.crt");
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

TEST(missing_file_is_named)
{
	struct srdma_tls_client_options co = client_options();
	struct srdma_tls_server_options so = server_options();

	co.ca_file = "nowhere.crt";
	assert_int_equal(try_client(co), -ENOENT);
	assert_error_says("nowhere.crt");
	assert_int_equal(try_client(client_with("gone.crt", "client.key")), -ENOENT);
	assert_error_says("gone.crt");
	assert_int_equal(try_client(client_with("client.crt", "gone.key")), -ENOENT);
	assert_error_says("gone.key");
	so.client_ca_file = "nowhere.crt";
	assert_int_equal(try_server(so), -ENOENT);
	assert_error_says("nowhere.crt");
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
		/* Root reads everything, so the child is somebody else. */
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

TEST(malformed_file_is_named)
{
	static const char *const bad[] = {"garbage.pem", "empty.pem", "client.key", "."};
	struct srdma_tls_client_options co;

	for (size_t i = 0; i < COUNT(bad); i++) {
		co = client_options();
		co.ca_file = bad[i];
		assert_int_equal(try_client(co), SRDMA_ECONFIG);
		assert_error_says(bad[i]);
		assert_int_equal(try_client(client_with(bad[i], "client.key")), SRDMA_ECONFIG);
		assert_error_says(bad[i]);
	}
	assert_int_equal(try_client(client_with("client.crt", "garbage.pem")), SRDMA_ECONFIG);
	assert_error_says("garbage.pem");
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

RUN_TESTS(tls_rig_make_files, tls_rig_remove_files)
