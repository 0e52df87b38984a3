/* SPDX-License-Identifier: Apache-2.0 */
/* Where liburoce.so is, and how the dynamic linker is told. */
#include "cli.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* From the folder of the executable, or absolute: meson.build knows. */
#ifndef UROCE_INSTALLED_LIBRARY
#error "UROCE_INSTALLED_LIBRARY is not set"
#endif
#define BUILT_LIBRARY "../src/liburoce.so"

/* Folders on the way to `path` are open to this user up to one; that one into `folder`. "" when all are. */
static void find_closed_folder(const char *path, char folder[PATH_MAX])
{
	char part[PATH_MAX] = "";
	struct stat st;

	for (size_t n = 1; n < sizeof part && path[n - 1]; n++) {
		if (path[n] != '/' && path[n] != '\0')
			continue;
		strcpy(folder, part[0] ? part : path[0] == '/' ? "/" : ".");
		memcpy(part, path, n);
		part[n] = '\0';
		if (stat(part, &st) < 0 && errno == EACCES)
			return;
	}
	folder[0] = '\0';
}

/* The library is somewhere that this user may not look into, or read: absent is something else. */
static int fail_denied(const char *path)
{
	char folder[PATH_MAX];

	find_closed_folder(path, folder);
	if (!folder[0])
		return fail(EXIT_OWN, "%s: permission denied: the user with ID %u can't read this file; chmod a+r opens it", path,
			    (unsigned)geteuid());
	return fail(EXIT_OWN, "%s: permission denied: the user with ID %u can't enter the folder %s. Open it (chmod a+x), or install "
		    "uroce where this user can read it",
		    path, (unsigned)geteuid(), folder);
}

/* The library's path into `joined`, its real path into `out`. Else false, errno says why. */
static bool find_beside(const char *folder, const char *path, char joined[PATH_MAX], char out[PATH_MAX])
{
	int n = snprintf(joined, PATH_MAX, "%s%s%s", path[0] == '/' ? "" : folder, path[0] == '/' ? "" : "/", path);

	if (n < 0 || n >= PATH_MAX) {
		errno = ENAMETOOLONG;
		return false;
	}
	return realpath(joined, out);
}

static int find_library(char out[PATH_MAX])
{
	const char *given = getenv("UROCE_LIBRARY");
	static const char *const places[] = {UROCE_INSTALLED_LIBRARY, BUILT_LIBRARY};
	char folder[PATH_MAX], joined[PATH_MAX], denied[PATH_MAX] = "";
	ssize_t n;

	if (given && *given) {
		if (realpath(given, out))
			return 0;
		if (errno == EACCES)
			return fail_denied(given);
		return fail(EXIT_OWN, "%s, which UROCE_LIBRARY names: %s", given, strerror(errno));
	}
	n = readlink("/proc/self/exe", folder, sizeof folder - 1);
	if (n < 0)
		return fail(EXIT_OWN, "cannot find this program (/proc/self/exe): %s", strerror(errno));
	folder[n] = '\0';
	*strrchr(folder, '/') = '\0';
	for (int i = 0; i < 2; i++) {
		if (find_beside(folder, places[i], joined, out))
			return 0;
		if (errno == EACCES && !denied[0])
			strcpy(denied, joined);
	}
	if (denied[0])
		return fail_denied(denied);
	return fail(EXIT_OWN, "liburoce.so is neither at %s nor at %s, as seen from %s; install uroce again, or set "
		    "UROCE_LIBRARY to the path of the library",
		    UROCE_INSTALLED_LIBRARY, BUILT_LIBRARY, folder);
}

/* Where a word of LD_PRELOAD goes. */
enum place { FIRST, BEFORE, BEHIND };

/* A library that stands before libibverbs itself, and has a drop-in for it, like this one's. */
static bool is_before_verbs(const char *word, size_t length)
{
	const char *slash = memrchr(word, '/', length);
	char path[PATH_MAX];

	return slash && snprintf(path, sizeof path, "%.*s/dropin/libibverbs.so.1", (int)(slash - word), word) < PATH_MAX && access(path, F_OK) == 0;
}

/* Sanitizers insist on being first. What stands before libibverbs must have seen a call before the device does. */
static enum place place_of(const char *word, size_t length)
{
	return is_sanitizer(word, length) ? FIRST : is_before_verbs(word, length) ? BEFORE : BEHIND;
}

/* Appends the words of a LD_PRELOAD that go there, but for `library` itself. */
static void append_words(char *out, const char *list, const char *library, enum place place)
{
	for (const char *p = list; *(p += strspn(p, " :"));) {
		size_t length = strcspn(p, " :");
		bool same = strlen(library) == length && memcmp(library, p, length) == 0;

		if (!same && place_of(p, length) == place) {
			if (*out)
				strcat(out, ":");
			strncat(out, p, length);
		}
		p += length;
	}
}

int library_preload(const char *command)
{
	const char *list = getenv("LD_PRELOAD");
	char library[PATH_MAX] = "", sanitizer[SANITIZER_NAME] = "";
	int status = find_library(library);
	char *value;

	if (status)
		return status;
	/* The dynamic linker would say so and go on without it. */
	if (access(library, R_OK) < 0)
		return fail_denied(library);
	if (strpbrk(library, " :"))
		return fail(EXIT_OWN, "%s: LD_PRELOAD can't hold a path with a space or a colon; move or link the library",
			    library);
	if (!list)
		list = "";
	value = calloc(1, strlen(list) + strlen(library) + sizeof sanitizer + 4);
	if (!value)
		return fail(EXIT_OWN, "no memory");
	/* One that is given by hand is the user's choice. */
	append_words(value, list, library, FIRST);
	if (!*value && sanitizer_of(command, sanitizer, sizeof sanitizer))
		strcpy(value, sanitizer);
	append_words(value, list, library, BEFORE);
	if (*value)
		strcat(value, ":");
	strcat(value, library);
	append_words(value, list, library, BEHIND);
	if (setenv("LD_PRELOAD", value, 1) < 0)
		status = fail(EXIT_OWN, "LD_PRELOAD: %s", strerror(errno));
	free(value);
	return status ? status : dropin_path(library);
}
