/* SPDX-License-Identifier: Apache-2.0 */
#include "kept.h"

#include "log.h"

#include <errno.h>
#include <openssl/crypto.h>
#include <stdlib.h>
#include <string.h>

struct srdma_kept_message {
	struct srdma_kept_message *next;
	size_t length;
	char data[];
};

int srdma_kept_add(struct srdma_kept *kept, const void *data, size_t length)
{
	struct srdma_kept_message *message = malloc(sizeof *message + length);

	if (!message)
		return srdma_fail(-ENOMEM, "out of memory for messages that came before the loss");
	message->next = NULL;
	message->length = length;
	memcpy(message->data, data, length);
	if (kept->last)
		kept->last->next = message;
	else
		kept->first = message;
	kept->last = message;
	kept->count++;
	return 0;
}

static void drop(struct srdma_kept *kept)
{
	struct srdma_kept_message *message = kept->first;

	kept->first = message->next;
	if (!message->next)
		kept->last = NULL;
	kept->count--;
	OPENSSL_cleanse(message->data, message->length);
	free(message);
}

int srdma_kept_take(struct srdma_kept *kept, void *buffer, size_t size, size_t *length)
{
	const struct srdma_kept_message *message = kept->first;

	*length = message->length;
	if (message->length > size)
		return srdma_fail(-EMSGSIZE, "the message has %zu byte%s, and the buffer %zu; call again with a larger one", message->length,
				  SRDMA_S(message->length), size);
	memcpy(buffer, message->data, message->length);
	drop(kept);
	return 0;
}

void srdma_kept_clear(struct srdma_kept *kept)
{
	while (kept->first)
		drop(kept);
}
