/* SPDX-License-Identifier: Apache-2.0 */
/* Memory that must not be left behind with its content. */
#ifndef UROCE_WIPE_H
#define UROCE_WIPE_H

#include <stdlib.h>
#include <string.h>

/* Wipes `length` bytes and frees; NULL is fine. */
static inline void wipe_free(void *memory, size_t length)
{
	if (memory)
		explicit_bzero(memory, length);
	free(memory);
}

#endif
