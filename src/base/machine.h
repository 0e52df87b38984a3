/* SPDX-License-Identifier: Apache-2.0 */
/* The memory that the machine has for this process. */
#ifndef SRDMA_MACHINE_H
#define SRDMA_MACHINE_H

#include <stdbool.h>
#include <stdint.h>

struct srdma_machine {
	uint64_t memory;    /* bytes: the machine's, or the limit of the process's control group if that is less */
	uint64_t available; /* the part that is available without taking memory from others */
};

/* `root`: "" for this machine; tests have folders of their own. A value that cannot be read counts as unlimited. */
void srdma_machine_look(const char *root, struct srdma_machine *out);

/* Whether the kernel sets this process no limit to the memory that devices lock for it: CAP_IPC_LOCK. */
bool srdma_machine_may_lock_all(void);

#endif
