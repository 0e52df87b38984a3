/* SPDX-License-Identifier: Apache-2.0 */
/* The C library's functions by which librdmacm uses the descriptor of an event channel: ucma.h's, where the kernel has a character
 * device. All other descriptors go on to the C library. */
#include <sys/types.h>
#include <unistd.h>

#include "next.h"
#include "paths.h"
#include "ucma.h"

#define EXPORT __attribute__((visibility("default")))

ssize_t channel_write(int fd, const void *bytes, size_t length) __asm__("write");
EXPORT ssize_t channel_write(int fd, const void *bytes, size_t length)
{
	return ucma_is(fd) ? ucma_write(fd, bytes, length) : NEXT(channel_write, "write")(fd, bytes, length);
}

int channel_close(int fd) __asm__("close");
EXPORT int channel_close(int fd)
{
	ucma_close(fd);
	return NEXT(channel_close, "close")(fd);
}

/* Finds them now, and not in a handler of a signal. */
__attribute__((constructor)) static void begin(void)
{
	(void)NEXT(channel_write, "write");
	(void)NEXT(channel_close, "close");
}

/* ---- it looks like a character device ---- */

#define FSTAT(name, symbol) \
	int name(int fd, void *status) __asm__(symbol); \
	EXPORT int name(int fd, void *status) \
	{ \
		int result = NEXT(name, symbol)(fd, status); \
		if (result == 0 && ucma_is(fd)) \
			paths_set_node(PATH_CHANNEL, status); \
		return result; \
	}
FSTAT(channel_fstat, "fstat")
FSTAT(channel_fstat64, "fstat64")

/* The same, of programs that were built with a glibc before 2.33. */
#define FXSTAT(name, symbol) \
	int name(int version, int fd, void *status) __asm__(symbol); \
	EXPORT int name(int version, int fd, void *status) \
	{ \
		int result = NEXT(name, symbol)(version, fd, status); \
		if (result == 0 && ucma_is(fd)) \
			paths_set_node(PATH_CHANNEL, status); \
		return result; \
	}
FXSTAT(channel_fxstat, "__fxstat")
FXSTAT(channel_fxstat64, "__fxstat64")
