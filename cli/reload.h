/* SPDX-License-Identifier: Apache-2.0 */
/* SIGHUP, or a request: the configuration and the files that it names once more, for a server that goes on serving. */
#ifndef CLI_RELOAD_H
#define CLI_RELOAD_H

#include "settings.h"

#include <jansson.h>

/* `fresh` is what was read again; `settings` becomes it, in what can change. All is checked before anything is replaced: when
 * something is wrong it is said, the old stays in force, whole, and the result is false. The flags of what needs a new start are
 * named, and put into the array `later`, unless that is NULL. */
bool reload(struct srdma_server *server, struct settings *settings, struct settings *fresh, json_t *later);

#endif
