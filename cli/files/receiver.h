/* SPDX-License-Identifier: Apache-2.0 */
/* The end of a copy that gets the files. It believes nothing that the other end says of names, sizes and order. */
#ifndef FILES_RECEIVER_H
#define FILES_RECEIVER_H

#include "account.h"
#include "channel.h"
#include "exclude.h"
#include "report.h"

struct files_receiver_options {
	int root;                      /* folder that all goes below; stays the caller's; -1, in a dry run: it is not there */
	struct files_account *account; /* NULL: no quota */
	uint64_t quota;
	bool no_sync;                  /* the kernel may save contents and names when it likes */
	bool checksum, dry_run;            /* as FILES_CHECKSUM and FILES_DRY_RUN */
	bool deletes;                      /* as FILES_DELETE */
	struct files_excludes *excludes;   /* what they are for is not deleted; NULL: there are none */
	bool takes_excludes;               /* the peer sends them */
	unsigned partial_days;             /* for files_stale_sweep() */
	/* Whether an entry with this path was asked for; NULL: any is welcome. */
	bool (*expects)(void *arg, const struct files_bytes *path);
	void *arg;
	struct files_report *report;
};

/* Receives everything and answers. Entries that fail are counted, and the copy goes on.
 * Errors: those of files_channel_next(); -ECONNABORTED: the peer ended the copy; -ENOMEM. */
int files_receive(struct files_channel *channel, const struct files_receiver_options *options);

#endif
