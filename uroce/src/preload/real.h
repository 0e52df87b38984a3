/* SPDX-License-Identifier: Apache-2.0 */
/* The library that uroce stands before: everything about other devices goes on to it. */
#ifndef UROCE_REAL_H
#define UROCE_REAL_H

/* The address of a function of libibverbs.so.1 (its default version); NULL when there is none. Thread-safe. */
void *real_symbol(const char *name);

#endif
