/* SPDX-License-Identifier: Apache-2.0 */
/* The end of a copy that has the files. It announces entries ahead of the contents, so that many small files cost no round trip each. */
#ifndef FILES_SENDER_H
#define FILES_SENDER_H

#include "channel.h"
#include "report.h"
#include "walk.h"

/* Where the entries come from. Returns 1 with one, 0 when there are no more, or a negative error. */
struct files_source {
	int (*next)(void *arg, struct files_found *found);
	void *arg;
	bool deletes; /* the peer deletes what does not come, so it needs to know where a folder ends whose content alone is sent */
	bool dry_run; /* contents stay here */
	bool asks;    /* the peer compares contents, so no file may come without a question */
};

/* Sends everything and waits until the peer has saved it. Entries that fail are counted, and the copy goes on.
 * Errors: those of files_channel_next(); -ECONNABORTED: the peer ended the copy; -ENOMEM; those of the source. */
int files_send(struct files_channel *channel, const struct files_source *source, struct files_report *report);

#endif
