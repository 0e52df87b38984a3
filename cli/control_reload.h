/* SPDX-License-Identifier: Apache-2.0 */
/* A reload of the configuration that the control socket was asked for: what a server and an agent have in common. */
#ifndef CLI_CONTROL_RELOAD_H
#define CLI_CONTROL_RELOAD_H

#include "settings.h"

#include <jansson.h>
#include <stdbool.h>

/* Reads everything again, and adds the flags of settings that wait for the next start to `later`. Whether it took effect; errors are
 * logged. */
typedef bool control_reload_fn(void *arg, json_t *later);

/* Does it. The answer has those flags, or the errors. NULL: out of memory. */
json_t *control_answer_reload(control_reload_fn *reload, void *arg);

/* For settings_compare: logs a setting that waits for the next start, and adds its flag to the array `later`, unless that is NULL. */
void control_name_what_stays(const struct option *option, void *later);

#endif
