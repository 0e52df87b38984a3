/* SPDX-License-Identifier: Apache-2.0 */
#include "sandbox.h"

#include <errno.h>

#ifdef HAVE_SECCOMP
#include <fcntl.h>
#include <linux/netlink.h>
#include <net/if.h>
#include <netinet/in.h>
#include <sched.h>
#include <seccomp.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

/* In musl's headers these are macros, for pread and pwrite; here the system calls are meant. */
#undef pread64
#undef pwrite64
/* The one ioctl of a verbs device, with its header of 24 bytes, as the kernel numbers it. */
#define RDMA_VERBS_IOCTL _IOWR(0x1b, 1, uint64_t[3])
#ifndef PR_SET_VMA
#define PR_SET_VMA 0x53564d41
#endif

#define CALL(name) SCMP_SYS(name)

/* Files and descriptors: certificates at SIGHUP, sockets, eventfd and epoll, libibverbs on its device file. */
static const int allowed[] = {
	CALL(read), CALL(write), CALL(readv), CALL(writev), CALL(pread64), CALL(pwrite64), CALL(close), CALL(close_range), CALL(fstat),
	CALL(newfstatat), CALL(stat), CALL(lstat), CALL(statx), CALL(lseek), CALL(openat), CALL(open), CALL(access), CALL(faccessat),
	CALL(faccessat2), CALL(readlink), CALL(readlinkat), CALL(getdents64), CALL(getcwd), CALL(flock),
	CALL(dup), CALL(dup2), CALL(dup3), CALL(pipe2), CALL(unlink), CALL(unlinkat), CALL(rmdir), CALL(umask), CALL(fchmod),
	CALL(fsync), CALL(ftruncate), CALL(memfd_create),
	CALL(poll), CALL(ppoll), CALL(select), CALL(pselect6), CALL(epoll_create1), CALL(epoll_ctl), CALL(epoll_wait),
	CALL(epoll_pwait), CALL(epoll_pwait2), CALL(eventfd2), CALL(signalfd4), CALL(timerfd_create), CALL(timerfd_settime),
	CALL(timerfd_gettime),
	CALL(bind), CALL(listen), CALL(accept), CALL(accept4), CALL(connect), CALL(getsockname), CALL(getpeername),
	CALL(getsockopt), CALL(setsockopt), CALL(shutdown), CALL(sendto), CALL(recvfrom), CALL(sendmsg), CALL(recvmsg),
	CALL(sendmmsg), CALL(recvmmsg), CALL(sendfile),
	/* Memory, threads, time, signals. */
	CALL(mmap), CALL(munmap), CALL(mremap), CALL(mprotect), CALL(madvise), CALL(mlock), CALL(mlock2), CALL(munlock), CALL(brk),
	CALL(mincore), CALL(futex), CALL(set_robust_list), CALL(get_robust_list), CALL(set_tid_address), CALL(rseq), CALL(membarrier),
	CALL(arch_prctl), CALL(sched_yield), CALL(sched_getaffinity), CALL(sched_getparam),
	CALL(sched_getscheduler), CALL(sched_get_priority_max), CALL(sched_get_priority_min), CALL(getcpu), CALL(nanosleep),
	CALL(clock_nanosleep), CALL(clock_gettime), CALL(clock_getres), CALL(gettimeofday), CALL(time), CALL(times), CALL(getrusage),
	CALL(getrandom), CALL(getpid), CALL(gettid), CALL(getppid), CALL(getuid), CALL(geteuid), CALL(getgid), CALL(getegid),
	CALL(getgroups), CALL(getresuid), CALL(getresgid), CALL(capget), CALL(uname), CALL(sysinfo), CALL(getrlimit),
	CALL(rt_sigaction), CALL(rt_sigprocmask), CALL(rt_sigreturn), CALL(rt_sigtimedwait), CALL(rt_sigpending), CALL(sigaltstack),
	CALL(restart_syscall), CALL(exit), CALL(exit_group),
};

/* For clients that copy files. What may be written, the server's user and the descriptors of the folders decide. */
static const int for_files[] = {CALL(mkdirat), CALL(renameat), CALL(renameat2), CALL(symlinkat), CALL(utimensat), CALL(syncfs), CALL(fstatfs),
				CALL(sync_file_range), CALL(sync_file_range2)};

static const int deadly[] = {
	CALL(execve), CALL(execveat), CALL(process_vm_readv), CALL(process_vm_writev), CALL(kexec_load), CALL(kexec_file_load),
	CALL(init_module), CALL(finit_module), CALL(delete_module), CALL(bpf), CALL(perf_event_open), CALL(userfaultfd), CALL(mount),
	CALL(umount2), CALL(pivot_root), CALL(chroot), CALL(setns), CALL(unshare), CALL(add_key), CALL(request_key), CALL(keyctl),
	CALL(reboot), CALL(swapon), CALL(setuid), CALL(setresuid), CALL(setgid), CALL(setresgid), CALL(capset),
};

static const int for_sanitizers[] = {CALL(getdents), CALL(clone), CALL(clone3), CALL(ptrace), CALL(wait4), CALL(personality), CALL(setrlimit),
				     CALL(prctl), CALL(kill), CALL(tgkill), CALL(fcntl), CALL(ioctl)};

/* Calls that do many things, by what they are asked to do: nothing that types into a terminal (TIOCSTI, TIOCLINUX), that has the kernel
 * signal others (F_SETOWN), or that lets others look in (PR_SET_PTRACER). */
struct command {
	int call;
	unsigned argument;
	uint32_t value;
};

static const struct command commands[] = {
	{CALL(ioctl), 1, RDMA_VERBS_IOCTL}, {CALL(ioctl), 1, FIONREAD}, {CALL(ioctl), 1, FIONBIO}, {CALL(ioctl), 1, FIOCLEX},
	{CALL(ioctl), 1, FIONCLEX}, {CALL(ioctl), 1, TCGETS}, {CALL(ioctl), 1, TIOCGWINSZ}, {CALL(ioctl), 1, SIOCGIFINDEX},
	{CALL(ioctl), 1, SIOCGIFNAME}, {CALL(ioctl), 1, SIOCGIFFLAGS}, {CALL(ioctl), 1, SIOCGIFADDR}, {CALL(ioctl), 1, SIOCGIFMTU},
	{CALL(ioctl), 1, SIOCGIFHWADDR},
	{CALL(fcntl), 1, F_DUPFD}, {CALL(fcntl), 1, F_DUPFD_CLOEXEC}, {CALL(fcntl), 1, F_GETFD}, {CALL(fcntl), 1, F_SETFD},
	{CALL(fcntl), 1, F_GETFL}, {CALL(fcntl), 1, F_SETFL}, {CALL(fcntl), 1, F_GETLK}, {CALL(fcntl), 1, F_SETLK},
	{CALL(fcntl), 1, F_SETLKW}, {CALL(fcntl), 1, F_OFD_SETLK}, {CALL(fcntl), 1, F_OFD_SETLKW}, {CALL(fcntl), 1, F_ADD_SEALS},
	{CALL(fcntl), 1, F_GET_SEALS},
	{CALL(prctl), 0, PR_SET_NAME}, {CALL(prctl), 0, PR_GET_NAME}, {CALL(prctl), 0, PR_SET_VMA}, {CALL(prctl), 0, PR_GET_DUMPABLE},
	{CALL(prctl), 0, PR_CAPBSET_READ},
	/* 0 is the caller itself. */
	{CALL(prlimit64), 0, 0}, {CALL(sched_setaffinity), 0, 0},
};

/* The kernel looks at 32 bits of such an argument. So must the filter: bits of the other half would hide the value. */
#define LOW_HALF 0xffffffffu
#define SOCKET_TYPE 0xfu /* without SOCK_CLOEXEC and SOCK_NONBLOCK */

static int allow_if(scmp_filter_ctx filter, int call, unsigned argument, uint32_t value)
{
	return seccomp_rule_add(filter, SCMP_ACT_ALLOW, call, 1, SCMP_CMP(argument, SCMP_CMP_MASKED_EQ, LOW_HALF, value));
}

static int add_commands(scmp_filter_ctx filter)
{
	uint32_t self = (uint32_t)getpid();
	int ret = 0;

	for (size_t i = 0; i < sizeof commands / sizeof *commands && ret == 0; i++)
		ret = allow_if(filter, commands[i].call, commands[i].argument, commands[i].value);
	/* Signals to itself, as abort(3) sends them. */
	if (ret == 0)
		ret = allow_if(filter, CALL(kill), 0, self);
	if (ret == 0)
		ret = allow_if(filter, CALL(tgkill), 0, self);
	return ret;
}

static int add_all(scmp_filter_ctx filter, uint32_t action, const int *calls, size_t count)
{
	int ret = 0;

	/* A call that this architecture has not is no failure: the library leaves it out. */
	for (size_t i = 0; i < count && ret == 0; i++)
		ret = seccomp_rule_add(filter, action, calls[i], 0);
	return ret;
}

/* Threads, and no processes: what glibc asks first, clone3, has its flags in memory that a filter can't see. */
static int add_threads(scmp_filter_ctx filter)
{
	int ret = seccomp_rule_add(filter, SCMP_ACT_ERRNO(ENOSYS), CALL(clone3), 0);

	if (ret == 0)
		ret = seccomp_rule_add(filter, SCMP_ACT_ALLOW, CALL(clone), 1, SCMP_A0(SCMP_CMP_MASKED_EQ, CLONE_THREAD, CLONE_THREAD));
	return ret == 0 ? seccomp_rule_add(filter, SCMP_ACT_KILL_PROCESS, CALL(ptrace), 0) : ret;
}

/* TCP and UDP, by all three arguments: other protocols, many of them modules that the kernel would load for it, have their types. */
static int add_networks(scmp_filter_ctx filter)
{
	static const struct {
		int type, protocol;
	} kinds[] = {{SOCK_STREAM, 0}, {SOCK_STREAM, IPPROTO_TCP}, {SOCK_DGRAM, 0}, {SOCK_DGRAM, IPPROTO_UDP}};
	static const int networks[] = {AF_INET, AF_INET6};
	int ret = 0;

	for (size_t i = 0; i < 8 && ret == 0; i++)
		ret = seccomp_rule_add(filter, SCMP_ACT_ALLOW, CALL(socket), 3,
				       SCMP_A0(SCMP_CMP_MASKED_EQ, LOW_HALF, (scmp_datum_t)networks[i / 4]),
				       SCMP_A1(SCMP_CMP_MASKED_EQ, SOCKET_TYPE, (scmp_datum_t)kinds[i % 4].type),
				       SCMP_A2(SCMP_CMP_MASKED_EQ, LOW_HALF, (scmp_datum_t)kinds[i % 4].protocol));
	return ret;
}

static int add_sockets(scmp_filter_ctx filter, bool agent)
{
	/* Of the kernel's own: what tells addresses and RDMA devices; to an agent, also what encrypts packets. */
	static const int kernel[] = {NETLINK_ROUTE, NETLINK_RDMA, NETLINK_XFRM, NETLINK_GENERIC};
	size_t count = agent ? 4 : 2;
	int ret = allow_if(filter, CALL(socketpair), 0, AF_UNIX);

	if (ret == 0)
		ret = allow_if(filter, CALL(socket), 0, AF_UNIX);
	if (ret == 0)
		ret = add_networks(filter);
	for (size_t i = 0; i < count && ret == 0; i++)
		ret = seccomp_rule_add(filter, SCMP_ACT_ALLOW, CALL(socket), 2, SCMP_A0(SCMP_CMP_MASKED_EQ, LOW_HALF, AF_NETLINK),
				       SCMP_A2(SCMP_CMP_MASKED_EQ, LOW_HALF, (scmp_datum_t)kernel[i]));
	return ret;
}

static int enter(bool files, bool agent)
{
	scmp_filter_ctx filter = seccomp_init(SCMP_ACT_ERRNO(EPERM));
	int ret;

	if (!filter)
		return -ENOMEM;
	ret = seccomp_attr_set(filter, SCMP_FLTATR_CTL_TSYNC, 1);
	if (ret == 0)
		ret = seccomp_attr_set(filter, SCMP_FLTATR_ACT_BADARCH, SCMP_ACT_KILL_PROCESS);
	if (ret == 0)
		ret = add_all(filter, SCMP_ACT_ALLOW, allowed, sizeof allowed / sizeof *allowed);
	if (ret == 0 && files)
		ret = add_all(filter, SCMP_ACT_ALLOW, for_files, sizeof for_files / sizeof *for_files);
	/* A name for an open file that has none. By its path, any file could be linked. */
	if (ret == 0 && files)
		ret = allow_if(filter, CALL(linkat), 4, AT_EMPTY_PATH);
	if (ret == 0)
		ret = add_all(filter, SCMP_ACT_KILL_PROCESS, deadly, sizeof deadly / sizeof *deadly);
	if (ret == 0)
		ret = SANDBOX_SANITIZED ? add_all(filter, SCMP_ACT_ALLOW, for_sanitizers, sizeof for_sanitizers / sizeof *for_sanitizers)
				: add_threads(filter);
	if (ret == 0)
		ret = add_commands(filter);
	if (ret == 0)
		ret = add_sockets(filter, agent);
	/* What tells that a program has ended, where the socket itself cannot. */
	if (ret == 0 && agent)
		ret = allow_if(filter, CALL(pidfd_open), 1, 0);
	/* Whether a process has a thread. */
	if (ret == 0 && agent)
		ret = allow_if(filter, CALL(tgkill), 2, 0);
	if (ret == 0)
		ret = seccomp_load(filter);
	seccomp_release(filter);
	return ret;
}

int sandbox_enter(bool files)
{
	return enter(files, false);
}

int sandbox_enter_agent(void)
{
	return enter(false, true);
}

#else

int sandbox_enter(bool files)
{
	(void)files;
	return -ENOTSUP;
}

int sandbox_enter_agent(void)
{
	return -ENOTSUP;
}

#endif
