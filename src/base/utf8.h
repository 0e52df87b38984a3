/* SPDX-License-Identifier: Apache-2.0 */
/* Untrusted UTF-8 text, made safe for terminals and logs. */
#ifndef SRDMA_UTF8_H
#define SRDMA_UTF8_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The character that `text` begins with, and the number of its bytes; 0: they are not UTF-8 (RFC 3629). */
size_t srdma_utf8_decode(const char *text, size_t length, uint32_t *code);

/* Whether a character is visible and unambiguous: it does not control a terminal or a log, change the direction of writing, join or
 * hide other characters, lack a width, or lack a standard meaning. */
bool srdma_utf8_is_shown(uint32_t code);

/* Replaces each byte of characters that are not shown, or that are not UTF-8, by '?'. Returns whether there was nothing to replace. */
bool srdma_utf8_make_shown(char *text, size_t length);

#endif
