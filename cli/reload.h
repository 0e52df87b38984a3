/* SPDX-License-Identifier: Apache-2.0 */
/* SIGHUP: the configuration and the files that it names once more, for a server that goes on serving. */
#ifndef CLI_RELOAD_H
#define CLI_RELOAD_H

#include "settings.h"

/* `fresh` is what was read again; `settings` becomes it, in what can change. All is checked before anything is replaced: when
 * something is wrong it is said, and the old stays in force, whole. What needs a new start is named. */
void reload(struct srdma_server *server, struct settings *settings, struct settings *fresh);

#endif
