/* SPDX-License-Identifier: Apache-2.0 */
/* The files of counters, in a place where everybody can put others of such names. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "bare_device.h"

enum { ROOM = 256 };

struct world {
	struct bare *bare;
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

	snprintf(name, sizeof(name), "%s/%s", top, ports);
	if (ports[0] != '\0')
		assert_int_equal(mkdir(name, 0755), 0);
	snprintf(name, sizeof(name), "%s/%s/1", top, ports);
	assert_int_equal(mkdir(name, 0755), 0);
	snprintf(name, sizeof(name), "%s/%s/1/hw_counters", top, ports);
	assert_int_equal(mkdir(name, 0755), 0);
	snprintf(file, ROOM + 64, "%s/out_of_sequence", name);
	make_file(file);
}

/* Of a process that is no more. */
static int setup(void **state)
{
	struct world *w = calloc(1, sizeof(*w));
	pid_t gone = fork();

	assert_non_null(w);
	if (gone == 0)
		_exit(0);
	assert_int_equal(waitpid(gone, NULL, 0), gone);
	w->bare = bare_new();
	snprintf(w->stale, sizeof(w->stale), "/dev/shm/uroce-counters.%ld.stale0", (long)gone);
	snprintf(w->elsewhere, sizeof(w->elsewhere), "/dev/shm/test_hw_counters.%ld", (long)getpid());
	assert_int_equal(mkdir(w->stale, 0700), 0);
	*state = w;
	return 0;
}

static int remove_all(void **state)
{
	struct world *w = *state;
	char command[3 * ROOM];

	hw_counters_remove(&w->bare->device.hw_counters);
	snprintf(command, sizeof(command), "rm -rf '%s' '%s'", w->stale, w->elsewhere);
	assert_int_equal(system(command), 0);
	bare_free(w->bare);
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
	hw_counters_open(&w->bare->device);
	assert_false(exists(w->stale));
	assert_true(exists(w->bare->device.hw_counters.path));
}

static void link_in_it_does_not_lead_to_the_files_of_others(void **state)
{
	struct world *w = *state;
	char link[ROOM + 64];

	assert_int_equal(mkdir(w->elsewhere, 0700), 0);
	make_tree(w->elsewhere, "", w->file);
	snprintf(link, sizeof(link), "%s/ports", w->stale);
	assert_int_equal(symlink(w->elsewhere, link), 0);
	hw_counters_open(&w->bare->device);
	assert_true(exists(w->file));
}

static void folder_of_another_user_is_left_alone(void **state)
{
	struct world *w = *state;

	if (geteuid() != 0)
		skip();
	make_tree(w->stale, "ports", w->file);
	assert_int_equal(chown(w->stale, 65534, 65534), 0);
	hw_counters_open(&w->bare->device);
	assert_true(exists(w->file));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(what_a_killed_process_has_left_is_removed, setup, remove_all),
		cmocka_unit_test_setup_teardown(link_in_it_does_not_lead_to_the_files_of_others, setup, remove_all),
		cmocka_unit_test_setup_teardown(folder_of_another_user_is_left_alone, setup, remove_all),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
