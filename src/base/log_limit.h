/* SPDX-License-Identifier: Apache-2.0 */
/* A limit for the log lines of one kind: a peer that causes lines must not fill the disk, nor hide the lines of others. */
#ifndef SRDMA_LOG_LIMIT_H
#define SRDMA_LOG_LIMIT_H

#include <stdbool.h>

/* The limit for lines of one kind: a burst, and a number in each second after that. */
struct srdma_log_rate {
	unsigned burst, per_second;
};

/* Lines of a kind that were left out since the last report. */
struct srdma_log_omission {
	const char *kind;
	unsigned lines;
};

/* Whether a line of `kind`, a static text, may be logged now. Thread-safe. */
bool srdma_log_limit_admits(const char *kind, struct srdma_log_rate rate);
/* Takes an omission to report: for each kind at most once a second or, with `now`, at once. False: there is none. Thread-safe. */
bool srdma_log_limit_take_omission(bool now, struct srdma_log_omission *omission);

#endif
