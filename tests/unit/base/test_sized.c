/* SPDX-License-Identifier: Apache-2.0 */
/* Structures that have another size in the program than in the library. */
#include "test.h"

#include "sized.h"

#include "securdma_link.h"
#include "securdma_server.h"

#define GUARD 0xA5

/* The library's structure. In the first version `b` was the last member. */
struct thing {
	size_t size;
	uint64_t a, b;
	uint64_t later; /* a program of the first version has no room for it */
};

/* The structures of programs of the first version, and of a later one. */
struct thing_first {
	size_t size;
	uint64_t a, b;
};
struct thing_to_come {
	size_t size;
	uint64_t a, b, later, more[2];
};

static const struct thing defaults = {.a = 1, .b = 2, .later = 3};

static void thing_init(struct thing *thing)
{
	srdma_sized_init(thing, sizeof *thing, &defaults, sizeof defaults);
}

static int take(const void *given, struct thing *out)
{
	return SRDMA_SIZED_TAKE(thing, b, given, out);
}

TEST(older_program_is_not_overrun)
{
	struct {
		struct thing_first thing;
		unsigned char guard[64];
	} program;
	struct thing taken;

	memset(&program, GUARD, sizeof program);
	srdma_sized_init(&program.thing, sizeof program.thing, &defaults, sizeof defaults);
	assert_int_equal(program.thing.size, sizeof program.thing);
	assert_int_equal(program.thing.b, 2);
	program.thing.a = 10;
	assert_int_equal(take(&program.thing, &taken), 0);
	assert_int_equal(taken.size, sizeof taken);
	assert_int_equal(taken.a, 10);
	assert_int_equal(taken.b, 2);
	assert_int_equal(taken.later, 3); /* the default, not the bytes behind the program's structure */
	srdma_sized_fill(&program.thing, sizeof program.thing, &taken, sizeof taken);
	assert_int_equal(program.thing.size, sizeof program.thing);
	assert_int_equal(program.thing.a, 10);
	for (size_t i = 0; i < sizeof program.guard; i++)
		assert_int_equal(program.guard[i], GUARD);
}

TEST(newer_program_may_not_set_unknown_members)
{
	struct thing_to_come program;
	struct thing taken;

	memset(&program, GUARD, sizeof program);
	srdma_sized_init(&program, sizeof program, &defaults, sizeof defaults);
	assert_int_equal(program.size, sizeof program);
	assert_int_equal(program.later, 3);
	assert_int_equal(program.more[0], 0);
	assert_int_equal(program.more[1], 0);
	assert_int_equal(take(&program, &taken), 0);
	assert_int_equal(taken.later, 3);
	program.more[1] = 1ull << 63; /* the last byte */
	assert_int_equal(take(&program, &taken), -EINVAL);
	assert_non_null(strstr(srdma_error_text(), "struct thing"));
	assert_non_null(strstr(srdma_error_text(), "does not have"));
}

TEST(newer_program_learns_how_much_was_filled)
{
	struct thing_to_come program;

	memset(&program, GUARD, sizeof program);
	srdma_sized_fill(&program, sizeof program, &defaults, sizeof defaults);
	assert_int_equal(program.size, sizeof defaults);
	assert_true(SRDMA_HAS_FIELD(&program, later));
	assert_false(SRDMA_HAS_FIELD(&program, more));
	assert_int_equal(program.more[1], 0);
}

TEST(structure_without_init_is_refused)
{
	const size_t sizes[] = {0, 1, sizeof(struct thing_first) - 1, 4097, SIZE_MAX};
	struct thing program = {.a = 5}, taken;

	for (size_t i = 0; i < COUNT(sizes); i++) {
		program.size = sizes[i];
		assert_int_equal(take(&program, &taken), -EINVAL);
		assert_non_null(strstr(srdma_error_text(), "thing_init()"));
	}
	assert_int_equal(take(NULL, &taken), 0);
	assert_int_equal(taken.a, 1);
}

TEST(array_has_the_size_of_its_first_element_as_stride)
{
	struct thing_first programs[3];

	for (size_t i = 0; i < 3; i++) {
		srdma_sized_init(&programs[i], sizeof *programs, &defaults, sizeof defaults);
		assert_ptr_equal(srdma_sized_element(programs, i), &programs[i]);
	}
	assert_null(srdma_sized_element(NULL, 0));
}

/* Zeroed, as in a program that forgot to call _init. */
TEST(each_function_refuses_options_without_a_size)
{
	const struct srdma_device_options device = {0};
	const struct srdma_tls_client_options client = {0};
	const struct srdma_tls_server_options server = {0};
	const struct srdma_cert_request request = {0};
	const struct srdma_qp_options qp = {0};
	const struct srdma_server_limits no_limits = {0};
	const struct srdma_identity identity = {0};
	struct srdma_conn_options conn;
	struct srdma_link_options link;
	struct srdma_server_options options;
	struct srdma_server_limits limits;

#define REFUSED(call, name)                                                                                                      \
	do {                                                                                                                     \
		assert_int_equal(call, -EINVAL);                                                                                 \
		assert_non_null(strstr(srdma_error_text(), name "_init()"));                                                     \
	} while (0)
	REFUSED(srdma_device_open(&device, NULL), "srdma_device_options");
	REFUSED(srdma_tls_client_new(&client, NULL), "srdma_tls_client_options");
	REFUSED(srdma_tls_server_new(&server, NULL), "srdma_tls_server_options");
	REFUSED(srdma_tls_client_check(&client, NULL, NULL), "srdma_tls_client_options");
	REFUSED(srdma_tls_server_check(&server, NULL, NULL), "srdma_tls_server_options");
	REFUSED(srdma_cert_make(&request), "srdma_cert_request");

	memset(&conn, 0, sizeof conn);
	REFUSED(srdma_conn_connect("localhost", "1", NULL, NULL, &conn, NULL), "srdma_conn_options");
	REFUSED(srdma_conn_accept(-1, NULL, NULL, &conn, NULL, NULL, NULL), "srdma_conn_options");
	srdma_link_options_init(&link);
	link.conn = &conn;
	REFUSED(srdma_link_connect(&link, NULL, NULL, NULL), "srdma_conn_options");
	srdma_server_options_init(&options);
	options.conn = &conn;
	REFUSED(srdma_server_start(&options, NULL, NULL, NULL), "srdma_conn_options");
	srdma_conn_options_init(&conn);
	conn.qp = &qp;
	REFUSED(srdma_conn_connect("localhost", "1", NULL, NULL, &conn, NULL), "srdma_qp_options");
	conn.qp = NULL;
	memset(&link, 0, sizeof link);
	REFUSED(srdma_link_connect(&link, NULL, NULL, NULL), "srdma_link_options");

	options.limits = &no_limits;
	REFUSED(srdma_server_start(&options, NULL, NULL, NULL), "srdma_server_limits");
	REFUSED(srdma_server_set_limits(NULL, &no_limits), "srdma_server_limits");
	srdma_server_limits_init(&limits);
	limits.identities = &identity;
	limits.identity_count = 1;
	options.limits = &limits;
	REFUSED(srdma_server_check(&options, NULL, NULL, NULL), "srdma_identity");
	memset(&options, 0, sizeof options);
	REFUSED(srdma_server_check(&options, NULL, NULL, NULL), "srdma_server_options");
	REFUSED(srdma_server_start(&options, NULL, NULL, NULL), "srdma_server_options");
}

RUN_TESTS(NULL, NULL)
