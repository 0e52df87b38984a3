/* SPDX-License-Identifier: Apache-2.0 */
/* The function of the next library that has a name which this library exports too: another library before libibverbs (a device in
 * user space, say), or libibverbs itself. */
#ifndef WRAP_NEXT_H
#define WRAP_NEXT_H

#include <stdatomic.h>
#include <stddef.h>

/* Of libibverbs's; NULL: there is none. */
void *next_verbs(const char *name);
/* Of another library; `library`: its soname. NULL: the program has not loaded it. */
void *next_of(const char *library, const char *name);

static inline void *next_cached(_Atomic(void *) *cache, const char *name)
{
	void *address = atomic_load_explicit(cache, memory_order_acquire);

	if (!address) {
		address = next_verbs(name);
		atomic_store_explicit(cache, address, memory_order_release);
	}
	return address;
}

/* With the type of `function`, or NULL. */
#define NEXT(function) \
	({ \
		static _Atomic(void *) cache_; \
		(__typeof__(&(function)))next_cached(&cache_, #function); \
	})

#endif
