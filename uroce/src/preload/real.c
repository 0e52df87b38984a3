/* SPDX-License-Identifier: Apache-2.0 */
/* Finds functions in libibverbs itself. Not by RTLD_NEXT: that searches what the program was linked with, and some
 * programs load libibverbs later and for themselves (Python's modules do). */
#include "real.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stddef.h>

#include "log.h"

static pthread_once_t once = PTHREAD_ONCE_INIT;
static void *found, *library; /* stay loaded until the process ends */

static void load_libibverbs(void)
{
	Dl_info real;

	/* By its soname, so that a copy that the program has already loaded from anywhere is the one. It may be the library of the
	 * folder `dropin`, which has this name, and needs this library and then the real one. */
	found = dlopen("libibverbs.so.1", RTLD_LAZY | RTLD_LOCAL);
	/* A function that only the real one has tells which that is. */
	void *function = found ? dlsym(found, "ibv_wc_status_str") : NULL;
	if (function && dladdr(function, &real) != 0)
		library = dlopen(real.dli_fname, RTLD_LAZY | RTLD_LOCAL);
	if (!library)
		log_write(LOG_WARN, "cannot load libibverbs, so only uroce's own device is shown: %s", dlerror());
}

void *real_symbol(const char *name)
{
	pthread_once(&once, load_libibverbs);
	/* In that library and those that it needs: never in those that were loaded before it, such as this one. */
	return library ? dlsym(library, name) : NULL;
}
