/* SPDX-License-Identifier: Apache-2.0 */
/* Messages to other processes of the host: what the kernel says about them, and what it means. */
#include "check.h"

#include <errno.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "gsi_name.h"
#include "gsi_parts.h"

static struct gsi gsi;
static struct sockaddr_un name;
static socklen_t length;
static int receiver = -1;

static int begin(void **state)
{
	(void)state;
	gsi = (struct gsi){.out_fd = -1};
	name = (struct sockaddr_un){.sun_family = AF_UNIX};
	receiver = gsi_open_socket();
	length = sizeof name;
	/* The kernel chooses a name that nobody has. */
	return bind(receiver, (const struct sockaddr *)&name, offsetof(struct sockaddr_un, sun_path)) != 0 ||
	       getsockname(receiver, (struct sockaddr *)&name, &length) != 0;
}

static int end(void **state)
{
	(void)state;
	close(receiver);
	close(gsi.out_fd);
	return 0;
}

static int try_one(void)
{
	static const struct gsi_note note;

	return gsi_try_notes(&gsi, &note, 1, &name, length);
}

static void names_of_nobody_are_told(void **state)
{
	(void)state;
	assert_int_equal(try_one(), 0);
	close(receiver);
	receiver = -1;
	assert_int_equal(try_one(), -ECONNREFUSED);
}

static void a_full_receiver_may_take_more_later(void **state)
{
	(void)state;
	struct gsi_note note;
	int error = 0;

	for (unsigned i = 0; error == 0; i++) {
		assert_true(i < 100000);
		error = try_one();
	}
	assert_int_equal(error, -EAGAIN);
	assert_int_equal(recv(receiver, &note, sizeof note, 0), sizeof note);
	assert_int_equal(try_one(), 0);
}

static void a_lack_of_descriptors_passes(void **state)
{
	(void)state;
	struct rlimit was;

	assert_int_equal(getrlimit(RLIMIT_NOFILE, &was), 0);
	const struct rlimit none = {.rlim_cur = 0, .rlim_max = was.rlim_max};
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0);
	int error = try_one();
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &was), 0);
	assert_int_equal(error, -EAGAIN); /* and not that nobody has the name */
	assert_int_equal(try_one(), 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, begin, end)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(names_of_nobody_are_told),
		TEST(a_full_receiver_may_take_more_later),
		TEST(a_lack_of_descriptors_passes),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
