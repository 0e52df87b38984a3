/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SRDMA_ARRAY_H
#define SRDMA_ARRAY_H

/* The number of elements of an array, which must not be a pointer. */
#define SRDMA_COUNT(array) (sizeof(array) / sizeof((array)[0]))

#endif
