/* SPDX-License-Identifier: Apache-2.0 */
/* The system calls that a running server may make. */
#ifndef CLI_SANDBOX_H
#define CLI_SANDBOX_H

#include <stdbool.h>

/* Installs the filter in all threads of the process, and in those to come. A call that no server needs fails with EPERM; one that
 * only an intruder makes (another program, another process's memory, the kernel's modules) ends the process. 0, or a negative
 * errno: then there is no filter. `files`: the server writes clients' files. -ENOTSUP: this build has none, for want of libseccomp. */
int sandbox_enter(bool files);
/* The same for an agent, which writes no files and asks the kernel what encrypts packets. */
int sandbox_enter_agent(void);

#endif
