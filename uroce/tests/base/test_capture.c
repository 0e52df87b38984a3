/* SPDX-License-Identifier: Apache-2.0 */
#include "check.h"

#include "capture.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "wire.h"

enum { HEADER = 24, RECORD = 16, V4 = 28, V6 = 48 };

static char workdir[64];
static char path[128];

static int enter_directory(void **state)
{
	(void)state;
	strcpy(workdir, "/tmp/uroce-capture-XXXXXX");
	if (!mkdtemp(workdir))
		return -1;
	snprintf(path, sizeof path, "%s/a.pcap", workdir);
	return 0;
}

static int leave_directory(void **state)
{
	DIR *directory = opendir(workdir);
	struct dirent *entry;

	(void)state;
	while (directory && (entry = readdir(directory)))
		if (entry->d_name[0] != '.')
			unlinkat(dirfd(directory), entry->d_name, 0);
	if (directory)
		closedir(directory);
	return rmdir(workdir);
}

static struct icrc_flow flow_v4(void)
{
	struct icrc_flow flow = {.src_port = 49152, .dst_port = WIRE_PORT};

	memcpy(flow.src.raw, "\0\0\0\0\0\0\0\0\0\0\xff\xff\xc0\0\2\1", 16);
	memcpy(flow.dst.raw, "\0\0\0\0\0\0\0\0\0\0\xff\xff\xc0\0\2\2", 16);
	return flow;
}

static struct icrc_flow flow_v6(void)
{
	struct icrc_flow flow = {.src_port = 50000, .dst_port = WIRE_PORT};

	memcpy(flow.src.raw, "\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\1", 16);
	memcpy(flow.dst.raw, "\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\2", 16);
	return flow;
}

/* SEND only to queue pair 0x123456, PSN 0xabcdef, with a payload and the right ICRC, in pieces. */
static void capture_send(struct capture *capture, bool sent, const struct icrc_flow *flow, char *payload, size_t length)
{
	uint8_t bth[WIRE_BTH] = {0x04, 0x40, 0xff, 0xff, 0, 0x12, 0x34, 0x56, 0x80, 0xab, 0xcd, 0xef};
	uint8_t sum[WIRE_ICRC];
	/* An odd piece: the UDP checksum must not care. */
	struct iovec pieces[] = {{bth, sizeof bth}, {payload, 1}, {payload + 1, length - 1}, {sum, sizeof sum}};
	uint32_t icrc = icrc_compute(flow, 0, pieces, 3);

	for (int i = 0; i < WIRE_ICRC; i++)
		sum[i] = (uint8_t)(icrc >> 8 * i);
	capture_packet(capture, sent, flow, 0x68, pieces, 4);
}

static struct capture *open_capture(const char *name)
{
	struct capture *capture = NULL;

	assert_int_equal(capture_open(name, &capture), 0);
	assert_non_null(capture);
	return capture;
}

static size_t read_file(const char *name, uint8_t *bytes, size_t size)
{
	FILE *file = fopen(name, "re");
	size_t length;

	assert_non_null(file);
	length = fread(bytes, 1, size, file);
	fclose(file);
	return length;
}

static uint16_t internet_sum(const uint8_t *bytes, size_t length, uint32_t sum)
{
	for (size_t i = 0; i + 1 < length; i += 2)
		sum += (uint32_t)(bytes[i] << 8 | bytes[i + 1]);
	while (sum >> 16)
		sum = (sum & 0xffff) + (sum >> 16);
	return (uint16_t)sum;
}

static void ipv4_packets_have_whole_headers(void **state)
{
	struct icrc_flow flow = flow_v4();
	struct capture *capture = open_capture(path);
	uint8_t bytes[1024];
	const uint8_t *ip = bytes + HEADER + RECORD;
	uint32_t word;
	size_t length;

	(void)state;
	capture_send(capture, true, &flow, (char[]){"abcdefg"}, 8);
	capture_close(&capture);
	assert_null(capture);
	capture_close(&capture);
	length = read_file(path, bytes, sizeof bytes);
	assert_int_equal(length, HEADER + RECORD + V4 + WIRE_BTH + 8 + WIRE_ICRC);
	memcpy(&word, bytes, 4);
	assert_int_equal(word, 0xa1b23c4d);
	memcpy(&word, bytes + 20, 4);
	assert_int_equal(word, 101);
	memcpy(&word, bytes + HEADER + 8, 4);
	assert_int_equal(word, length - HEADER - RECORD);
	assert_int_equal(ip[0], 0x45);
	assert_int_equal(ip[1], 0x68);
	assert_int_equal(ip[2] << 8 | ip[3], length - HEADER - RECORD);
	assert_int_equal(internet_sum(ip, 20, 0), 0xffff);
	assert_int_equal(ip[20] << 8 | ip[21], 49152);
	assert_int_equal(ip[22] << 8 | ip[23], WIRE_PORT);
	assert_memory_equal(ip + V4 + WIRE_BTH, "abcdefg", 8);
}

static void ipv6_packets_have_a_udp_checksum(void **state)
{
	struct icrc_flow flow = flow_v6();
	struct capture *capture = open_capture(path);
	uint8_t bytes[1024];
	const uint8_t *ip = bytes + HEADER + RECORD;
	size_t udp = 8 + WIRE_BTH + 8 + WIRE_ICRC;

	(void)state;
	capture_send(capture, true, &flow, (char[]){"abcdefg"}, 8);
	capture_close(&capture);
	assert_int_equal(read_file(path, bytes, sizeof bytes), HEADER + RECORD + 40 + udp);
	assert_int_equal(ip[0] >> 4, 6);
	assert_int_equal(ip[4] << 8 | ip[5], udp);
	/* Addresses and UDP, and the pseudo header's length and protocol. */
	assert_int_equal(internet_sum(ip + 8, 32 + udp, (uint32_t)udp + 17), 0xffff);
}

static void a_process_id_can_stand_in_the_path(void **state)
{
	char name[160], expected[160];
	struct capture *capture;

	(void)state;
	snprintf(name, sizeof name, "%s/%%p-%%%%-%%x.pcap", workdir);
	snprintf(expected, sizeof expected, "%s/%d-%%-%%x.pcap", workdir, (int)getpid());
	capture = open_capture(name);
	capture_close(&capture);
	assert_int_equal(access(expected, F_OK), 0);
}

static void paths_that_can_not_be_are_refused(void **state)
{
	struct capture *capture = NULL;
	char *deep = malloc(8192);

	(void)state;
	assert_non_null(deep);
	memset(deep, 'x', 8191);
	deep[8191] = '\0';
	assert_int_equal(capture_open("", &capture), -EINVAL);
	assert_int_equal(capture_open(deep, &capture), -ENAMETOOLONG);
	assert_int_equal(capture_open("/nonexistent/a.pcap", &capture), -ENOENT);
	assert_int_equal(capture_open("/dev/null", &capture), -EOPNOTSUPP);
	assert_null(capture);
	free(deep);
}

static void another_file_is_left_alone(void **state)
{
	struct capture *capture = NULL;
	uint8_t bytes[64];
	FILE *file = fopen(path, "we");

	(void)state;
	assert_non_null(file);
	fputs("a letter, which is longer than a header", file);
	fclose(file);
	assert_int_equal(capture_open(path, &capture), -EEXIST);
	assert_int_equal(read_file(path, bytes, sizeof bytes), 39);
	assert_memory_equal(bytes, "a letter", 8);
}

static void a_capture_is_continued_and_its_broken_end_repaired(void **state)
{
	struct icrc_flow flow = flow_v4();
	struct capture *capture;
	struct stat st;
	off_t one;

	(void)state;
	capture = open_capture(path);
	capture_send(capture, true, &flow, (char[]){"abcdefg"}, 8);
	capture_close(&capture);
	assert_int_equal(stat(path, &st), 0);
	one = st.st_size - HEADER;
	assert_int_equal(st.st_mode & 077, 0);

	capture = open_capture(path);
	capture_send(capture, true, &flow, (char[]){"abcdefg"}, 8);
	capture_close(&capture);
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_size, HEADER + 2 * one);

	assert_int_equal(truncate(path, HEADER + 2 * one - 3), 0);
	capture = open_capture(path);
	capture_send(capture, true, &flow, (char[]){"abcdefg"}, 8);
	capture_close(&capture);
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_size, HEADER + 2 * one);
}

static void packets_reach_the_file_without_a_close(void **state)
{
	struct icrc_flow flow = flow_v4();
	struct capture *capture = open_capture(path);
	struct stat st = {0};

	(void)state;
	capture_send(capture, true, &flow, (char[]){"abcdefg"}, 8);
	for (int i = 0; i < 10000 && st.st_size <= HEADER; i++) {
		usleep(1000);
		assert_int_equal(stat(path, &st), 0);
	}
	assert_true(st.st_size > HEADER);
	capture_close(&capture);
}

static void a_forked_child_writes_nothing(void **state)
{
	struct icrc_flow flow = flow_v4();
	struct capture *capture = open_capture(path);
	struct stat st;
	pid_t child;
	int status;

	(void)state;
	capture_send(capture, true, &flow, (char[]){"abcdefg"}, 8);
	child = fork();
	if (child == 0) {
		capture_send(capture, true, &flow, (char[]){"abcdefg"}, 8);
		capture_close(&capture);
		_exit(0);
	}
	assert_true(child > 0);
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_int_equal(status, 0);
	capture_close(&capture);
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_size, HEADER + RECORD + V4 + WIRE_BTH + 8 + WIRE_ICRC);
}

static void impossible_lengths_are_ignored(void **state)
{
	struct icrc_flow flow = flow_v4();
	struct capture *capture = open_capture(path);
	char *bytes = calloc(1, 65536);
	struct iovec pieces[] = {{bytes, 40000}, {bytes, 25508}, {bytes, SIZE_MAX}};
	struct stat st;

	(void)state;
	assert_non_null(bytes);
	capture_packet(capture, true, &flow, 0, pieces, 2);
	capture_packet(capture, true, &flow, 0, pieces, 3);
	pieces[1].iov_len--;
	capture_packet(capture, true, &flow, 0, pieces, 2);
	capture_packet(NULL, true, &flow, 0, pieces, 2);
	capture_close(&capture);
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_size, HEADER + RECORD + 65535);
	free(bytes);
}

static void *send_many(void *arg)
{
	struct icrc_flow flow = flow_v4();
	char payload[1000] = {0};

	for (int i = 0; i < 2000; i++)
		capture_send(arg, i % 2, &flow, payload, sizeof payload);
	return NULL;
}

/* Two captures of one file, two threads each, all at once: every record is whole. */
static void threads_and_captures_share_a_file(void **state)
{
	struct capture *capture[2] = {open_capture(path), open_capture(path)};
	pthread_t thread[4];
	size_t at = HEADER, records = 0, length;
	uint8_t *bytes = malloc(16 << 20);

	(void)state;
	assert_non_null(bytes);
	for (int i = 0; i < 4; i++)
		assert_int_equal(pthread_create(&thread[i], NULL, send_many, capture[i / 2]), 0);
	for (int i = 0; i < 4; i++)
		pthread_join(thread[i], NULL);
	capture_close(&capture[0]);
	capture_close(&capture[1]);
	length = read_file(path, bytes, 16 << 20);
	for (; at < length; records++) {
		uint32_t kept;

		memcpy(&kept, bytes + at + 8, 4);
		assert_int_equal(kept, V4 + WIRE_BTH + 1000 + WIRE_ICRC);
		at += RECORD + kept;
	}
	assert_int_equal(at, length);
	assert_int_equal(records, 8000);
	free(bytes);
}

/* The judge that matters. */
static void wireshark_shows_roce(void **state)
{
	const struct icrc_flow flows[] = {flow_v4(), flow_v6()};
	struct capture *capture;
	char command[512];
	char line[256];
	FILE *tshark;
	int lines = 0;

	(void)state;
	if (system("command -v tshark >/dev/null 2>&1") != 0)
		skip();
	capture = open_capture(path);
	for (int i = 0; i < 4; i++)
		capture_send(capture, i < 2, &flows[i % 2], (char[]){"abcdefg"}, 8);
	capture_close(&capture);
	snprintf(command, sizeof command,
		 "HOME=%s tshark -n -r %s -o ip.check_checksum:TRUE -o udp.check_checksum:TRUE -T fields -e frame.protocols "
		 "-e infiniband.bth.opcode -e infiniband.bth.destqp -e infiniband.bth.psn -e ip.checksum.status "
		 "-e udp.checksum.status -e _ws.malformed 2>/dev/null",
		 workdir, path);
	tshark = popen(command, "r");
	assert_non_null(tshark);
	for (; fgets(line, sizeof line, tshark); lines++) {
		/* Status 1: good; 3: no UDP checksum, as IPv4 allows. */
		assert_non_null(strstr(line, lines % 2 ? "raw:ipv6:udp:infiniband" : "raw:ip:udp:infiniband"));
		assert_non_null(strstr(line, lines % 2 ? "\t4\t0x123456\t11259375\t\t1\t" : "\t4\t0x123456\t11259375\t1\t3\t"));
	}
	assert_int_equal(pclose(tshark), 0);
	assert_int_equal(lines, 4);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
#define TEST(name) cmocka_unit_test_setup_teardown(name, enter_directory, leave_directory)
		TEST(ipv4_packets_have_whole_headers),
		TEST(ipv6_packets_have_a_udp_checksum),
		TEST(a_process_id_can_stand_in_the_path),
		TEST(paths_that_can_not_be_are_refused),
		TEST(another_file_is_left_alone),
		TEST(a_capture_is_continued_and_its_broken_end_repaired),
		TEST(packets_reach_the_file_without_a_close),
		TEST(a_forked_child_writes_nothing),
		TEST(impossible_lengths_are_ignored),
		TEST(threads_and_captures_share_a_file),
		TEST(wireshark_shows_roce),
	};

	return cmocka_run_group_tests_name("capture", tests, NULL, NULL);
}
