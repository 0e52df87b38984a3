/* SPDX-License-Identifier: Apache-2.0 */
/* Memory regions in DMA buffers. A memfd plays the DMA buffer, and the wrapped functions call it one: a real one needs /dev/udmabuf
 * (tests/integration/test_memory.py). */
#include "check.h"

#include "memory.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/dma-buf.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "device.h"
#include "newer.h"
#include "qp.h"

enum {
	LOCAL = IBV_ACCESS_LOCAL_WRITE,
	WRITE = IBV_ACCESS_REMOTE_WRITE,
	READ = IBV_ACCESS_REMOTE_READ,
	PAGES = 4,
};

/* ---- the kernel ---- */

static int buffer = -1;       /* the memfd that is a DMA buffer */
static bool cannot_map;       /* its device lets no process map it */
static uint64_t synced[16];   /* the flags of each DMA_BUF_IOCTL_SYNC */
static unsigned syncs;

/* With 64 bits for the length of a file, glibc calls its functions by other names. */
#ifdef __GLIBC__
#define REAL_NAME(name) "__real_" name "64"
#define WRAP_NAME(name) "__wrap_" name "64"
#else
#define REAL_NAME(name) "__real_" name
#define WRAP_NAME(name) "__wrap_" name
#endif

int real_fstatfs(int fd, struct statfs *fs) __asm__(REAL_NAME("fstatfs"));
int wrap_fstatfs(int fd, struct statfs *fs) __asm__(WRAP_NAME("fstatfs"));
int __wrap_ioctl(int fd, unsigned long request, void *argument);
void *real_mmap(void *at, size_t length, int rights, int flags, int fd, off_t offset) __asm__(REAL_NAME("mmap"));
void *wrap_mmap(void *at, size_t length, int rights, int flags, int fd, off_t offset) __asm__(WRAP_NAME("mmap"));

int wrap_fstatfs(int fd, struct statfs *fs)
{
	int ret = real_fstatfs(fd, fs);
	if (ret == 0 && fd == buffer)
		fs->f_type = 0x444d4142;
	return ret;
}

int __wrap_ioctl(int fd, unsigned long request, void *argument)
{
	assert_int_equal(request, DMA_BUF_IOCTL_SYNC);
	assert_true(fd >= 0 && fd != buffer && fcntl(fd, F_GETFD) == FD_CLOEXEC);
	assert_true(syncs < sizeof synced / sizeof *synced);
	synced[syncs++] = ((const struct dma_buf_sync *)argument)->flags;
	return 0;
}

void *wrap_mmap(void *at, size_t length, int rights, int flags, int fd, off_t offset)
{
	if (fd >= 0 && cannot_map) {
		errno = EINVAL;
		return MAP_FAILED;
	}
	return real_mmap(at, length, rights, flags, fd, offset);
}

/* ---- what the tests need ---- */

struct world {
	struct bare *bare;
	struct ibv_pd *pd;
	size_t page;
	uint8_t *bytes; /* of the buffer, as another device has them */
};

static int setup(void **state)
{
	struct world *w = calloc(1, sizeof *w);
	w->bare = bare_new();
	w->pd = pd_alloc(&w->bare->context.verbs.context);
	w->page = (size_t)sysconf(_SC_PAGESIZE);
	buffer = memfd_create("dmabuf", MFD_CLOEXEC);
	if (buffer < 0 || ftruncate(buffer, (off_t)(PAGES * w->page)) != 0)
		return 1;
	w->bytes = real_mmap(NULL, PAGES * w->page, PROT_READ | PROT_WRITE, MAP_SHARED, buffer, 0);
	syncs = 0;
	cannot_map = false;
	*state = w;
	return !w->pd || w->bytes == MAP_FAILED;
}

/* No descriptor and no mapping is left. */
static int teardown(void **state)
{
	struct world *w = *state;
	assert_int_equal(pd_dealloc(w->pd), 0);
	assert_int_equal(w->bare->device.keys.count, 0);
	assert_int_equal(w->bare->counters.objects.mr, 0);
	munmap(w->bytes, PAGES * w->page);
	close(buffer);
	int next = dup(0);
	assert_int_equal(next, buffer);
	close(next);
	bare_free(w->bare);
	free(w);
	return 0;
}

static struct ibv_mr *reg(struct world *w, uint64_t offset, size_t length, uint64_t iova, int access)
{
	return mr_reg_dmabuf(w->pd, offset, length, iova, buffer, access);
}

static void refused(struct world *w, uint64_t offset, size_t length, uint64_t iova, int fd, int access, int error)
{
	errno = 0;
	assert_null(mr_reg_dmabuf(w->pd, offset, length, iova, fd, access));
	assert_int_equal(errno, error);
	assert_int_equal(w->bare->device.keys.count, 0);
}

static uint8_t *remote(struct world *w, const struct ibv_mr *mr, uint64_t va, uint64_t length, int access)
{
	return memory_remote(pd_of(w->pd), 1, mr->rkey, va, length, access);
}

/* ---- tests ---- */

static void a_region_is_the_buffers_memory(void **state)
{
	struct world *w = *state;
	struct ibv_mr *mr = reg(w, w->page + 100, w->page, 7 * w->page + 100, LOCAL | WRITE | READ);
	assert_non_null(mr);
	assert_ptr_equal(mr->addr, (void *)(w->page + 100));
	assert_int_equal(mr->length, w->page);
	strcpy((char *)w->bytes + w->page + 100, "by the other device");
	uint8_t *at = remote(w, mr, 7 * w->page + 100, w->page, WRITE);
	assert_non_null(at);
	assert_string_equal((char *)at, "by the other device");
	at[w->page - 1] = 77;
	assert_int_equal(w->bytes[2 * w->page + 99], 77);
	assert_null(remote(w, mr, 7 * w->page + 99, 1, READ));
	assert_null(remote(w, mr, 8 * w->page + 100, 1, READ));
	assert_non_null(memory_local(pd_of(w->pd), mr->lkey, 7 * w->page + 100, 1, LOCAL));
	assert_int_equal(mr_dereg(mr), 0);
	assert_int_equal(syncs, 2);
	assert_int_equal(synced[0], DMA_BUF_SYNC_START | DMA_BUF_SYNC_RW);
	assert_int_equal(synced[1], DMA_BUF_SYNC_END | DMA_BUF_SYNC_RW);
}

static void a_region_that_is_only_read_maps_for_reading_alone(void **state)
{
	struct world *w = *state;
	struct ibv_mr *mr = reg(w, 0, PAGES * w->page, 0, READ);
	assert_non_null(mr);
	assert_null(remote(w, mr, 0, 1, WRITE));
	uint8_t *at = remote(w, mr, 0, PAGES * w->page, READ);
	assert_non_null(at);
	/* It is not writable: a second registration of it as plain memory says so. */
	assert_null(mr_reg(w->pd, at, w->page, 0, LOCAL));
	assert_int_equal(errno, EFAULT);
	assert_int_equal(mr_dereg(mr), 0);
	assert_int_equal(synced[0], DMA_BUF_SYNC_START | DMA_BUF_SYNC_READ);
}

static void the_descriptor_may_be_closed(void **state)
{
	struct world *w = *state;
	struct ibv_mr *mr = reg(w, 0, w->page, 0, LOCAL | READ);
	int kept = dup(buffer);
	assert_non_null(mr);
	close(buffer);
	w->bytes[5] = 55;
	assert_int_equal(*remote(w, mr, 5, 1, READ), 55);
	assert_int_equal(mr_dereg(mr), 0);
	assert_int_equal(dup2(kept, buffer), buffer);
	close(kept);
}

static void what_the_kernel_refuses_is_refused(void **state)
{
	struct world *w = *state;
	int file = open("/dev/null", O_RDWR | O_CLOEXEC), plain = memfd_create("plain", MFD_CLOEXEC);
	assert_true(file >= 0 && plain >= 0 && ftruncate(plain, (off_t)w->page) == 0);
	refused(w, 0, w->page, 0, -1, LOCAL, EBADF);
	refused(w, 0, w->page, 0, file, LOCAL, EINVAL);
	refused(w, 0, w->page, 0, plain, LOCAL, EINVAL);
	close(plain);
	close(file);
	refused(w, 0, 0, 0, buffer, LOCAL, EINVAL);
	refused(w, 0, PAGES * w->page + 1, 0, buffer, LOCAL, EINVAL);
	refused(w, w->page, PAGES * w->page, 0, buffer, LOCAL, EINVAL);
	refused(w, PAGES * w->page, 1, 0, buffer, LOCAL, EINVAL);
	refused(w, UINT64_MAX - w->page + 1, w->page, 0, buffer, LOCAL, EINVAL);
	refused(w, 0, w->page, UINT64_MAX - w->page + 1, buffer, LOCAL, EINVAL);
	refused(w, 0, w->page, 1, buffer, LOCAL, EINVAL); /* other places within a page */
	refused(w, 0, w->page, 0, buffer, WRITE, EINVAL);
	static const int bad[] = {IBV_ACCESS_MW_BIND, IBV_ACCESS_ZERO_BASED, IBV_ACCESS_ON_DEMAND, IBV_ACCESS_HUGETLB, ACCESS_FLUSH_GLOBAL, 1 << 30};
	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
		refused(w, 0, w->page, 0, buffer, LOCAL | bad[i], EINVAL);
	assert_int_equal(syncs, 0);
}

static void a_buffer_that_no_process_may_map_is_not_supported(void **state)
{
	struct world *w = *state;
	cannot_map = true;
	refused(w, 0, w->page, 0, buffer, LOCAL, EOPNOTSUPP);
	assert_int_equal(syncs, 0);
}

static void it_cannot_be_registered_anew(void **state)
{
	struct world *w = *state;
	struct ibv_mr *mr = reg(w, 0, w->page, 0, LOCAL | READ);
	assert_non_null(mr);
	assert_int_equal(mr_rereg(mr, IBV_REREG_MR_CHANGE_ACCESS, NULL, NULL, 0, READ), IBV_REREG_MR_ERR_INPUT);
	assert_int_equal(errno, EINVAL);
	assert_non_null(remote(w, mr, 0, 1, READ));
	assert_int_equal(mr_dereg(mr), 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(a_region_is_the_buffers_memory),
		TEST(a_region_that_is_only_read_maps_for_reading_alone),
		TEST(the_descriptor_may_be_closed),
		TEST(what_the_kernel_refuses_is_refused),
		TEST(a_buffer_that_no_process_may_map_is_not_supported),
		TEST(it_cannot_be_registered_anew),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
