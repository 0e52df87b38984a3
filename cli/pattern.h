/* SPDX-License-Identifier: Apache-2.0 */
/* The verification run of `securdma connect --pattern`. */
#ifndef CLI_PATTERN_H
#define CLI_PATTERN_H

#include "session.h"

/* Sends `count` messages of `size` bytes made of `pattern`, each different, and checks every echo; then fills the
 * server's whole region with the pattern, reads it back and compares. Returns an exit code. */
int pattern_run(struct session *session, const char *pattern, uint64_t count, size_t size);

#endif
