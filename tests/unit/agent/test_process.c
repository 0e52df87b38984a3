/* SPDX-License-Identifier: Apache-2.0 */
/* Whose a socket is, when the process that connected it has ended. */
#include "test.h"

#include "process.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

/* A socket whose name the kernel chooses. */
static int listener(struct sockaddr_un *address, socklen_t *length)
{
	int fd = socket(AF_UNIX, SOCK_SEQPACKET, 0);

	*address = (struct sockaddr_un){.sun_family = AF_UNIX};
	assert_int_equal(bind(fd, (struct sockaddr *)address, sizeof address->sun_family), 0);
	*length = sizeof *address;
	assert_int_equal(getsockname(fd, (struct sockaddr *)address, length), 0);
	assert_int_equal(listen(fd, 1), 0);
	return fd;
}

/* A child connects `client`, which this process has too, and ends when `go` is closed. */
static pid_t connect_in_child(int client, const struct sockaddr_un *address, socklen_t length, int go[2])
{
	pid_t child = fork();

	if (child == 0) {
		char byte;

		close(go[1]);
		if (connect(client, (const struct sockaddr *)address, length) != 0)
			_exit(1);
		_exit(read(go[0], &byte, 1) != 0);
	}
	close(go[0]);
	return child;
}

static pid_t peer_of(int fd)
{
	struct ucred peer;
	socklen_t size = sizeof peer;

	assert_int_equal(getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size), 0);
	return peer.pid;
}

/* A process with this number, if the kernel lets the test choose it; 0: it does not. */
static pid_t next_with(pid_t number)
{
	char text[16];
	int fd = open("/proc/sys/kernel/ns_last_pid", O_WRONLY), length = snprintf(text, sizeof text, "%d", (int)number - 1);
	pid_t child;

	if (fd < 0)
		return 0;
	if (write(fd, text, (size_t)length) != length) {
		close(fd);
		return 0;
	}
	close(fd);
	child = fork();
	if (child == 0) {
		pause();
		_exit(0);
	}
	return child;
}

TEST(process_that_connected_is_known_to_have_ended_though_its_number_and_its_socket_live)
{
	struct sockaddr_un address;
	socklen_t length;
	int at = listener(&address, &length), client = socket(AF_UNIX, SOCK_SEQPACKET, 0), go[2], server, process;
	pid_t child, other;

	assert_int_equal(pipe(go), 0);
	child = connect_in_child(client, &address, length, go);
	server = accept(at, NULL, NULL);
	assert_true(server >= 0);
	assert_int_equal(peer_of(server), child);
	process = process_open(server, child);
	if (process < 0) {
		assert_true(process == -ENOSYS || process == -EPERM);
		skip();
	}
	assert_false(process_has_ended(process));
	close(go[1]);
	assert_int_equal(waitpid(child, NULL, 0), child);
	assert_true(process_has_ended(process));
	/* This process still has the socket, and what is told of the socket is the number. */
	assert_int_equal(send(client, "x", 1, 0), 1);
	assert_int_equal(peer_of(server), child);
	for (int i = 0; i < 20; i++) {
		other = next_with(child);
		if (other == child)
			assert_true(process_has_ended(process));
		if (other > 0) {
			kill(other, SIGKILL);
			waitpid(other, NULL, 0);
		}
		if (other == child || other == 0)
			break;
	}
	close(process);
	close(server);
	close(client);
	close(at);
}

TEST(process_of_which_nothing_is_known_counts_as_alive)
{
	assert_false(process_has_ended(-1));
	assert_false(process_has_ended(-ENOSYS));
}

TEST(process_that_has_ended_before_it_is_taken_is_not_mistaken_for_another)
{
	struct sockaddr_un address;
	socklen_t length;
	int at = listener(&address, &length), client = socket(AF_UNIX, SOCK_SEQPACKET, 0), go[2], server, process;
	pid_t child;

	assert_int_equal(pipe(go), 0);
	child = connect_in_child(client, &address, length, go);
	close(go[1]);
	assert_int_equal(waitpid(child, NULL, 0), child);
	server = accept(at, NULL, NULL);
	assert_true(server >= 0);
	process = process_open(server, peer_of(server));
	/* Some kernels give the descriptor of a process that is gone, and it says so. */
	assert_true(process < 0 || process_has_ended(process));
	if (process >= 0)
		close(process);
	close(server);
	close(client);
	close(at);
}

RUN_TESTS(NULL, NULL)
