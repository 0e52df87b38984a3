/* SPDX-License-Identifier: Apache-2.0 */
/* A client of `securdma cp` that sends anything, with right checksums. Whatever it sends, what is read is what would be written again, the
 * server's end comes to an end, and nothing appears beside its folder. */
#include "fuzz.h"

#include "host.h"

#include <errno.h>
#include <ftw.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static const uint8_t key[FILES_KEY_SIZE];
static char top[64], folder[80];

/* The frames of the input: each has a type, a length of two bytes, and a payload. */
struct input {
	const uint8_t *at;
	size_t left;
	uint64_t number;
	struct files_mac *mac;
	uint8_t frame[FILES_HEAD_SIZE + 65535 + FILES_TAG_SIZE];
	size_t length, given;
};

static void check_frame(unsigned type, const uint8_t *payload, size_t size)
{
	static uint8_t again[65536];
	struct files_frame frame;

	if (files_frame_decode((enum files_type)type, payload, size, &frame) != 0)
		return;
	require(files_frame_encode(&frame, again, sizeof again) == (int)size);
	require(size == 0 || memcmp(again, payload, size) == 0);
}

static bool next_frame(struct input *input)
{
	size_t length = input->left >= 3 ? (size_t)(input->at[1] << 8 | input->at[2]) : 0;
	uint8_t *frame = input->frame;

	if (input->left < 3 || length > input->left - 3)
		return false;
	frame[0] = frame[1] = 0;
	frame[2] = (uint8_t)(length >> 8);
	frame[3] = (uint8_t)length;
	frame[4] = input->at[0];
	memcpy(frame + FILES_HEAD_SIZE, input->at + 3, length);
	check_frame(frame[4], frame + FILES_HEAD_SIZE, length);
	files_mac_begin(input->mac, FILES_MAC_CLIENT, 0, input->number++);
	files_mac_add(input->mac, frame, FILES_HEAD_SIZE + length);
	require(files_mac_end(input->mac, frame + FILES_HEAD_SIZE + length) == 0);
	input->length = FILES_HEAD_SIZE + length + FILES_TAG_SIZE;
	input->given = 0;
	input->at += 3 + length;
	input->left -= 3 + length;
	return true;
}

static ssize_t give(void *arg, void *data, size_t size)
{
	struct input *input = arg;

	if (input->given == input->length && !next_frame(input))
		return 0;
	if (size > input->length - input->given)
		size = input->length - input->given;
	memcpy(data, input->frame + input->given, size);
	input->given += size;
	return (ssize_t)size;
}

static ssize_t take(void *arg, const void *data, size_t size)
{
	(void)arg;
	(void)data;
	return (ssize_t)size;
}

static int wait_for(void *arg, bool to_read, bool to_write, int timeout_ms)
{
	(void)arg;
	(void)to_read;
	(void)to_write;
	(void)timeout_ms;
	return -ETIMEDOUT;
}

static int drop(const char *path, const struct stat *status, int kind, struct FTW *where)
{
	(void)status;
	(void)kind;
	return where->level == 0 ? 0 : remove(path);
}

static int count_entry(const char *path, const struct stat *status, int kind, struct FTW *where)
{
	(void)status;
	(void)kind;
	require(where->level != 1 || strcmp(path, folder) == 0);
	return 0;
}

static void clean(void)
{
	nftw(top, drop, 16, FTW_DEPTH | FTW_PHYS);
	rmdir(top);
}

static void make_folder(void)
{
	strcpy(top, "/dev/shm/fuzz-files-XXXXXX");
	require(mkdtemp(top) != NULL);
	atexit(clean);
	snprintf(folder, sizeof folder, "%s/in", top);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct files_host_result result;
	static struct input input;
	struct files_transport transport = {give, take, wait_for, &input, false};
	struct files_area area = {.folder = folder, .rights = FILES_MAY_READ | FILES_MAY_WRITE | FILES_MAY_DELETE, .quota = 1 << 20, .timeout_ms = 100};
	struct files_report report = {0};

	if (!top[0])
		make_folder();
	mkdir(folder, 0700);
	input = (struct input){.at = data, .left = size};
	result = (struct files_host_result){0};
	require(files_mac_new(key, &input.mac) == 0);
	files_host_run(&transport, key, &area, &report, &result);
	files_mac_free(&input.mac);
	nftw(top, count_entry, 16, FTW_PHYS);
	nftw(folder, drop, 16, FTW_DEPTH | FTW_PHYS);
	return 0;
}
