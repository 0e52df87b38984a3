/* SPDX-License-Identifier: Apache-2.0 */
#include "region.h"

#include "log.h"

#include <errno.h>
#include <openssl/crypto.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define REMOTE_ACCESS (IBV_ACCESS_REMOTE_WRITE | IBV_ACCESS_REMOTE_READ | IBV_ACCESS_REMOTE_ATOMIC)

static int fail_registration(size_t size)
{
	int error = errno;

	if (error == ENOMEM)
		return srdma_fail(-ENOMEM,
				  "cannot register %zu bytes with the RDMA device: %s; raise the limit of locked memory "
				  "(ulimit -l, LimitMEMLOCK=)",
				  size, strerror(error));
	return srdma_fail(SRDMA_EVERBS, "cannot register %zu bytes with the RDMA device: %s", size, strerror(error));
}

int srdma_region_register(struct ibv_pd *pd, void *memory, size_t size, int access, struct srdma_region *out)
{
	struct ibv_mr *mr = ibv_reg_mr(pd, memory, size, access);

	if (!mr)
		return fail_registration(size);
	*out = (struct srdma_region){.address = memory, .size = size, .mr = mr};
	return 0;
}

int srdma_region_new(struct ibv_pd *pd, size_t size, int access, struct srdma_region *out)
{
	size_t page = (size_t)sysconf(_SC_PAGESIZE), mapped = (size + page - 1) / page * page;
	void *address;
	struct ibv_mr *mr;

	if (size == 0 || mapped < size)
		return srdma_fail(-EINVAL, "a memory region of %zu bytes cannot be", size);
	address = mmap(NULL, mapped, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (address == MAP_FAILED)
		return srdma_fail(-ENOMEM, "no memory for a region of %zu bytes", size);
	/* A child must neither see it nor, by copy-on-write, take the device's pages away from the parent. */
	madvise(address, mapped, MADV_DONTFORK);
	madvise(address, mapped, MADV_DONTDUMP);
	mr = access & REMOTE_ACCESS ? ibv_reg_mr_iova(pd, address, size, 0, access)
				    : ibv_reg_mr(pd, address, size, access);
	if (!mr) {
		int ret = fail_registration(size);

		munmap(address, mapped);
		return ret;
	}
	*out = (struct srdma_region){.address = address, .size = size, .mapped = mapped, .mr = mr};
	return 0;
}

void srdma_region_release(struct srdma_region *region)
{
	/* First the device lets go, then the bytes: else it could write after the wipe. */
	if (region->mr && ibv_dereg_mr(region->mr) != 0)
		srdma_log(SRDMA_LOG_ERROR, "cannot deregister a memory region: %s", strerror(errno));
	if (region->mapped) {
		OPENSSL_cleanse(region->address, region->size);
		munmap(region->address, region->mapped);
	}
	*region = (struct srdma_region){0};
}
