/* SPDX-License-Identifier: Apache-2.0 */
#include "frame.h"

#include <endian.h>
#include <errno.h>
#include <stdbool.h>
#include <string.h>

/* The fields of each type in their order, a letter each: v version, k kind, f flags, i id, m mode, t time, s size, c count, n name,
 * x text, d data, which is the rest. */
static const struct form {
	const char *name, *fields;
	unsigned kinds; /* highest value of kind */
	bool may_be_nameless;
} forms[FILES_TYPE_COUNT] = {
	[FILES_HELLO] = {"HELLO", "vkfn", FILES_GET, true},
	[FILES_WELCOME] = {"WELCOME", "v", 0, false},
	[FILES_PATH] = {"PATH", "n", 0, true},
	[FILES_TOTAL] = {"TOTAL", "sc", 0, false},
	[FILES_ENTRY] = {"ENTRY", "iktmsnx", FILES_LINK, false},
	[FILES_LEAVE] = {"LEAVE", "itmn", 0, true},
	[FILES_ANSWER] = {"ANSWER", "ikscxd", FILES_COMPARE, false},
	[FILES_START] = {"START", "is", 0, false},
	[FILES_DATA] = {"DATA", "sd", 0, false},
	[FILES_END] = {"END", "iksx", FILES_UNCHANGED, false},
	[FILES_DONE] = {"DONE", "iknx", FILES_UNCHANGED, false},
	[FILES_SKIPPED] = {"SKIPPED", "knx", FILES_LEFT_OUT, false},
	[FILES_FINISH] = {"FINISH", "", 0, false},
	[FILES_BYE] = {"BYE", "", 0, false},
	[FILES_ALIVE] = {"ALIVE", "", 0, false},
	[FILES_FAILURE] = {"FAILURE", "x", 0, false},
	[FILES_WHOLE] = {"WHOLE", "itmnd", 0, false},
	[FILES_EXCLUDE] = {"EXCLUDE", "n", 0, false},
	[FILES_REMOVED] = {"REMOVED", "knx", FILES_LEFT_OUT, false},
};

const char *files_type_name(unsigned type)
{
	return type < FILES_TYPE_COUNT && forms[type].name ? forms[type].name : "unknown";
}

struct reader {
	const uint8_t *at;
	size_t left;
	bool short_of;
};

/* The next `length` bytes; NULL when there are not so many. */
static const uint8_t *take(struct reader *reader, size_t length)
{
	const uint8_t *at = reader->at;

	if (reader->short_of || length > reader->left) {
		reader->short_of = true;
		return NULL;
	}
	reader->at += length;
	reader->left -= length;
	return at;
}

static uint64_t take_number(struct reader *reader, size_t width)
{
	const uint8_t *at = take(reader, width);
	uint64_t number = 0;

	for (size_t i = 0; at && i < width; i++)
		number = number << 8 | at[i];
	return number;
}

static void take_bytes(struct reader *reader, struct files_bytes *bytes, size_t max)
{
	size_t length = (size_t)take_number(reader, 2);

	if (length > max)
		reader->short_of = true;
	bytes->at = take(reader, length);
	bytes->length = bytes->at ? length : 0;
}

static void take_field(struct reader *reader, char field, struct files_frame *frame)
{
	switch (field) {
	case 'v': frame->version = (uint16_t)take_number(reader, 2); break;
	case 'k': frame->kind = (unsigned)take_number(reader, 1); break;
	case 'f': frame->flags = (uint32_t)take_number(reader, 4); break;
	case 'i': frame->id = take_number(reader, 8); break;
	case 'm': frame->mode = (uint32_t)take_number(reader, 4); break;
	case 't':
		frame->mtime = (int64_t)take_number(reader, 8);
		frame->mtime_ns = (uint32_t)take_number(reader, 4);
		break;
	case 's': frame->size = take_number(reader, 8); break;
	case 'c': frame->count = take_number(reader, 8); break;
	case 'n': take_bytes(reader, &frame->name, FILES_NAME_MAX); break;
	case 'x': take_bytes(reader, &frame->text, FILES_TEXT_MAX); break;
	default:
		frame->data.length = reader->left;
		frame->data.at = take(reader, reader->left);
		break;
	}
}

/* What the fields' widths leave open. */
static bool is_sound(const struct files_frame *frame, const struct form *form)
{
	if (strchr(form->fields, 'k') && (frame->kind < 1 || frame->kind > form->kinds))
		return false;
	if (strchr(form->fields, 'n') && frame->name.length == 0 && !form->may_be_nameless)
		return false;
	if (frame->name.length > 0 && memchr(frame->name.at, '\0', frame->name.length))
		return false;
	if (frame->text.length > 0 && memchr(frame->text.at, '\0', frame->text.length))
		return false;
	if (frame->mtime_ns > 999999999 || frame->size > INT64_MAX || frame->data.length > FILES_DATA_MAX)
		return false;
	if (frame->flags & ~FILES_FLAGS)
		return false;
	if (frame->type == FILES_DATA)
		return frame->data.length > 0 && frame->size <= (uint64_t)INT64_MAX - frame->data.length;
	if (frame->type == FILES_WHOLE)
		return frame->data.length <= FILES_WHOLE_MAX;
	if (frame->type == FILES_ANSWER) {
		bool has_sums = frame->kind == FILES_PARTIAL || frame->kind == FILES_COMPARE;

		return frame->data.length % FILES_TAG_SIZE == 0 && frame->data.length / FILES_TAG_SIZE <= FILES_RUNGS_MAX &&
		       has_sums == (frame->data.length > 0) && (!has_sums || frame->count > 0);
	}
	return true;
}

int files_frame_decode(enum files_type type, const uint8_t *payload, size_t size, struct files_frame *frame)
{
	struct reader reader = {.at = payload, .left = size};
	const struct form *form;

	if ((unsigned)type >= FILES_TYPE_COUNT || !forms[type].name)
		return -EPROTO;
	form = &forms[type];
	*frame = (struct files_frame){.type = type};
	for (const char *field = form->fields; *field; field++)
		take_field(&reader, *field, frame);
	return reader.short_of || reader.left > 0 || !is_sound(frame, form) ? -EPROTO : 0;
}

struct writer {
	uint8_t *at;
	size_t left;
	bool full;
};

static uint8_t *put(struct writer *writer, size_t length)
{
	uint8_t *at = writer->at;

	if (writer->full || length > writer->left) {
		writer->full = true;
		return NULL;
	}
	writer->at += length;
	writer->left -= length;
	return at;
}

static void put_number(struct writer *writer, uint64_t number, size_t width)
{
	uint8_t *at = put(writer, width);

	for (size_t i = 0; at && i < width; i++)
		at[i] = (uint8_t)(number >> (8 * (width - 1 - i)));
}

static void put_raw(struct writer *writer, const struct files_bytes *bytes)
{
	uint8_t *at = put(writer, bytes->length);

	if (at && at != bytes->at && bytes->length > 0)
		memmove(at, bytes->at, bytes->length);
}

static void put_bytes(struct writer *writer, const struct files_bytes *bytes, size_t max)
{
	if (bytes->length > max)
		writer->full = true;
	put_number(writer, bytes->length, 2);
	put_raw(writer, bytes);
}

static void put_field(struct writer *writer, char field, const struct files_frame *frame)
{
	switch (field) {
	case 'v': put_number(writer, frame->version, 2); break;
	case 'k': put_number(writer, frame->kind, 1); break;
	case 'f': put_number(writer, frame->flags, 4); break;
	case 'i': put_number(writer, frame->id, 8); break;
	case 'm': put_number(writer, frame->mode, 4); break;
	case 't':
		put_number(writer, (uint64_t)frame->mtime, 8);
		put_number(writer, frame->mtime_ns, 4);
		break;
	case 's': put_number(writer, frame->size, 8); break;
	case 'c': put_number(writer, frame->count, 8); break;
	case 'n': put_bytes(writer, &frame->name, FILES_NAME_MAX); break;
	case 'x': put_bytes(writer, &frame->text, FILES_TEXT_MAX); break;
	default: put_raw(writer, &frame->data); break;
	}
}

int files_frame_encode(const struct files_frame *frame, uint8_t *payload, size_t size)
{
	struct writer writer = {.at = payload, .left = size};

	for (const char *field = forms[frame->type].fields; *field; field++)
		put_field(&writer, *field, frame);
	return writer.full ? -EMSGSIZE : (int)(size - writer.left);
}
