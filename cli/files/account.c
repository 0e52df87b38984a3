/* SPDX-License-Identifier: Apache-2.0 */
#include "account.h"

#include "stale.h"
#include "walk.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct files_account {
	struct files_account *next;
	dev_t device;
	ino_t inode;
	unsigned copies;
	uint64_t used;
};

/* Guards the list and all that is in it. */
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static struct files_account *accounts;

uint64_t files_account_cost(const struct stat *status)
{
	return (uint64_t)status->st_blocks * 512 + FILES_ENTRY_COST;
}

uint64_t files_account_freed(const struct stat *status)
{
	uint64_t stored = (uint64_t)status->st_blocks * 512, size = S_ISREG(status->st_mode) ? (uint64_t)status->st_size : 0;

	return (stored < size ? stored : size) + FILES_ENTRY_COST;
}

static bool is_stale(const struct files_walk *walk, const struct files_found *found, unsigned days)
{
	const char *slash = strrchr(found->path, '/');
	int folder = found->kind == FILES_FOUND_FILE || found->kind == FILES_FOUND_LINK ? files_walk_folder(walk) : -1;

	return folder >= 0 && files_stale_remove(folder, slash ? slash + 1 : found->path, days);
}

static int count(int fd, unsigned days, int (*live)(void *arg), void *arg, uint64_t *used)
{
	struct files_walk *walk;
	struct files_found found;
	int ret = files_walk_new(fd, ".", "", false, true, &walk);

	if (ret < 0)
		return ret;
	files_walk_all(walk);
	while (ret >= 0 && files_walk_next(walk, &found) > 0) {
		if (found.fd >= 0)
			close(found.fd);
		if (found.kind != FILES_FOUND_LEAVE && !is_stale(walk, &found, days))
			*used += files_account_cost(&found.status);
		ret = live(arg);
	}
	files_walk_free(&walk);
	return ret;
}

static struct files_account *find(const struct stat *status)
{
	struct files_account *account = accounts;

	while (account && (account->device != status->st_dev || account->inode != status->st_ino))
		account = account->next;
	return account;
}

int files_account_open(int fd, unsigned days, int (*live)(void *arg), void *arg, struct files_account **out)
{
	struct files_account *account, *fresh = calloc(1, sizeof *fresh);
	struct stat status;
	int ret = 0;

	if (!fresh || fstat(fd, &status) != 0) {
		ret = fresh ? -errno : -ENOMEM;
		free(fresh);
		return ret;
	}
	*fresh = (struct files_account){.device = status.st_dev, .inode = status.st_ino};
	pthread_mutex_lock(&mutex);
	account = find(&status);
	if (account)
		account->copies++;
	pthread_mutex_unlock(&mutex);
	/* Without the mutex, because it takes long. Of two copies that begin at the same time, the one that is there first wins. */
	if (!account)
		ret = count(fd, days, live, arg, &fresh->used);
	if (!account && ret == 0) {
		pthread_mutex_lock(&mutex);
		account = find(&status);
		if (!account) {
			account = fresh;
			fresh = NULL;
			account->next = accounts;
			accounts = account;
		}
		account->copies++;
		pthread_mutex_unlock(&mutex);
	}
	free(fresh);
	*out = account;
	return ret;
}

void files_account_close(struct files_account **account)
{
	struct files_account *old = *account, **at = &accounts;

	*account = NULL;
	if (!old)
		return;
	pthread_mutex_lock(&mutex);
	if (--old->copies == 0) {
		while (*at != old)
			at = &(*at)->next;
		*at = old->next;
		free(old);
	}
	pthread_mutex_unlock(&mutex);
}

int files_account_take(struct files_account *account, uint64_t quota, uint64_t bytes)
{
	int ret = 0;

	if (!account)
		return 0;
	pthread_mutex_lock(&mutex);
	if (account->used > quota || bytes > quota - account->used)
		ret = -EDQUOT;
	else
		account->used += bytes;
	pthread_mutex_unlock(&mutex);
	return ret;
}

void files_account_give(struct files_account *account, uint64_t bytes)
{
	if (!account)
		return;
	pthread_mutex_lock(&mutex);
	account->used -= bytes < account->used ? bytes : account->used;
	pthread_mutex_unlock(&mutex);
}
