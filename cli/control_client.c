/* SPDX-License-Identifier: Apache-2.0 */
#include "control_client.h"

#include "agent_command.h"
#include "cli.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#define TIMEOUT_S 5
#define ANSWER_MAX (1U << 30)

char *control_path_of_server(const struct settings *settings)
{
	const char *folder = getenv("RUNTIME_DIRECTORY");
	char *path = NULL;

	if (settings->control)
		return strdup(settings->control);
	/* systemd's may be a list, with colons. */
	if (folder && folder[0] == '/' && asprintf(&path, "%.*s/control", (int)strcspn(folder, ":"), folder) >= 0)
		return path;
	return NULL;
}

/* What is asked, for errors. A process runs one command. */
static const char *asked = "server";

int control_command(struct command_line *line, int argc, char **argv, const bool *agent, int (*work)(const char *path, const struct command_line *line))
{
	static struct settings settings; /* a process runs one command */
	char *path;
	int code;

	line->command = FOR_CONTROL;
	line->settings = &settings;
	settings_init(&settings);
	if (command_line_parse(line, argc, argv, &code)) {
		asked = agent && *agent ? "agent" : "server";
		path = settings.control ? NULL : agent && *agent ? agent_control_path(&settings) : control_path_of_server(&settings);
		code = work(settings.control ? settings.control : path ? path : SETTINGS_CONTROL, line);
		free(path);
	}
	options_free(line->options, line->option_count, line->values);
	settings_free(&settings);
	return code;
}

static int connect_to(const char *path, int timeout_s)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	const struct timeval limit = {.tv_sec = timeout_s};
	int fd;

	if (strlen(path) >= sizeof address.sun_path) {
		errno = ENAMETOOLONG;
		return -1;
	}
	memcpy(address.sun_path, path, strlen(path));
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -1;
	if (setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit) != 0 ||
	    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit) != 0 ||
	    connect(fd, (struct sockaddr *)&address, sizeof address) != 0) {
		int error = errno;

		close(fd);
		errno = error;
		return -1;
	}
	return fd;
}

static int send_request(int fd, json_t *request)
{
	char *text = request ? json_dumps(request, JSON_COMPACT) : NULL;
	size_t size = text ? strlen(text) : 0;
	bool sent = text && send(fd, text, size, MSG_NOSIGNAL) == (ssize_t)size && send(fd, "\n", 1, MSG_NOSIGNAL) == 1;

	free(text);
	return sent ? 0 : -1;
}

/* The other end closes after its line. */
static json_t *receive_answer(int fd)
{
	char *text = NULL;
	size_t size = 0, room = 0;
	json_t *answer = NULL;
	ssize_t n;

	do {
		if (room - size < 4096) {
			char *grown = room < ANSWER_MAX ? realloc(text, room = room ? room * 2 : 65536) : NULL;

			if (!grown)
				break;
			text = grown;
		}
		n = recv(fd, text + size, room - size, 0);
		if (n > 0)
			size += (size_t)n;
	} while (n > 0 || (n < 0 && errno == EINTR));
	if (size > 0 && text[size - 1] == '\n')
		answer = json_loadb(text, size, 0, NULL);
	free(text);
	return answer;
}

int control_ask_within(const char *path, json_t *request, int timeout_s, bool quiet, json_t **out)
{
	int fd = connect_to(path, timeout_s), code = CLI_EXIT_CONNECT;
	char text[160];
	const char *why = text;
	json_t *answer = NULL;

	if (fd < 0) {
		if (errno == ENOENT || errno == ECONNREFUSED)
			snprintf(text, sizeof text, "no %s listens there; start it, or give the same --control PATH as the %s", asked, asked);
		else if (errno == EACCES)
			snprintf(text, sizeof text, "only the %s's user and root may use it", asked);
		else
			why = strerror(errno);
	} else {
		snprintf(text, sizeof text, "the %s did not answer in time", asked);
		if (send_request(fd, request) == 0)
			answer = receive_answer(fd);
		close(fd);
	}
	json_decref(request);
	if (answer && json_is_true(json_object_get(answer, "ok"))) {
		*out = answer;
		return CLI_EXIT_OK;
	}
	if (answer) {
		why = json_string_value(json_object_get(answer, "error"));
		code = CLI_EXIT_FAILED;
	}
	if (!quiet)
		cli_error("control socket %s: %s", path, why ? why : "the answer is not JSON");
	json_decref(answer);
	return code;
}

int control_ask(const char *path, json_t *request, bool quiet, json_t **out)
{
	return control_ask_within(path, request, TIMEOUT_S, quiet, out);
}

bool control_is_served(const char *path)
{
	int fd = connect_to(path, TIMEOUT_S);

	if (fd < 0)
		return errno != ENOENT && errno != ECONNREFUSED;
	close(fd);
	return true;
}
