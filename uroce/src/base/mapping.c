/* SPDX-License-Identifier: Apache-2.0 */
/* Whether memory is there. */
#include "mapping.h"

#include <errno.h>
#include <inttypes.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#ifndef MADV_POPULATE_READ
#define MADV_POPULATE_READ  22
#define MADV_POPULATE_WRITE 23
#endif

/* By the list of mappings, where the kernel can't be asked directly (before 5.14, or under a sandbox). */
static int check_mappings(uintptr_t at, uintptr_t end, bool writable)
{
	FILE *maps = fopen("/proc/self/maps", "re");
	if (!maps)
		return 0; /* nothing to be learnt: the application's word is taken */
	char *line = NULL;
	size_t room = 0;
	while (at < end && getline(&line, &room, maps) > 0) {
		uintptr_t from, to;
		char rights[5];
		if (sscanf(line, "%" SCNxPTR "-%" SCNxPTR " %4s", &from, &to, rights) != 3 || to <= at)
			continue;
		if (from > at || rights[0] != 'r' || (writable && rights[1] != 'w'))
			break;
		at = to;
	}
	free(line);
	fclose(maps);
	return at < end ? -EFAULT : 0;
}

/* An emulator (qemu-user) may accept any advice, even for the page at NULL, and do nothing. */
static bool advice_is_taken(void)
{
	return madvise(NULL, 1, MADV_POPULATE_READ) != 0;
}

int mapping_check(const void *addr, size_t length, bool writable)
{
	uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
	uintptr_t begin = (uintptr_t)addr & ~(page - 1);
	uintptr_t end = (uintptr_t)addr + length;
	int advice = writable ? MADV_POPULATE_WRITE : MADV_POPULATE_READ;

	if (length == 0)
		return 0;
	if (end > UINTPTR_MAX - page)
		return -EFAULT;
	end = (end + page - 1) & ~(page - 1);
	if (madvise((void *)begin, end - begin, advice) == 0)
		return advice_is_taken() ? 0 : check_mappings(begin, end, writable);
	/* EINVAL is said for wrong permissions, and by kernels that don't know the advice. No bytes: only the latter. */
	if (errno == EINVAL && madvise((void *)begin, 0, advice) == 0)
		return -EFAULT;
	if (errno == EFAULT || errno == ENOMEM || errno == EHWPOISON)
		return -EFAULT;
	return check_mappings(begin, end, writable);
}
