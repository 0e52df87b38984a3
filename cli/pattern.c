/* SPDX-License-Identifier: Apache-2.0 */
#include "session.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CHUNK_SIZE 65536
/* Returned instead of an exit code: there is a new connection, and its region is empty. */
#define AGAIN (-1)

/* Fills `data` with the part of an endless repetition of `pattern` that begins at `start`. */
static void fill(char *data, size_t length, uint64_t start, const char *pattern)
{
	size_t period = strlen(pattern), phase = (size_t)(start % period);

	for (size_t i = 0; i < length; i++) {
		data[i] = pattern[phase];
		if (++phase == period)
			phase = 0;
	}
}

static int send_all(struct session *session, const char *pattern, uint64_t count, char *message, size_t size)
{
	int code;

	for (uint64_t i = 0; i < count; i++) {
		char number[24];
		int digits = snprintf(number, sizeof number, "%llu ", (unsigned long long)i);

		if ((size_t)digits > size)
			digits = (int)size;
		/* The number makes each message differ, so that an echo of an earlier one is found out. */
		memcpy(message, number, (size_t)digits);
		fill(message + digits, size - (size_t)digits, 0, pattern);
		code = session_echo(session, message, size);
		if (code != CLI_EXIT_OK)
			return code;
	}
	return CLI_EXIT_OK;
}

static int compare(struct session *session, const char *got, const char *expected, size_t length, uint64_t offset)
{
	for (size_t i = 0; i < length; i++)
		if (got[i] != expected[i])
			return session_complain(
				session, "read back: byte %llu of the region is 0x%02x, but 0x%02x was written",
				(unsigned long long)(offset + i), (unsigned char)got[i], (unsigned char)expected[i]);
	return CLI_EXIT_OK;
}

static size_t chunk_at(uint64_t offset, uint64_t end)
{
	return end - offset < CHUNK_SIZE ? (size_t)(end - offset) : CHUNK_SIZE;
}

static int recover(struct session *session, int error, const char *what)
{
	int code = session_recover(session, error, what);

	return code == CLI_EXIT_OK ? AGAIN : code;
}

static int fill_region(struct session *session, const char *pattern, char *expected)
{
	uint64_t end = session->info.peer_region_size;
	size_t length;
	int ret;

	for (uint64_t offset = 0; offset < end; offset += length) {
		if (session_interrupted())
			return session_fail(session, -EINTR, "write");
		length = chunk_at(offset, end);
		fill(expected, length, offset, pattern);
		ret = srdma_conn_write(session->conn, expected, length, offset, SRDMA_DEFAULT_TIMEOUT);
		if (ret < 0)
			return recover(session, ret, "write");
		session->bytes_written += length;
	}
	return CLI_EXIT_OK;
}

static int check_region(struct session *session, const char *pattern, char *expected, char *got)
{
	uint64_t end = session->info.peer_region_size;
	size_t length;
	int ret, code;

	for (uint64_t offset = 0; offset < end; offset += length) {
		if (session_interrupted())
			return session_fail(session, -EINTR, "read back");
		length = chunk_at(offset, end);
		fill(expected, length, offset, pattern);
		ret = srdma_conn_read(session->conn, got, length, offset, SRDMA_DEFAULT_TIMEOUT);
		if (ret < 0)
			return recover(session, ret, "read back");
		code = compare(session, got, expected, length, offset);
		if (code != CLI_EXIT_OK)
			return code;
		session->bytes_read_back += length;
	}
	return CLI_EXIT_OK;
}

static int use_region(struct session *session, const char *pattern, char *expected, char *got)
{
	uint64_t written = session->bytes_written, read_back = session->bytes_read_back;
	int code;

	do {
		unsigned access = session->info.peer_region_access;

		session->bytes_written = written;
		session->bytes_read_back = read_back;
		code = CLI_EXIT_OK;
		/* A server need not offer a region, or all rights on it: the counts in the result say what was done. */
		if (access & IBV_ACCESS_REMOTE_WRITE)
			code = fill_region(session, pattern, expected);
		if (code == CLI_EXIT_OK && (access & IBV_ACCESS_REMOTE_WRITE) && (access & IBV_ACCESS_REMOTE_READ))
			code = check_region(session, pattern, expected, got);
	} while (code == AGAIN);
	return code;
}

int pattern_run(struct session *session, const char *pattern, uint64_t count, size_t size)
{
	char *expected, *got;
	int code;

	expected = malloc(size > CHUNK_SIZE ? size : CHUNK_SIZE);
	got = malloc(CHUNK_SIZE);
	if (!expected || !got)
		code = cli_fail(-ENOMEM, "pattern");
	else
		code = send_all(session, pattern, count, expected, size);
	if (code == CLI_EXIT_OK)
		code = use_region(session, pattern, expected, got);
	free(expected);
	free(got);
	return code;
}
