/* SPDX-License-Identifier: Apache-2.0 */
#include "channel.h"

#include <errno.h>
#include <openssl/crypto.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define BUFFER_SIZE (3 * FILES_FRAME_MAX)
/* Enough to be worth a write of the transport. */
#define FLUSH_SIZE (500 * 1024)
/* Between two signs of life, and for how long there may be nothing but these. */
#define ALIVE_MS     2000
#define ALIVE_MAX_MS (10 * 60 * 1000)
/* The header of FILES_DATA. */
#define DATA_HEAD (FILES_HEAD_SIZE + 8)

struct buffer {
	uint8_t *bytes;
	size_t start, end;
};

struct files_channel {
	struct files_transport transport;
	struct files_mac *mac, *part_mac; /* of frames; of contents */
	bool is_client;
	int timeout_ms;
	struct buffer in, out;
	uint64_t received, sent; /* frames */
	size_t taken;            /* bytes of the frame that was returned, still in `in` */
	bool ended;              /* the peer has said its last */
	int64_t alive_since, heard_at, put_at;
};

static int64_t now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

int files_channel_new(const struct files_transport *transport, const uint8_t key[FILES_KEY_SIZE], bool is_client, int timeout_ms,
		      struct files_channel **out)
{
	struct files_channel *channel = calloc(1, sizeof *channel);
	int ret;

	if (!channel)
		return -ENOMEM;
	channel->transport = *transport;
	channel->is_client = is_client;
	channel->timeout_ms = timeout_ms;
	channel->put_at = now_ms();
	channel->in.bytes = malloc(BUFFER_SIZE);
	channel->out.bytes = malloc(BUFFER_SIZE);
	ret = channel->in.bytes && channel->out.bytes ? files_mac_new(key, &channel->mac) : -ENOMEM;
	if (ret == 0)
		ret = files_mac_new(key, &channel->part_mac);
	if (ret < 0)
		files_channel_free(&channel);
	else
		*out = channel;
	return ret;
}

void files_channel_free(struct files_channel **channel)
{
	if (!*channel)
		return;
	files_mac_free(&(*channel)->mac);
	files_mac_free(&(*channel)->part_mac);
	free((*channel)->in.bytes);
	free((*channel)->out.bytes);
	free(*channel);
	*channel = NULL;
}

struct files_mac *files_channel_mac(struct files_channel *channel)
{
	return channel->part_mac;
}

/* ---- receiving ------------------------------------------------------------------------------------------------- */

static size_t room_in(const struct files_channel *channel)
{
	return BUFFER_SIZE - channel->in.end;
}

/* Reads what is there, without waiting. Returns how many bytes, 0 when there was no room or the peer has ended, or an error. */
static ssize_t fill(struct files_channel *channel)
{
	struct buffer *in = &channel->in;
	ssize_t count;

	if (channel->ended || room_in(channel) == 0)
		return 0;
	count = channel->transport.read(channel->transport.arg, in->bytes + in->end, room_in(channel));
	if (count > 0)
		in->end += (size_t)count;
	else if (count == 0)
		channel->ended = true;
	return count;
}

/* Lets go of the frame that was returned, and makes room for a whole one. */
static void make_room(struct files_channel *channel)
{
	struct buffer *in = &channel->in;

	in->start += channel->taken;
	channel->taken = 0;
	if (in->start == in->end) {
		in->start = in->end = 0;
	} else if (BUFFER_SIZE - in->start < FILES_FRAME_MAX) {
		memmove(in->bytes, in->bytes + in->start, in->end - in->start);
		in->end -= in->start;
		in->start = 0;
	}
}

static uint32_t length_at(const uint8_t *at)
{
	return (uint32_t)at[0] << 24 | (uint32_t)at[1] << 16 | (uint32_t)at[2] << 8 | at[3];
}

static size_t tag_size_of(const struct files_channel *channel)
{
	return channel->transport.is_sealed ? 0 : FILES_TAG_SIZE;
}

static int tag_of(struct files_channel *channel, bool from_client, uint64_t number, const uint8_t *at, size_t size, uint8_t tag[16])
{
	files_mac_begin(channel->mac, from_client ? FILES_MAC_CLIENT : FILES_MAC_SERVER, 0, number);
	files_mac_add(channel->mac, at, size);
	return files_mac_end(channel->mac, tag);
}

/* The frame at the buffer's start. -EAGAIN: it has not come whole. */
static int parse(struct files_channel *channel, struct files_frame *frame)
{
	const uint8_t *at = channel->in.bytes + channel->in.start;
	size_t have = channel->in.end - channel->in.start, tag_size = tag_size_of(channel), length;
	uint8_t tag[FILES_TAG_SIZE];
	int ret = 0;

	if (have < FILES_HEAD_SIZE)
		return -EAGAIN;
	length = length_at(at);
	if (length > FILES_FRAME_MAX - FILES_HEAD_SIZE - FILES_TAG_SIZE)
		return -EPROTO;
	if (have < FILES_HEAD_SIZE + length + tag_size)
		return -EAGAIN;
	if (tag_size > 0)
		ret = tag_of(channel, !channel->is_client, channel->received, at, FILES_HEAD_SIZE + length, tag);
	if (ret == 0 && tag_size > 0 && CRYPTO_memcmp(tag, at + FILES_HEAD_SIZE + length, sizeof tag) != 0)
		ret = -EBADMSG;
	if (ret < 0)
		return ret;
	channel->received++;
	channel->heard_at = now_ms();
	channel->taken = FILES_HEAD_SIZE + length + tag_size;
	return files_frame_decode((enum files_type)at[4], at + FILES_HEAD_SIZE, length, frame);
}

/* The next frame in the buffer that is not only a sign of life. */
static int parse_next(struct files_channel *channel, struct files_frame *frame)
{
	int ret;

	for (;;) {
		make_room(channel);
		ret = parse(channel, frame);
		if (ret != 0)
			return ret;
		if (frame->type != FILES_ALIVE) {
			channel->alive_since = 0;
			return 0;
		}
		if (channel->alive_since == 0)
			channel->alive_since = now_ms();
		if (now_ms() - channel->alive_since > ALIVE_MAX_MS)
			return -ETIMEDOUT;
	}
}

static int next_by(struct files_channel *channel, int64_t patience_ms, struct files_frame *frame)
{
	int64_t begin = now_ms(), until = begin + patience_ms;

	for (;;) {
		int64_t now, left, deadline;
		ssize_t count;
		int ret = parse_next(channel, frame);

		if (ret != -EAGAIN)
			return ret;
		count = fill(channel);
		if (count > 0)
			continue;
		if (count < 0 && count != -EAGAIN)
			return (int)count;
		if (channel->ended) {
			*frame = (struct files_frame){.type = 0};
			return channel->in.start == channel->in.end ? 0 : -EPROTO;
		}
		now = now_ms();
		/* Whole frames put it off, and bytes do not: nobody holds this end with a byte now and then. */
		deadline = (channel->heard_at > begin ? channel->heard_at : begin) + channel->timeout_ms;
		if (now >= deadline)
			return -ETIMEDOUT;
		if (now >= until)
			return -EAGAIN;
		left = deadline < until ? deadline - now : until - now;
		ret = channel->transport.wait(channel->transport.arg, true, false, (int)left);
		if (ret < 0 && ret != -ETIMEDOUT && ret != -EAGAIN)
			return ret;
	}
}

int files_channel_next(struct files_channel *channel, bool wait, struct files_frame *frame)
{
	return next_by(channel, wait ? INT32_MAX : 0, frame);
}

int files_channel_next_within(struct files_channel *channel, int ms, struct files_frame *frame)
{
	return next_by(channel, ms, frame);
}

/* ---- sending --------------------------------------------------------------------------------------------------- */

int files_channel_flush(struct files_channel *channel)
{
	struct buffer *out = &channel->out;
	int64_t deadline = now_ms() + channel->timeout_ms;

	while (out->start < out->end) {
		ssize_t count = channel->transport.write(channel->transport.arg, out->bytes + out->start, out->end - out->start), read;
		bool has_room;
		int ret;

		if (count > 0) {
			out->start += (size_t)count;
			deadline = now_ms() + channel->timeout_ms;
			continue;
		}
		if (count < 0 && count != -EAGAIN)
			return (int)count;
		/* The peer may wait for room itself, before it takes what is sent here. */
		read = fill(channel);
		if (read > 0)
			continue;
		if (read < 0 && read != -EAGAIN)
			return (int)read;
		if (now_ms() >= deadline)
			return -ETIMEDOUT;
		has_room = !channel->ended && room_in(channel) > 0;
		ret = channel->transport.wait(channel->transport.arg, has_room, true, (int)(deadline - now_ms()));
		if (ret < 0 && ret != -EAGAIN)
			return ret;
	}
	out->start = out->end = 0;
	return 0;
}

int files_channel_room(struct files_channel *channel, uint8_t **data)
{
	int ret = 0;

	if (BUFFER_SIZE - channel->out.end < FILES_FRAME_MAX)
		ret = files_channel_flush(channel);
	*data = channel->out.bytes + channel->out.end + DATA_HEAD;
	return ret;
}

int files_channel_put(struct files_channel *channel, const struct files_frame *frame)
{
	struct buffer *out = &channel->out;
	uint8_t *at;
	int length, ret = 0;

	/* The data of a frame that files_channel_room made room for must stay where it is. */
	if (frame->type != FILES_DATA && BUFFER_SIZE - out->end < FILES_FRAME_MAX)
		ret = files_channel_flush(channel);
	if (ret < 0)
		return ret;
	at = out->bytes + out->end;
	length = files_frame_encode(frame, at + FILES_HEAD_SIZE, FILES_FRAME_MAX - FILES_HEAD_SIZE - FILES_TAG_SIZE);
	if (length < 0)
		return length;
	for (int i = 0; i < 4; i++)
		at[i] = (uint8_t)((uint32_t)length >> (24 - 8 * i));
	at[4] = (uint8_t)frame->type;
	if (tag_size_of(channel) > 0)
		ret = tag_of(channel, channel->is_client, channel->sent, at, FILES_HEAD_SIZE + (size_t)length, at + FILES_HEAD_SIZE + length);
	if (ret < 0)
		return ret;
	channel->sent++;
	channel->put_at = now_ms();
	out->end += FILES_HEAD_SIZE + (size_t)length + tag_size_of(channel);
	return out->end - out->start >= FLUSH_SIZE ? files_channel_flush(channel) : 0;
}

int files_channel_live(struct files_channel *channel)
{
	const struct files_frame frame = {.type = FILES_ALIVE};
	int ret;

	if (now_ms() - channel->put_at < ALIVE_MS)
		return 0;
	ret = files_channel_put(channel, &frame);
	return ret < 0 ? ret : files_channel_flush(channel);
}
