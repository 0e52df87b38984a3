/* SPDX-License-Identifier: Apache-2.0 */
/* A program that is not linked with libibverbs: it looks the functions up at run time, in one of the ways that programs do.
 * usage: lookup --how HOW --port PORT [HOST]
 *   dlvsym    each function by its version, in a handle of libibverbs.so.1 (as NCCL does)
 *   dlsym     by its name
 *   unnumbered  by its name, in a handle of libibverbs.so
 *   plugin    a plugin that is linked with libibverbs, loaded RTLD_LOCAL (as UCX's)
 *   deepbind  the same, loaded RTLD_DEEPBIND */
#include <dlfcn.h>
#include <getopt.h>
#include <libgen.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "lookup.h"

static void *must(void *found, const char *what)
{
	if (!found) {
		fprintf(stderr, "lookup: %s: %s\n", what, dlerror());
		exit(1);
	}
	return found;
}

static void look_up(struct functions *verbs, const char *library, bool by_version)
{
	void *handle = must(dlopen(library, RTLD_NOW), library);

#define X(name, version) \
	verbs->name = (__typeof__(verbs->name))must(by_version ? dlvsym(handle, #name, version) : dlsym(handle, #name), #name);
	FUNCTIONS(X)
#undef X
}

/* It lies beside this program. */
static void ask_plugin(struct functions *verbs, int mode)
{
	char self[PATH_MAX], path[PATH_MAX + 32];
	ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);

	self[n < 0 ? 0 : n] = '\0';
	snprintf(path, sizeof path, "%s/lookup_plugin.so", dirname(self));
	void *handle = must(dlopen(path, RTLD_NOW | RTLD_LOCAL | mode), path);
	void (*give)(struct functions *) = (void (*)(struct functions *))must(dlsym(handle, "give_functions"), "give_functions");
	give(verbs);
}

int main(int argc, char **argv)
{
	static const struct option options[] = {{"how", required_argument, NULL, 'h'}, {"port", required_argument, NULL, 'p'}, {0}};
	const char *how = "", *port = "18515";
	struct functions verbs;
	int c;

	while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
		if (c == 'h')
			how = optarg;
		else if (c == 'p')
			port = optarg;
		else
			return 2;
	}
	if (strcmp(how, "dlvsym") == 0)
		look_up(&verbs, "libibverbs.so.1", true);
	else if (strcmp(how, "dlsym") == 0)
		look_up(&verbs, "libibverbs.so.1", false);
	else if (strcmp(how, "unnumbered") == 0)
		look_up(&verbs, "libibverbs.so", false);
	else if (strcmp(how, "plugin") == 0)
		ask_plugin(&verbs, 0);
	else if (strcmp(how, "deepbind") == 0)
		ask_plugin(&verbs, RTLD_DEEPBIND);
	else
		return 2;
	pingpong(&verbs, port, optind < argc ? argv[optind] : NULL);
	printf("all messages were right\n");
	return 0;
}
