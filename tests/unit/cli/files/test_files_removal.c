/* SPDX-License-Identifier: Apache-2.0 */
/* What a copy removes from its target: what the sender does not have, and partial files that were given up. */
#include "test.h"

#include "folder.h"

#include "deletion.h"
#include "report.h"
#include "stale.h"
#include "target.h"

#include <fcntl.h>
#include <sys/file.h>
#include <time.h>

#define DAY 86400

static char told[1024];

static int tell(void *arg, const char *path, int error)
{
	size_t used = strlen(told);

	snprintf(told + used, sizeof told - used, "%s%s ", path, error < 0 ? "!" : "");
	return 0;
}

static struct files_deletion *new_deletion(const struct files_excludes *excludes, bool dry_run)
{
	const struct files_deletion_options options = {.excludes = excludes, .dry_run = dry_run, .deleted = tell};
	struct files_deletion *deletion;

	told[0] = '\0';
	assert_int_equal(files_deletion_new(&options, &deletion), 0);
	return deletion;
}

static void keep(struct files_deletion *deletion, const char *path, bool is_folder)
{
	const struct files_bytes bytes = files_text(path);

	assert_int_equal(files_deletion_keep(deletion, &bytes, is_folder), 0);
}

static void leave(struct files_deletion *deletion, const char *path)
{
	const struct files_bytes bytes = files_text(path);
	char full[64];
	int fd;

	snprintf(full, sizeof full, "t/%s", path);
	fd = open(full, O_RDONLY | O_DIRECTORY);
	assert_true(fd >= 0);
	assert_int_equal(files_deletion_leave(deletion, &bytes, fd), 0);
	close(fd);
}

static bool exists(const char *path)
{
	struct stat status;

	return lstat(path, &status) == 0;
}

TEST(what_the_sender_does_not_have_goes_and_the_rest_stays)
{
	struct files_deletion *deletion = new_deletion(NULL, false);

	write_text("t/d/kept", "");
	write_text("t/d/gone", "");
	write_text("t/d/sub/x/y", "");
	write_text("t/other/kept", "");
	write_text("t/beside", "");
	keep(deletion, "d", true);
	keep(deletion, "d/kept", false);
	keep(deletion, "other", true); /* before the folder before it is left, as senders announce */
	keep(deletion, "other/kept", false);
	leave(deletion, "d");
	leave(deletion, "other");
	assert_true(exists("t/d/kept") && exists("t/other/kept") && exists("t/beside"));
	assert_false(exists("t/d/gone") || exists("t/d/sub"));
	assert_text_says(told, "d/sub/x/y d/sub/x d/sub ");
	/* The target's own content, which no frame begins. */
	leave(deletion, "");
	assert_false(exists("t/beside"));
	assert_true(exists("t/d") && exists("t/other"));
	files_deletion_free(&deletion);
}

TEST(a_folder_that_nobody_announced_is_not_touched)
{
	struct files_deletion *deletion = new_deletion(NULL, false);

	write_text("t/d/x", "");
	leave(deletion, "d");
	assert_true(exists("t/d/x"));
	files_deletion_free(&deletion);
}

TEST(no_link_is_followed)
{
	struct files_deletion *deletion = new_deletion(NULL, false);

	write_text("outside/x", "");
	write_text("t/d/kept", "");
	assert_int_equal(symlink("../../outside", "t/d/link"), 0);
	keep(deletion, "d", true);
	keep(deletion, "d/kept", false);
	leave(deletion, "d");
	assert_false(exists("t/d/link"));
	assert_true(exists("outside/x"));
	files_deletion_free(&deletion);
}

TEST(what_is_excluded_stays_with_the_folders_above_it)
{
	struct files_excludes excludes = {.count = 0};
	const struct files_bytes pattern = files_text("*.log");
	struct files_deletion *deletion;

	assert_int_equal(files_excludes_add(&excludes, &pattern), 0);
	deletion = new_deletion(&excludes, false);
	write_text("t/d/a.log", "");
	write_text("t/d/sub/b.log", "");
	write_text("t/d/sub/gone", "");
	keep(deletion, "d", true);
	leave(deletion, "d");
	assert_true(exists("t/d/a.log") && exists("t/d/sub/b.log"));
	assert_false(exists("t/d/sub/gone"));
	assert_string_equal(told, "d/sub/gone ");
	files_deletion_free(&deletion);
	files_excludes_clear(&excludes);
}

TEST(a_dry_run_only_tells)
{
	struct files_deletion *deletion = new_deletion(NULL, true);

	write_text("t/d/sub/x", "");
	keep(deletion, "d", true);
	leave(deletion, "d");
	assert_true(exists("t/d/sub/x"));
	assert_string_equal(told, "d/sub/x d/sub ");
	files_deletion_free(&deletion);
}

TEST(a_sender_that_could_not_read_everything_deletes_nothing_more)
{
	struct files_deletion *deletion = new_deletion(NULL, false);

	write_text("t/d/x", "");
	write_text("t/e/x", "");
	keep(deletion, "d", true);
	leave(deletion, "d");
	keep(deletion, "e", true);
	files_deletion_stop(deletion);
	keep(deletion, "f", true);
	leave(deletion, "e");
	leave(deletion, "");
	assert_true(exists("t/e/x") && exists("t/d"));
	assert_false(exists("t/d/x"));
	assert_true(files_deletion_has_stopped(deletion));
	files_deletion_free(&deletion);
}

static void make_partial(const char *path, long age)
{
	const struct timespec times[2] = {{.tv_nsec = UTIME_OMIT}, {.tv_sec = time(NULL) - age}};

	write_text(path, "part");
	assert_int_equal(utimensat(AT_FDCWD, path, times, 0), 0);
}

TEST(partial_files_go_when_they_are_old_and_nobody_has_them)
{
	int folder, used;

	make_partial("t/.securdma-part-old", 8 * DAY);
	make_partial("t/.securdma-part-young", 6 * DAY);
	make_partial("t/.securdma-part-used", 8 * DAY);
	make_partial("t/old", 8 * DAY);
	used = open("t/.securdma-part-used", O_RDWR);
	assert_int_equal(flock(used, LOCK_EX), 0);
	folder = open("t", O_RDONLY | O_DIRECTORY);
	files_stale_sweep(folder, 0, NULL);
	assert_true(exists("t/.securdma-part-old"));
	files_stale_sweep(folder, 7, NULL);
	assert_false(exists("t/.securdma-part-old"));
	assert_true(exists("t/.securdma-part-young") && exists("t/.securdma-part-used") && exists("t/old"));
	close(used);
	files_stale_sweep(folder, 7, NULL);
	assert_false(exists("t/.securdma-part-used"));
	close(folder);
}

static int stay_alive(void *arg)
{
	return 0;
}

TEST(a_count_for_the_quota_gives_the_room_of_old_partial_files_back)
{
	struct files_account *account = NULL;
	struct stat status;
	uint64_t quota; /* the folder, and one empty entry in it */
	int folder;

	make_partial("t/sub/.securdma-part-old", 8 * DAY);
	folder = open("t/sub", O_RDONLY | O_DIRECTORY);
	assert_int_equal(fstat(folder, &status), 0);
	quota = files_account_cost(&status) + FILES_ENTRY_COST;
	assert_int_equal(files_account_open(folder, 0, stay_alive, NULL, &account), 0);
	assert_int_equal(files_account_take(account, quota, FILES_ENTRY_COST), -EDQUOT);
	files_account_close(&account);
	assert_int_equal(files_account_open(folder, 7, stay_alive, NULL, &account), 0);
	assert_int_equal(files_account_take(account, quota, FILES_ENTRY_COST), 0);
	files_account_close(&account);
	assert_false(exists("t/sub/.securdma-part-old"));
	close(folder);
}

RUN_TESTS_EACH(enter_folder, leave_folder)
