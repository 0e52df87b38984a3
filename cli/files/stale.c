/* SPDX-License-Identifier: Apache-2.0 */
#include "stale.h"

#include "target.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/file.h>
#include <time.h>
#include <unistd.h>

#define DAY_SECONDS 86400

bool files_stale_is_partial(const char *name)
{
	return strncmp(name, FILES_PARTIAL_PREFIX, strlen(FILES_PARTIAL_PREFIX)) == 0;
}

static bool is_old(const struct stat *status, unsigned days)
{
	return time(NULL) - status->st_mtim.tv_sec > (time_t)days * DAY_SECONDS;
}

/* With the lock that a copy would hold, so that none begins with it meanwhile. */
static bool remove_locked(int folder, const char *name, unsigned days, const struct stat *found)
{
	int fd = openat(folder, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
	struct stat status;
	bool gone;

	if (fd < 0)
		return false;
	gone = flock(fd, LOCK_EX | LOCK_NB) == 0 && fstat(fd, &status) == 0 && status.st_dev == found->st_dev && status.st_ino == found->st_ino &&
	       is_old(&status, days) && unlinkat(folder, name, 0) == 0;
	close(fd);
	return gone;
}

bool files_stale_remove(int folder, const char *name, unsigned days)
{
	struct stat status;

	if (days == 0 || !files_stale_is_partial(name) || fstatat(folder, name, &status, AT_SYMLINK_NOFOLLOW) != 0 || !is_old(&status, days))
		return false;
	if (S_ISREG(status.st_mode))
		return remove_locked(folder, name, days, &status);
	/* A link that was to get its name. */
	return S_ISLNK(status.st_mode) && unlinkat(folder, name, 0) == 0;
}

void files_stale_sweep(int folder, unsigned days, struct files_account *account)
{
	int fd = days > 0 ? openat(folder, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
	DIR *entries = fd >= 0 ? fdopendir(fd) : NULL;
	const struct dirent *entry;
	struct stat status;

	if (!entries && fd >= 0)
		close(fd);
	/* No other thread has this folder's stream. */
	/* cppcheck-suppress readdirCalled */
	while (entries && (entry = readdir(entries))) {
		if (!files_stale_is_partial(entry->d_name) || fstatat(fd, entry->d_name, &status, AT_SYMLINK_NOFOLLOW) != 0)
			continue;
		if (files_stale_remove(fd, entry->d_name, days))
			files_account_give(account, files_account_freed(&status));
	}
	if (entries)
		closedir(entries);
}
