/* SPDX-License-Identifier: Apache-2.0 */
#include "target.h"

#include <errno.h>
#include <fcntl.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#define COMPONENT_MAX 255

struct files_target {
	int root;
	mode_t mode; /* of folders that are made */
	bool durable;
	struct files_folder *last; /* entries come folder by folder */
};

/* The next component of what is left of a path; its '/' goes with it. */
static struct files_bytes next_component(struct files_bytes *rest)
{
	const uint8_t *slash = rest->length > 0 ? memchr(rest->at, '/', rest->length) : NULL;
	struct files_bytes component = {rest->at, slash ? (size_t)(slash - rest->at) : rest->length};
	size_t taken = component.length + (slash ? 1 : 0);

	rest->at += taken;
	rest->length -= taken;
	return component;
}

static bool is_text(const struct files_bytes *bytes, const char *text)
{
	return bytes->length == strlen(text) && memcmp(bytes->at, text, bytes->length) == 0;
}

bool files_name_is_safe(const struct files_bytes *path)
{
	static const size_t prefix = sizeof FILES_PARTIAL_PREFIX - 1;
	struct files_bytes rest = *path;

	if (path->length == 0 || path->length > FILES_NAME_MAX || path->at[path->length - 1] == '/' || memchr(path->at, '\0', path->length))
		return false;
	while (rest.length > 0) {
		struct files_bytes component = next_component(&rest);

		if (component.length == 0 || component.length > COMPONENT_MAX || is_text(&component, ".") || is_text(&component, ".."))
			return false;
		if (component.length >= prefix && memcmp(component.at, FILES_PARTIAL_PREFIX, prefix) == 0)
			return false;
	}
	return true;
}

bool files_link_stays(const struct files_bytes *path, const struct files_bytes *link)
{
	struct files_bytes rest = *path;
	bool has_name = false;
	long depth = 0;

	if (link->length == 0 || link->at[0] == '/')
		return false;
	while (rest.length > 0) {
		next_component(&rest);
		depth++;
	}
	depth--; /* its folder */
	for (rest = *link; rest.length > 0;) {
		struct files_bytes component = next_component(&rest);

		if (component.length == 0 || is_text(&component, "."))
			continue;
		/* Behind a name that may itself be a link, ".." leads nobody knows where. */
		if (is_text(&component, "..") && (has_name || --depth < 0))
			return false;
		has_name = has_name || !is_text(&component, "..");
	}
	return true;
}

void files_name_split(const struct files_bytes *path, struct files_bytes *folder, struct files_bytes *leaf)
{
	const uint8_t *slash = path->length > 0 ? memrchr(path->at, '/', path->length) : NULL;
	size_t length = slash ? (size_t)(slash - path->at) : 0;

	*folder = (struct files_bytes){path->at, length};
	*leaf = (struct files_bytes){slash ? slash + 1 : path->at, path->length - (slash ? length + 1 : 0)};
}

void files_partial_name(const struct files_bytes *leaf, char name[FILES_PARTIAL_SIZE])
{
	uint8_t digest[EVP_MAX_MD_SIZE] = {0};
	int used = snprintf(name, FILES_PARTIAL_SIZE, FILES_PARTIAL_PREFIX);

	/* Names of 255 bytes have no room for more, and a name that is the same each time is what a later copy goes on with. */
	EVP_Digest(leaf->at, leaf->length, digest, NULL, EVP_sha256(), NULL);
	for (int i = 0; i < 16; i++) {
		name[used++] = "0123456789abcdef"[digest[i] >> 4];
		name[used++] = "0123456789abcdef"[digest[i] & 15];
	}
	name[used] = '\0';
}

/* ---- folders --------------------------------------------------------------------------------------------------- */

int files_target_new(int root, bool durable, struct files_target **out)
{
	struct files_target *target = calloc(1, sizeof *target);

	if (!target)
		return -ENOMEM;
	target->root = root;
	target->mode = 0700;
	target->durable = durable;
	*out = target;
	return 0;
}

void files_target_free(struct files_target **target)
{
	if (!*target)
		return;
	files_folder_unref(&(*target)->last);
	if ((*target)->root >= 0)
		close((*target)->root);
	free(*target);
	*target = NULL;
}

void files_target_set_mode(struct files_target *target, mode_t mode)
{
	target->mode = mode;
}

struct files_folder *files_folder_ref(struct files_folder *folder)
{
	folder->refs++;
	return folder;
}

void files_folder_unref(struct files_folder **folder)
{
	struct files_folder *old = *folder;

	*folder = NULL;
	if (!old || --old->refs > 0)
		return;
	close(old->fd);
	free(old);
}

/* One step down; `make`: the mode of a folder that is made, 0: none is. The descriptor, or a negative error. */
static int step(int above, const struct files_bytes *component, mode_t make, unsigned *made)
{
	char name[COMPONENT_MAX + 1];
	int fd;

	memcpy(name, component->at, component->length);
	name[component->length] = '\0';
	fd = openat(above, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0 && errno == ENOENT && make) {
		if (mkdirat(above, name, make) == 0)
			(*made)++;
		else if (errno != EEXIST)
			return -errno;
		fd = openat(above, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	}
	/* What open(2) says of a link that it was not to follow. */
	if (fd < 0)
		return errno == ELOOP ? -ENOTDIR : -errno;
	return fd;
}

static int walk_down(const struct files_target *target, const struct files_bytes *path, mode_t make, unsigned *made)
{
	struct files_bytes rest = *path;
	int fd = openat(target->root, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	if (fd < 0)
		return -errno;
	while (rest.length > 0 && fd >= 0) {
		struct files_bytes component = next_component(&rest);
		int below = step(fd, &component, make, made);

		/* So that a folder that a power cut would lose is not said to be there. */
		if (below >= 0 && *made > 0 && target->durable && fsync(fd) != 0) {
			close(below);
			below = -errno;
		}
		close(fd);
		fd = below;
	}
	return fd;
}

int files_target_folder(struct files_target *target, const struct files_bytes *path, bool make, struct files_folder **out, unsigned *made)
{
	struct files_folder *folder = target->last;
	int fd;

	if (path->length > 0 && !files_name_is_safe(path))
		return -EINVAL;
	if (!folder || folder->length != path->length || (path->length > 0 && memcmp(folder->path, path->at, path->length) != 0)) {
		if (target->root < 0)
			return -ENOENT;
		fd = walk_down(target, path, make ? target->mode : 0, made);
		if (fd < 0)
			return fd;
		folder = malloc(sizeof *folder + path->length + 1);
		if (!folder) {
			close(fd);
			return -ENOMEM;
		}
		folder->fd = fd;
		folder->refs = 1;
		folder->is_new = make && *made > 0;
		folder->length = path->length;
		if (path->length > 0)
			memcpy(folder->path, path->at, path->length);
		folder->path[path->length] = '\0';
		files_folder_unref(&target->last);
		target->last = folder;
	}
	*out = files_folder_ref(folder);
	return 0;
}

/* ---- partial files --------------------------------------------------------------------------------------------- */

/* A file of this process's user, under one name, which nobody else has open for a copy. */
static int check_partial(int fd, int64_t *size)
{
	struct stat status;

	if (fstat(fd, &status) != 0)
		return -errno;
	if (!S_ISREG(status.st_mode) || status.st_nlink != 1)
		return -ESTALE;
	if (flock(fd, LOCK_EX | LOCK_NB) != 0)
		return errno == EWOULDBLOCK ? -EBUSY : -errno;
	/* The copy that had it may have renamed it before it let go. */
	if (fstat(fd, &status) != 0)
		return -errno;
	*size = (int64_t)status.st_size;
	return 0;
}

static bool is_there(const struct files_folder *folder, const char *name, int fd)
{
	struct stat open_file, named;

	return fstat(fd, &open_file) == 0 && fstatat(folder->fd, name, &named, AT_SYMLINK_NOFOLLOW) == 0 && open_file.st_dev == named.st_dev &&
	       open_file.st_ino == named.st_ino;
}

int files_partial_open(const struct files_folder *folder, const char *name, bool make, int *fd, int64_t *size)
{
	/* A FIFO or a device of this name must not hold the process, nor a terminal become its own. */
	const int flags = O_RDWR | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC;
	int ret = -ESTALE;

	for (int tries = 0; tries < 4 && ret == -ESTALE; tries++) {
		*fd = openat(folder->fd, name, flags | (make ? O_CREAT : 0), 0600);
		if (*fd < 0 && errno == ENOENT)
			return -ENOENT;
		/* A link, a folder, a socket. */
		ret = *fd >= 0 ? check_partial(*fd, size) : errno == ELOOP || errno == ENXIO || errno == EISDIR ? -ESTALE : -errno;
		if (ret == 0 && !is_there(folder, name, *fd))
			ret = -ESTALE;
		else if (ret == -ESTALE && unlinkat(folder->fd, name, 0) != 0 && errno != ENOENT)
			ret = -errno;
		if (ret < 0 && *fd >= 0)
			close(*fd);
	}
	if (ret < 0)
		*fd = -1;
	return ret;
}

void files_partial_remove(const struct files_folder *folder, const char *name)
{
	int64_t size;
	int fd;

	if (files_partial_open(folder, name, false, &fd, &size) != 0)
		return;
	unlinkat(folder->fd, name, 0);
	close(fd);
}
