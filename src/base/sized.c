/* SPDX-License-Identifier: Apache-2.0 */
#include "sized.h"

#include "log.h"

#include <errno.h>
#include <string.h>

/* No structure of options will ever be this long: a larger size means uninitialised memory. */
#define SIZE_LIMIT 4096

static size_t least_of(size_t a, size_t b)
{
	return a < b ? a : b;
}

static void copy(void *out, size_t size, const void *full, size_t own_size, size_t said)
{
	memset(out, 0, size);
	memcpy(out, full, least_of(size, own_size));
	memcpy(out, &said, sizeof said);
}

void srdma_sized_init(void *out, size_t size, const void *defaults, size_t own_size)
{
	copy(out, size, defaults, own_size, size);
}

void srdma_sized_fill(void *out, size_t size, const void *full, size_t own_size)
{
	copy(out, size, full, own_size, least_of(size, own_size));
}

int srdma_sized_take(const char *type, size_t least, const void *given, void *out, size_t own_size)
{
	const unsigned char *bytes = given;
	size_t size;

	if (!given)
		return 0;
	memcpy(&size, given, sizeof size);
	if (size < least || size > SIZE_LIMIT)
		return srdma_fail(-EINVAL, "a struct %s was never initialised (its size is %zu); call %s_init() before you set its fields", type,
				  size, type);
	for (size_t i = own_size; i < size; i++)
		if (bytes[i] != 0)
			return srdma_fail(-EINVAL,
					  "a struct %s has a field set that this library, version %s, does not have; install the version that the "
					  "program was compiled for, or do not set the field",
					  type, srdma_version());
	memcpy(out, given, least_of(size, own_size));
	memcpy(out, &own_size, sizeof own_size);
	return 0;
}

const void *srdma_sized_element(const void *array, size_t index)
{
	size_t size;

	if (!array || index == 0)
		return array;
	memcpy(&size, array, sizeof size);
	return (const char *)array + index * size;
}
