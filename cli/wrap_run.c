/* SPDX-License-Identifier: Apache-2.0 */
#include "cli.h"
#include "wrap.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

/* Signals that ask a program for something; the child must get them too. */
static const int forwarded[] = {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGUSR1, SIGUSR2};

int wrap_exec(char **argv)
{
	/* This program ignores it, and the command would inherit that. */
	if (!cli_sigpipe_ignored)
		signal(SIGPIPE, SIG_DFL);
	execvp(argv[0], argv);
	return cli_failed(errno == ENOENT ? WRAP_EXIT_NOT_FOUND : WRAP_EXIT_NOT_EXECUTABLE, "%s: %s", argv[0], strerror(errno));
}

/* Waits for the child's end; passes signals on, but for those that the terminal has sent to both. */
static int attend(pid_t child, const sigset_t *signals)
{
	siginfo_t info;
	int status;

	for (;;) {
		if (sigwaitinfo(signals, &info) < 0)
			continue;
		if (info.si_signo != SIGCHLD) {
			if (info.si_code <= 0)
				kill(child, info.si_signo);
			continue;
		}
		if (waitpid(child, &status, WNOHANG) != child || !(WIFEXITED(status) || WIFSIGNALED(status)))
			continue;
		return WIFSIGNALED(status) ? WRAP_EXIT_SIGNAL + WTERMSIG(status) : WEXITSTATUS(status);
	}
}

int wrap_run(char **argv)
{
	const struct sigaction default_action = {.sa_handler = SIG_DFL};
	struct sigaction action;
	sigset_t signals, old;
	pid_t child;

	sigemptyset(&signals);
	sigaddset(&signals, SIGCHLD);
	for (size_t i = 0; i < sizeof forwarded / sizeof forwarded[0]; i++)
		sigaddset(&signals, forwarded[i]);
	sigprocmask(SIG_BLOCK, &signals, &old);
	/* Where it is ignored, a child vanishes without a status. */
	sigaction(SIGCHLD, &default_action, &action);
	child = fork();
	if (child < 0)
		return cli_failed(WRAP_EXIT_OWN, "cannot start the command (fork): %s", strerror(errno));
	if (child == 0) {
		sigaction(SIGCHLD, &action, NULL);
		sigprocmask(SIG_SETMASK, &old, NULL);
		_exit(wrap_exec(argv));
	}
	return attend(child, &signals);
}
