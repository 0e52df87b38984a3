/* SPDX-License-Identifier: Apache-2.0 */
/* What `securdma wrap` hands to this library: variables of the environment, which the program's children inherit. */
#ifndef WRAP_SETTING_H
#define WRAP_SETTING_H

#include <stdbool.h>

struct setting {
	char agent[108]; /* the path of the agent's socket, as long as sun_path; SECURDMA_AGENT */
	bool observe;    /* SECURDMA_WRAP_MODE=observe; anything else means enforce */
	bool require_encryption; /* SECURDMA_WRAP_REQUIRE_ENCRYPTION=1 */
	int timeout_ms; /* SECURDMA_WRAP_TIMEOUT_MS; of one call of the program's, for the agent */
	char report[256]; /* the file that records are appended to, or ""; SECURDMA_WRAP_REPORT */
};

/* Read once, before main: a program may change its environment. */
const struct setting *setting(void);

#endif
