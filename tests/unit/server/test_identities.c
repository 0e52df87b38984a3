/* SPDX-License-Identifier: Apache-2.0 */
#include "test.h"

#include "seal_lane.h"
#include "sealed_ring.h"
#include "queues.h"
#include "identities.h"

#include <unistd.h>

#define MANY 5000

static struct srdma_identity named(const char *name)
{
	struct srdma_identity identity;

	srdma_identity_init(&identity);
	identity.name = name;
	return identity;
}

/* The server's limits. A test sets them with with(); the teardown frees them. */
static struct srdma_server_limits limits;

static int drop(void **state)
{
	struct srdma_identity *list = (struct srdma_identity *)(uintptr_t)limits.identities;

	srdma_identities_free(&list, limits.identity_count);
	limits.identities = NULL;
	return 0;
}

/* The defaults, with an own copy of this list. */
static void with(const struct srdma_identity *list, size_t count)
{
	struct srdma_identity *copy = NULL;

	drop(NULL);
	srdma_server_limits_init(&limits);
	if (srdma_identities_copy(list, count, &copy) != 0)
		fail_msg("%s", srdma_error_text());
	limits.identities = copy;
	limits.identity_count = count;
}

#define PIN "sha256:00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff"

/* Of a certificate with this name, which it goes by, or, when it is not whole, by its pin. */
static struct srdma_policy policy_of(const char *name, bool whole)
{
	struct srdma_cert_name list[] = {{.kind = SRDMA_NAME_DNS, .whole = true, .text = "besides"},
					 {.kind = SRDMA_NAME_CN, .whole = whole, .text = name}};
	struct srdma_peer_names names = {.list = list, .count = 2};
	struct srdma_policy policy;

	strcpy(names.pin, PIN);
	strcpy(names.identity, whole ? name : PIN);
	srdma_policy_find(&limits, &names, &policy);
	return policy;
}

static struct srdma_policy policy_of_nobody(void)
{
	const struct srdma_peer_names names = {.identity = ""};
	struct srdma_policy policy;

	srdma_policy_find(&limits, &names, &policy);
	return policy;
}

/* ---- the list -------------------------------------------------------------------------------------------------- */

TEST(each_of_thousands_is_found_and_nothing_else)
{
	static char names[MANY][16];
	static struct srdma_identity list[MANY];
	struct srdma_identity *copy = NULL;

	for (unsigned i = 0; i < MANY; i++) {
		snprintf(names[i], sizeof names[i], "host-%u", (i * 2654435761u) % 1000003u);
		list[i] = named(names[i]);
		list[i].max_clients = i + 1;
	}
	assert_int_equal(srdma_identities_copy(list, MANY, &copy), 0);
	for (unsigned i = 0; i < MANY; i++)
		assert_int_equal(srdma_identities_find(copy, MANY, names[i])->max_clients, i + 1);
	assert_null(srdma_identities_find(copy, MANY, ""));
	assert_null(srdma_identities_find(copy, MANY, "host-"));
	assert_null(srdma_identities_find(copy, MANY, "HOST-1"));
	srdma_identities_free(&copy, MANY);
	assert_null(copy);
}

TEST(copy_is_its_own)
{
	char name[] = "alice";
	struct srdma_identity list = named(name), *copy = NULL;

	assert_int_equal(srdma_identities_copy(&list, 1, &copy), 0);
	name[0] = 'A';
	assert_non_null(srdma_identities_find(copy, 1, "alice"));
	srdma_identities_free(&copy, 1);
}

TEST(names_in_utf8_and_pins_are_found)
{
	struct srdma_identity list[] = {named("J\xc3\xbcrgen"), named("spiffe://prod/a"), named("SHA256:" "00112233445566778899AABBCCDDEEFF00112233445566778899AABBCCDDEEFF")};
	struct srdma_identity twice[] = {named(PIN), list[2]}, *copy = NULL;

	assert_int_equal(srdma_identities_copy(list, 3, &copy), 0);
	assert_non_null(srdma_identities_find(copy, 3, "J\xc3\xbcrgen"));
	assert_non_null(srdma_identities_find(copy, 3, "spiffe://prod/a"));
	assert_non_null(srdma_identities_find(copy, 3, PIN));
	assert_null(srdma_identities_find(copy, 3, "Ju\xcc\x88rgen")); /* the same on paper */
	srdma_identities_free(&copy, 3);
	assert_int_equal(srdma_identities_copy(twice, 2, &copy), -EINVAL);
}

TEST(empty_list_finds_nobody)
{
	struct srdma_identity *copy = NULL;

	assert_int_equal(srdma_identities_copy(NULL, 0, &copy), 0);
	assert_null(srdma_identities_find(copy, 0, "alice"));
	assert_null(srdma_identities_find(NULL, 0, "alice"));
	srdma_identities_free(&copy, 0);
	assert_int_equal(srdma_identities_copy(NULL, 1, &copy), -EINVAL);
}

static void assert_refused(const struct srdma_identity *list, size_t count, const char *word)
{
	struct srdma_identity *copy = NULL;

	assert_int_equal(srdma_identities_copy(list, count, &copy), -EINVAL);
	assert_null(copy);
	assert_error_says(word);
}

TEST(impossible_entry_is_refused_by_name)
{
	static char longest[SRDMA_NAME_SIZE + 1];
	static const struct {
		const char *name;
		int64_t region_size, region_access, message_size; /* 0: as it is */
		const char *word;
	} cases[] = {
		{"", 0, 0, 0, "needs a name"},
		{NULL, 0, 0, 0, "needs a name"},
		{"a\nb", 0, 0, 0, "control"},
		{"J\xfcrgen", 0, 0, 0, "UTF-8"},
		{"abc\xe2\x80\xae" "def", 0, 0, 0, "bidirectional"}, /* from right to left */
		{"sha256:1234", 0, 0, 0, "64 hexadecimal digits"},
		{longest, 0, 0, 0, "at most 255"},
		{"alice", -2, 0, 0, "'alice'"},
		{"alice", 0, IBV_ACCESS_REMOTE_ATOMIC, 0, "'alice'"},
		{"alice", 0, -2, 0, "'alice'"},
		{"alice", 0, 0, 63, "message-size 63 is out of range; give 64 to"},
	};
	struct srdma_identity twice[] = {named("bob"), named("alice"), named("bob")}, one, *copy = NULL;

	memset(longest, 'x', SRDMA_NAME_SIZE);
	assert_refused(twice, 3, "'bob' is listed twice");
	for (size_t i = 0; i < COUNT(cases); i++) {
		one = named(cases[i].name);
		if (cases[i].region_size)
			one.region_size = cases[i].region_size;
		if (cases[i].region_access)
			one.region_access = (int)cases[i].region_access;
		one.message_size = (uint32_t)cases[i].message_size;
		assert_refused(&one, 1, cases[i].word);
	}
	one = named(longest + 1);
	assert_int_equal(srdma_identities_copy(&one, 1, &copy), 0);
	srdma_identities_free(&copy, 1);
}

/* ---- one client ------------------------------------------------------------------------------------------------ */

TEST(client_that_is_not_listed_has_the_general_limits)
{
	struct srdma_identity list[] = {named("alice")};
	struct srdma_conn_options before, options;
	struct srdma_policy policy;

	with(list, 1);
	limits.max_clients_per_identity = 3;
	limits.max_clients_per_address = 4;
	srdma_conn_options_init(&before);
	options = before;
	policy = policy_of("bob", true);
	assert_null(policy.refused);
	assert_int_equal(policy.max_same_name, 3);
	assert_int_equal(policy.max_same_address, 4);
	srdma_policy_apply(&policy, &options);
	assert_memory_equal(&options, &before, sizeof options);
	/* Nor does an entry that says nothing change anything. */
	policy = policy_of("alice", true);
	assert_int_equal(policy.max_same_name, 3);
	srdma_policy_apply(&policy, &options);
	assert_memory_equal(&options, &before, sizeof options);
}

TEST(client_that_is_listed_has_its_entrys_limits)
{
	struct srdma_identity list[] = {named("bob"), named("alice")};
	struct srdma_conn_options options;
	struct srdma_policy policy;

	list[1].max_clients = 2;
	list[1].region_size = 0;
	list[1].region_access = 0;
	list[1].message_size = 64;
	with(list, 2);
	srdma_conn_options_init(&options);
	options.region_size = 65536;
	policy = policy_of("alice", true);
	assert_int_equal(policy.max_same_name, 2);
	srdma_policy_apply(&policy, &options);
	assert_int_equal(options.region_size, 0);
	assert_int_equal(options.region_access, 0);
	assert_int_equal(options.message_size, 64);
}

TEST(only_listed_ones_are_let_in)
{
	struct srdma_identity list[] = {named("alice")};

	with(list, 1);
	limits.only_listed_identities = true;
	assert_null(policy_of("alice", true).refused);
	assert_string_equal(policy_of("bob", true).refused, "unlisted");
	assert_string_equal(policy_of_nobody().refused, "unlisted");
	with(NULL, 0);
	limits.only_listed_identities = true;
	assert_string_equal(policy_of("alice", true).refused, "unlisted");
	assert_string_equal(policy_of_nobody().refused, "unlisted");
}

TEST(name_that_only_looks_alike_gains_nothing)
{
	struct srdma_identity list[] = {named("alice"), named("mallory")};
	struct srdma_policy policy;

	list[0].region_size = 1 << 20;
	list[0].max_clients = 100;
	list[1].denied = true;
	with(list, 2);
	policy = policy_of("alice", false);
	assert_null(policy.refused);
	assert_int_equal(policy.region_size, -1);
	assert_int_equal(policy.max_same_name, 0);
	assert_string_equal(policy_of("mallory", false).refused, "denied");
	limits.only_listed_identities = true;
	assert_string_equal(policy_of("alice", false).refused, "unlisted");
	assert_string_equal(policy_of("mallory", true).refused, "denied");
}

TEST(any_name_of_a_certificate_can_be_denied)
{
	static const char *const denied[] = {"alice", "besides", PIN};

	for (size_t i = 0; i < COUNT(denied); i++) {
		struct srdma_identity list[] = {named(denied[i]), named("alice")};

		list[0].denied = true;
		with(list, i == 0 ? 1 : 2);
		assert_string_equal(policy_of("alice", true).refused, "denied");
	}
}

TEST(key_can_be_listed)
{
	struct srdma_identity list[] = {named(PIN)};

	with(list, 1);
	limits.only_listed_identities = true;
	assert_null(policy_of("odd", false).refused);
	/* It has a name to go by. */
	assert_string_equal(policy_of("alice", true).refused, "unlisted");
}

/* ---- memory ---------------------------------------------------------------------------------------------------- */

static uint64_t memory(const struct srdma_conn_options *options)
{
	uint64_t sum, largest;

	assert_int_equal(srdma_policy_memory(&limits, options, &sum, &largest), 0);
	return sum;
}

static uint64_t in_pages(uint64_t bytes)
{
	uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE);

	return (bytes + page - 1) / page * page;
}

TEST(memory_is_that_of_the_worst_case)
{
	struct srdma_identity list[] = {named("big"), named("many"), named("gone")};
	struct srdma_conn_options options;
	uint64_t ring, sealed, small, most = 1 << 30;

	srdma_conn_options_init(&options);
	options.region_size = 65536;
	ring = in_pages((16 + 3 + 8) * 4096);
	assert_int_equal(srdma_queues_ring_size(&(struct srdma_queues_shape){.message_size = 4096, .depth = 16, .rdma_depth = 16}), (16 + 3 + 8) * 4096);
	small = ring + in_pages(65536);

	with(NULL, 0);
	assert_int_equal(memory(&options), 10 * small);
	/* Sealed: 20 receives and 20 send slots more, a tag in each, and the rings of writes and reads if there is a region. */
	options.seal = SRDMA_SEAL_REQUIRED;
	sealed = in_pages(srdma_queues_ring_size(&(struct srdma_queues_shape){.message_size = 4096, .depth = 16, .rdma_depth = 16, .sealed = true}));
	assert_int_equal(memory(&options), 10 * (sealed + in_pages(65536) + 2 * in_pages(SRDMA_SEALED_RING)));
	options.region_size = 0;
	assert_int_equal(memory(&options), 10 * sealed);
	/* Each client's lanes have a context for each seal thread. */
	options.seal_threads = 2;
	assert_int_equal(memory(&options), 10 * (sealed + SRDMA_SEAL_LANES * srdma_seal_lane_memory(2)));
	options.seal_threads = 64;
	assert_true(srdma_seal_lane_memory(64) >= srdma_seal_lane_memory(2) + 62 * SRDMA_SEAL_CONTEXT);
	assert_int_equal(memory(&options), 10 * (sealed + SRDMA_SEAL_LANES * srdma_seal_lane_memory(64)));
	options.region_size = 65536;
	options.seal = SRDMA_SEAL_OFF;
	/* A plain connection has no lanes. */
	assert_int_equal(memory(&options), 10 * small);

	list[0].region_size = (int64_t)most;
	list[0].max_clients = 1;
	list[1].region_size = 4 * 65536;
	list[2].region_size = (int64_t)most * 1024;
	list[2].denied = true;
	with(list, 3);
	/* At most one client is "big", a denied one takes nothing, and all others may be "many". */
	assert_int_equal(memory(&options), ring + most + 9 * (ring + in_pages(4 * 65536)));
	limits.max_clients_per_identity = 2;
	assert_int_equal(memory(&options), ring + most + 2 * (ring + in_pages(4 * 65536)) + 7 * small);
	/* The server lets in no other clients. */
	limits.only_listed_identities = true;
	assert_int_equal(memory(&options), ring + most + 2 * (ring + in_pages(4 * 65536)));
}

TEST(memory_beyond_all_bounds_does_not_wrap)
{
	struct srdma_identity list[] = {named("big")};
	struct srdma_conn_options options;

	srdma_conn_options_init(&options);
	list[0].region_size = INT64_MAX;
	with(list, 1);
	limits.max_clients = UINT32_MAX;
	assert_true(memory(&options) == UINT64_MAX);
	with(NULL, 0);
	options.region_size = SIZE_MAX;
	assert_true(memory(&options) == UINT64_MAX);
}

RUN_TESTS_EACH(NULL, drop)
