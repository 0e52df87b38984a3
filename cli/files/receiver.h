/* SPDX-License-Identifier: Apache-2.0 */
/* The end of a copy that gets the files. It believes nothing that the other end says of names, sizes and order. */
#ifndef FILES_RECEIVER_H
#define FILES_RECEIVER_H

#include "account.h"
#include "channel.h"
#include "report.h"

struct files_receiver_options {
	int root;                      /* folder that all goes below; stays the caller's */
	struct files_account *account; /* NULL: no quota */
	uint64_t quota;
	bool no_sync;                  /* the kernel may save contents and names when it likes */
	/* Whether an entry with this path was asked for; NULL: any is welcome. */
	bool (*expects)(void *arg, const struct files_bytes *path);
	void *arg;
	struct files_report *report;
};

/* Receives everything and answers. Entries that fail are counted, and the copy goes on.
 * Errors: those of files_channel_next(); -ECONNABORTED: the peer ended the copy; -ENOMEM. */
int files_receive(struct files_channel *channel, const struct files_receiver_options *options);

#endif
