/* SPDX-License-Identifier: Apache-2.0 */
/* How far a copy is, on standard error: a bar on a terminal, or lines. */
#ifndef CLI_PROGRESS_H
#define CLI_PROGRESS_H

#include "files/report.h"

#include <stdbool.h>

enum progress_form { PROGRESS_NONE, PROGRESS_BAR, PROGRESS_PLAIN };

struct progress {
	enum progress_form form;
	const struct files_report *report;
	int64_t start, shown;      /* milliseconds; 0: nothing was shown */
	uint64_t shown_bytes;
	double rate;               /* bytes per second, of late */
	bool on_line;              /* the bar is on the screen */
};

void progress_start(struct progress *progress, enum progress_form form, const struct files_report *report);
/* Shows the state if it is time to. */
void progress_update(struct progress *progress);
/* Takes the bar away, before other output or at the end. */
void progress_clear(struct progress *progress);

/* A number of bytes, such as "1.2 GB". 16 bytes are enough. */
void progress_bytes(double bytes, char *text, size_t size);

#endif
