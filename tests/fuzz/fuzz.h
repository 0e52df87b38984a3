/* SPDX-License-Identifier: Apache-2.0 */
/* What all targets need of libFuzzer: its entry, and a condition that ends the run when it does not hold. */
#ifndef FUZZ_H
#define FUZZ_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static inline void require(bool condition)
{
	if (!condition)
		abort();
}

#endif
