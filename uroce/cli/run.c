/* SPDX-License-Identifier: Apache-2.0 */
/* Running the command: in place of this process, or as a child whose counters are printed at its end. */
#include "cli.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "hw_counters.h"

/* Signals that ask a program for something; the child must get them too. */
static const int forwarded[] = {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGUSR1, SIGUSR2};

int run_command(char **argv)
{
	execvp(argv[0], argv);
	return fail(errno == ENOENT ? EXIT_NOT_FOUND : EXIT_NOT_EXECUTABLE, "%s: %s", argv[0], strerror(errno));
}

/* A block that the command and its children find by its descriptor, or, where that was closed, by the path to it. */
static struct counters *share_counters(void)
{
	char number[16], path[48];
	void *map;
	int fd = memfd_create("uroce-counters", 0);

	if (fd < 0)
		return NULL;
	snprintf(number, sizeof number, "%d", fd);
	if (ftruncate(fd, sizeof(struct counters)) < 0 || setenv("UROCE_COUNTERS_FD", number, 1) < 0)
		return NULL;
	snprintf(path, sizeof path, "/proc/%ld/fd/%d", (long)getpid(), fd);
	if (setenv("UROCE_COUNTERS_PATH", path, 1) < 0)
		return NULL;
	map = mmap(NULL, sizeof(struct counters), PROT_READ, MAP_SHARED, fd, 0);
	return map == MAP_FAILED ? NULL : map;
}

/* Between two looks at the counters, where they are shown in files. */
static const struct timespec pause_time = {.tv_nsec = HW_COUNTERS_NS};

/* Waits for the child's end; passes signals on. What the terminal sends, it has sent the child as well: twice might
 * mean more than once. */
static int attend(pid_t child, const sigset_t *signals, const struct counters *mounted)
{
	siginfo_t info;
	int status;

	for (;;) {
		if (mounted)
			mount_refresh(mounted);
		if (sigtimedwait(signals, &info, mounted ? &pause_time : NULL) < 0)
			continue;
		if (info.si_signo != SIGCHLD) {
			if (info.si_code <= 0)
				kill(child, info.si_signo);
			continue;
		}
		if (waitpid(child, &status, WNOHANG) != child)
			continue;
		return WIFSIGNALED(status) ? EXIT_SIGNAL + WTERMSIG(status) : WEXITSTATUS(status);
	}
}

static void print(enum report report, const char *command, const struct counters *counters)
{
	if (report == REPORT_JSON) {
		print_counters_json(stderr, counters);
	} else if (report == REPORT_TEXT) {
		fprintf(stderr, "uroce: counters of %s:\n", command);
		print_counters(stderr, counters);
	}
}

int run_counted(char **argv, enum report report, bool mounted)
{
	const struct sigaction default_action = {.sa_handler = SIG_DFL};
	struct counters *counters = share_counters();
	struct sigaction action;
	sigset_t signals, old;
	pid_t child;
	int status;

	if (!counters)
		return fail(EXIT_OWN, "cannot make memory for the counters: %s", strerror(errno));
	sigemptyset(&signals);
	sigaddset(&signals, SIGCHLD);
	for (size_t i = 0; i < sizeof forwarded / sizeof forwarded[0]; i++)
		sigaddset(&signals, forwarded[i]);
	sigprocmask(SIG_BLOCK, &signals, &old);
	/* Where it was ignored, children would vanish without a status. */
	sigaction(SIGCHLD, &default_action, &action);
	child = fork();
	if (child < 0)
		return fail(EXIT_OWN, "cannot start the command (fork): %s", strerror(errno));
	if (child == 0) {
		sigaction(SIGCHLD, &action, NULL);
		sigprocmask(SIG_SETMASK, &old, NULL);
		_exit(run_command(argv));
	}
	status = attend(child, &signals, mounted ? counters : NULL);
	print(report, argv[0], counters);
	munmap(counters, sizeof *counters);
	return status;
}
