/* SPDX-License-Identifier: Apache-2.0 */
/* The C library's functions that end a process at once. A real device has acknowledged what it received, however the program ends. */
#include <sys/syscall.h>
#include <unistd.h>

#include "own_device.h"

#define EXPORT __attribute__((visibility("default")))

__attribute__((noreturn)) static void end(int status)
{
	own_device_settle();
	for (;;)
		syscall(SYS_exit_group, status);
}

__attribute__((noreturn)) void exit_posix(int status) __asm__("_exit");
EXPORT void exit_posix(int status)
{
	end(status);
}

__attribute__((noreturn)) void exit_c(int status) __asm__("_Exit");
EXPORT void exit_c(int status)
{
	end(status);
}
