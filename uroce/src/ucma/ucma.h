/* SPDX-License-Identifier: Apache-2.0 */
/* The kernel's /dev/infiniband/rdma_cm, for librdmacm: what programs write to it, and what it tells them. The library itself is the
 * system's, and so is all of its interface; here is what the kernel's module rdma_ucm does. Its commands: rdma/rdma_user_cm.h. All
 * functions are thread-safe. */
#ifndef UROCE_UCMA_H
#define UROCE_UCMA_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

enum { UCMA_ABI_VERSION = 4 };

/* A descriptor as open(2) would give, with these flags; -1 and errno. */
int ucma_open(int flags);
/* Whether a descriptor is one of those, which this process has opened: a forked child has none. errno is kept. Cheap for all others. */
bool ucma_is(int fd);
/* A command, as write(2) to the kernel's device: its length, or -1 and errno. Waits for an event where the command does. */
ssize_t ucma_write(int fd, const void *bytes, size_t length);
/* The program closes a descriptor: if it is one of those, or its number was, all that it holds is destroyed. The descriptor itself is
 * left. errno is kept. Cheap for all others. */
void ucma_close(int fd);

#endif
