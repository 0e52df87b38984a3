/* SPDX-License-Identifier: Apache-2.0 */
#include "session.h"

#include <errno.h>
#include <histedit.h>
#include <locale.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <wchar.h>

static char *prompt(EditLine *editor)
{
	static char text[] = "securdma> ";

	(void)editor;
	return text;
}

/* Waits for the terminal and the connection alike. Returns false at the end of the connection or on an interrupt. */
static bool wait_key(struct session *session)
{
	struct pollfd fds[] = {
		{.fd = STDIN_FILENO, .events = POLLIN},
		{.events = POLLIN},
	};
	int ret;

	for (;;) {
		ret = session_idle(session, 1);
		if (ret < 0) {
			fputc('\n', stdout);
			if (ret != -EINTR)
				session_fail(session, ret, "connection");
			return false;
		}
		fds[1].fd = srdma_conn_fd(session->conn); /* perhaps a new one */
		if (poll(fds, 2, 1000) > 0 && fds[0].revents)
			return true;
	}
}

/* libedit's source of characters: one wide character, 0 at the end, -1 on an error. */
static int get_key(EditLine *editor, wchar_t *key)
{
	struct session *session = NULL;
	mbstate_t state = {0};
	char byte;

	el_get(editor, EL_CLIENTDATA, &session);
	for (;;) {
		if (!wait_key(session))
			return 0;
		if (read(STDIN_FILENO, &byte, 1) != 1)
			return 0;
		switch (mbrtowc(key, &byte, 1, &state)) {
		case (size_t)-2: continue;
		case (size_t)-1: memset(&state, 0, sizeof state); continue;
		default: return 1;
		}
	}
}

int shell_interactive(struct session *session)
{
	History *lines = history_init();
	EditLine *editor = el_init("securdma", stdin, stdout, stderr);
	int code = CLI_EXIT_OK, count = 0;
	bool quit = false;
	const char *line;
	HistEvent event;

	if (!lines || !editor) {
		code = cli_fail(-ENOMEM, "line editing");
		goto out;
	}
	setlocale(LC_CTYPE, "");
	history(lines, &event, H_SETSIZE, 500);
	el_set(editor, EL_PROMPT, prompt);
	el_set(editor, EL_EDITOR, "emacs");
	el_set(editor, EL_HIST, history, lines);
	el_set(editor, EL_CLIENTDATA, session);
	el_set(editor, EL_GETCFN, get_key);
	/* A command that failed is no reason to leave, unless the connection went with it. */
	while (!quit && session->error == 0 && (line = el_gets(editor, &count)) != NULL && count > 0) {
		char *copy = strdup(line);

		if (!copy) {
			code = cli_fail(-ENOMEM, "line editing");
			break;
		}
		if (strspn(copy, " \t\n") != strlen(copy))
			history(lines, &event, H_ENTER, line);
		shell_command(session, copy, &quit);
		free(copy);
	}
	if (session->error)
		code = cli_exit_code(session->error);
out:
	if (editor)
		el_end(editor);
	if (lines)
		history_end(lines);
	return code;
}
