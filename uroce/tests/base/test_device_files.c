/* SPDX-License-Identifier: Apache-2.0 */
/* The files of counters, in a place where everybody can put others of such names. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "hw_counters.h"

enum { ROOM = 256 };

struct world {
	struct device_files files;
	char stale[ROOM], elsewhere[ROOM], file[ROOM + 64];
};

static void make_file(const char *path)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);

	assert_true(fd >= 0);
	close(fd);
}

/* A folder with this, and below it folders and a file as the counters have them. */
static void make_tree(const char *top, const char *ports, char *file)
{
	char name[ROOM];

	snprintf(name, sizeof name, "%s/%s", top, ports);
	if (ports[0] != '\0')
		assert_int_equal(mkdir(name, 0755), 0);
	snprintf(name, sizeof name, "%s/%s/1", top, ports);
	assert_int_equal(mkdir(name, 0755), 0);
	snprintf(name, sizeof name, "%s/%s/1/hw_counters", top, ports);
	assert_int_equal(mkdir(name, 0755), 0);
	snprintf(file, ROOM + 64, "%s/out_of_sequence", name);
	make_file(file);
}

/* Of a process that is no more. */
static int setup(void **state)
{
	struct world *w = calloc(1, sizeof *w);
	pid_t gone = fork();

	assert_non_null(w);
	if (gone == 0)
		_exit(0);
	assert_int_equal(waitpid(gone, NULL, 0), gone);
	snprintf(w->stale, sizeof w->stale, "/dev/shm/uroce-files.%ld.stale0", (long)gone);
	snprintf(w->elsewhere, sizeof w->elsewhere, "/dev/shm/test_device_files.%ld", (long)getpid());
	assert_int_equal(mkdir(w->stale, 0700), 0);
	*state = w;
	return 0;
}

static int remove_all(void **state)
{
	struct world *w = *state;
	char command[3 * ROOM];

	device_files_remove(&w->files);
	snprintf(command, sizeof command, "rm -rf '%s' '%s'", w->stale, w->elsewhere);
	assert_int_equal(system(command), 0);
	free(w);
	return 0;
}

static bool exists(const char *path)
{
	return access(path, F_OK) == 0;
}

static void what_a_killed_process_has_left_is_removed(void **state)
{
	struct world *w = *state;

	make_tree(w->stale, "ports", w->file);
	device_files_make(&w->files);
	assert_false(exists(w->stale));
	assert_true(exists(w->files.root));
}

static void link_in_it_does_not_lead_to_the_files_of_others(void **state)
{
	struct world *w = *state;
	char link[ROOM + 64];

	assert_int_equal(mkdir(w->elsewhere, 0700), 0);
	make_tree(w->elsewhere, "", w->file);
	snprintf(link, sizeof link, "%s/ports", w->stale);
	assert_int_equal(symlink(w->elsewhere, link), 0);
	device_files_make(&w->files);
	assert_true(exists(w->file));
}

/* In another namespace of processes, its number is nobody's, or another's. */
static void tree_of_a_process_that_lives_elsewhere_is_left_alone(void **state)
{
	struct world *w = *state;

	make_tree(w->stale, "ports", w->file);
	int fd = open(w->stale, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	assert_int_equal(flock(fd, LOCK_SH), 0);
	device_files_make(&w->files);
	assert_true(exists(w->file));
	close(fd);
}

static void tree_outlives_a_child_and_the_making_of_others(void **state)
{
	struct world *w = *state;
	int status;

	device_files_make(&w->files);
	pid_t child = fork();
	if (child == 0) {
		struct device_files other;
		device_files_abandon(&w->files);
		device_files_make(&other);
		bool both = exists(w->files.root) && exists(other.root);
		device_files_remove(&other);
		_exit(both ? 0 : 1);
	}
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
	assert_true(exists(w->files.root));
}

static void folder_of_another_user_is_left_alone(void **state)
{
	struct world *w = *state;

	if (geteuid() != 0)
		skip();
	make_tree(w->stale, "ports", w->file);
	assert_int_equal(chown(w->stale, 65534, 65534), 0);
	device_files_make(&w->files);
	assert_true(exists(w->file));
}

/* What a file in the tree says. */
static void assert_says(const struct world *w, const char *path, const char *text)
{
	char name[2 * ROOM], said[64] = "";

	snprintf(name, sizeof name, "%s%s", w->files.root, path);
	int fd = open(name, O_RDONLY | O_CLOEXEC);
	assert_true(fd >= 0);
	assert_true(read(fd, said, sizeof said - 1) >= 0);
	close(fd);
	assert_string_equal(said, text);
}

static void file_is_written_below_folders_that_were_not_there(void **state)
{
	struct world *w = *state;

	device_files_make(&w->files);
	assert_true(device_files_write(&w->files, "/a/b/c", "text\n"));
	assert_says(w, "/a/b/c", "text\n");
	assert_true(device_files_folder(&w->files, "/a/d/e"));
	assert_true(device_files_link(&w->files, "/a/f/link", "/dev/null"));
	assert_says(w, "/a/f/link", "");
	device_files_remove(&w->files);
	assert_int_equal(w->files.root[0], '\0');
}

static void path_that_is_too_long_is_refused(void **state)
{
	struct world *w = *state;
	char path[DEVICE_FILES_PATH + 1];

	memset(path, 'x', sizeof path - 1);
	path[0] = '/';
	path[sizeof path - 1] = '\0';
	device_files_make(&w->files);
	assert_false(device_files_write(&w->files, path, ""));
	assert_int_equal(errno, ENAMETOOLONG);
}

static void counters_are_shown_when_asked_for_and_those_of_the_thread_by_themselves(void **state)
{
	static struct counters counters;
	struct world *w = *state;
	struct hw_counters own;

	device_files_make(&w->files);
	assert_true(hw_counters_open(&own, &w->files, "/port", &counters));
	counter_add(&counters.tx_bytes, 4000);
	counter_add(&counters.duplicates, 7);
	assert_says(w, "/port/counters/port_xmit_data", "0\n");
	hw_counters_refresh(&w->files, "/port", "/port/counters/port_xmit_data", &counters);
	assert_says(w, "/port/counters/port_xmit_data", "1000\n");
	hw_counters_refresh(&w->files, "/port", "/porter", &counters);
	assert_says(w, "/port/hw_counters/duplicate_request", "0\n");
	hw_counters_publish(&own, &counters, 5);
	assert_says(w, "/port/hw_counters/duplicate_request", "7\n");
	assert_int_equal(own.next, 5 + HW_COUNTERS_NS);
	hw_counters_close(&own);
	assert_true(own.next == UINT64_MAX);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(what_a_killed_process_has_left_is_removed, setup, remove_all),
		cmocka_unit_test_setup_teardown(link_in_it_does_not_lead_to_the_files_of_others, setup, remove_all),
		cmocka_unit_test_setup_teardown(tree_of_a_process_that_lives_elsewhere_is_left_alone, setup, remove_all),
		cmocka_unit_test_setup_teardown(tree_outlives_a_child_and_the_making_of_others, setup, remove_all),
		cmocka_unit_test_setup_teardown(folder_of_another_user_is_left_alone, setup, remove_all),
		cmocka_unit_test_setup_teardown(file_is_written_below_folders_that_were_not_there, setup, remove_all),
		cmocka_unit_test_setup_teardown(path_that_is_too_long_is_refused, setup, remove_all),
		cmocka_unit_test_setup_teardown(counters_are_shown_when_asked_for_and_those_of_the_thread_by_themselves, setup, remove_all),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
