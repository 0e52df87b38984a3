/* SPDX-License-Identifier: Apache-2.0 */
#ifndef UROCE_MAPPING_H
#define UROCE_MAPPING_H

#include <stdbool.h>
#include <stddef.h>

/* 0, or -EFAULT where the program may not read (or write) all of this memory, with the errors that pinning would find. Faults the pages in
 * as well, so that the first message does not pay for it. */
int mapping_check(const void *addr, size_t length, bool writable);

#endif
