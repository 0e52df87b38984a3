/* SPDX-License-Identifier: Apache-2.0 */
/* The text of UROCE_FAULT: what parses must be usable, what does not must be explained. */
#include <stdlib.h>
#include <string.h>

#include "fault.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void emit(void *arg, const void *datagram, size_t length, const void *cookie)
{
	(void)cookie;
	if (length != 64)
		abort();
	*(unsigned *)arg += *(const uint8_t *)datagram;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char *text = malloc(size + 1), message[200] = "";
	uint8_t datagram[64] = {1};
	struct fault *fault = NULL;
	unsigned sum = 0;

	if (!text)
		return 0;
	memcpy(text, data, size);
	text[size] = '\0';
	if (fault_explain(text, message, sizeof message)) {
		if (message[0] == '\0' || !memchr(message, '\0', sizeof message))
			abort();
	} else if (fault_parse(text, &fault) == 0) {
		for (uint64_t now = 1; now < 20; now++)
			fault_apply(fault, now, datagram, sizeof datagram, "c", 1, emit, &sum);
		fault_run(fault, fault_next(fault), emit, &sum);
		fault_close(&fault);
	} else {
		abort();
	}
	free(text);
	return 0;
}
