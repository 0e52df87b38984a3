/* SPDX-License-Identifier: Apache-2.0 */
#include "test.h"

#include "folder.h"

#include "gid_map.h"
#include "host_names.h"
#include "securdma.h"

#include <arpa/inet.h>

static int load(const char *text, struct gid_map **map)
{
	FILE *file = fopen("map", "w");

	assert_non_null(file);
	fputs(text, file);
	fclose(file);
	return gid_map_load("map", map);
}

static const char *host_of(const struct gid_map *map, const char *address)
{
	uint8_t gid[16] = {[10] = 0xff, [11] = 0xff};
	const struct gid_map_entry *found;

	assert_int_equal(strchr(address, ':') ? inet_pton(AF_INET6, address, gid) : inet_pton(AF_INET, address, gid + 12), 1);
	found = gid_map_find(map, gid);
	return found ? found->host : "";
}

static const char *host_of_lid(const struct gid_map *map, uint16_t lid)
{
	const struct gid_map_entry *found = gid_map_find_lid(map, lid);

	return found ? found->host : "";
}

TEST(longest_prefix_wins)
{
	struct gid_map *map = NULL;

	assert_int_equal(load("fe80::/10 all\nfe80::2:0:0:0:0/64 two # a subnet\n\n  fe80::2:0:0:0:7/128 seven:99 seven.example\n10.0.0.0/8 ten\n10.1.0.0/16 [fd00::1]:5\n", &map), 0);
	assert_int_equal(gid_map_count(map), 5);
	assert_string_equal(host_of(map, "fe80::1"), "all");
	assert_string_equal(host_of(map, "fe80::2:0:0:0:1"), "two");
	assert_string_equal(host_of(map, "fe80::2:0:0:0:7"), "seven");
	assert_string_equal(host_of(map, "10.2.3.4"), "ten");
	assert_string_equal(host_of(map, "10.1.3.4"), "fd00::1");
	assert_string_equal(host_of(map, "11.0.0.1"), "");
	assert_string_equal(host_of(map, "2001:db8::1"), "");
	gid_map_free(&map);
	assert_null(map);
	assert_null(gid_map_find(NULL, (const uint8_t[16]){0}));
}

TEST(ports_and_names)
{
	struct gid_map *map = NULL;
	const struct gid_map_entry *found;

	assert_int_equal(load("lid 5 node:99 node.example\nlid 7-9 fd00::1\nlid 0x10-0x12 other\n", &map), 0);
	found = gid_map_find_lid(map, 5);
	assert_string_equal(found->port, "99");
	assert_string_equal(found->name, "node.example");
	found = gid_map_find_lid(map, 8);
	assert_null(found->port);
	assert_string_equal(found->name, "fd00::1");
	assert_string_equal(host_of_lid(map, 6), "");
	assert_string_equal(host_of_lid(map, 7), "fd00::1");
	assert_string_equal(host_of_lid(map, 9), "fd00::1");
	assert_string_equal(host_of_lid(map, 10), "");
	assert_string_equal(host_of_lid(map, 0x12), "other");
	assert_string_equal(host_of_lid(map, 0), "");
	gid_map_free(&map);
}

TEST(wrong_lines_are_told_with_their_number)
{
	const char *const bad[] = {"x", "10.0.0.0/8", "10.0.0.0/33 h", "10.0.0.0/8 h n more", "fe80::/129 h", "lid 5", "lid 0 h", "lid 9-8 h", "lid 49152 h", "lid x h",
				   "lid -1 h", "10.0.0.0/8 h:", "10.0.0.0/8 :5", "10.0.0.0/8 [fd00::1", "10.0.0.0/8 h:123456", "10.0.0.0/8 h:p"};
	struct gid_map *map = NULL;
	char text[128];

	for (size_t i = 0; i < COUNT(bad); i++) {
		snprintf(text, sizeof text, "# first\n%s\n", bad[i]);
		assert_int_equal(load(text, &map), -EINVAL);
		assert_error_says("map:2: ");
		assert_null(map);
	}
	assert_int_equal(gid_map_load("none", &map), -ENOENT);
}

TEST(two_lines_for_the_same_are_refused)
{
	const char *const bad[] = {"10.0.0.0/8 a\n10.1.0.0/8 b\n", "lid 1-5 a\nlid 5 b\n", "lid 7 a\nlid 7 b\n"};
	struct gid_map *map = NULL;

	for (size_t i = 0; i < COUNT(bad); i++) {
		assert_int_equal(load(bad[i], &map), -EINVAL);
		assert_error_says("map:1 and 2");
	}
}

TEST(host_speaks_for_its_addresses_and_for_what_the_map_says)
{
	struct srdma_cert_name list[] = {{.kind = SRDMA_NAME_IP, .whole = true, .text = strdup("10.0.0.1")},
					 {.kind = SRDMA_NAME_IP, .whole = true, .text = strdup("fd00::1")},
					 {.kind = SRDMA_NAME_DNS, .whole = true, .text = strdup("node.example")},
					 {.kind = SRDMA_NAME_DNS, .whole = true, .text = strdup("*.example")},
					 {.kind = SRDMA_NAME_CN, .whole = true, .text = strdup("cn.example")}};
	struct srdma_peer_names names = {.identity = "node", .list = malloc(sizeof list), .count = COUNT(list)};
	struct peer_end end = {.gid = {[10] = 0xff, [11] = 0xff, 10, 0, 0, 1}, .qpn = 2}, lid = {.lid = 5, .qpn = 2};
	struct gid_map *map = NULL;
	struct host_names host;
	char text[64];

	memcpy(names.list, list, sizeof list);
	assert_int_equal(load("lid 5 h NODE.example\nlid 6 h cn.example\nlid 7 h x.example\nlid 8 10.0.0.1\nlid 9 10.0.0.2\n", &map), 0);
	assert_int_equal(host_names_take(&names, &host), 0);
	assert_true(host_names_cover(&host, NULL, &end));
	assert_string_equal(peer_end_format(&end, text), "10.0.0.1");
	end.gid[15] = 2;
	assert_false(host_names_cover(&host, map, &end));
	assert_false(host_names_cover(&host, NULL, &lid));
	assert_true(host_names_cover(&host, map, &lid));
	assert_string_equal(peer_end_format(&lid, text), "LID 5");
	/* Neither a common name nor a wildcard is a host's name. */
	for (lid.lid = 6; lid.lid <= 9; lid.lid++)
		assert_int_equal(host_names_cover(&host, map, &lid), lid.lid == 8);
	gid_map_free(&map);
	host_names_clear(&host);
}

RUN_TESTS(enter_folder, leave_folder)
