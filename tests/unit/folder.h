/* SPDX-License-Identifier: Apache-2.0 */
/* An empty folder to work in, as fixtures of a test or of a whole program. Include test.h first. */
#ifndef TEST_FOLDER_H
#define TEST_FOLDER_H

#include <dirent.h>
#include <unistd.h>

static char folder_path[64];

static inline int enter_folder(void **state)
{
	strcpy(folder_path, "/tmp/securdma-test-XXXXXX");
	return mkdtemp(folder_path) && chdir(folder_path) == 0 ? 0 : -1;
}

static inline int leave_folder(void **state)
{
	DIR *directory = opendir(".");
	struct dirent *entry;

	while (directory && (entry = readdir(directory)))
		if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
			remove(entry->d_name);
	if (directory)
		closedir(directory);
	return chdir("/") || rmdir(folder_path) ? -1 : 0;
}

static inline void write_text(const char *path, const char *text)
{
	FILE *file = fopen(path, "w");

	assert_non_null(file);
	fputs(text, file);
	fclose(file);
}

#endif
