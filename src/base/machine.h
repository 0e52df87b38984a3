/* SPDX-License-Identifier: Apache-2.0 */
/* What the machine has for this process. */
#ifndef SRDMA_MACHINE_H
#define SRDMA_MACHINE_H

#include <stdbool.h>
#include <stdint.h>

struct srdma_machine {
	uint64_t memory;    /* bytes: the machine's, or what the process's control group may have when that is less */
	uint64_t available; /* of it, without making others give up theirs */
};

/* `root`: "" for this machine; tests have folders of their own. What cannot be read is taken for unlimited. */
void srdma_machine_look(const char *root, struct srdma_machine *out);

/* Whether the kernel sets this process no limit to the memory that devices lock for it: CAP_IPC_LOCK. */
bool srdma_machine_may_lock_all(void);

#endif
