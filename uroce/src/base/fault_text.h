/* SPDX-License-Identifier: Apache-2.0 */
/* The text of UROCE_FAULT. */
#ifndef UROCE_FAULT_TEXT_H
#define UROCE_FAULT_TEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Chances are counted in parts of it; also a second in nanoseconds. */
enum { FAULT_BILLION = 1000000000 };

struct fault_settings {
	uint32_t loss; /* parts of a billion */
	uint32_t duplicate;
	uint32_t reorder;
	uint32_t corrupt;
	uint64_t delay; /* nanoseconds */
	uint64_t jitter;
	uint64_t seed;
	bool seeded;
};

/* Adds a text to settings. 0, or -EINVAL with a sentence without a full stop in `message`. */
int fault_text_parse(const char *text, struct fault_settings *set, char *message, size_t size);

#endif
