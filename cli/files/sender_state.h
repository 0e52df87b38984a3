/* SPDX-License-Identifier: Apache-2.0 */
/* The sender of a copy, for the files that are made of it. */
#ifndef FILES_SENDER_STATE_H
#define FILES_SENDER_STATE_H

#include "sender.h"

/* Of an entry's number, the rest is its kind; so the answer tells it. 0: the end of a folder. */
#define FILES_ID_STEP 4

/* A file that was announced, or the end of a folder, which must not overtake the files in it. */
struct item {
	bool is_file, answered;
	bool is_whole; /* it goes in one frame, without a question */
	uint64_t id;
	int fd;
	struct stat status;
	char *path;
	unsigned verdict;
	uint64_t size, step; /* of the peer's partial file; bytes of it that one checksum is for */
	uint8_t tags[FILES_RUNGS_MAX][FILES_TAG_SIZE];
	size_t tag_count;
	char text[256]; /* why the peer refuses it */
};

struct sender {
	struct files_channel *channel;
	const struct files_source *source;
	struct files_report *report;
	struct item items[FILES_WINDOW];
	size_t first, count;
	uint64_t next_id;
	uint64_t expected, done; /* entries that the peer is to say FILES_DONE of */
	uint64_t failed_id;      /* the last one that it said failed */
	uint64_t given_up_id;    /* the last file that failed here; 0 */
	bool has_failed, over, said_finish, finished;
	bool is_eager;           /* the peer lacks the files that come now, as far as one can tell */
	uint8_t *buffer; /* FILES_DATA_MAX bytes, to compare with, and of a whole file */
};

/* The user of this end is told. */
void files_sender_say(struct sender *sender, enum files_result result, const char *path, const char *text);
/* Of this end's own; the peer hears of it, too, since it may be the one with a user. */
int files_sender_skip(struct sender *sender, enum files_result result, const char *path, const char *text);
/* Takes all that has come; `wait`: at least one frame. */
int files_sender_take_frames(struct sender *sender, bool wait);

/* sender_content.c: the content of a file whose turn it is, as far as the peer lacks it, or, in a dry run, that it lacks it. */
int files_send_file(struct sender *sender, const struct item *item);
/* Whether a file goes in one frame. */
bool files_is_whole(const struct stat *status);
/* Such a file, with its attributes. */
int files_send_whole(struct sender *sender, const struct item *item);

#endif
