/* SPDX-License-Identifier: Apache-2.0 */
/* The folder with a libibverbs.so.1 that LD_LIBRARY_PATH begins with: for programs that look libibverbs' functions up in a handle
 * of their own, where no preloaded library is asked. Beside it lie links: to uroce's library and to the real libibverbs. An
 * installed tree has such a folder for the libibverbs that it was built with. Where another one would be loaded (the
 * program's own LD_LIBRARY_PATH leads to one, say) a folder of links is made for that, once for each user. */
#include "cli.h"

#include <dlfcn.h>
#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define DROPIN "libibverbs.so.1"
#define REAL   "libibverbs-real.so.1"
/* The drop-in's name for a drop-in of another library's, which stands before it. */
#define NEXT   "libibverbs-next.so.1"

/* What lies in a folder: its name, and the path where it leads. */
struct link {
	const char *name;
	const char *path;
};

enum { LINKS = 5 };

/* `folder`/`name`, with links resolved. False: there is none, or its path is too long. */
static bool resolve(const char *folder, const char *name, char out[PATH_MAX])
{
	char path[PATH_MAX];
	int n = snprintf(path, sizeof path, "%s/%s", folder, name);

	return n > 0 && n < PATH_MAX && realpath(path, out);
}

/* The path of the library that a program would get: the dynamic linker finds it for this command as it will for the next. */
static bool find_real(char out[PATH_MAX])
{
	static void *handle; /* stays open: this process becomes the command */
	handle = dlopen(DROPIN, RTLD_LAZY | RTLD_LOCAL);
	void *function = handle ? dlsym(handle, "ibv_wc_status_str") : NULL; /* uroce's library has none of that name */
	Dl_info real;

	return function && dladdr(function, &real) != 0 && realpath(real.dli_fname, out);
}

/* FNV-1a: a name for what a folder holds. Names that are the same by chance are found out by comparing the links. */
static uint64_t hash(const struct link *links)
{
	uint64_t value = UINT64_C(14695981039346656037);

	for (int i = 0; i < LINKS; i++)
		for (const char *p = links[i].path;; p++) {
			value = (value ^ (unsigned char)*p) * UINT64_C(1099511628211);
			if (!*p)
				break;
		}
	return value;
}

static bool is_link_to(const char *folder, const struct link *link)
{
	char path[PATH_MAX], target[PATH_MAX];
	int n = snprintf(path, sizeof path, "%s/%s", folder, link->name);
	ssize_t length = n < PATH_MAX ? readlink(path, target, sizeof target) : -1;

	return length == (ssize_t)strlen(link->path) && memcmp(target, link->path, (size_t)length) == 0;
}

/* It is this user's, nobody else can change it, and it holds these links: what lies in /tmp may be anybody's. */
static bool is_made(const char *folder, const struct link *links)
{
	struct stat st;

	if (lstat(folder, &st) < 0 || !S_ISDIR(st.st_mode) || st.st_uid != geteuid() || (st.st_mode & (S_IWGRP | S_IWOTH)))
		return false;
	for (int i = 0; i < LINKS; i++)
		if (!is_link_to(folder, &links[i]))
			return false;
	return true;
}

static void remove_folder(const char *folder, const struct link *links)
{
	char path[PATH_MAX];

	for (int i = 0; i < LINKS; i++)
		if (snprintf(path, sizeof path, "%s/%s", folder, links[i].name) < PATH_MAX)
			unlink(path);
	rmdir(folder);
}

/* Whole at once, under a name of its own first: other commands may want the same folder now. */
static bool make_in(const char *place, const struct link *links, char folder[PATH_MAX])
{
	char made[PATH_MAX], path[PATH_MAX];

	if (snprintf(folder, PATH_MAX, "%s/uroce-%u-%016" PRIx64, place, (unsigned)geteuid(), hash(links)) >= PATH_MAX ||
	    snprintf(made, sizeof made, "%s/uroce.XXXXXX", place) >= PATH_MAX)
		return false;
	if (is_made(folder, links))
		return true;
	if (!mkdtemp(made))
		return false;
	bool whole = chmod(made, 0755) == 0; /* a command may change its user, and go on finding it */
	for (int i = 0; i < LINKS && whole; i++)
		whole = snprintf(path, sizeof path, "%s/%s", made, links[i].name) < PATH_MAX && symlink(links[i].path, path) == 0;
	if (whole && rename(made, folder) == 0)
		return true;
	remove_folder(made, links);
	return is_made(folder, links);
}

/* A folder for this pair of libraries, in `out`. */
static bool find_folder(const char *dropin, const char *library, const char *real, char out[PATH_MAX])
{
	char installed[PATH_MAX], known[PATH_MAX];
	const char *runtime = getenv("XDG_RUNTIME_DIR");
	const struct link links[LINKS] = {
		{DROPIN, dropin}, {"libibverbs.so", dropin}, {"liburoce.so", library}, {REAL, real}, {NEXT, dropin}};

	strcpy(installed, dropin);
	*strrchr(installed, '/') = '\0';
	if (resolve(installed, REAL, known) && strcmp(known, real) == 0) {
		strcpy(out, installed);
		return true;
	}
	return (runtime && *runtime == '/' && make_in(runtime, links, out)) || make_in("/tmp", links, out);
}

/* LD_LIBRARY_PATH begins with such a folder: this command was itself started by uroce. */
static bool is_first(const char *list)
{
	char folder[PATH_MAX], real[PATH_MAX];
	size_t length = strcspn(list, ":;");

	if (length == 0 || length >= sizeof folder)
		return false;
	memcpy(folder, list, length);
	folder[length] = '\0';
	return resolve(folder, REAL, real) && resolve(folder, DROPIN, real);
}

/* The length of the list's first folder with what separates it, if that is a drop-in of another library's, which leads to `real` in the end; else 0. */
static size_t before_us(const char *list, const char *real)
{
	char folder[PATH_MAX], found[PATH_MAX];
	size_t length = strcspn(list, ":;");

	if (length == 0 || length >= sizeof folder)
		return 0;
	memcpy(folder, list, length);
	folder[length] = '\0';
	if (!resolve(folder, DROPIN, found) || strcmp(found, real) == 0)
		return 0;
	return length + (list[length] != '\0');
}

static int warn(const char *what, const char *why)
{
	fail(0, "%s: %s. A program that looks libibverbs up at run time (by dlsym) will not see the device", what, why);
	return 0;
}

int dropin_path(const char *library)
{
	const char *list = getenv("LD_LIBRARY_PATH");
	char folder[PATH_MAX], dropin[PATH_MAX], real[PATH_MAX];

	if (!list)
		list = "";
	if (is_first(list))
		return 0;
	strcpy(folder, library);
	*strrchr(folder, '/') = '\0';
	/* Another library, which UROCE_LIBRARY names, may come without; and where there is no libibverbs, none is asked for. */
	if (!resolve(folder, "dropin/" DROPIN, dropin) || !find_real(real))
		return 0;
	size_t before = before_us(list, real);
	if (is_first(list + before))
		return 0;
	if (!find_folder(dropin, library, real, folder))
		return warn("cannot make a folder in /tmp", strerror(errno));
	if (strpbrk(folder, ":;$"))
		return warn(folder, "LD_LIBRARY_PATH can't hold a path with a colon, a semicolon or a dollar sign");
	size_t room = strlen(folder) + strlen(list) + 3;
	char *value = malloc(room);
	if (!value)
		return fail(EXIT_OWN, "no memory");
	snprintf(value, room, "%.*s%s%s%s%s", (int)before, list, before > 0 && list[before - 1] != ':' && list[before - 1] != ';' ? ":" : "", folder,
		 list[before] ? ":" : "", list + before);
	int status = setenv("LD_LIBRARY_PATH", value, 1) == 0 ? 0 : fail(EXIT_OWN, "LD_LIBRARY_PATH: %s", strerror(errno));
	free(value);
	return status;
}
