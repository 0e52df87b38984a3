/* SPDX-License-Identifier: Apache-2.0 */
/* Registers a mapping that is unmapped when nothing reaches it any more. */
#include <errno.h>
#include <securdma_memory.h>
#include <stdlib.h>
#include <sys/mman.h>

struct mapping {
	void *address;
	size_t length;
};

void unmap(void *arg)
{
	struct mapping *mapping = (struct mapping *)arg;

	munmap(mapping->address, mapping->length);
	free(mapping);
}

int register_mapping(struct srdma_device *device, struct mapping *mapping, struct srdma_memory **out)
{
	int ret = srdma_memory_register(device, mapping->address, mapping->length, IBV_ACCESS_REMOTE_READ, out);

	if (ret == 0)
		srdma_memory_on_release(*out, unmap, mapping);
	return ret;
}
