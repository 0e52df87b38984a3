/* SPDX-License-Identifier: Apache-2.0 */
#include "sandbox.h"

#include <errno.h>

#ifdef HAVE_SECCOMP
#include <sched.h>
#include <seccomp.h>
#include <stddef.h>
#include <sys/socket.h>

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZED 1 /* whose run-time looks for leaks from a process of its own, at the end */
#else
#define SANITIZED 0
#endif

#define CALL(name) SCMP_SYS(name)

/* Files and descriptors: certificates at SIGHUP, sockets, eventfd and epoll, libibverbs on its device file. */
static const int allowed[] = {
	CALL(read), CALL(write), CALL(readv), CALL(writev), CALL(pread64), CALL(pwrite64), CALL(close), CALL(close_range), CALL(fstat),
	CALL(newfstatat), CALL(stat), CALL(lstat), CALL(statx), CALL(lseek), CALL(openat), CALL(open), CALL(access), CALL(faccessat),
	CALL(faccessat2), CALL(readlink), CALL(readlinkat), CALL(getdents64), CALL(getcwd), CALL(fcntl), CALL(flock), CALL(ioctl),
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
	CALL(arch_prctl), CALL(prctl), CALL(sched_yield), CALL(sched_getaffinity), CALL(sched_setaffinity), CALL(sched_getparam),
	CALL(sched_getscheduler), CALL(sched_get_priority_max), CALL(sched_get_priority_min), CALL(getcpu), CALL(nanosleep),
	CALL(clock_nanosleep), CALL(clock_gettime), CALL(clock_getres), CALL(gettimeofday), CALL(time), CALL(times), CALL(getrusage),
	CALL(getrandom), CALL(getpid), CALL(gettid), CALL(getppid), CALL(getuid), CALL(geteuid), CALL(getgid), CALL(getegid),
	CALL(getgroups), CALL(getresuid), CALL(getresgid), CALL(capget), CALL(uname), CALL(sysinfo), CALL(getrlimit), CALL(prlimit64),
	CALL(rt_sigaction), CALL(rt_sigprocmask), CALL(rt_sigreturn), CALL(rt_sigtimedwait), CALL(rt_sigpending), CALL(sigaltstack),
	CALL(kill), CALL(tgkill), CALL(restart_syscall), CALL(exit), CALL(exit_group),
};

static const int deadly[] = {
	CALL(execve), CALL(execveat), CALL(process_vm_readv), CALL(process_vm_writev), CALL(kexec_load), CALL(kexec_file_load),
	CALL(init_module), CALL(finit_module), CALL(delete_module), CALL(bpf), CALL(perf_event_open), CALL(userfaultfd), CALL(mount),
	CALL(umount2), CALL(pivot_root), CALL(chroot), CALL(setns), CALL(unshare), CALL(add_key), CALL(request_key), CALL(keyctl),
	CALL(reboot), CALL(swapon), CALL(setuid), CALL(setresuid), CALL(setgid), CALL(setresgid), CALL(capset),
};

static const int for_sanitizers[] = {CALL(getdents), CALL(clone), CALL(clone3), CALL(ptrace), CALL(wait4), CALL(personality), CALL(setrlimit)};

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

static int add_sockets(scmp_filter_ctx filter)
{
	static const int domains[] = {AF_UNIX, AF_INET, AF_INET6, AF_NETLINK};
	int ret = seccomp_rule_add(filter, SCMP_ACT_ALLOW, CALL(socketpair), 1, SCMP_A0(SCMP_CMP_EQ, AF_UNIX, 0));

	for (size_t i = 0; i < sizeof domains / sizeof *domains && ret == 0; i++)
		ret = seccomp_rule_add(filter, SCMP_ACT_ALLOW, CALL(socket), 1, SCMP_A0(SCMP_CMP_EQ, (scmp_datum_t)domains[i], 0));
	return ret;
}

int sandbox_enter(void)
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
	if (ret == 0)
		ret = add_all(filter, SCMP_ACT_KILL_PROCESS, deadly, sizeof deadly / sizeof *deadly);
	if (ret == 0)
		ret = SANITIZED ? add_all(filter, SCMP_ACT_ALLOW, for_sanitizers, sizeof for_sanitizers / sizeof *for_sanitizers)
				: add_threads(filter);
	if (ret == 0)
		ret = add_sockets(filter);
	if (ret == 0)
		ret = seccomp_load(filter);
	seccomp_release(filter);
	return ret;
}

#else

int sandbox_enter(void)
{
	return -ENOTSUP;
}

#endif
