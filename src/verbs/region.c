/* SPDX-License-Identifier: Apache-2.0 */
#include "region.h"

#include "clock.h"
#include "device.h"
#include "log.h"

#include <errno.h>
#include <openssl/crypto.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define BIND_MS 1000
#define REMOTE_ACCESS (IBV_ACCESS_REMOTE_WRITE | IBV_ACCESS_REMOTE_READ | IBV_ACCESS_REMOTE_ATOMIC)

static int fail_registration(size_t size)
{
	int error = errno;

	if (error == ENOMEM)
		return srdma_fail(-ENOMEM,
				  "cannot register %zu byte%s with the RDMA device: %s; raise the limit of locked memory "
				  "(ulimit -l, LimitMEMLOCK=)",
				  size, SRDMA_S(size), strerror(error));
	return srdma_fail(SRDMA_EVERBS, "cannot register %zu byte%s with the RDMA device: %s", size, SRDMA_S(size), strerror(error));
}

int srdma_region_register(struct ibv_pd *pd, void *memory, size_t size, int access, struct srdma_region *out)
{
	struct ibv_mr *mr = ibv_reg_mr(pd, memory, size, access);

	if (!mr)
		return fail_registration(size);
	*out = (struct srdma_region){.address = memory, .size = size, .mr = mr};
	return 0;
}

static int fail_source(const struct srdma_source *source, size_t length)
{
	int error = errno;

	if (!source->address && (error == EOPNOTSUPP || error == ENOSYS || error == EPROTONOSUPPORT))
		return srdma_fail(-EOPNOTSUPP, "the device, its driver or the system cannot register a dmabuf: %s", strerror(error));
	if (error == EFAULT || error == EACCES)
		return srdma_fail(-EFAULT, "cannot register %zu byte%s with the RDMA device: the memory is not mapped, or not for this access", length,
				  SRDMA_S(length));
	return fail_registration(length);
}

int srdma_region_of(struct ibv_pd *pd, const struct srdma_source *source, uint64_t offset, size_t length, int access, struct srdma_region *out)
{
	uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE);
	char *address = source->address ? (char *)source->address + offset : NULL;
	uint64_t base = (address ? (uintptr_t)address : source->offset + offset) % page;
	struct ibv_mr *mr = address ? ibv_reg_mr_iova(pd, address, length, base, access)
				    : ibv_reg_dmabuf_mr(pd, source->offset + offset, length, base, source->fd, access);

	if (!mr)
		return fail_source(source, length);
	*out = (struct srdma_region){.address = address, .size = length, .mr = mr, .base = base};
	return 0;
}

int srdma_region_grant(struct ibv_pd *pd, const struct srdma_source *source, uint64_t offset, size_t length, unsigned rights, bool windowed,
		       struct srdma_region *out)
{
	/* The verbs specification requires local write with these. */
	int local = rights & (IBV_ACCESS_REMOTE_WRITE | IBV_ACCESS_REMOTE_ATOMIC) ? IBV_ACCESS_LOCAL_WRITE : 0;
	int ret = windowed ? srdma_region_of(pd, source, offset, length, local | IBV_ACCESS_MW_BIND, out) : -1;

	if (ret != 0) {
		windowed = false;
		ret = srdma_region_of(pd, source, offset, length, (int)rights | local, out);
	}
	if (ret != 0)
		return ret;
	out->windowed = windowed;
	out->rights = rights;
	return 0;
}

int srdma_region_private(size_t size, struct srdma_region *out)
{
	size_t page = (size_t)sysconf(_SC_PAGESIZE), mapped = (size + page - 1) / page * page;
	void *address;

	if (size == 0 || mapped < size)
		return srdma_fail(-EINVAL, "cannot make a memory region of %zu byte%s", size, SRDMA_S(size));
	address = mmap(NULL, mapped, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (address == MAP_FAILED)
		return srdma_fail(-ENOMEM, "no memory for a region of %zu byte%s", size, SRDMA_S(size));
	/* A child process must not see the memory, nor split the parent from the device's pages by copy-on-write. */
	madvise(address, mapped, MADV_DONTFORK);
	madvise(address, mapped, MADV_DONTDUMP);
	*out = (struct srdma_region){.address = address, .size = size, .mapped = mapped};
	return 0;
}

int srdma_region_new(struct ibv_pd *pd, size_t size, int access, struct srdma_region *out)
{
	struct srdma_region region;
	int ret = srdma_region_private(size, &region);

	if (ret != 0)
		return ret;
	region.mr = access & (REMOTE_ACCESS | IBV_ACCESS_MW_BIND) ? ibv_reg_mr_iova(pd, region.address, size, 0, access)
								   : ibv_reg_mr(pd, region.address, size, access);
	if (!region.mr) {
		ret = fail_registration(size);
		munmap(region.address, region.mapped);
		return ret;
	}
	*out = region;
	return 0;
}

int srdma_region_offer(const struct srdma_device *device, struct ibv_pd *pd, size_t size, unsigned rights, struct srdma_region *out)
{
	bool windowed = rights != 0 && srdma_device_has_windows(device);
	int access = windowed ? IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_MW_BIND : (int)rights;
	int ret;

	/* The verbs specification requires local write with remote write. */
	if (rights & IBV_ACCESS_REMOTE_WRITE)
		access |= IBV_ACCESS_LOCAL_WRITE;
	ret = srdma_region_new(pd, size, access, out);
	/* A device may report windows and yet not let a program bind any. */
	if (ret != 0 && windowed) {
		windowed = false;
		ret = srdma_region_new(pd, size, access & ~IBV_ACCESS_MW_BIND, out);
	}
	if (ret != 0)
		return ret;
	out->windowed = windowed;
	out->rights = rights;
	return 0;
}

static int await_bind(struct ibv_qp *qp, uint64_t id)
{
	uint64_t deadline = srdma_deadline(BIND_MS);
	struct ibv_wc wc;
	int n;

	while ((n = ibv_poll_cq(qp->send_cq, 1, &wc)) >= 0) {
		if (n > 0 && wc.wr_id == id && wc.qp_num == qp->qp_num)
			return wc.status == IBV_WC_SUCCESS ? 0
							   : srdma_fail(SRDMA_EVERBS, "cannot bind a memory window: %s",
									ibv_wc_status_str(wc.status));
		if (n == 0 && srdma_deadline_left_ms(deadline) == 0)
			return srdma_fail(-ETIMEDOUT, "timed out waiting for the device to bind a memory window");
	}
	return srdma_fail(SRDMA_EVERBS, "cannot poll the send completion queue");
}

int srdma_region_unbind(struct srdma_region *region)
{
	int error = region->mw ? ibv_dealloc_mw(region->mw) : 0;

	region->mw = NULL;
	return error == 0 ? 0 : srdma_fail(SRDMA_EVERBS, "cannot free a memory window: %s", strerror(error));
}

int srdma_region_prepare_bind(struct srdma_region *region, struct ibv_send_wr *wr)
{
	int ret = srdma_region_unbind(region);

	if (ret != 0)
		return ret;
	region->mw = ibv_alloc_mw(region->mr->pd, IBV_MW_TYPE_2);
	if (!region->mw)
		return srdma_fail(SRDMA_EVERBS, "cannot make a memory window: %s", strerror(errno));
	*wr = (struct ibv_send_wr){
		.opcode = IBV_WR_BIND_MW,
		.send_flags = IBV_SEND_SIGNALED,
		.bind_mw = {.mw = region->mw,
			    .rkey = ibv_inc_rkey(region->mw->rkey),
			    .bind_info = {.mr = region->mr, .addr = region->base, .length = region->size, .mw_access_flags = region->rights}},
	};
	region->mw->rkey = wr->bind_mw.rkey;
	return 0;
}

static int bind_window(struct srdma_region *region, struct ibv_qp *qp)
{
	struct ibv_send_wr wr, *bad;
	int ret = srdma_region_prepare_bind(region, &wr), error;

	if (ret != 0)
		return ret;
	wr.wr_id = UINT64_MAX; /* an id that no work request of a stream has */
	error = ibv_post_send(qp, &wr, &bad);
	if (error != 0)
		return srdma_fail(SRDMA_EVERBS, "cannot bind a memory window: %s", strerror(error));
	return await_bind(qp, wr.wr_id);
}

int srdma_region_bind(struct srdma_region *region, struct ibv_qp *qp, uint32_t *rkey)
{
	int ret = region->mr && region->windowed ? bind_window(region, qp) : 0;

	*rkey = srdma_region_rkey(region);
	return ret;
}

uint32_t srdma_region_rkey(const struct srdma_region *region)
{
	if (region->windowed)
		return region->mw ? region->mw->rkey : 0;
	return region->mr ? region->mr->rkey : 0;
}

int srdma_region_withdraw(struct srdma_region *region)
{
	int ret = srdma_region_unbind(region);

	if (region->mr && ibv_dereg_mr(region->mr) != 0)
		ret = srdma_fail(SRDMA_EVERBS, "cannot deregister a memory region: %s", strerror(errno));
	region->mr = NULL;
	region->rights = 0;
	return ret;
}

void srdma_region_release(struct srdma_region *region)
{
	/* The device must lose access before the wipe, or it could write after it. */
	if (srdma_region_withdraw(region) != 0)
		srdma_log(SRDMA_LOG_ERROR, "%s", srdma_error_text());
	if (region->mapped) {
		OPENSSL_cleanse(region->address, region->size);
		munmap(region->address, region->mapped);
	}
	*region = (struct srdma_region){0};
}
