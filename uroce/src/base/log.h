/* SPDX-License-Identifier: Apache-2.0 */
/* Messages to standard error: UROCE_LOG = error (default), warn, info, debug. */
#ifndef UROCE_LOG_H
#define UROCE_LOG_H

enum log_level { LOG_ERROR, LOG_WARN, LOG_INFO, LOG_DEBUG };

void log_set_level(enum log_level level);
/* "error" to "debug"; -1 for another word. */
int log_parse_level(const char *text);
/* One line: "uroce: " and the text. errno is kept. */
void log_write(enum log_level level, const char *format, ...) __attribute__((format(printf, 2, 3)));

#endif
