/* SPDX-License-Identifier: Apache-2.0 */
/* The C library's function of a name that this library exports too. */
#ifndef UROCE_NEXT_H
#define UROCE_NEXT_H

#include <dlfcn.h>
#include <stdatomic.h>

static inline void *next_cached(_Atomic(void *) *cache, const char *symbol)
{
	void *address = atomic_load_explicit(cache, memory_order_acquire);
	if (!address) {
		address = dlsym(RTLD_NEXT, symbol);
		/* Where nothing is preloaded and the drop-in alone leads here, the C library comes first. */
		if (!address)
			address = dlsym(RTLD_DEFAULT, symbol);
		atomic_store_explicit(cache, address, memory_order_release);
	}
	return address;
}

/* With the type of `function`. Async-signal-safe once it has been called. Every program that calls it has it. */
#define NEXT(function, symbol) \
	({ \
		static _Atomic(void *) cache_; \
		(__typeof__(&(function)))next_cached(&cache_, symbol); \
	})

#endif
