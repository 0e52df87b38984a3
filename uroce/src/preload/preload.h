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

/* What a function returns that returns an error's number: errno has it too, as when the kernel refuses the call. */
static inline int answer(int error)
{
	if (error != 0)
		errno = error;
	return error;
}

static inline void *real_cached(_Atomic(void *) *cache, const char *name)
{
	void *address = atomic_load_explicit(cache, memory_order_acquire);
	if (!address) {
		address = real_symbol(name);
		atomic_store_explicit(cache, address, memory_order_release);
	}
	return address;
}

/* libibverbs' own function of the name `symbol`, with the type of `function`; or NULL. */
#define REAL_AS(function, symbol) \
	({ \
		static _Atomic(void *) cache_; \
		(__typeof__(function) *)real_cached(&cache_, symbol); \
	})
#define REAL(function) REAL_AS(function, #function)

/* Calls libibverbs' function and returns its result; `failure`, and errno, when there is none. */
#define PASS_AS(failure, error, function, symbol, ...) \
	do { \
		__typeof__(function) *real_ = REAL_AS(function, symbol); \
		if (real_) \
			return real_(__VA_ARGS__); \
		errno = error; \
		return failure; \
	} while (0)
#define PASS(failure, function, ...) PASS_AS(failure, ENOSYS, function, #function, __VA_ARGS__)

#define PASS_VOID_AS(function, symbol, ...) \
	do { \
		__typeof__(function) *real_ = REAL_AS(function, symbol); \
		if (real_) \
			real_(__VA_ARGS__); \
		else \
			errno = ENOSYS; \
	} while (0)
#define PASS_VOID(function, ...) PASS_VOID_AS(function, #function, __VA_ARGS__)

#endif
