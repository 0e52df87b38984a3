/* SPDX-License-Identifier: Apache-2.0 */
/* What is said, logged and reported of something that can't be vouched for. */
#ifndef WRAP_REFUSE_H
#define WRAP_REFUSE_H

#include "report.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { REFUSE_GID = 64 };

/* Of an address on an IP network, as users write it; of any other GID, as InfiniBand's tools do. */
const char *refuse_gid_text(const uint8_t gid[16], uint32_t lid, char text[REFUSE_GID]);

/* Under enforce: prints "refused to <what>: <why>", sets errno and returns EACCES. Under observe: prints "would refuse to ..." and returns
 * 0. `record`: what the report has of it, or NULL. `told`: the agent knows, because the refusal is its own; else it is told under the name
 * `kind`. */
int refuse(struct report_record *record, const char *kind, bool told, const char *what, const char *why);

#endif
