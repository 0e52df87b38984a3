/* SPDX-License-Identifier: Apache-2.0 */
#include "test.h"

#include "agent_parts.h"
#include "local_check.h"
#include "owner.h"
#include "policy.h"

#include <linux/netlink.h>
#include <rdma/rdma_netlink.h>
#include <unistd.h>

TEST(queue_pair_and_its_bucket_take_less_than_200_bytes)
{
	/* What malloc adds, and two pointers, since the table may be half empty. */
	assert_true(sizeof(struct queue_pair) + 16 + 2 * sizeof(void *) < 200);
}

TEST(table_finds_each_of_many_and_forgets_them)
{
	struct user user = {0};
	struct program program = {.user = &user};
	struct queue_pairs table = {.seed = 0x12345};
	enum { MANY = 20000 };
	struct queue_pair **all = calloc(MANY, sizeof *all), *twin, values = {.program = &program};

	for (uint32_t i = 0; i < MANY; i++) {
		values.qpn = i + 2;
		assert_int_equal(queue_pairs_add(&table, &values, &all[i]), 0);
	}
	values.qpn = 7;
	assert_int_equal(queue_pairs_add(&table, &values, &twin), 0);
	assert_int_equal(table.count, MANY + 1);
	assert_int_equal(user.queue_pairs, MANY + 1);
	for (uint32_t i = 0; i < MANY; i++) {
		struct queue_pair *found = queue_pairs_first(&table, i + 2);

		if (i + 2 != 7)
			assert_ptr_equal(found, all[i]);
		else
			assert_true((found == all[i] && queue_pairs_next(found) == twin) || (found == twin && queue_pairs_next(found) == all[i]));
	}
	assert_null(queue_pairs_first(&table, MANY + 2));
	for (uint32_t i = 0; i < MANY; i += 2)
		queue_pairs_remove(&table, all[i]);
	assert_null(queue_pairs_first(&table, 2));
	assert_ptr_equal(queue_pairs_first(&table, 3), all[1]);
	while (program.queue_pairs)
		queue_pairs_remove(&table, program.queue_pairs);
	assert_int_equal(table.count + user.queue_pairs, 0);
	queue_pairs_free(&table);
	free(all);
}

TEST(policy_goes_by_user_group_and_peer)
{
	struct policy policy = {0};
	struct policy_peer peers[] = {{.name = strdup("b")}, {.name = strdup("a"), .deny = true}, {.name = strdup("c"), .require_encryption = true}};
	const gid_t groups[] = {7, 8};
	struct policy_subject subject = {.uid = 5, .gid = 6, .groups = groups, .group_count = 2};

	policy.peers = malloc(sizeof peers);
	policy.peer_count = COUNT(peers);
	assert_int_equal(policy_users_parse("root, @8", &peers[0].users), 0);
	assert_int_equal(policy_users_parse(NULL, &peers[1].users), 0);
	assert_int_equal(policy_users_parse("*", &peers[2].users), 0);
	memcpy(policy.peers, peers, sizeof peers);
	assert_int_equal(policy_users_parse("5", &policy.users), 0);
	policy_sort(&policy);
	assert_null(policy_problem(&policy, "b", &subject));
	assert_null(policy_problem(&policy, "c", &subject));
	assert_text_says(policy_problem(&policy, "a", &subject), "denies");
	assert_null(policy_problem(&policy, "another", &subject));
	subject.group_count = 1;
	assert_text_says(policy_problem(&policy, "b", &subject), "user may not");
	subject.uid = 0;
	assert_null(policy_problem(&policy, "b", &subject));
	assert_text_says(policy_problem(&policy, "another", &subject), "user may not");
	policy.only_listed_peers = true;
	subject.uid = 5;
	assert_text_says(policy_problem(&policy, "another", &subject), "only-listed-peers");
	assert_true(policy_requires_encryption(&policy, "c"));
	assert_false(policy_requires_encryption(&policy, "b"));
	policy_free(&policy);
	assert_int_equal(policy_users_parse("no-such-user-here", &policy.users), -EINVAL);
	assert_int_equal(policy_users_parse("@no-such-group-here", &policy.users), -EINVAL);
	assert_int_equal(policy_users_parse("", &policy.users), 0);
	assert_false(policy.users.all);
}

/* ---- packets of programs ---- */

static const char *check(const void *packet, size_t length)
{
	union local_request request;

	memset(&request, 0xaa, sizeof request);
	memcpy(&request, packet, length);
	return local_request_problem(&request, length);
}

static struct local_header header(uint16_t type, size_t length)
{
	return (struct local_header){.magic = LOCAL_MAGIC, .version = LOCAL_VERSION, .type = type, .length = (uint32_t)length};
}

TEST(packets_of_programs_are_checked)
{
	struct local_connect connect = {.header = header(LOCAL_CONNECT, sizeof connect), .device = "rxe0", .port = 1, .qpn = 5, .peer_qpn = 6, .gid = {1}, .peer_gid = {2}};
	struct local_queue_pair pair = {.header = header(LOCAL_RESTORE, sizeof pair), .device = "rxe0", .port = 1, .qpn = 5, .type = 2, .connected = 1, .peer_qpn = 6, .gid = {1}};
	struct local_connect bad;

	assert_null(check(&connect, sizeof connect));
	assert_null(check(&pair, sizeof pair));
	for (size_t length = 0; length < sizeof connect; length++)
		assert_non_null(check(&connect, length));
	bad = connect, bad.port = 256;
	assert_non_null(check(&bad, sizeof bad));
	/* What its program passed is the program's fault, which gets an answer. */
	bad = connect, bad.peer_qpn = 1 << 24, bad.psn_would_be = UINT32_MAX, bad.peer_gid[0] = 0;
	assert_null(check(&bad, sizeof bad));
	assert_false(local_qpn_is_valid(1 << 24) || local_qpn_is_valid(1) || local_destination_is_valid(bad.peer_gid, 0) ||
		     local_destination_is_valid((const uint8_t[16]){0xff}, 0) || local_destination_is_valid(bad.peer_gid, 0xc000));
	assert_true(local_qpn_is_valid(2) && local_destination_is_valid(connect.peer_gid, 0) && local_destination_is_valid(bad.peer_gid, 5));
	bad = connect, memset(bad.device, 'x', sizeof bad.device);
	assert_non_null(check(&bad, sizeof bad));
	bad = connect, bad.header.magic++;
	assert_non_null(check(&bad, sizeof bad));
	/* The agent tells a program of another version so. */
	bad = connect, bad.header.version++;
	assert_null(check(&bad, sizeof bad.header));
	pair.gid[0] = 0;
	assert_non_null(check(&pair, sizeof pair));
	pair.connected = 0;
	assert_null(check(&pair, sizeof pair));
	pair.psn = 1 << 24;
	assert_non_null(check(&pair, sizeof pair));
}

/* ---- the kernel's answers ---- */

static size_t put(char *at, uint16_t type, const void *value, size_t size)
{
	struct nlattr attribute = {.nla_len = (uint16_t)(NLA_HDRLEN + size), .nla_type = type};

	memcpy(at, &attribute, sizeof attribute);
	memcpy(at + NLA_HDRLEN, value, size);
	return NLA_ALIGN(attribute.nla_len);
}

static size_t put_answer(char *at, const char *name, uint32_t index, uint32_t pid)
{
	struct nlmsghdr message = {.nlmsg_type = RDMA_NL_GET_TYPE(RDMA_NL_NLDEV, RDMA_NLDEV_CMD_RES_QP_GET)};
	size_t length = NLMSG_HDRLEN;

	length += put(at + length, RDMA_NLDEV_ATTR_DEV_INDEX, &index, sizeof index);
	length += put(at + length, RDMA_NLDEV_ATTR_DEV_NAME, name, strlen(name) + 1);
	if (pid)
		length += put(at + length, RDMA_NLDEV_ATTR_RES_PID, &pid, sizeof pid);
	message.nlmsg_len = (uint32_t)length;
	memcpy(at, &message, sizeof message);
	return length;
}

TEST(answers_of_the_kernel_are_read_in_any_piece)
{
	char data[512] __attribute__((aligned(8))) = {0};
	size_t length = put_answer(data, "rxe0", 0, 0);
	struct owner_answer answer;

	length += put_answer(data + length, "rxe1", 3, 77);
	owner_read(data, length, "rxe1", 0, &answer);
	assert_int_equal(answer.index, 3);
	assert_int_equal(answer.pid, 77);
	owner_read(data, length, "rxe2", 0, &answer);
	assert_string_equal(answer.device, "");
	/* Cut anywhere, it is read as far as it is whole. */
	for (size_t cut = 0; cut < length; cut++) {
		char *exact = malloc(cut + 1);

		memcpy(exact, data, cut);
		owner_read(exact, cut, "rxe1", 0, &answer);
		assert_true(answer.pid == 0);
		free(exact);
	}
}

/* An entry of the kernel's list of queue pairs. */
static size_t put_entry(char *at, uint32_t qpn, uint32_t pid, uint32_t domain)
{
	char entry[64] __attribute__((aligned(8))) = {0};
	size_t length = put(entry, RDMA_NLDEV_ATTR_RES_LQPN, &qpn, sizeof qpn);

	length += put(entry + length, RDMA_NLDEV_ATTR_RES_PDN, &domain, sizeof domain);
	if (pid)
		length += put(entry + length, RDMA_NLDEV_ATTR_RES_PID, &pid, sizeof pid);
	return put(at, RDMA_NLDEV_ATTR_RES_QP_ENTRY, entry, length);
}

TEST(queue_pair_is_found_in_a_list)
{
	struct nlmsghdr message = {.nlmsg_type = RDMA_NL_GET_TYPE(RDMA_NL_NLDEV, RDMA_NLDEV_CMD_RES_QP_GET)};
	char data[512] __attribute__((aligned(8))) = {0}, list[256] __attribute__((aligned(8))) = {0};
	size_t length = NLMSG_HDRLEN, entries = put_entry(list, 17, 77, 0);
	struct owner_answer answer;

	entries += put_entry(list + entries, 18, 0, 5);
	length += put(data + length, RDMA_NLDEV_ATTR_DEV_NAME, "rxe0", sizeof "rxe0");
	length += put(data + length, RDMA_NLDEV_ATTR_RES_QP, list, entries);
	message.nlmsg_len = (uint32_t)length;
	memcpy(data, &message, sizeof message);
	owner_read(data, length, "rxe0", 17, &answer);
	assert_int_equal(answer.pid, 77);
	owner_read(data, length, "rxe0", 18, &answer);
	assert_int_equal(answer.pid, 0);
	assert_true(answer.has_parent[OWNER_DOMAIN] && answer.parents[OWNER_DOMAIN] == 5);
	owner_read(data, length, "rxe0", 19, &answer);
	assert_string_equal(answer.device, "");
}

TEST(error_of_the_kernel_is_read)
{
	struct {
		struct nlmsghdr header;
		int error;
	} message = {{.nlmsg_len = sizeof message, .nlmsg_type = NLMSG_ERROR}, -ENOENT};
	struct owner_answer answer;

	owner_read(&message, sizeof message, "rxe0", 0, &answer);
	assert_int_equal(answer.error, -ENOENT);
}

TEST(without_rdma_netlink_nothing_is_known)
{
	uint32_t index = 0;
	int fd = -1;

	assert_int_equal(owner_check(&fd, "absent0", &index, 1, 17, getpid()), OWNER_UNKNOWN);
	assert_int_equal(owner_search(&fd, "absent0", &index, 17, getpid()), OWNER_UNKNOWN);
	/* Where the kernel has it now, it is asked. */
	if (fd >= 0)
		close(fd);
}

RUN_TESTS(NULL, NULL)
