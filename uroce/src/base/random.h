/* SPDX-License-Identifier: Apache-2.0 */
/* The kernel's cryptographic generator. QPNs and keys come from here. */
#ifndef UROCE_RANDOM_H
#define UROCE_RANDOM_H

#include <stdint.h>

/* 0, or -EIO when the kernel gives none: then nothing is made. Thread-safe. */
int random_u32(uint32_t *out);

#endif
