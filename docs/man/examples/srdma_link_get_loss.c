/* SPDX-License-Identifier: Apache-2.0 */
/* Sends again the messages in doubt, if the peer may take a message twice. */
#include <securdma_link.h>

/* After SRDMA_ERECONNECTED; `message` finds a message by its number. */
int send_again(struct srdma_link *link, const void *(*message)(uint64_t number, size_t *length))
{
	struct srdma_link_loss loss;
	int ret = 0;

	srdma_link_get_loss(link, &loss);
	for (uint64_t number = loss.acknowledged + 1; ret == 0 && number <= loss.sent; number++) {
		size_t length;
		const void *data = message(number, &length);

		ret = srdma_link_send(link, data, length, SRDMA_DEFAULT_TIMEOUT, NULL);
	}
	return ret;
}
