/* SPDX-License-Identifier: Apache-2.0 */
/* Where a server may connect to, in a process of its own, because no process can leave the limit. */
#include "test.h"

#include "cli.h"
#include "serve.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <pthread.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

void cli_log_event(enum srdma_log_level level, const char *event, const char *format, ...)
{
}

static uint16_t listen_somewhere(void)
{
	struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
	socklen_t size = sizeof address;
	int fd = socket(AF_INET, SOCK_STREAM, 0);

	assert_true(fd >= 0 && bind(fd, (struct sockaddr *)&address, size) == 0 && listen(fd, 8) == 0);
	assert_int_equal(getsockname(fd, (struct sockaddr *)&address, &size), 0);
	return ntohs(address.sin_port);
}

/* 0, or the error of connect(2). */
static int try_to_connect(uint16_t port)
{
	const struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}, .sin_port = htons(port)};
	int fd = socket(AF_INET, SOCK_STREAM, 0), error = connect(fd, (const struct sockaddr *)&address, sizeof address) == 0 ? 0 : errno;

	close(fd);
	return error;
}

static void *try_in_thread(void *port)
{
	return (void *)(intptr_t)try_to_connect(*(uint16_t *)port);
}

static int run(const char *target, uint16_t open, uint16_t closed)
{
	struct settings settings = {0};
	char problem[256];
	pthread_t thread;
	void *error;

	if (target && (!tunnel_targets_add(&settings.tunnel_targets, "a", target, problem, sizeof problem) ||
		       !tunnel_targets_resolve(&settings.tunnel_targets, problem, sizeof problem)))
		return 2;
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 || sandbox_limit_connects(&settings) != 0)
		return 3;
	if (try_to_connect(open) != (target ? 0 : EACCES) || try_to_connect(closed) != EACCES)
		return 4;
	if (pthread_create(&thread, NULL, try_in_thread, &closed) != 0 || pthread_join(thread, &error) != 0 || (intptr_t)error != EACCES)
		return 5;
	return 0;
}

static void check(bool with_target)
{
	uint16_t open = listen_somewhere(), closed = listen_somewhere();
	char target[32];
	pid_t child;
	int status;

	snprintf(target, sizeof target, "127.0.0.1:%u", open);
	child = fork();
	assert_true(child >= 0);
	if (child == 0)
		_exit(run(with_target ? target : NULL, open, closed));
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 0);
}

TEST(server_connects_to_the_ports_of_its_targets_alone)
{
	check(true);
}

TEST(server_without_targets_connects_nowhere)
{
	check(false);
}

int main(void)
{
	/* Landlock's version; 4 is the first that knows ports. */
	if (syscall(444, NULL, 0, 1) < 4) {
		puts("this kernel cannot limit where a process connects to");
		return 77; /* skipped */
	}
	return cmocka_run_group_tests(tests, NULL, NULL);
}
