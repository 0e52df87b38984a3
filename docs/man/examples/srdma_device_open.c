/* SPDX-License-Identifier: Apache-2.0 */
/* Opens a device by its name, whichever of its ports is active. */
#include <securdma.h>

int open_named(const char *name, struct srdma_device **out)
{
	struct srdma_device_options options;

	srdma_device_options_init(&options);
	options.name = name;
	return srdma_device_open(&options, out);
}
