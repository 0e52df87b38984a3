/* SPDX-License-Identifier: Apache-2.0 */
/* The server's filter of system calls, each time in a process of its own, because no process can leave the filter. */
#include "test.h"

#include "sandbox.h"

#include <fcntl.h>
#include <linux/netlink.h>
#include <netinet/in.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

/* The status of a process that enters the sandbox, of a server with files or without, and does `what`. */
static int in_sandbox_of(bool files, int (*what)(void))
{
	pid_t child = fork();
	int status;

	assert_true(child >= 0);
	if (child == 0) {
		struct rlimit none = {0, 0};

		setrlimit(RLIMIT_CORE, &none);
		prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
		if (sandbox_enter(files) != 0)
			_exit(99);
		_exit(what());
	}
	assert_int_equal(waitpid(child, &status, 0), child);
	return status;
}

static int in_sandbox(int (*what)(void))
{
	return in_sandbox_of(false, what);
}

static int execute(void)
{
	execl("/bin/true", "true", (char *)NULL);
	return 1;
}

static int become_root(void)
{
	return setuid(0) == 0 ? 0 : 1;
}

static int load_module(void)
{
	syscall(SYS_init_module, NULL, 0, "");
	return 1;
}

static int read_others(void)
{
	syscall(SYS_process_vm_readv, getppid(), NULL, 0, NULL, 0, 0);
	return 1;
}

static int open_packet_socket(void)
{
	return socket(AF_PACKET, SOCK_RAW, 0) < 0 && errno == EPERM ? 0 : 1;
}

static int link_file(void)
{
	return link("/etc/passwd", "/tmp/test_sandbox.link") < 0 && errno == EPERM ? 0 : 1;
}

static int make_process(void)
{
	return fork() < 0 && errno == EPERM ? 0 : 1;
}

/* Other programs on the terminal would read what TIOCSTI and TIOCLINUX type. The kernel ignores the upper half of the request. */
static int type_into_terminal(void)
{
	static const unsigned long above[] = {0, 1ul << 32, 0xfffffffful << 32};

	for (size_t i = 0; i < COUNT(above); i++)
		if (syscall(SYS_ioctl, 0, above[i] | TIOCSTI, "x") != -1 || errno != EPERM ||
		    syscall(SYS_ioctl, 0, above[i] | TIOCLINUX, "\2") != -1 || errno != EPERM)
			return 1;
	return 0;
}

static int signal_others(void)
{
	int fds[2];

	if (kill(getppid(), 0) != -1 || errno != EPERM || syscall(SYS_tgkill, getppid(), getppid(), 0) != -1 || errno != EPERM)
		return 1;
	if (socketpair(AF_UNIX, SOCK_STREAM, 0, fds) != 0 || fcntl(fds[0], F_SETOWN, getppid()) != -1 || errno != EPERM)
		return 2;
	return kill(getpid(), 0) == 0 ? 0 : 3;
}

static int change_others(void)
{
	struct rlimit limit = {0, 0};
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(0, &set);
	if (prlimit(getppid(), RLIMIT_CORE, &limit, NULL) != -1 || errno != EPERM)
		return 1;
	if (sched_setaffinity(getppid(), sizeof set, &set) != -1 || errno != EPERM)
		return 2;
	return prctl(PR_SET_PTRACER, PR_SET_PTRACER_ANY, 0, 0, 0) == -1 && errno == EPERM ? 0 : 3;
}

static int open_other_sockets(void)
{
	if (socket(AF_INET, SOCK_RAW, IPPROTO_ICMP) != -1 || errno != EPERM)
		return 1;
	if (socket(AF_NETLINK, SOCK_RAW, NETLINK_AUDIT) != -1 || errno != EPERM)
		return 2;
	return socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE) >= 0 ? 0 : 3;
}

/* The type alone does not say what it is: MPTCP, SCTP and SMC are streams, ping, UDP-Lite and L2TP datagrams. */
static int open_other_protocols(void)
{
	static const int families[] = {AF_INET, AF_INET6}, streams[] = {IPPROTO_SCTP, 256, 262},
			 datagrams[] = {IPPROTO_ICMP, IPPROTO_ICMPV6, IPPROTO_UDPLITE, 115};

	for (size_t i = 0; i < 2; i++) {
		for (size_t j = 0; j < COUNT(streams); j++)
			if (socket(families[i], SOCK_STREAM, streams[j]) != -1 || errno != EPERM)
				return 1;
		for (size_t j = 0; j < COUNT(datagrams); j++)
			if (socket(families[i], SOCK_DGRAM | SOCK_CLOEXEC, datagrams[j]) != -1 || errno != EPERM)
				return 2;
		if (socket(families[i], SOCK_STREAM, IPPROTO_TCP) < 0 || socket(families[i], SOCK_DGRAM, IPPROTO_UDP) < 0 ||
		    socket(families[i], SOCK_DGRAM | SOCK_CLOEXEC, 0) < 0)
			return errno == EPERM ? 3 : 0;
	}
	return 0;
}

static void *add_one(void *number)
{
	++*(int *)number;
	return NULL;
}

static int work(void)
{
	pthread_t thread;
	int number = 0, fd = open("/etc/passwd", O_RDONLY | O_CLOEXEC), sock = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	char byte;

	if (fd < 0 || read(fd, &byte, 1) != 1 || sock < 0 || pthread_create(&thread, NULL, add_one, &number) != 0)
		return 1;
	pthread_join(thread, NULL);
	return number == 1 ? 0 : 1;
}

/* No descriptor: the kernel itself says EBADF. */
static int name_an_open_file(void)
{
	if (linkat(-1, "", -1, "name", AT_EMPTY_PATH) == 0 || errno != EBADF)
		return 1;
	if (linkat(AT_FDCWD, "/etc/passwd", AT_FDCWD, "name", 0) == 0 || errno != EPERM)
		return 2;
	return linkat(AT_FDCWD, "/proc/self/fd/0", AT_FDCWD, "name", AT_SYMLINK_FOLLOW) != 0 && errno == EPERM ? 0 : 3;
}

static void check_killed(int status)
{
	assert_true(WIFSIGNALED(status));
	assert_int_equal(WTERMSIG(status), SIGSYS);
}

static void check_fine(int status)
{
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 0);
}

TEST(call_that_only_an_intruder_makes_ends_the_process)
{
	check_killed(in_sandbox(execute));
	check_killed(in_sandbox(become_root));
	check_killed(in_sandbox(load_module));
	check_killed(in_sandbox(read_others));
}

TEST(call_that_no_server_needs_is_refused)
{
	check_fine(in_sandbox(open_packet_socket));
	check_fine(in_sandbox(link_file));
	check_fine(in_sandbox(open_other_sockets));
	check_fine(in_sandbox(open_other_protocols));
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
	check_fine(in_sandbox(make_process));
	check_fine(in_sandbox(type_into_terminal));
	check_fine(in_sandbox(signal_others));
	check_fine(in_sandbox(change_others));
#else
	(void)type_into_terminal;
	(void)signal_others;
	(void)change_others;
	(void)make_process;
#endif
}

TEST(a_server_with_files_names_open_files_and_links_no_others)
{
	check_fine(in_sandbox_of(true, name_an_open_file));
}

TEST(files_sockets_and_threads_go_on)
{
	check_fine(in_sandbox(work));
}

int main(void)
{
	/* qemu-user is an example. The server does not start there without --no-sandbox. */
	if (prctl(PR_GET_SECCOMP, 0, 0, 0, 0) < 0 && errno == EINVAL) {
		puts("this kernel has no filters of system calls");
		return 77; /* skipped */
	}
	return cmocka_run_group_tests(tests, NULL, NULL);
}
