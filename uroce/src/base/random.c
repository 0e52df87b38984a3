/* SPDX-License-Identifier: Apache-2.0 */
/* A pool of the kernel's random bytes, to ask it less often. */
#include "random.h"

#include <errno.h>
#include <pthread.h>
#include <stddef.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>

enum { POOL_BYTES = 256 }; /* getrandom gives as many without interruption */

/* In a mapping that the kernel hands to a child as zeros: it has no number of its parent's, and a lock that no thread
 * holds (a default mutex is all zeros). No way of forking gets around that. */
struct pool {
	pthread_mutex_t lock;
	size_t left;
	uint8_t bytes[POOL_BYTES];
};

static struct pool *pool; /* NULL: kernel too old for such mappings */

static void make_pool(void)
{
	void *map = mmap(NULL, sizeof(struct pool), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (map == MAP_FAILED)
		return;
	if (madvise(map, sizeof(struct pool), MADV_WIPEONFORK) != 0) {
		munmap(map, sizeof(struct pool));
		return;
	}
	madvise(map, sizeof(struct pool), MADV_DONTDUMP);
	pool = map;
}

static int from_kernel(void *out, size_t length)
{
	ssize_t got;

	do
		got = getrandom(out, length, 0);
	while (got < 0 && errno == EINTR);
	return got == (ssize_t)length ? 0 : -EIO;
}

/* Lock held. */
static int from_pool(void *out, size_t length)
{
	if (pool->left < length) {
		int error = from_kernel(pool->bytes, POOL_BYTES);
		if (error != 0) {
			pool->left = 0;
			return error;
		}
		pool->left = POOL_BYTES;
	}
	pool->left -= length;
	memcpy(out, pool->bytes + pool->left, length);
	explicit_bzero(pool->bytes + pool->left, length);
	return 0;
}

int random_u32(uint32_t *out)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;
	uint32_t value;
	int error;

	pthread_once(&once, make_pool);
	if (!pool) {
		error = from_kernel(&value, sizeof value);
	} else {
		pthread_mutex_lock(&pool->lock);
		error = from_pool(&value, sizeof value);
		pthread_mutex_unlock(&pool->lock);
	}
	if (error == 0)
		*out = value;
	return error;
}
