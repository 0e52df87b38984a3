/* SPDX-License-Identifier: Apache-2.0 */
/* Where a server that offers files may write, in a process of its own, because no process can leave the sandbox. */
#include "test.h"

#include "folder.h"

#include "cli.h"
#include "control_client.h"
#include "serve.h"

#include <fcntl.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>

/* The command's, which the sandbox needs. */
void cli_log_event(enum srdma_log_level level, const char *event, const char *format, ...)
{
}

char *control_path_of_server(const struct settings *settings)
{
	char *path = NULL;

	return asprintf(&path, "%s/run/control", folder_path) < 0 ? NULL : path;
}

static int make(const char *path)
{
	int fd = open(path, O_WRONLY | O_CREAT, 0600);

	if (fd < 0)
		return errno;
	close(fd);
	return 0;
}

/* As root, or on Linux 6.10 and later; others may not do it at all, which errno ENOENT says. */
static bool can_name_a_file(const char *folder)
{
	int at = open(folder, O_RDONLY | O_DIRECTORY), fd = openat(at, ".", O_WRONLY | O_TMPFILE, 0600);
	bool can = linkat(fd, "", at, "named", AT_EMPTY_PATH) == 0 || errno == ENOENT;

	close(fd);
	close(at);
	return can;
}

/* What is 0 where it is right: a number for each thing that is not. */
static int try_all(const struct settings *settings)
{
	prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
	if (sandbox_limit_files(settings) != 0)
		return 1;
	if (make("all/new") != 0 || make("alice/new") != 0 || make("run/control") != 0 || mkdir("all/d", 0700) != 0 || symlink("x", "all/l") != 0)
		return 2;
	if (rename("all/new", "all/other") != 0 || unlink("all/other") != 0)
		return 3;
	if (make("new") != EACCES || make("old") != EACCES || unlink("old") == 0 || mkdir("d", 0700) == 0 || symlink("x", "l") == 0 || truncate("old", 0) == 0)
		return 4;
	if (mknod("all/device", S_IFCHR | 0600, 0x103) == 0 || mkfifo("all/fifo", 0600) == 0)
		return 5;
	if (!can_name_a_file("all") || can_name_a_file("run/.."))
		return 7;
	return access("old", R_OK) == 0 && open("old", O_RDONLY) >= 0 ? 0 : 6;
}

TEST(a_server_with_files_writes_where_it_offers_them_and_nowhere_else)
{
	struct identity alice = {.name = "alice"};
	struct settings settings = {.identities = {.items = &alice, .count = 1}};
	char all[128], hers[128];
	int status;
	pid_t child;

	if (syscall(444, NULL, 0, 1) < 3)
		skip(); /* the kernel has no Landlock, or an old one */
	write_text("old", "old");
	mkdir("all", 0700);
	mkdir("alice", 0700);
	mkdir("run", 0700);
	snprintf(all, sizeof all, "%s/all", folder_path);
	snprintf(hers, sizeof hers, "%s/alice", folder_path);
	settings.files_directory = all;
	alice.files_directory = hers;
	child = fork();
	assert_true(child >= 0);
	if (child == 0)
		_exit(try_all(&settings));
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 0);
}

RUN_TESTS_EACH(enter_folder, leave_folder)
