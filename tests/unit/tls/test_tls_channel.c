/* SPDX-License-Identifier: Apache-2.0 */
/* How a channel ends, and peers that speak no TLS. */
#include "test.h"

#include "pki.h"
#include "tls_pair.h"
#include "tls_files.h"

#include "control.h"

#include <signal.h>

/* ---- the end of a channel -------------------------------------------------------------------------------------- */

TEST(close_notify_is_an_end_in_order)
{
	struct pair s = meet(client_of(false), server_of(false), HOST);
	char byte = 'x';

	assert_int_equal(srdma_tls_write(s.server.tls, &byte, 1), 1);
	srdma_tls_delete(&s.server.tls);
	/* Bytes sent before it still arrive. */
	assert_int_equal(read_some(s.client.tls, &byte, 1), 1);
	assert_int_equal(read_some(s.client.tls, &byte, 1), SRDMA_ECLOSED);
	assert_int_equal(read_some(s.client.tls, &byte, 1), SRDMA_ECLOSED);
	part(&s);
}

TEST(end_without_close_notify_is_a_loss)
{
	struct pair s = meet(client_of(false), server_of(false), HOST);
	char byte;

	assert_int_equal(shutdown(srdma_tls_fd(s.server.tls), SHUT_WR), 0);
	assert_int_equal(read_some(s.client.tls, &byte, 1), SRDMA_ELOST);
	part(&s);
}

TEST(reset_is_a_loss)
{
	struct pair s = meet(client_of(false), server_of(false), HOST);
	struct linger at_once = {.l_onoff = 1};
	int fd = srdma_tls_fd(s.server.tls);
	char byte;

	assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once), 0);
	/* Kept as a number by its owner, so that it closes nothing else later. */
	assert_true(dup2(STDERR_FILENO, fd) == fd);
	assert_int_equal(read_some(s.client.tls, &byte, 1), SRDMA_ELOST);
	part(&s);
}

static volatile sig_atomic_t sigpipes;

static void count_sigpipe(int number)
{
	sigpipes++;
}

TEST(writing_to_a_peer_that_is_gone_raises_no_signal)
{
	struct pair s = meet(client_of(false), server_of(false), HOST);
	struct sigaction count = {.sa_handler = count_sigpipe}, old;
	char data[4096] = {0};
	int n = 0;

	sigaction(SIGPIPE, &count, &old);
	srdma_tls_delete(&s.server.tls);
	for (int i = 0; i < 1000 && (n >= 0 || n == -EAGAIN); i++) {
		n = srdma_tls_write(s.client.tls, data, sizeof data);
		usleep(100);
	}
	assert_int_equal(n, SRDMA_ELOST);
	part(&s);
	sigaction(SIGPIPE, &old, NULL);
	assert_int_equal(sigpipes, 0);
}

/* ---- peers that speak no TLS ----------------------------------------------------------------------------------- */

/* The handshake of our server, or client, against a peer that sends these bytes, and then closes its side or says nothing more. */
static int face_bytes(bool serve, const void *bytes, size_t length, bool close_side, int timeout_ms)
{
	struct end own = serve ? server_of(false) : client_of(false);
	uint64_t deadline = srdma_deadline(timeout_ms);
	int client, server, peer, ret;

	connect_sockets(&client, &server);
	peer = serve ? client : server;
	set_out(&own, serve, serve ? server : client, "127.0.0.1");
	assert_int_equal(write(peer, bytes, length), length);
	if (close_side)
		shutdown(peer, SHUT_WR);
	while ((ret = srdma_tls_handshake(own.tls)) == -EAGAIN && srdma_deadline_left_ms(deadline) > 0)
		srdma_net_wait(srdma_tls_fd(own.tls), srdma_tls_events(own.tls), deadline);
	end_free(&own);
	close(peer);
	return ret;
}

TEST(garbage_is_refused_by_both_ends)
{
	static const char http[] = "GET / HTTP/1.1\r\nHost: host.example.com\r\n\r\n";
	static const char ssh[] = "SSH-2.0-OpenSSH_9.2\r\n";
	static const unsigned char zeroes[600];
	/* A record header that is right, and a handshake message that is not. */
	static const unsigned char record[] = {22, 3, 1, 0, 5, 1, 0xff, 0xff, 0xff, 0};
	static const unsigned char alert[] = {21, 3, 3, 0, 2, 2, 40};
	static const struct {
		const void *bytes;
		size_t length;
	} garbage[] = {
		{http, sizeof http - 1}, {ssh, sizeof ssh - 1}, {zeroes, sizeof zeroes},
		{record, sizeof record}, {alert, sizeof alert},
	};

	for (size_t i = 0; i < COUNT(garbage); i++) {
		for (int serve = 0; serve < 2; serve++) {
			int ret = face_bytes(serve, garbage[i].bytes, garbage[i].length, false, PATIENCE_MS);

			if (ret != SRDMA_ETLS)
				fail_msg("garbage %zu to the %s: %s: %s", i, serve ? "server" : "client",
					 srdma_strerror(ret), srdma_error_text());
			assert_true(strlen(srdma_error_text()) > 0);
		}
	}
}

TEST(peer_that_leaves_during_the_handshake_is_lost)
{
	static const unsigned char half[] = {22, 3, 1, 1, 0, 1};

	assert_int_equal(face_bytes(true, "", 0, true, PATIENCE_MS), SRDMA_ELOST);
	assert_int_equal(face_bytes(false, "", 0, true, PATIENCE_MS), SRDMA_ELOST);
	assert_int_equal(face_bytes(true, half, sizeof half, true, PATIENCE_MS), SRDMA_ELOST);
	assert_int_equal(face_bytes(false, half, sizeof half, true, PATIENCE_MS), SRDMA_ELOST);
}

RUN_TESTS(make_files, remove_files)
