/* SPDX-License-Identifier: Apache-2.0 */
/* The device's files as mounts, for programs that ask the kernel itself (those in Go, or without a dynamic linker) and meet no library's
 * functions. The command gets a mount namespace of its own, and in it copies of the files that liburoce.so shows. Whoever may not
 * mount needs a user namespace too, in which setuid programs have no effect. So this is done only when it is asked for. */
#include "cli.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/capability.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "device_files.h"
#include "hw_counters.h"

#define PORT "/sys/class/infiniband/uroce0/ports/1"

/* Each lies in the folder of the same index. */
static const char *const shown[] = {"/sys/class/infiniband", "/sys/class/infiniband_verbs", "/dev/infiniband"};

enum { SHOWN = sizeof shown / sizeof shown[0], DEEPEST = 12 };

static bool join(char out[PATH_MAX], const char *folder, const char *name)
{
	return snprintf(out, PATH_MAX, "%s/%s", folder, name) < PATH_MAX;
}

/* ---- copying, in a process that has the library ---- */

static bool copy_text(const char *from, const char *to)
{
	char text[4096];
	int in = open(from, O_RDONLY | O_CLOEXEC), out = open(to, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
	ssize_t length = in < 0 ? -1 : read(in, text, sizeof text);
	bool copied = out >= 0 && length >= 0 && write(out, text, (size_t)length) == length;

	if (in >= 0)
		close(in);
	if (out >= 0)
		close(out);
	return copied;
}

static bool copy_link(const char *from, const char *to)
{
	char target[PATH_MAX];
	ssize_t length = readlink(from, target, sizeof target - 1);

	if (length < 0)
		return false;
	target[length] = '\0';
	return symlink(target, to) == 0;
}

/* Of a node there is only the name: what it is will be mounted on it. */
static bool copy_node(const char *to)
{
	int fd = open(to, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
	return fd >= 0 && close(fd) == 0;
}

static bool copy(const char *from, const char *to, int depth);

static bool copy_folder(const char *from, const char *to, int depth)
{
	DIR *folder = depth < DEEPEST && mkdir(to, 0755) == 0 ? opendir(from) : NULL;
	bool copied = folder;
	struct dirent *entry;

	while (copied && (entry = readdir(folder))) {
		char source[PATH_MAX], target[PATH_MAX];
		if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
			copied = join(source, from, entry->d_name) && join(target, to, entry->d_name) && copy(source, target, depth + 1);
	}
	if (folder)
		closedir(folder);
	return copied;
}

static bool copy(const char *from, const char *to, int depth)
{
	struct stat st;

	if (lstat(from, &st) != 0)
		return false;
	if (S_ISDIR(st.st_mode))
		return copy_folder(from, to, depth);
	if (S_ISLNK(st.st_mode))
		return copy_link(from, to); /* the kernel's devices lead into /sys/devices */
	return S_ISREG(st.st_mode) ? copy_text(from, to) : copy_node(to);
}

int mount_copy(const char *folder)
{
	for (int i = 0; i < SHOWN; i++) {
		char name[16], target[PATH_MAX];
		snprintf(name, sizeof name, "%d", i);
		if (!join(target, folder, name) || !copy(shown[i], target, 0))
			return errno ? errno : EIO;
	}
	return 0;
}

static int copy_in_child(const char *folder)
{
	char self[] = "/proc/self/exe", option[] = "--copy-files", *argv[] = {self, option, strdup(folder), NULL};
	int status = 0;
	pid_t child = argv[2] ? fork() : -1;

	if (child == 0) {
		unsetenv("UROCE_CAPTURE"); /* of the command's processes */
		execv(self, argv);
		_exit(errno);
	}
	int error = errno;
	free(argv[2]);
	if (child < 0)
		return error;
	while (waitpid(child, &status, 0) < 0 && errno == EINTR)
		;
	return WIFEXITED(status) ? WEXITSTATUS(status) : EIO;
}

/* ---- mounting ---- */

static bool write_file(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);
	bool written = fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text);
	int error = errno;

	if (fd >= 0)
		close(fd);
	errno = error;
	return written;
}

/* Whoever may mount stays in its user namespace. Others keep their numbers in a new one, which has no others. */
static bool enter(void)
{
	char users[64], groups[64];

	if (unshare(CLONE_NEWNS) == 0)
		return true;
	snprintf(users, sizeof users, "%u %u 1\n", (unsigned)geteuid(), (unsigned)geteuid());
	snprintf(groups, sizeof groups, "%u %u 1\n", (unsigned)getegid(), (unsigned)getegid());
	return unshare(CLONE_NEWUSER | CLONE_NEWNS) == 0 && write_file("/proc/self/uid_map", users) &&
	       write_file("/proc/self/setgroups", "deny") && write_file("/proc/self/gid_map", groups);
}

static bool is_there(const char *path)
{
	struct stat st;
	return lstat(path, &st) == 0;
}

static bool bind(const char *from, const char *to)
{
	return mount(from, to, NULL, MS_BIND | MS_REC, NULL) == 0;
}

/* The same entry in a folder that stands for the one of `from`. What has just gone is left out. */
static bool stand_for(const char *from, const char *to)
{
	struct stat st;

	if (lstat(from, &st) != 0)
		return errno == ENOENT;
	if (S_ISLNK(st.st_mode))
		return copy_link(from, to);
	if (S_ISDIR(st.st_mode) ? mkdir(to, 0755) != 0 : !copy_node(to))
		return false;
	return bind(from, to) || errno == ENOENT;
}

/* Covers a folder, in which only the kernel can make others, with one that has the same entries and an empty one for `path`. */
static bool make_place(const char *work, const char *path, int index)
{
	char parent[PATH_MAX], cover[PATH_MAX], name[16];
	struct dirent *entry;

	strcpy(parent, path);
	*strrchr(parent, '/') = '\0';
	snprintf(name, sizeof name, "cover%d", index);
	DIR *folder = join(cover, work, name) && mkdir(cover, 0755) == 0 ? opendir(parent) : NULL;
	bool made = folder;
	while (made && (entry = readdir(folder))) {
		char from[PATH_MAX], to[PATH_MAX];
		if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
			made = join(from, parent, entry->d_name) && join(to, cover, entry->d_name) && stand_for(from, to);
	}
	if (folder)
		closedir(folder);
	char place[PATH_MAX];
	return made && join(place, cover, strrchr(path, '/') + 1) && mkdir(place, 0755) == 0 && bind(cover, parent);
}

/* The kernel's nodes stay what they are; behind uroce0's there is nothing to talk to. */
static bool mount_nodes(const char *copied)
{
	DIR *folder = opendir(copied);
	bool done = folder;
	struct dirent *entry;

	while (done && (entry = readdir(folder))) {
		char node[PATH_MAX], kernel[PATH_MAX];
		if (entry->d_type != DT_REG)
			continue;
		done = join(node, copied, entry->d_name) && join(kernel, shown[SHOWN - 1], entry->d_name) &&
		       bind(is_there(kernel) ? kernel : "/dev/null", node);
	}
	if (folder)
		closedir(folder);
	return done;
}

static int fill(const char *work)
{
	int error = copy_in_child(work);

	for (int i = 0; i < SHOWN && !error; i++) {
		char name[16], copied[PATH_MAX];
		snprintf(name, sizeof name, "%d", i);
		bool done = join(copied, work, name) && (i < SHOWN - 1 || mount_nodes(copied)) &&
			    (is_there(shown[i]) || make_place(work, shown[i], i)) && bind(copied, shown[i]);
		if (!done)
			error = errno ? errno : EIO;
	}
	return error;
}

/* 0, or why not: then this process may be left with a part. */
static int show(void)
{
	char work[] = "/tmp/uroce-mount.XXXXXX";
	int error = 0;

	if (!enter() || mount(NULL, "/", NULL, MS_REC | MS_SLAVE, NULL) != 0 || !mkdtemp(work))
		return errno;
	if (mount("uroce", work, "tmpfs", 0, "mode=0755,size=8m") == 0) {
		error = fill(work);
		umount2(work, MNT_DETACH); /* what is mounted elsewhere remains there */
	} else {
		error = errno;
	}
	rmdir(work);
	return error;
}

/* What a user namespace gave for mounting: as long as this process has it, its children, which have not, can't read its folder in
 * /proc, where they find the counters. */
static void be_ordinary(void)
{
	struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
	const struct __user_cap_data_struct none[_LINUX_CAPABILITY_U32S_3] = {0};

	if (geteuid() == 0)
		return;
	syscall(SYS_capset, &header, none);
	prctl(PR_SET_DUMPABLE, 1);
}

bool mount_files(void)
{
	int status = 0, error;
	/* Who has entered a user namespace can't go back, so another process tries it first. */
	pid_t trial = fork();

	if (trial == 0)
		_exit(show());
	if (trial < 0) {
		error = errno;
	} else {
		while (waitpid(trial, &status, 0) < 0 && errno == EINTR)
			;
		error = !WIFEXITED(status) ? EIO : WEXITSTATUS(status) ? WEXITSTATUS(status) : show();
	}
	if (error)
		fail(0,
		     "--mount: cannot mount the device's files: %s. The command runs without: programs that make system calls "
		     "themselves will see no files of the device",
		     strerror(error));
	else
		be_ordinary();
	return !error;
}

void mount_refresh(const struct counters *counters)
{
	const struct device_files files = {.root = ""};
	hw_counters_show(&files, PORT, counters);
}
