/* SPDX-License-Identifier: Apache-2.0 */
/* Memory of other devices that they share as a DMA buffer: mapped into this process, where this device copies as from all other memory. */
#ifndef UROCE_DMABUF_H
#define UROCE_DMABUF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct dmabuf {
	void *start;    /* of the mapping: whole pages. NULL: there is none */
	size_t length;
	int fd;         /* this library's own descriptor of the buffer */
	uint64_t access; /* DMA_BUF_SYNC_ flags of what is done to the memory */
};

/* Maps `length` bytes at `offset`, of which *memory is the first. 0, or a negative errno, as the kernel has it when a device registers a
 * DMA buffer: EBADF, EINVAL (no DMA buffer, or beyond its end), EOPNOTSUPP (its device does not let processes map it), ENOMEM. */
int dmabuf_map(int fd, uint64_t offset, size_t length, bool writable, struct dmabuf *out, void **memory);
/* Nothing happens if there is none. */
void dmabuf_unmap(struct dmabuf *dmabuf);

#endif
