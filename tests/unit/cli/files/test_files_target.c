/* SPDX-License-Identifier: Apache-2.0 */
/* Where names and links may lead, and what the walker finds. */
#include "test.h"

#include "folder.h"

#include "target.h"
#include "walk.h"

#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <sys/sysmacros.h>

static struct files_bytes bytes(const char *text)
{
	return (struct files_bytes){(const uint8_t *)text, strlen(text)};
}

static bool is_safe(const char *path)
{
	const struct files_bytes name = bytes(path);

	return files_name_is_safe(&name);
}

TEST(names_that_lead_elsewhere_are_not_safe)
{
	static const char *const bad[] = {"", "/", "/etc", "a/", "a//b", "..", "../a", "a/..", "a/../b", ".", "./a", "a/.", "a/./b",
					  FILES_PARTIAL_PREFIX, "a/" FILES_PARTIAL_PREFIX "x", FILES_PARTIAL_PREFIX "x/y"};
	static const char *const good[] = {"a", "a/b", "...", "..a", "a..", ".a/b.", "\xff\x01\n", "a b"};
	char path[260];

	for (size_t i = 0; i < COUNT(bad); i++)
		assert_false(is_safe(bad[i]));
	for (size_t i = 0; i < COUNT(good); i++)
		assert_true(is_safe(good[i]));
	memset(path, 'x', 255);
	path[255] = '\0';
	assert_true(is_safe(path));
	path[255] = 'x';
	path[256] = '\0';
	assert_false(is_safe(path));
}

static bool stays(const char *at, const char *to)
{
	const struct files_bytes path = bytes(at), link = bytes(to);

	return files_link_stays(&path, &link);
}

TEST(links_that_lead_out_are_known)
{
	assert_true(stays("l", "a"));
	assert_true(stays("a/l", "../b"));
	assert_true(stays("a/b/l", "../../c/./d"));
	assert_false(stays("l", ".."));
	assert_false(stays("l", "/a"));
	assert_false(stays("a/l", "../.."));
	assert_false(stays("a/l", "b/../../../c"));
	assert_false(stays("a/l", ""));
	assert_true(stays("a/b/l", "./.././../c//d/."));
	/* `a` may be a link to the folder itself. */
	assert_false(stays("b/l", "a/../../c"));
	assert_false(stays("b/l", "a/.."));
}

static struct files_target *open_target(const char *path)
{
	struct files_target *target;
	int root = open(path, O_RDONLY | O_DIRECTORY);

	assert_true(root >= 0);
	assert_int_equal(files_target_new(root, true, &target), 0);
	return target;
}

static int try_folder(struct files_target *target, const char *path, bool make)
{
	const struct files_bytes name = bytes(path);
	struct files_folder *folder = NULL;
	unsigned made = 0;
	int ret = files_target_folder(target, &name, make, &folder, &made);

	files_folder_unref(&folder);
	return ret;
}

TEST(a_folder_is_reached_by_names_alone)
{
	struct files_target *target;

	write_text("t/a/file", "x");
	mkdir("outside", 0755);
	assert_int_equal(symlink("../outside", "t/link"), 0);
	assert_int_equal(symlink("a", "t/inside"), 0);
	target = open_target("t");
	assert_int_equal(try_folder(target, "", false), 0);
	assert_int_equal(try_folder(target, "a", false), 0);
	assert_int_equal(try_folder(target, "b/c", false), -ENOENT);
	assert_int_equal(try_folder(target, "b/c", true), 0);
	assert_int_equal(try_folder(target, "a/file", true), -ENOTDIR);
	assert_int_equal(try_folder(target, "link", true), -ENOTDIR);
	assert_int_equal(try_folder(target, "link/x", true), -ENOTDIR);
	assert_int_equal(try_folder(target, "inside", false), -ENOTDIR);
	assert_int_equal(try_folder(target, "..", true), -EINVAL);
	assert_int_equal(try_folder(target, "a/../../outside", true), -EINVAL);
	assert_int_equal(try_folder(target, "/tmp", true), -EINVAL);
	assert_int_not_equal(access("outside/x", F_OK), 0);
	files_target_free(&target);
}

static atomic_bool racing;

/* Exchanges a folder for a link to another one, again and again. */
static void *exchange(void *arg)
{
	(void)arg;
	while (atomic_load(&racing)) {
		rename("t/d", "t/kept");
		if (symlink("../outside", "t/d") != 0)
			break;
		unlink("t/d");
		rename("t/kept", "t/d");
		sched_yield();
	}
	return NULL;
}

TEST(a_link_that_comes_meanwhile_is_not_followed)
{
	struct files_target *target;
	pthread_t thread;
	int reached = 0;

	mkdir("t", 0755);
	mkdir("t/d", 0755);
	mkdir("outside", 0755);
	target = open_target("t");
	atomic_store(&racing, true);
	assert_int_equal(pthread_create(&thread, NULL, exchange, NULL), 0);
	/* At least once the folder was there for long enough, even where one thread runs at a time. */
	for (int i = 0; i < 3000 || (reached == 0 && i < 300000); i++) {
		const struct files_bytes name = bytes(i % 2 ? "d/sub" : "d"), other = bytes("");
		struct files_folder *folder = NULL;
		unsigned made = 0;
		int fd, ret = files_target_folder(target, &name, false, &folder, &made);
		int64_t size;

		if (ret == 0 && files_partial_open(folder, "name", true, &fd, &size) == 0) {
			close(fd);
			unlinkat(folder->fd, "name", 0);
			reached++;
		}
		files_folder_unref(&folder);
		/* The next one is to look again. */
		assert_int_equal(files_target_folder(target, &other, false, &folder, &made), 0);
		files_folder_unref(&folder);
		assert_int_not_equal(access("outside/name", F_OK), 0);
	}
	atomic_store(&racing, false);
	pthread_join(thread, NULL);
	assert_true(reached > 0);
	files_target_free(&target);
}

TEST(a_partial_file_is_a_file_of_its_own_or_none)
{
	struct files_target *target;
	struct files_folder *folder;
	const struct files_bytes root = bytes("");
	struct stat status;
	unsigned made = 0;
	int fd, other;
	int64_t size = 0;

	write_text("t/precious", "data");
	write_text("t/p", "partial");
	target = open_target("t");
	assert_int_equal(files_target_folder(target, &root, false, &folder, &made), 0);
	assert_int_equal(files_partial_open(folder, "none", false, &fd, &size), -ENOENT);
	assert_int_equal(files_partial_open(folder, "p", false, &fd, &size), 0);
	assert_int_equal(size, 7);
	assert_int_equal(files_partial_open(folder, "p", true, &other, &size), -EBUSY);
	close(fd);
	/* Another name of a file that is not the copy's, and a link to it. */
	unlink("t/p");
	assert_int_equal(link("t/precious", "t/p"), 0);
	assert_int_equal(files_partial_open(folder, "p", true, &fd, &size), 0);
	assert_int_equal(size, 0);
	close(fd);
	unlink("t/p");
	assert_int_equal(symlink("precious", "t/p"), 0);
	assert_int_equal(files_partial_open(folder, "p", true, &fd, &size), 0);
	close(fd);
	assert_int_equal(lstat("t/p", &status), 0);
	assert_true(S_ISREG(status.st_mode));
	unlink("t/p");
	/* A device, where the test may make one. */
	if (mknod("t/p", S_IFCHR | 0600, makedev(1, 3)) == 0) {
		assert_int_equal(files_partial_open(folder, "p", true, &fd, &size), 0);
		assert_int_equal(fstat(fd, &status), 0);
		assert_true(S_ISREG(status.st_mode));
		close(fd);
		unlink("t/p");
	}
	mkdir("t/p", 0755);
	assert_true(files_partial_open(folder, "p", true, &fd, &size) < 0);
	assert_int_equal(stat("t/precious", &status), 0);
	assert_int_equal(status.st_size, 4);
	files_folder_unref(&folder);
	files_target_free(&target);
}

/* Everything that the walk finds, as "kind:path". */
static const char *walk(const char *leaf, const char *name, bool follow, bool recursive)
{
	static const char kinds[] = "fdlLxs";
	static char text[262144];
	struct files_walk *walk;
	struct files_found found;
	int parent = open(".", O_RDONLY | O_DIRECTORY);
	size_t used = 0;

	text[0] = '\0';
	assert_int_equal(files_walk_new(parent, leaf, name, follow, recursive, &walk), 0);
	while (files_walk_next(walk, &found) == 1) {
		assert_true(used < sizeof text / 2);
		used += (size_t)snprintf(text + used, sizeof text - used, "%c:%s ", kinds[found.kind], found.path);
		if (found.fd >= 0)
			close(found.fd);
	}
	files_walk_free(&walk);
	close(parent);
	return text;
}

TEST(the_walker_finds_everything_and_follows_only_what_the_user_named)
{
	write_text("w/sub/file", "x");
	write_text("secret", "x");
	assert_int_equal(symlink("../secret", "w/link"), 0);
	assert_int_equal(symlink("w", "top"), 0);
	assert_int_equal(mkfifo("w/sub/fifo", 0600), 0);
	write_text("w/" FILES_PARTIAL_PREFIX "0", "");
	assert_text_says(walk("w", "name", false, true), "d:name ");
	assert_text_says(walk("w", "name", false, true), "f:name/sub/file ");
	assert_text_says(walk("w", "name", false, true), "s:name/sub/fifo ");
	assert_text_says(walk("w", "name", false, true), "l:name/link ");
	assert_text_says(walk("w", "name", false, true), "L:name/sub ");
	assert_text_says(walk("w", "name", false, true), "s:name/" FILES_PARTIAL_PREFIX "0 ");
	assert_string_equal(walk("w", "w", false, false), "x:w ");
	assert_string_equal(walk("missing", "missing", false, true), "x:missing ");
	assert_string_equal(walk("top", "top", false, true), "l:top ");
	assert_text_says(walk("top", "top", true, true), "f:top/sub/file ");
	assert_string_equal(walk("secret", "secret", false, false), "f:secret ");
}

TEST(a_tree_that_is_too_deep_is_said_and_left)
{
	int above = open(".", O_RDONLY | O_DIRECTORY);

	for (int i = 0; i < 210; i++) {
		int below;

		assert_int_equal(mkdirat(above, "d", 0755), 0);
		below = openat(above, "d", O_RDONLY | O_DIRECTORY);
		close(above);
		above = below;
	}
	close(above);
	assert_text_says(walk("d", "d", false, true), "x:d/d");
}

RUN_TESTS_EACH(enter_folder, leave_folder)
