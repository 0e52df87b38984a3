/* SPDX-License-Identifier: Apache-2.0 */
/* Which paths a pattern is for. */
#include "test.h"

#include "exclude.h"
#include "report.h"

static bool matches(const char *pattern, const char *path, bool is_folder)
{
	struct files_excludes excludes = {.count = 0};
	const struct files_bytes bytes = files_text(pattern);
	bool is;

	assert_int_equal(files_excludes_add(&excludes, &bytes), 0);
	is = files_excludes_match(&excludes, path, is_folder);
	files_excludes_clear(&excludes);
	return is;
}

TEST(patterns_are_for_the_paths_that_rsync_would_take)
{
	static const struct {
		const char *pattern, *path;
		bool is_folder, is;
	} rows[] = {
		/* Without a slash: the name, anywhere. */
		{"*.o", "a/b/c.o", false, true},
		{"*.o", "c.o", false, true},
		{"*.o", "c.oo", false, false},
		{"*.o", "x.o/c", false, false},
		{"core", "a/core", false, true},
		{"core", "a/score", false, false},
		{"*", "a/b", false, true},
		{"a*b*c", "aXbYbZc", false, true},
		{"a*b*c", "aXbYbZ", false, false},
		{"?", "x", false, true},
		{"?", "xy", false, false},
		{"\xff*", "a/\xff\n", false, true},
		/* At the end a slash: folders alone. */
		{"tmp/", "a/tmp", true, true},
		{"tmp/", "a/tmp", false, false},
		{"/a/tmp/", "a/tmp", true, true},
		/* In front: the whole path. */
		{"/a/*.o", "a/c.o", false, true},
		{"/a/*.o", "x/a/c.o", false, false},
		{"/a/*.o", "a/b/c.o", false, false},
		{"/a", "a/a", false, false},
		/* Elsewhere: the end of the path, by whole names. */
		{"a/*.o", "x/a/c.o", false, true},
		{"a/*.o", "xa/c.o", false, false},
		{"a/b", "a/b/c", false, false},
		/* Two stars cross slashes. */
		{"/a/**/z", "a/b/c/z", false, true},
		{"/a/**", "a/b/c", false, true},
		{"/**.o", "a/b/c.o", false, true},
		{"/a**b*c", "aX/Yb/ZbQc", false, true},
		{"/a**b*c", "aX/Yb/Zc/", false, false},
		/* Sets. */
		{"[a-c]x", "bx", false, true},
		{"[a-c]x", "dx", false, false},
		{"[!a-c]x", "dx", false, true},
		{"[]]x", "]x", false, true},
		{"[^/]x", "a/x", false, false},
		{"/a[!b]c", "a/c", false, false},
		{"[", "[", false, true},
		{"[a", "[a", false, true},
		{"\\*", "*", false, true},
		{"\\*", "x", false, false},
		{"x\\", "x\\", false, true},
	};

	for (size_t i = 0; i < COUNT(rows); i++)
		if (matches(rows[i].pattern, rows[i].path, rows[i].is_folder) != rows[i].is)
			fail_msg("'%s' and '%s': %d is wrong", rows[i].pattern, rows[i].path, !rows[i].is);
}

/* A peer chooses the pattern, and the names. */
TEST(no_pattern_takes_long)
{
	char pattern[1001], path[4001];

	for (size_t i = 0; i < 1000; i++)
		pattern[i] = i % 2 ? 'a' : '*';
	pattern[1000] = '\0';
	memset(path, 'a', 4000);
	path[3999] = 'b';
	path[4000] = '\0';
	for (int i = 0; i < 100; i++)
		assert_false(matches(pattern, path, false));
	for (size_t i = 0; i < 1000; i++)
		pattern[i] = i % 3 == 2 ? 'a' : '*';
	pattern[0] = '/';
	pattern[999] = '\0'; /* it ends with what the path does not */
	for (size_t i = 100; i < 3999; i += 100)
		path[i] = '/';
	for (int i = 0; i < 10; i++)
		assert_false(matches(pattern, path, false));
}

TEST(bad_patterns_and_too_many_are_errors)
{
	struct files_excludes excludes = {.count = 0};
	char longest[1026];
	struct files_bytes bytes = files_text("");

	assert_int_equal(files_excludes_add(&excludes, &bytes), -EINVAL);
	bytes = files_text("/");
	assert_int_equal(files_excludes_add(&excludes, &bytes), -EINVAL);
	memset(longest, 'x', sizeof longest - 1);
	longest[sizeof longest - 1] = '\0';
	bytes = files_text(longest);
	assert_int_equal(files_excludes_add(&excludes, &bytes), -EINVAL);
	bytes.length--;
	for (size_t i = 0; i < FILES_EXCLUDES_MAX; i++)
		assert_int_equal(files_excludes_add(&excludes, &bytes), 0);
	assert_int_equal(files_excludes_add(&excludes, &bytes), -E2BIG);
	files_excludes_clear(&excludes);
	assert_false(files_excludes_match(&excludes, "x", false));
	assert_false(files_excludes_match(NULL, "x", false));
}

RUN_TESTS(NULL, NULL)
