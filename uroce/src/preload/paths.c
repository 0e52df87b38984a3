/* SPDX-License-Identifier: Apache-2.0 */
#include "paths.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "own_device.h"
#include "own_files.h"

#define CLASS       "/sys/class/infiniband"
#define VERBS_CLASS "/sys/class/infiniband_verbs"
#define NODES       "/dev/infiniband"
#define CHANNEL     NODES "/rdma_cm"
#define MISC_CLASS  "/sys/class/misc"

/* Of this thread: making the device, and libibverbs' own search, look at files too. */
static _Thread_local int hidden;

static bool begins(const char *path, const char *with)
{
	return strncmp(path, with, strlen(with)) == 0;
}

void paths_hide(bool hide)
{
	hidden += hide ? 1 : -1;
}

static const char *files_root(void)
{
	int saved = errno;
	paths_hide(true);
	const char *root = own_device_files();
	paths_hide(false);
	errno = saved;
	return root;
}

/* Without what makes no difference: slashes in a row or at the end, and "." between them. False: it is too long. */
static bool simplify(const char *path, char out[PATHS_ROOM])
{
	size_t n = 0;

	while (*path) {
		if (path[0] == '/' && (path[1] == '/' || path[1] == '\0')) {
			path++;
		} else if (path[0] == '/' && path[1] == '.' && (path[2] == '/' || path[2] == '\0')) {
			path += 2;
		} else if (n + 1 < PATHS_ROOM) {
			out[n++] = *path++;
		} else {
			return false;
		}
	}
	out[n] = '\0';
	return true;
}

/* `folder`/`name`, or something below it. */
static bool is_within(const char *path, const char *folder, const char *name)
{
	size_t length = strlen(folder), more = strlen(name);

	return strncmp(path, folder, length) == 0 && path[length] == '/' && strncmp(path + length + 1, name, more) == 0 &&
	       (path[length + 1 + more] == '\0' || path[length + 1 + more] == '/');
}

/* A folder of all devices. */
static bool is_shared(const char *path)
{
	return strcmp(path, CLASS) == 0 || strcmp(path, VERBS_CLASS) == 0 || strcmp(path, NODES) == 0;
}

static enum path_kind kind_of(const char *path)
{
	const struct ibv_device *device = own_device_listed();

	if (!device)
		return PATH_OTHER;
	if (is_within(path, NODES, device->dev_name))
		return PATH_NODE;
	if (strcmp(path, CHANNEL) == 0)
		return PATH_CHANNEL;
	if (is_shared(path) || is_within(path, CLASS, device->name) || is_within(path, VERBS_CLASS, device->dev_name) ||
	    strcmp(path, VERBS_CLASS "/abi_version") == 0 || is_within(path, MISC_CLASS, "rdma_cm"))
		return PATH_FILE;
	return PATH_OTHER;
}

/* The folder, or the file, is made as it is now. errno is kept. */
static void bring_up_to_date(const char *path, enum path_kind kind)
{
	int saved = errno;

	paths_hide(true);
	if (is_shared(path))
		own_device_add_kernel_files(path);
	else if (kind == PATH_FILE)
		own_device_refresh_file(path);
	paths_hide(false);
	errno = saved;
}

/* For a path that is likely to be one. */
static const char *look_closer(const char *path, char room[PATHS_ROOM], enum path_kind *kind)
{
	char simple[PATHS_ROOM] = "";

	if (!simplify(path, simple) || (!begins(simple, CLASS) && !begins(simple, NODES) && !begins(simple, MISC_CLASS)))
		return path;
	const char *root = files_root();
	if (!root)
		return path;
	enum path_kind found = kind_of(simple);
	if (found == PATH_OTHER || snprintf(room, PATHS_ROOM, "%s%s", root, simple) >= PATHS_ROOM)
		return path;
	bring_up_to_date(simple, found);
	*kind = found;
	return room;
}

const char *paths_find(const char *path, char room[PATHS_ROOM], enum path_kind *kind)
{
	*kind = PATH_OTHER;
	/* Programs open many files: most are told apart here. */
	if (!path || path[0] != '/' || hidden || (!strstr(path, "/infiniband") && !strstr(path, "/rdma_cm")))
		return path;
	return look_closer(path, room, kind);
}

const char *paths_find_pattern(const char *pattern, char room[PATHS_ROOM])
{
	if (!pattern || (!begins(pattern, CLASS) && !begins(pattern, NODES)) || hidden)
		return pattern;
	const char *root = files_root();
	if (!root || snprintf(room, PATHS_ROOM, "%s%s", root, pattern) >= PATHS_ROOM)
		return pattern;
	paths_hide(true);
	own_device_add_kernel_files(CLASS);
	own_device_add_kernel_files(VERBS_CLASS);
	own_device_add_kernel_files(NODES);
	paths_hide(false);
	return room;
}

void paths_restore(char *path)
{
	const char *root = files_root();

	if (root && begins(path, root))
		memmove(path, path + strlen(root), strlen(path) - strlen(root) + 1);
}

void paths_node(enum path_kind kind, unsigned *major, unsigned *minor)
{
	const struct ibv_device *device = own_device_listed();
	unsigned number = 0;

	if (kind == PATH_CHANNEL) {
		own_files_channel_node(major, minor);
		return;
	}

	if (device)
		sscanf(device->dev_name, "uverbs%u", &number);
	*major = UVERBS_MAJOR;
	*minor = UVERBS_MINOR + number;
}
