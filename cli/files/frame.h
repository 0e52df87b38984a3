/* SPDX-License-Identifier: Apache-2.0 */
/* The frames of the copying protocol: what each carries, and strict, bounded reading. docs/PROTOCOL.md, "Copying files", has them. */
#ifndef FILES_FRAME_H
#define FILES_FRAME_H

#include <stddef.h>
#include <stdint.h>

#define FILES_VERSION    2
#define FILES_NAME_MAX   4095
#define FILES_TEXT_MAX   4095
#define FILES_DATA_MAX   (256 * 1024)
#define FILES_WHOLE_MAX  (64 * 1024) /* of a file that goes in one frame */
#define FILES_RUNGS_MAX  32
#define FILES_TAG_SIZE   16
#define FILES_HEAD_SIZE  5 /* length of the payload, type */
#define FILES_FRAME_MAX  (FILES_HEAD_SIZE + 16 + FILES_DATA_MAX + FILES_TAG_SIZE)
/* Files that are announced, and whose content has not begun. */
#define FILES_WINDOW 64

enum files_type {
	FILES_HELLO = 1, /* client: what it wants */
	FILES_WELCOME,   /* server: it may */
	FILES_PATH,      /* client that fetches: one of the names; after the last one FILES_FINISH */
	FILES_TOTAL,     /* sender: how much there is, if it was asked */
	FILES_ENTRY,     /* sender: a file, a folder or a link */
	FILES_LEAVE,     /* sender: all in this folder has been sent */
	FILES_ANSWER,    /* receiver: what it has of a file */
	FILES_START,     /* sender: a file's content comes, from this offset on */
	FILES_DATA,      /* sender: some of it; what is left out is a hole */
	FILES_END,       /* sender: the content is over */
	FILES_DONE,      /* receiver: an entry is saved, or has failed */
	FILES_SKIPPED,   /* sender: something that it does not send, or cannot */
	FILES_FINISH,    /* sender: there are no more entries */
	FILES_BYE,       /* receiver: all that came is done */
	FILES_ALIVE,     /* either: it is busy */
	FILES_FAILURE,   /* either: it ends the copy */
	FILES_WHOLE,     /* sender: a small file with its content, without a question before */
	FILES_EXCLUDE,   /* client, before its paths or entries: a pattern of what stays out */
	FILES_REMOVED,   /* receiver: it has deleted what the sender does not have, or could not */
	FILES_TYPE_COUNT,
};

enum files_operation { FILES_PUT = 1, FILES_GET };
enum files_kind { FILES_REGULAR = 1, FILES_FOLDER, FILES_LINK };
/* FILES_COMPARE: it has a file of the same size, and sums of it. */
enum files_verdict { FILES_SEND = 1, FILES_HAVE, FILES_PARTIAL, FILES_REFUSED, FILES_COMPARE };
/* FILES_UNCHANGED: FILES_DONE of a FILES_WHOLE that was there, or FILES_END of a file that has the receiver's sums. */
enum files_result { FILES_OK = 1, FILES_FAILED, FILES_LEFT_OUT, FILES_UNCHANGED };

/* In FILES_HELLO. */
#define FILES_RECURSIVE  1u
#define FILES_WANT_TOTAL 2u
#define FILES_NO_SYNC    4u
#define FILES_CHECKSUM   8u  /* the contents decide whether a file is there, and not size and time */
#define FILES_DELETE     16u /* what the sender does not have goes */
#define FILES_DRY_RUN    32u /* the receiver changes nothing, and no content is sent */
#define FILES_FLAGS      63u /* all of them */

struct files_bytes {
	const uint8_t *at;
	size_t length;
};

/* One frame; which fields it has, its type decides. The bytes are not the frame's. */
struct files_frame {
	enum files_type type;
	unsigned kind;    /* operation, kind, verdict or result */
	uint16_t version;
	uint32_t flags;
	uint32_t mode;
	uint64_t id;
	uint64_t size;    /* of a file; an offset in it; of what is there */
	uint64_t count;   /* files; bytes between two checksums */
	int64_t mtime;
	uint32_t mtime_ns;
	struct files_bytes name, text, data;
};

/* Bytes of a payload of `size` bytes into a frame. Returns 0 or -EPROTO. */
int files_frame_decode(enum files_type type, const uint8_t *payload, size_t size, struct files_frame *frame);
/* The payload of a frame into `size` bytes at `payload`. Returns its length, or -EMSGSIZE. The data of a frame may stand where it
 * belongs already. */
int files_frame_encode(const struct files_frame *frame, uint8_t *payload, size_t size);

/* A word for a type, for messages; "unknown" for a number that is none. */
const char *files_type_name(unsigned type);

#endif
