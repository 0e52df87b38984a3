/* SPDX-License-Identifier: Apache-2.0 */
/* An empty folder to work in, as fixtures of a test or of a whole program. Include test.h first. */
#ifndef TEST_FOLDER_H
#define TEST_FOLDER_H

#include <ftw.h>
#include <sys/stat.h>
#include <unistd.h>

static char folder_path[64];

static inline int enter_folder(void **state)
{
	strcpy(folder_path, "/tmp/securdma-test-XXXXXX");
	return mkdtemp(folder_path) && chdir(folder_path) == 0 ? 0 : -1;
}

static inline int drop_file(const char *path, const struct stat *status, int kind, struct FTW *where)
{
	return remove(path);
}

static inline int leave_folder(void **state)
{
	return chdir("/") || nftw(folder_path, drop_file, 8, FTW_DEPTH | FTW_PHYS) ? -1 : 0;
}

/* Writes a file, and makes its folders if they are missing. */
static inline void write_text(const char *path, const char *text)
{
	char part[256];
	FILE *file;

	for (const char *slash = path; (slash = strchr(slash, '/')); slash++) {
		snprintf(part, sizeof part, "%.*s", (int)(slash - path), path);
		mkdir(part, 0755);
	}
	file = fopen(path, "w");
	assert_non_null(file);
	fputs(text, file);
	fclose(file);
}

#endif
