/* SPDX-License-Identifier: Apache-2.0 */
#include "session.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>

static const char help_text[] = "send TEXT           send a message and check its echo\n"
				"write OFFSET TEXT   write TEXT to the server's region\n"
				"read OFFSET LENGTH  read from the server's region\n"
				"stat                show the connection's parameters and counts\n"
				"help                show this\n"
				"quit                disconnect\n";

/* Cuts the next word off *rest, and moves *rest behind the blank that follows it. NULL when there is none. */
static char *take_word(char **rest)
{
	char *word = *rest + strspn(*rest, " \t");
	size_t length = strcspn(word, " \t");

	if (length == 0)
		return NULL;
	*rest = word + length;
	if (**rest != '\0')
		*(*rest)++ = '\0';
	return word;
}

static bool take_number(char **rest, uint64_t *number)
{
	char *word = take_word(rest), *end;

	if (!word || word[0] == '-')
		return false;
	errno = 0;
	*number = strtoull(word, &end, 0);
	return errno == 0 && end != word && *end == '\0';
}

static int wrong(struct session *session, const char *usage)
{
	session_complain(session, "usage: %s", usage);
	return CLI_EXIT_USAGE;
}

static int do_send(struct session *session, char *rest)
{
	size_t length = strlen(rest);
	char *text;
	int code;

	code = session_echo(session, rest, length);
	if (code != CLI_EXIT_OK)
		return code;
	text = malloc(4 * length + 5);
	if (!text)
		return cli_fail(-ENOMEM, "send");
	cli_escape(session->reply, session->reply_length, text, 4 * length + 5);
	if (session->results)
		json_array_append_new(session->results, json_pack("{s:s, s:I, s:s}", "command", "send", "client_id",
								  (json_int_t)session->info.client_id, "reply", text));
	else
		printf("client %llu: %s\n", (unsigned long long)session->info.client_id, text);
	free(text);
	return CLI_EXIT_OK;
}

/* Data that was written over an earlier connection is not in the region of the new one, so the command is not repeated unasked. */
static int fail_on_region(struct session *session, int error, const char *what)
{
	int code = session_recover(session, error, what);

	return code == CLI_EXIT_OK ? session_complain(session, "%s: failed, because the connection was lost; the region of the new connection is empty", what) : code;
}

static int do_write(struct session *session, char *rest)
{
	uint64_t offset;
	size_t length;
	int ret;

	if (!take_number(&rest, &offset) || *rest == '\0')
		return wrong(session, "write OFFSET TEXT");
	length = strlen(rest);
	ret = srdma_conn_write(session->conn, rest, length, offset, SRDMA_DEFAULT_TIMEOUT);
	if (ret < 0)
		return fail_on_region(session, ret, "write");
	session->bytes_written += length;
	if (session->results)
		json_array_append_new(session->results, json_pack("{s:s, s:I, s:I}", "command", "write", "offset",
								  (json_int_t)offset, "length", (json_int_t)length));
	else
		printf("wrote %zu byte%s at %llu\n", length, CLI_S(length), (unsigned long long)offset);
	return CLI_EXIT_OK;
}

static int do_read(struct session *session, char *rest)
{
	uint64_t offset, length;
	char *data, *text;
	int ret;

	if (!take_number(&rest, &offset) || !take_number(&rest, &length) || take_word(&rest))
		return wrong(session, "read OFFSET LENGTH");
	/* Keeps a mistyped length from taking all memory; the exact bounds are the library's to check. */
	if (length > session->info.peer_region_size)
		length = session->info.peer_region_size + 1;
	/* And a server may claim a region of any length. */
	if (length > (SIZE_MAX - 5) / 4)
		return session_complain(session, "read: out of memory for %llu bytes", (unsigned long long)length);
	data = malloc(length + 1);
	text = malloc(4 * length + 5);
	ret = data && text ? srdma_conn_read(session->conn, data, length, offset, SRDMA_DEFAULT_TIMEOUT) : -ENOMEM;
	if (ret == 0) {
		cli_escape(data, length, text, 4 * length + 5);
		if (session->results)
			json_array_append_new(session->results, json_pack("{s:s, s:I, s:s}", "command", "read",
									  "offset", (json_int_t)offset, "data", text));
		else
			printf("%s\n", text);
	}
	free(data);
	free(text);
	return ret < 0 ? fail_on_region(session, ret, "read") : CLI_EXIT_OK;
}

static int do_stat(struct session *session, char *rest)
{
	const struct srdma_conn_info *info = &session->info;
	json_t *object;

	if (take_word(&rest))
		return wrong(session, "stat");
	srdma_conn_get_info(session->conn, &session->info);
	if (session->results) {
		object = json_pack("{s:s, s:I, s:I, s:I, s:I, s:I, s:I}", "command", "stat", "messages_sent",
				   (json_int_t)info->messages_sent, "messages_received",
				   (json_int_t)info->messages_received, "bytes_sent", (json_int_t)info->bytes_sent,
				   "bytes_received", (json_int_t)info->bytes_received, "rdma_bytes_written",
				   (json_int_t)info->rdma_bytes_written, "rdma_bytes_read",
				   (json_int_t)info->rdma_bytes_read);
		json_array_append_new(session->results, object);
		return CLI_EXIT_OK;
	}
	session_print(session);
	printf("messages sent %llu (%llu byte%s), received %llu (%llu byte%s)\nRDMA written %llu byte%s, read %llu byte%s\n",
	       (unsigned long long)info->messages_sent, (unsigned long long)info->bytes_sent, CLI_S(info->bytes_sent),
	       (unsigned long long)info->messages_received, (unsigned long long)info->bytes_received, CLI_S(info->bytes_received),
	       (unsigned long long)info->rdma_bytes_written, CLI_S(info->rdma_bytes_written), (unsigned long long)info->rdma_bytes_read,
	       CLI_S(info->rdma_bytes_read));
	return CLI_EXIT_OK;
}

int shell_command(struct session *session, char *line, bool *quit)
{
	char *rest = line, *word;
	int code = CLI_EXIT_OK;

	line[strcspn(line, "\r\n")] = '\0';
	word = take_word(&rest);
	if (!word || word[0] == '#')
		return CLI_EXIT_OK;
	if (strcmp(word, "send") == 0)
		code = do_send(session, rest);
	else if (strcmp(word, "write") == 0)
		code = do_write(session, rest);
	else if (strcmp(word, "read") == 0)
		code = do_read(session, rest);
	else if (strcmp(word, "stat") == 0)
		code = do_stat(session, rest);
	else if (strcmp(word, "help") == 0)
		fputs(help_text, session->results ? stderr : stdout);
	else if (strcmp(word, "quit") == 0)
		*quit = true;
	else {
		session_complain(session, "there is no command '%s'; 'help' lists the commands", word);
		code = CLI_EXIT_USAGE;
	}
	fflush(stdout);
	return code;
}

int shell_text(struct session *session, const char *text, bool *quit)
{
	char *copy = strdup(text), *next = copy, *line;
	int code = CLI_EXIT_OK;

	if (!copy)
		return cli_fail(-ENOMEM, "script");
	while (code == CLI_EXIT_OK && !*quit && (line = strsep(&next, ";")) != NULL)
		code = shell_command(session, line, quit);
	free(copy);
	return code;
}

/* No descriptor becomes readable because time has passed: new PSNs can be due every 100 ms (epoch-ms). */
#define LOOK_MS 100

/* Waits for input, watching the connection meanwhile. Returns 1 when there is some, else -EINTR or the connection's
 * error. */
static int wait_input(struct session *session, int fd)
{
	struct pollfd fds[] = {
		{.fd = fd, .events = POLLIN},
		{.events = POLLIN},
	};
	int ret;

	for (;;) {
		/* Arms the completion queues, so that the descriptor tells when the connection ends. */
		ret = session_idle(session, 1);
		if (ret < 0)
			return ret;
		fds[1].fd = srdma_conn_fd(session->conn); /* perhaps a new one */
		if (poll(fds, 2, LOOK_MS) > 0 && fds[0].revents)
			return 1;
	}
}

int shell_script(struct session *session, FILE *file)
{
	char *line = NULL;
	size_t size = 0;
	int code = CLI_EXIT_OK, ret;
	bool quit = false;

	/* Without a buffer, poll sees all input that is waiting. */
	setvbuf(file, NULL, _IONBF, 0);
	while (code == CLI_EXIT_OK && !quit) {
		ret = wait_input(session, fileno(file));
		if (ret < 0) {
			code = ret == -EINTR ? CLI_EXIT_OK : session_fail(session, ret, "connection");
			break;
		}
		if (getline(&line, &size, file) < 0)
			break;
		code = shell_command(session, line, &quit);
	}
	free(line);
	return code;
}
