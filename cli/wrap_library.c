/* SPDX-License-Identifier: Apache-2.0 */
/* Where libsecurdma-wrap.so is, and how the dynamic linker is told: LD_PRELOAD for programs that are linked with libibverbs, and
 * LD_LIBRARY_PATH with the folder of the drop-in for those that look its functions up in a handle. */
#include "cli.h"
#include "wrap.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <link.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

/* From the folder of the executable, or absolute: meson.build knows. */
#ifndef WRAP_INSTALLED_LIBRARY
#error "WRAP_INSTALLED_LIBRARY is not set"
#endif
#define BUILT_LIBRARY "../wrap/libsecurdma-wrap.so"
#define NEXT_NAME "libibverbs-next.so.1"

/* The library, with links resolved. */
static int find_library(char out[PATH_MAX])
{
	static const char *const places[] = {WRAP_INSTALLED_LIBRARY, BUILT_LIBRARY};
	char folder[PATH_MAX], path[2 * PATH_MAX];
	ssize_t length = readlink("/proc/self/exe", folder, sizeof folder - 1);

	if (length < 0)
		return cli_failed(WRAP_EXIT_OWN, "cannot find this program (/proc/self/exe): %s", strerror(errno));
	folder[length] = '\0';
	*strrchr(folder, '/') = '\0';
	for (int i = 0; i < 2; i++) {
		snprintf(path, sizeof path, "%s%s%s", places[i][0] == '/' ? "" : folder, places[i][0] == '/' ? "" : "/", places[i]);
		if (realpath(path, out) && access(out, R_OK) == 0)
			return 0;
	}
	return cli_failed(WRAP_EXIT_OWN, "libsecurdma-wrap.so is neither at %s nor at %s, as seen from %s, or this user can't read it; install securdma again",
			  WRAP_INSTALLED_LIBRARY, BUILT_LIBRARY, folder);
}

/* Sanitizers insist on being first. */
static bool is_sanitizer(const char *word, size_t length)
{
	const char *slash = memrchr(word, '/', length);
	const char *base = slash ? slash + 1 : word;
	size_t left = length - (size_t)(base - word);
	static const char *const names[] = {"libasan.", "libtsan.", "libubsan.", "liblsan.", "libhwasan.", "libclang_rt."};

	for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
		if (left > strlen(names[i]) && memcmp(base, names[i], strlen(names[i])) == 0)
			return true;
	return false;
}

static void append(char *out, const char *word, size_t length)
{
	size_t used = strlen(out);

	if (used > 0)
		out[used++] = ':';
	memcpy(out + used, word, length);
	out[used + length] = '\0';
}

/* "" if it is not set. */
static const char *variable(const char *name)
{
	const char *value = getenv(name);

	return value ? value : "";
}

/* Those words of a LD_PRELOAD that are sanitizers, or those that are not, but for the library itself. */
static void append_words(char *out, const char *list, const char *library, bool sanitizers)
{
	for (const char *at = list; *(at += strspn(at, " :"));) {
		size_t length = strcspn(at, " :");
		bool same = strlen(library) == length && memcmp(library, at, length) == 0;

		if (!same && is_sanitizer(at, length) == sanitizers)
			append(out, at, length);
		at += length;
	}
}

static int set_preload(const char *library)
{
	const char *list = variable("LD_PRELOAD");
	char *value;
	int code = 0;

	if (strpbrk(library, " :;$"))
		return cli_failed(WRAP_EXIT_OWN, "%s: the dynamic linker can't be told of a path with a space, a colon, a semicolon or a dollar sign; move securdma", library);
	value = calloc(1, strlen(list) + strlen(library) + 3);
	if (!value)
		return cli_failed(WRAP_EXIT_OWN, "out of memory");
	append_words(value, list, library, true);
	append(value, library, strlen(library));
	append_words(value, list, library, false);
	if (setenv("LD_PRELOAD", value, 1) < 0)
		code = cli_failed(WRAP_EXIT_OWN, "LD_PRELOAD: %s", strerror(errno));
	free(value);
	return code;
}

/* ---- the folder in which the drop-in finds the real libibverbs ---- */

/* FNV-1a. Names that are the same by chance are found out by comparing the links. */
static uint64_t hash(const char *text)
{
	uint64_t value = UINT64_C(14695981039346656037);

	for (; *text; text++)
		value = (value ^ (unsigned char)*text) * UINT64_C(1099511628211);
	return value;
}

/* It is this user's, nobody else can change it, and its link leads there: what lies in /tmp may be anybody's. */
static bool is_made(const char *folder, const char *real)
{
	char path[PATH_MAX], target[PATH_MAX];
	struct stat st;
	ssize_t length;

	if (lstat(folder, &st) < 0 || !S_ISDIR(st.st_mode) || st.st_uid != geteuid() || (st.st_mode & (S_IWGRP | S_IWOTH)) ||
	    snprintf(path, sizeof path, "%s/%s", folder, NEXT_NAME) >= PATH_MAX)
		return false;
	length = readlink(path, target, sizeof target);
	return length == (ssize_t)strlen(real) && memcmp(target, real, (size_t)length) == 0;
}

/* Whole at once, under a name of its own first: other commands may want the same folder now. */
static bool make_in(const char *place, const char *real, char folder[PATH_MAX])
{
	char made[PATH_MAX], path[PATH_MAX + 32];

	if (snprintf(folder, PATH_MAX, "%s/securdma-wrap-%u-%016llx", place, (unsigned)geteuid(), (unsigned long long)hash(real)) >= PATH_MAX ||
	    snprintf(made, sizeof made, "%s/securdma-wrap.XXXXXX", place) >= PATH_MAX)
		return false;
	if (is_made(folder, real))
		return true;
	if (!mkdtemp(made))
		return false;
	snprintf(path, sizeof path, "%s/%s", made, NEXT_NAME);
	if (chmod(made, 0755) == 0 && symlink(real, path) == 0 && rename(made, folder) == 0)
		return true;
	unlink(path);
	rmdir(made);
	return is_made(folder, real);
}

/* Of the library that a program would get: that which this command has got. */
static int find_next(const char *library, char folder[PATH_MAX])
{
	const char *runtime = getenv("XDG_RUNTIME_DIR");
	void *function = dlsym(RTLD_DEFAULT, "ibv_wc_status_str"); /* no drop-in has one of that name */
	char real[PATH_MAX], known[PATH_MAX], path[PATH_MAX + 32];
	Dl_info found;

	if (!function || dladdr(function, &found) == 0 || !realpath(found.dli_fname, real))
		return cli_failed(WRAP_EXIT_OWN, "cannot find libibverbs.so.1; install libibverbs");
	strcpy(folder, library);
	strcpy(strrchr(folder, '/'), "/next");
	snprintf(path, sizeof path, "%s/%s", folder, NEXT_NAME);
	if ((realpath(path, known) && strcmp(known, real) == 0) || (runtime && *runtime == '/' && make_in(runtime, real, folder)) || make_in("/tmp", real, folder))
		return 0;
	return cli_failed(WRAP_EXIT_OWN, "cannot make a folder in /tmp: %s", strerror(errno));
}

/* What LD_LIBRARY_PATH holds stays between the two: another drop-in may be among it, and is then the next library. */
static int set_library_path(const char *library)
{
	const char *list = variable("LD_LIBRARY_PATH");
	char dropin[PATH_MAX + 16], next[PATH_MAX];
	char *value;
	int code = find_next(library, next);

	if (code != 0)
		return code;
	snprintf(dropin, sizeof dropin, "%.*s/dropin", (int)(strrchr(library, '/') - library), library);
	if (strncmp(list, dropin, strlen(dropin)) == 0 && (list[strlen(dropin)] == ':' || list[strlen(dropin)] == '\0'))
		return 0; /* this command is itself wrapped */
	if (asprintf(&value, "%s:%s%s%s", dropin, list, *list ? ":" : "", next) < 0)
		return cli_failed(WRAP_EXIT_OWN, "out of memory");
	if (setenv("LD_LIBRARY_PATH", value, 1) < 0)
		code = cli_failed(WRAP_EXIT_OWN, "LD_LIBRARY_PATH: %s", strerror(errno));
	free(value);
	return code;
}

int wrap_library(void)
{
	char library[PATH_MAX];
	int code = find_library(library);

	if (code == 0)
		code = set_preload(library);
	return code ? code : set_library_path(library);
}

/* ---- the command ---- */

/* Where execvp(3) will find it. */
static bool find_command(const char *command, char out[PATH_MAX])
{
	const char *list = getenv("PATH");

	if (strchr(command, '/'))
		return snprintf(out, PATH_MAX, "%s", command) < PATH_MAX && access(out, X_OK) == 0;
	for (const char *at = list ? list : "/usr/bin:/bin"; *at;) {
		size_t length = strcspn(at, ":");

		if (snprintf(out, PATH_MAX, "%.*s/%s", (int)length, at, command) < PATH_MAX && access(out, X_OK) == 0)
			return true;
		at += length + (at[length] == ':');
	}
	return false;
}

/* An ELF file that names no dynamic linker (PT_INTERP), and so gets no library before it; but for a dynamic linker itself. */
static bool is_static(const char *path)
{
	const char *base = strrchr(path, '/') ? strrchr(path, '/') + 1 : path;
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ElfW(Ehdr) file;
	ElfW(Phdr) part;
	bool is_one = fd >= 0 && strncmp(base, "ld", 2) != 0 && pread(fd, &file, sizeof file, 0) == sizeof file && memcmp(file.e_ident, ELFMAG, SELFMAG) == 0 &&
		      file.e_phentsize == sizeof part;

	for (unsigned i = 0; is_one && i < file.e_phnum; i++)
		is_one = pread(fd, &part, sizeof part, (off_t)(file.e_phoff + i * sizeof part)) == sizeof part && part.p_type != PT_INTERP;
	if (fd >= 0)
		close(fd);
	return is_one;
}

int wrap_check_command(const char *command)
{
	char path[PATH_MAX];
	struct stat st;

	if (!find_command(command, path) || stat(path, &st) < 0)
		return 0; /* exec says why */
	if (((st.st_mode & S_ISUID) && st.st_uid != geteuid()) || ((st.st_mode & S_ISGID) && (st.st_mode & S_IXGRP) && st.st_gid != getegid()) ||
	    (geteuid() != 0 && getxattr(path, "security.capability", NULL, 0) > 0))
		return cli_failed(WRAP_EXIT_OWN, "%s gets the rights of another user, of a group or of capabilities when it starts, and the dynamic linker then "
				  "loads no library before it: it would run unwrapped. Run securdma wrap as that user instead", path);
	if (is_static(path))
		fprintf(stderr, "securdma wrap: %s is linked statically, so that no library can stand before its own: it runs unwrapped, and only programs that it "
			"starts are wrapped\n", path);
	return 0;
}
