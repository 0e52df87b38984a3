/* SPDX-License-Identifier: Apache-2.0 */
/* How an exported function hands on a call that is about another device. */
#ifndef UROCE_PRELOAD_H
#define UROCE_PRELOAD_H

#include <errno.h>
#include <infiniband/verbs.h>
#include <stdatomic.h>

#include "own_device.h"
#include "real.h"
#include "verbs.h"

/* The header's macros would rename the functions that are defined here. */
#undef ibv_get_device_list
#undef ibv_query_port
#undef ibv_reg_mr
#undef ibv_reg_mr_iova

#define EXPORT __attribute__((visibility("default")))

static inline void *real_cached(_Atomic(void *) *cache, const char *name)
{
	void *address = atomic_load_explicit(cache, memory_order_acquire);
	if (!address) {
		address = real_symbol(name);
		atomic_store_explicit(cache, address, memory_order_release);
	}
	return address;
}

/* libibverbs' own function of that name, or NULL. */
#define REAL(function) \
	({ \
		static _Atomic(void *) cache_; \
		(__typeof__(function) *)real_cached(&cache_, #function); \
	})

/* Calls libibverbs' function and returns its result; `failure`, and errno ENOSYS, when there is none. */
#define PASS(failure, function, ...) \
	do { \
		__typeof__(function) *real_ = REAL(function); \
		if (real_) \
			return real_(__VA_ARGS__); \
		errno = ENOSYS; \
		return failure; \
	} while (0)

#define PASS_VOID(function, ...) \
	do { \
		__typeof__(function) *real_ = REAL(function); \
		if (real_) \
			real_(__VA_ARGS__); \
		else \
			errno = ENOSYS; \
	} while (0)

#endif
