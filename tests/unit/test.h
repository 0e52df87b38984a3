/* SPDX-License-Identifier: Apache-2.0 */
/* cmocka, with tests that add themselves to their program: TEST(name) { ... }, then RUN_TESTS(before_all, after_all). A test that needs a
 * fixture names it: TEST(name, .setup_func = make_files). Include this first. */
#ifndef TEST_H
#define TEST_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A test, a fixture or a stand-in need not use all that it is given. */
#pragma GCC diagnostic ignored "-Wunused-parameter"
/* The stand-ins that are linked with --wrap are called from elsewhere. */
#pragma GCC diagnostic ignored "-Wmissing-prototypes"

/* A row of a table may be a good value of which some members are given once more. */
#pragma GCC diagnostic ignored "-Woverride-init"

/* cmocka 2's name for what cmocka 1 calls assert_in_range, which version 2 deprecates. */
#ifndef assert_uint_in_range
#define assert_uint_in_range(value, minimum, maximum) assert_in_range(value, minimum, maximum)
#endif

static inline void assert_text_says(const char *text, const char *words)
{
	if (!text || !strstr(text, words))
		fail_msg("'%s' does not say '%s'", text ? text : "", words);
}

/* The last error of the library, of which the test includes a header. */
#define assert_error_says(words) assert_text_says(srdma_error_text(), words)

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

/* cmocka skips the entries that are empty. */
static struct CMUnitTest tests[64];
static size_t test_count;

static inline void add_test(struct CMUnitTest test)
{
	if (test_count == COUNT(tests)) {
		fputs("too many tests in one program: enlarge tests in test.h\n", stderr);
		abort();
	}
	tests[test_count++] = test;
}

#define TEST(test_name, ...)                                                                                           \
	static void test_name(void **unused);                                                                           \
	__attribute__((constructor)) static void add_##test_name(void)                                                 \
	{                                                                                                              \
		add_test((struct CMUnitTest){.name = #test_name, .test_func = test_name, __VA_ARGS__});                \
	}                                                                                                              \
	static void test_name(void **unused)

#define RUN_TESTS(before_all, after_all)                                                                               \
	int main(void)                                                                                                 \
	{                                                                                                              \
		return cmocka_run_group_tests(tests, before_all, after_all);                                           \
	}

/* With a fixture for each of the file's tests. */
#define RUN_TESTS_EACH(before, after)                                                                                  \
	int main(void)                                                                                                 \
	{                                                                                                              \
		for (size_t i = 0; i < test_count; i++)                                                                \
			tests[i].setup_func = before, tests[i].teardown_func = after;                                  \
		return cmocka_run_group_tests(tests, NULL, NULL);                                                      \
	}

#endif
