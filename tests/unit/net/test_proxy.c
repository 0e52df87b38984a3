/* SPDX-License-Identifier: Apache-2.0 */
#include "test.h"

#include "net.h"
#include "proxy.h"

#define START "\r\n\r\n\0\r\nQUIT\n" /* of version 2, 12 bytes */
#define V2(text) (text), sizeof(text) - 1

/* From a block of exactly that size, so that a sanitizer sees a byte read beyond it. */
static int parse(const void *data, size_t size, struct srdma_proxy *proxy)
{
	uint8_t *copy = malloc(size + 1);
	int ret;

	memcpy(copy + 1, data, size);
	ret = srdma_proxy_parse(copy + 1, size, proxy);
	free(copy);
	return ret;
}

/* As it comes from a socket that has `size` bytes: no more is read than is asked for. */
static int read_as_asked(const uint8_t *data, size_t size, struct srdma_proxy *proxy)
{
	size_t have = 0;
	int ret;

	while ((ret = parse(data, have, proxy)) == -EAGAIN && proxy->length <= size) {
		assert_true(proxy->length > have && proxy->length <= SRDMA_PROXY_MAX);
		have = proxy->length;
	}
	if (ret == 0)
		assert_int_equal(proxy->length, have);
	return ret;
}

static void assert_source(const void *data, size_t size, const char *address)
{
	uint8_t with_more[SRDMA_PROXY_MAX + 8];
	struct srdma_proxy proxy;
	char text[64];

	assert_int_equal(parse(data, size, &proxy), 0);
	assert_false(proxy.own);
	assert_int_equal(proxy.length, size);
	srdma_net_format((struct sockaddr *)&proxy.source, text, sizeof text);
	assert_string_equal(text, address);
	/* The parser asks for the rest of a part of any length, and takes no byte behind the header. */
	for (size_t have = 0; have < size; have++) {
		assert_int_equal(parse(data, have, &proxy), -EAGAIN);
		assert_uint_in_range(proxy.length, have + 1, size);
	}
	memcpy(with_more, data, size);
	memset(with_more + size, 0x16, 8);
	assert_int_equal(read_as_asked(with_more, size + 8, &proxy), 0);
	assert_int_equal(proxy.length, size);
}

static void assert_malformed(const void *data, size_t size)
{
	struct srdma_proxy proxy;

	if (parse(data, size, &proxy) != SRDMA_EPROTOCOL)
		fail_msg("'%.*s' was taken as a header", (int)size, (const char *)data);
	assert_non_null(strstr(srdma_error_text(), "PROXY header"));
}

/* ---- version 1 ------------------------------------------------------------------------------------------------- */

TEST(line_names_the_client)
{
	static const struct {
		const char *line, *address;
	} cases[] = {
		{"PROXY TCP4 192.0.2.7 10.0.0.1 50000 4433\r\n", "192.0.2.7:50000"},
		{"PROXY TCP4 255.255.255.254 255.255.255.255 65535 65535\r\n", "255.255.255.254:65535"},
		{"PROXY TCP4 1.2.3.4 0.0.0.0 0 0\r\n", "1.2.3.4:0"},
		{"PROXY TCP6 2001:db8::1 fd00::2 1 2\r\n", "[2001:db8::1]:1"},
		{"PROXY TCP6 ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535 65535\r\n", NULL},
		{"PROXY TCP6 2001:0DB8:0000:0000:0000:0000:0000:0001 fd00::2 65535 65535\r\n", "[2001:db8::1]:65535"},
		{"PROXY TCP6 ::ffff:192.0.2.7 ::ffff:10.0.0.1 1 2\r\n", "192.0.2.7:1"},
	};

	for (size_t i = 0; i < COUNT(cases); i++)
		if (cases[i].address)
			assert_source(cases[i].line, strlen(cases[i].line), cases[i].address);
		else /* as long as a line can be, but multicast */
			assert_malformed(cases[i].line, strlen(cases[i].line));
}

TEST(unknown_line_is_the_balancers_own)
{
	static const char *const lines[] = {
		"PROXY UNKNOWN\r\n",
		"PROXY UNKNOWN \r\n",
		"PROXY UNKNOWN whatever it says, to the end\r\n",
		"PROXY UNKNOWN ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535 65535\r\n",
	};

	for (size_t i = 0; i < COUNT(lines); i++) {
		struct srdma_proxy proxy;

		assert_int_equal(read_as_asked((const uint8_t *)lines[i], strlen(lines[i]), &proxy), 0);
		assert_true(proxy.own);
		assert_int_equal(proxy.length, strlen(lines[i]));
	}
}

TEST(bad_line_is_refused)
{
	static const char *const lines[] = {
		"PROXY TCP4 192.0.2.7 10.0.0.1 50000\r\n",
		"PROXY TCP4 192.0.2.7 10.0.0.1 50000 4433 1\r\n",
		"PROXY TCP4 192.0.2.7 10.0.0.1 50000 4433 \r\n",
		"PROXY  TCP4 192.0.2.7 10.0.0.1 50000 4433\r\n",
		"PROXY TCP4  192.0.2.7 10.0.0.1 50000 4433\r\n",
		"PROXY TCP4\t192.0.2.7 10.0.0.1 50000 4433\r\n",
		"PROXY TCP4 192.0.2.7 10.0.0.1 050000 4433\r\n",
		"PROXY TCP4 192.0.2.7 10.0.0.1 65536 4433\r\n",
		"PROXY TCP4 192.0.2.7 10.0.0.1 50000 99999999999999\r\n",
		"PROXY TCP4 192.0.2.7 10.0.0.1 -1 4433\r\n",
		"PROXY TCP4 192.0.2.7 10.0.0.1 +1 4433\r\n",
		"PROXY TCP4 192.0.2.7 10.0.0.1 0x1 4433\r\n",
		"PROXY TCP4 192.0.2.07 10.0.0.1 50000 4433\r\n",
		"PROXY TCP4 192.0.2.256 10.0.0.1 50000 4433\r\n",
		"PROXY TCP4 192.0.2 10.0.0.1 50000 4433\r\n",
		"PROXY TCP4 2001:db8::1 10.0.0.1 50000 4433\r\n",
		"PROXY TCP4 192.0.2.7 fd00::1 50000 4433\r\n",
		"PROXY TCP6 192.0.2.7 10.0.0.1 50000 4433\r\n",
		"PROXY TCP6 2001:db8:::1 fd00::1 50000 4433\r\n",
		"PROXY TCP6 fe80::1%eth0 fd00::1 50000 4433\r\n",
		"PROXY TCP5 192.0.2.7 10.0.0.1 50000 4433\r\n",
		"PROXY UDP4 192.0.2.7 10.0.0.1 50000 4433\r\n",
		"PROXY tcp4 192.0.2.7 10.0.0.1 50000 4433\r\n",
		"PROXY UNKNOWNS 192.0.2.7\r\n",
		"PROXY \r\n         ",
		"PROXY TCP4 192.0.2.7 10.0.0.1 50000 4433\n",
		"PROXY TCP4 192.0.2.7 10.0.0.1 50000 4433\r\r\n",
		"PROXY TCP4 192.0.2.7 10.0.0.1\n50000 4433\r\n",
		"PROXY TCP4 0.0.0.0 10.0.0.1 50000 4433\r\n",
		"PROXY TCP4 255.255.255.255 10.0.0.1 50000 4433\r\n",
		"PROXY TCP4 224.0.0.1 10.0.0.1 50000 4433\r\n",
		"PROXY TCP6 :: fd00::1 50000 4433\r\n",
		"PROXY TCP6 ff02::1 fd00::1 50000 4433\r\n",
		"PROXY TCP6 ::ffff:224.0.0.1 fd00::1 50000 4433\r\n",
		"proxy TCP4 192.0.2.7 10.0.0.1 50000 4433\r\n",
		"PROXX",
		"PROXYTCP4",
		"GET / HTTP/1.1\r\n",
		"\x16\x03\x01",
		"\r\n\r\n\r",
		" ",
	};
	static const char nul[] = "PROXY TCP4 192.0.2.7 10.0.0.1 50000 4433\0 6\r\n";

	for (size_t i = 0; i < COUNT(lines); i++)
		assert_malformed(lines[i], strlen(lines[i]));
	assert_malformed(V2(nul));
	assert_malformed("\0", 1);
}

TEST(line_has_at_most_107_bytes)
{
	char line[160] = "PROXY UNKNOWN ";
	struct srdma_proxy proxy;

	memset(line + 14, 'x', sizeof line - 14);
	for (size_t have = 14; have <= 105; have++) {
		assert_int_equal(parse(line, have, &proxy), -EAGAIN);
		assert_uint_in_range(proxy.length, have + 1, 107);
	}
	assert_malformed(line, 106);
	assert_malformed(line, 160);
	memcpy(line + 105, "\r\n", 2);
	assert_int_equal(parse(line, 107, &proxy), 0);
	memcpy(line + 105, "x\r\n", 3);
	assert_malformed(line, 107);
	assert_malformed(line, 108);
}

/* ---- version 2 ------------------------------------------------------------------------------------------------- */

TEST(block_names_the_client)
{
	assert_source(V2(START "\x21\x11\0\x0c\xc0\0\2\7\x0a\0\0\1\xc3\x50\x11\x51"), "192.0.2.7:50000");
	assert_source(V2(START "\x21\x21\0\x24"
			       "\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\1"
			       "\xfd\0\0\0\0\0\0\0\0\0\0\0\0\0\0\2\0\1\x11\x51"),
		      "[2001:db8::1]:1");
	/* The parser skips other information on the connection. */
	assert_source(V2(START "\x21\x11\0\x14\xc0\0\2\7\x0a\0\0\1\xc3\x50\x11\x51\3\0\4\1\2\3\4\xff"), "192.0.2.7:50000");
}

TEST(longest_block_is_taken_and_no_longer_one)
{
	uint8_t block[SRDMA_PROXY_MAX + 1] = START "\x21\x11\x02\x08\xc0\0\2\7\x0a\0\0\1\xc3\x50\x11\x51";

	assert_source(block, SRDMA_PROXY_MAX, "192.0.2.7:50000");
	block[15]++;
	assert_malformed(block, 16);
	assert_malformed(block, sizeof block);
	block[14] = block[15] = 0xff;
	assert_malformed(block, 16);
}

TEST(local_block_is_the_balancers_own)
{
	/* Alone, with addresses, and with those of an unknown family. */
	static const char blocks[3][29] = {START "\x20\0\0\0", START "\x20\x11\0\x0c\0\0\0\0\0\0\0\0\0\0\0\0", START "\x20\xff\0\3\4\0\0"};
	static const size_t sizes[3] = {16, 28, 19};

	for (size_t i = 0; i < 3; i++) {
		struct srdma_proxy proxy;

		assert_int_equal(read_as_asked((const uint8_t *)blocks[i], sizes[i], &proxy), 0);
		assert_true(proxy.own);
		assert_int_equal(proxy.length, sizes[i]);
	}
}

TEST(bad_block_is_refused)
{
	assert_malformed(V2(START "\x11\x11\0\x0c\xc0\0\2\7\x0a\0\0\1\xc3\x50\x11\x51")); /* version 1 */
	assert_malformed(V2(START "\x31\x11\0\x0c\xc0\0\2\7\x0a\0\0\1\xc3\x50\x11\x51"));
	assert_malformed(V2(START "\x22\x11\0\x0c\xc0\0\2\7\x0a\0\0\1\xc3\x50\x11\x51")); /* command */
	assert_malformed(V2(START "\x21\x12\0\x0c\xc0\0\2\7\x0a\0\0\1\xc3\x50\x11\x51")); /* UDP */
	assert_malformed(V2(START "\x21\x10\0\x0c\xc0\0\2\7\x0a\0\0\1\xc3\x50\x11\x51"));
	assert_malformed(V2(START "\x21\x41\0\x0c\xc0\0\2\7\x0a\0\0\1\xc3\x50\x11\x51")); /* family */
	assert_malformed(V2(START "\x21\x00\0\x00"));
	assert_malformed(V2(START "\x21\x11\0\x0b\xc0\0\2\7\x0a\0\0\1\xc3\x50\x11\x51")); /* too short, whatever follows */
	assert_malformed(V2(START "\x21\x11\0\0\xc0\0\2\7\x0a\0\0\1\xc3\x50\x11\x51"));
	assert_malformed(V2(START "\x21\x21\0\x0c\xc0\0\2\7\x0a\0\0\1\xc3\x50\x11\x51"));
	assert_malformed(V2(START "\x21\x11\0\x0c\0\0\0\0\x0a\0\0\1\xc3\x50\x11\x51"));
	assert_malformed(V2(START "\x21\x11\0\x0c\xe0\0\0\1\x0a\0\0\1\xc3\x50\x11\x51"));
	assert_malformed(V2("\r\n\r\n\0\r\nQUIT\r\x21\x11\0\x0c\xc0\0\2\7\x0a\0\0\1\xc3\x50\x11\x51"));
	assert_malformed(V2("\r\n\r\n\1"));
}

RUN_TESTS(NULL, NULL)
