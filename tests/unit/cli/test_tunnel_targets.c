/* SPDX-License-Identifier: Apache-2.0 */
/* The targets of a server's tunnels, and the lists of who may use which. */
#include "test.h"

#include "tunnel_targets.h"

static char problem[256];

static bool add(struct tunnel_targets *targets, const char *name, const char *address)
{
	return tunnel_targets_add(targets, name, address, problem, sizeof problem);
}

TEST(names_and_addresses_are_checked)
{
	static const char *const good[] = {"h:1", "db.example:5432", "127.0.0.1:65535", "[::1]:80", "[fe80::1]:9"};
	static const char *const bad[] = {"", "h", "h:", ":1", "h:0", "h:65536", "h:123456", "h:x", "::1:80", "[::1]", "[::1:80", "[]:80", "h:-1", "h: 1"};
	struct tunnel_targets targets = {0};
	char name[80];

	for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
		snprintf(name, sizeof name, "good-%zu", i);
		assert_true(add(&targets, name, good[i]));
	}
	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
		assert_false(add(&targets, "bad", bad[i]));
	assert_text_says(problem, "HOST:PORT");
	assert_false(add(&targets, "good-0", "h:1"));
	assert_text_says(problem, "exists already");
	assert_false(add(&targets, "", "h:1"));
	assert_false(add(&targets, "a b", "h:1"));
	assert_false(add(&targets, "a,b", "h:1"));
	assert_false(add(&targets, "*", "h:1"));
	memset(name, 'n', TUNNEL_NAME_MAX + 1);
	name[TUNNEL_NAME_MAX + 1] = '\0';
	assert_false(add(&targets, name, "h:1"));
	name[TUNNEL_NAME_MAX] = '\0';
	assert_true(add(&targets, name, "h:1"));
	assert_non_null(tunnel_targets_find(&targets, name));
	assert_null(tunnel_targets_find(&targets, "bad"));
	tunnel_targets_free(&targets);
}

TEST(addresses_are_looked_up_again)
{
	struct tunnel_targets targets = {0};

	assert_true(add(&targets, "a", "127.0.0.1:80"));
	assert_true(tunnel_targets_resolve(&targets, problem, sizeof problem));
	assert_true(tunnel_targets_resolve(&targets, problem, sizeof problem));
	assert_int_equal(tunnel_targets_find(&targets, "a")->found->ai_family, AF_INET);
	assert_true(add(&targets, "b", "nowhere.invalid:80"));
	assert_false(tunnel_targets_resolve(&targets, problem, sizeof problem));
	assert_text_says(problem, "nowhere.invalid:80 of the target 'b'");
	tunnel_targets_free(&targets);
}

TEST(list_has_whole_names_alone)
{
	assert_true(tunnel_list_has("pg", "pg"));
	assert_true(tunnel_list_has("web, pg ,x", "pg"));
	assert_true(tunnel_list_has("*", "pg"));
	assert_true(tunnel_list_has("web,*", "pg"));
	assert_false(tunnel_list_has(NULL, "pg"));
	assert_false(tunnel_list_has("", "pg"));
	assert_false(tunnel_list_has("pg2,p", "pg"));
	assert_false(tunnel_list_has("pg*", "pg"));
	assert_false(tunnel_list_has("none", "pg"));
	assert_false(tunnel_list_has(",,", ""));
}

RUN_TESTS(NULL, NULL)
