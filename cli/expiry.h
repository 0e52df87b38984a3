/* SPDX-License-Identifier: Apache-2.0 */
/* How long a certificate is still good for. */
#ifndef CLI_EXPIRY_H
#define CLI_EXPIRY_H

#include <stddef.h>
#include <stdint.h>

#define EXPIRY_WARN_DAYS 30

/* Days until `not_after` (seconds since the epoch), rounded down; negative when it is past. */
int64_t expiry_days(int64_t not_after);

/* Writes the day in UTC, "2030-01-31". */
void expiry_format(int64_t not_after, char *text, size_t size);

/* Logs a warning when the certificate ends within EXPIRY_WARN_DAYS, and an error when it has ended or has not begun. */
void expiry_warn(const char *cert_file);

#endif
