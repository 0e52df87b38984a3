/* SPDX-License-Identifier: Apache-2.0 */
/* Errors and log lines. The function that decides an error reports it once, through srdma_fail. */
#ifndef SRDMA_LOG_H
#define SRDMA_LOG_H

#include "securdma.h"

/* Records `error` with its sentence as the thread's last error, logs it at debug level (the caller of the library gets
 * the error and decides whether to log it), and returns `error`. */
int srdma_fail(int error, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Records -EAGAIN, and returns it: a call that must not wait would have to wait for `what`, a static string. Since programs call
 * repeatedly, it logs nothing and makes the text only when the program reads it. */
int srdma_again(const char *what);

/* As srdma_fail, with OpenSSL's error queue appended and emptied. */
int srdma_fail_openssl(int error, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Copies the thread's last error text, which the next error replaces. */
void srdma_error_keep(char *text, size_t size);

/* Puts a sentence before the thread's last error text ("connect 10.0.0.1:4433: " and the text). */
void srdma_error_prefix(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* Replaces bytes that are not printable ASCII, NULs too, by '?': a peer's text must not control a terminal or forge a log line.
 * For fields that the protocol defines as ASCII. */
void srdma_make_printable(char *text, size_t length);

/* The ending of a noun behind a number: "1 client", "2 clients". */
#define SRDMA_S(count) ((count) == 1 ? "" : "s")

#define SRDMA_FIELDS_MAX 16

/* Fields of an event. The log makes a text printable before it hands it out (utf8.h). */
#define SRDMA_FIELD_TEXT(n, value) ((struct srdma_log_field){.size = sizeof(struct srdma_log_field), .name = (n), .text = (value)})
#define SRDMA_FIELD_NUMBER(n, value) ((struct srdma_log_field){.size = sizeof(struct srdma_log_field), .name = (n), .number = (int64_t)(value)})

/* An event of the log; at most SRDMA_FIELDS_MAX fields. */
struct srdma_event {
	enum srdma_log_level level;
	const char *name; /* in securdma-serve(1) */
	bool security;
	const struct srdma_log_field *fields;
	size_t field_count;
};

void srdma_log_event(const struct srdma_event *event, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* Logs the omissions so far (log_limit.h), since no later line may do so. */
void srdma_log_flush(void);
/* A line that is no event. */
void srdma_log(enum srdma_log_level level, const char *format, ...) __attribute__((format(printf, 2, 3)));

#endif
