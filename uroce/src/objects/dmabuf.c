/* SPDX-License-Identifier: Apache-2.0 */
#include "dmabuf.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/dma-buf.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/vfs.h>
#include <unistd.h>

#ifndef DMA_BUF_MAGIC /* linux/magic.h of 5.3 and later */
#define DMA_BUF_MAGIC 0x444d4142
#endif

/* Whether the descriptor is one of a DMA buffer that has these bytes. */
static int check(int fd, uint64_t offset, size_t length)
{
	struct statfs fs;
	uint64_t end;
	off_t size;

	if (fstatfs(fd, &fs) != 0)
		return -errno;
	if ((uint32_t)fs.f_type != DMA_BUF_MAGIC)
		return -EINVAL;
	size = lseek(fd, 0, SEEK_END);
	if (length == 0 || size < 0 || __builtin_add_overflow(offset, length, &end) || end > (uint64_t)size)
		return -EINVAL;
	return 0;
}

/* The other device's caches: it lets this process at the memory, or takes it back. What it cannot do there it does when the memory is
 * accessed, so an error says nothing. */
static void sync_caches(const struct dmabuf *dmabuf, uint64_t when)
{
	const struct dma_buf_sync sync = {.flags = when | dmabuf->access};

	while (ioctl(dmabuf->fd, DMA_BUF_IOCTL_SYNC, &sync) != 0 && errno == EINTR)
		;
}

static int map(uint64_t offset, size_t length, bool writable, struct dmabuf *out, void **memory)
{
	uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE), before = offset % page;

	out->length = (size_t)((before + length + page - 1) / page * page);
	out->start = mmap(NULL, out->length, PROT_READ | (writable ? PROT_WRITE : 0), MAP_SHARED, out->fd, (off_t)(offset - before));
	if (out->start == MAP_FAILED)
		return errno == EINVAL || errno == ENODEV || errno == ENXIO || errno == EPERM ? -EOPNOTSUPP : -errno;
	/* A child has no use for it: the device is its parent's. */
	madvise(out->start, out->length, MADV_DONTFORK);
	*memory = (char *)out->start + before;
	return 0;
}

int dmabuf_map(int fd, uint64_t offset, size_t length, bool writable, struct dmabuf *out, void **memory)
{
	struct dmabuf dmabuf = {.access = writable ? DMA_BUF_SYNC_RW : DMA_BUF_SYNC_READ};
	int error = check(fd, offset, length);

	if (error != 0)
		return error;
	/* The application may close its own. */
	dmabuf.fd = fcntl(fd, F_DUPFD_CLOEXEC, 0);
	if (dmabuf.fd < 0)
		return -errno;
	error = map(offset, length, writable, &dmabuf, memory);
	if (error != 0) {
		close(dmabuf.fd);
		return error;
	}
	sync_caches(&dmabuf, DMA_BUF_SYNC_START);
	*out = dmabuf;
	return 0;
}

void dmabuf_unmap(struct dmabuf *dmabuf)
{
	if (!dmabuf->start)
		return;
	sync_caches(dmabuf, DMA_BUF_SYNC_END);
	munmap(dmabuf->start, dmabuf->length);
	close(dmabuf->fd);
	dmabuf->start = NULL;
}
