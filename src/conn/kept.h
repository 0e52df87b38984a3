/* SPDX-License-Identifier: Apache-2.0 */
/* Messages that came over connections that have ended; the program has not taken them yet. */
#ifndef SRDMA_KEPT_H
#define SRDMA_KEPT_H

#include <stddef.h>
#include <stdint.h>

struct srdma_kept {
	struct srdma_kept_message *first, *last;
	uint64_t count;
};

/* Copies the message. -ENOMEM. */
int srdma_kept_add(struct srdma_kept *kept, const void *data, size_t length);
/* Takes the first message; there must be one. -EMSGSIZE: the buffer is too short for it, *length says how long it is, and it stays. */
int srdma_kept_take(struct srdma_kept *kept, void *buffer, size_t size, size_t *length);
void srdma_kept_clear(struct srdma_kept *kept);

#endif
