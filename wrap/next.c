/* SPDX-License-Identifier: Apache-2.0 */
#include "next.h"

#include <dlfcn.h>
#include <pthread.h>

static pthread_once_t once = PTHREAD_ONCE_INIT;
static void *verbs; /* stays loaded until the process ends */

static void load_verbs(void)
{
	/* By this name the drop-in finds what it is before: a program that looks functions up in a handle has loaded it so. */
	verbs = dlopen("libibverbs-next.so.1", RTLD_LAZY | RTLD_LOCAL);
	if (!verbs)
		verbs = dlopen("libibverbs.so.1", RTLD_LAZY | RTLD_LOCAL);
}

/* Its own functions would be called for ever. */
static void *unless_own(void *address)
{
	Dl_info own, found;

	if (!address || dladdr((void *)next_verbs, &own) == 0 || dladdr(address, &found) == 0)
		return address;
	return found.dli_fbase == own.dli_fbase ? NULL : address;
}

void *next_verbs(const char *name)
{
	/* First what is preloaded behind this library, then what the program is linked with. */
	void *address = unless_own(dlsym(RTLD_NEXT, name));

	if (address)
		return address;
	/* The program has loaded libibverbs for itself. */
	pthread_once(&once, load_verbs);
	return verbs ? unless_own(dlsym(verbs, name)) : NULL;
}

void *next_of(const char *library, const char *name)
{
	void *address = unless_own(dlsym(RTLD_NEXT, name));
	void *handle = address ? NULL : dlopen(library, RTLD_LAZY | RTLD_NOLOAD);

	if (handle) {
		address = unless_own(dlsym(handle, name));
		dlclose(handle); /* the program still has it */
	}
	return address;
}
