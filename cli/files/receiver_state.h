/* SPDX-License-Identifier: Apache-2.0 */
/* The receiver of a copy, for the files that are made of it. */
#ifndef FILES_RECEIVER_STATE_H
#define FILES_RECEIVER_STATE_H

#include "deletion.h"
#include "receiver.h"
#include "receiver_batch.h"

/* A file that was announced, and whose turn comes after those before it. */
struct announced {
	struct files_pending pending; /* .fd -1: its partial file is not open yet */
	uint64_t size;
	int64_t kept;                 /* bytes of the partial file that the sender was told of */
	bool compared;                /* the sender has sums of the file that is there */
};

struct receiver {
	struct files_channel *channel;
	const struct files_receiver_options *options;
	struct files_target *target;
	struct announced announced[FILES_WINDOW];
	size_t first, count;
	/* The content that comes, of the first one. */
	bool started, failed;
	int64_t at, behind;
	uint64_t next_id;
	bool over;
	struct files_batch batch;
	struct files_crew *crew; /* NULL: nothing was saved yet */
	uint8_t *buffer;
	struct files_deletion *deletion; /* NULL: nothing is deleted */
	char *blocked; /* the last folder that failed: what was announced below it fails without a word of its own; NULL */
};

/* What an error means to a user. */
const char *files_reason(int error);
/* The sender is told of an entry, and so is the user of this end. */
int files_receiver_say(struct receiver *receiver, uint64_t id, enum files_result result, const struct files_bytes *name, const char *text);
/* Hands an entry, and all that it points to, to the batch, which may save all that it has. */
int files_receiver_finish(struct receiver *receiver, const struct files_pending *pending);
/* Opens a file's partial file: files_partial_open(). */
int files_receiver_open(struct receiver *receiver, struct files_pending *pending, bool make, int64_t *size);
int files_receiver_take(struct receiver *receiver, uint64_t bytes);

/* receiver_entry.c: the frames that announce. */
int files_receiver_entry(struct receiver *receiver, const struct files_frame *frame);
int files_receiver_leave(struct receiver *receiver, const struct files_frame *frame);
/* receiver_content.c: those of contents. */
int files_receiver_start(struct receiver *receiver, const struct files_frame *frame);
int files_receiver_data(struct receiver *receiver, const struct files_frame *frame);
int files_receiver_end(struct receiver *receiver, const struct files_frame *frame);

/* receiver_removal.c: what goes. */
int files_receiver_begin_removal(struct receiver *receiver);
/* The sender has this, whether or not it can be copied; `whole` false: it has more than it can tell. */
int files_receiver_keep(struct receiver *receiver, const struct files_bytes *path, bool is_folder, bool whole);
/* The sender has told all that is in the folder; `folder` -1: it is not there. */
int files_receiver_clear_folder(struct receiver *receiver, const struct files_bytes *path, int folder);
/* The copy is over but for what waits to be saved. */
int files_receiver_end_removal(struct receiver *receiver);

#endif
