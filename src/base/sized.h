/* SPDX-License-Identifier: Apache-2.0 */
/* Structures of the public interface, which begin with their size. A program may have been compiled with a shorter or a longer form
 * of one than this library. */
#ifndef SRDMA_SIZED_H
#define SRDMA_SIZED_H

#include <stddef.h>

/* Fills options for the program to change: the defaults as far as `size` reaches, then zeros. */
void srdma_sized_init(void *out, size_t size, const void *defaults, size_t own_size);
/* Fills facts for the program: as much of `full` as `size` has room for, then zeros. Sets the program's size to the bytes copied. */
void srdma_sized_fill(void *out, size_t size, const void *full, size_t own_size);

/* Defines srdma_X_init_sized, which fills the options with these defaults; a field that is not listed is zero. */
#define SRDMA_DEFAULTS(type, ...)                                                                                                \
	void type##_init_sized(struct type *options, size_t size)                                                                \
	{                                                                                                                        \
		static const struct type defaults = {.size = sizeof(struct type), __VA_ARGS__};                                  \
                                                                                                                                 \
		srdma_sized_init(options, size, &defaults, sizeof defaults);                                                     \
	}

/* Copies the program's options to `out`, which has the defaults, and sets the size to that of this library's form. `least`: the size
 * that the structure had in the first version. With `given` NULL, the defaults stay.
 * Errors: -EINVAL: `given` was never initialised, or has a field set that this library does not know. */
int srdma_sized_take(const char *type, size_t least, const void *given, void *out, size_t own_size);

/* Finds an element of the program's array, whose stride is the size of the first element. */
const void *srdma_sized_element(const void *array, size_t index);

/* srdma_sized_take for a `struct type`, whose last member was `last` in the first version. */
#define SRDMA_SIZED_TAKE(type, last, given, out)                                                                                 \
	(type##_init(out), srdma_sized_take(#type, offsetof(struct type, last) + sizeof((out)->last), given, out, sizeof(struct type)))

#endif
