/* SPDX-License-Identifier: Apache-2.0 */
/* What a copy has done so far, at either end, and those who want to know of it. */
#ifndef FILES_REPORT_H
#define FILES_REPORT_H

#include "frame.h"

/* The text of an entry that a dry run finds to be missing or different. */
#define FILES_NEW "new"

struct files_report {
	uint64_t files, folders, links; /* that are at the target now, or on their way; not those that failed or were left out */
	uint64_t unchanged;  /* files that were there already */
	uint64_t left_out;   /* special files, links that lead out */
	uint64_t failed;     /* entries */
	uint64_t deleted;    /* of the target's, that the sender does not have */
	uint64_t bytes;      /* of content that was sent */
	uint64_t bytes_kept; /* of content that was there, of unchanged files and from an earlier copy, and of holes */
	uint64_t total_bytes, total_files; /* if they are known; else 0 */
	/* Either may be NULL. An entry is done, has failed or is left out; `text` says why, "" when it is done. */
	void (*entry)(void *arg, enum files_result result, const struct files_bytes *name, const struct files_bytes *text);
	void (*moved)(void *arg);
	void (*removed)(void *arg, const struct files_bytes *name); /* likewise: an entry was deleted, or would be */
	void *arg;
	char failure[256]; /* why the peer ended the copy, in its words; "" */
};

/* Counts an entry of this kind; `by` -1: it is not copied after all. Another number is no kind, and not counted. */
void files_report_count(struct files_report *report, unsigned kind, int by);
/* Counts the failure or the omission of an entry, and tells it. An empty text: the reason, a folder above it, was told. */
void files_report_entry(struct files_report *report, enum files_result result, const struct files_bytes *name, const struct files_bytes *text);
void files_report_removed(struct files_report *report, const struct files_bytes *name);
void files_report_moved(struct files_report *report, uint64_t sent, uint64_t kept);
/* Remembers why the peer ended the copy, in characters that can be shown. Returns -ECONNABORTED. */
int files_report_failure(struct files_report *report, const struct files_bytes *text);

struct files_bytes files_text(const char *text);

#endif
