/* SPDX-License-Identifier: Apache-2.0 */
#include "list.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int files_list_add(struct files_list *list, const struct files_bytes *path)
{
	if (list->count == FILES_LIST_MAX)
		return -E2BIG;
	list->paths[list->count] = strndup(path->length > 0 ? (const char *)path->at : "", path->length);
	if (!list->paths[list->count])
		return -ENOMEM;
	list->count++;
	return 0;
}

void files_list_name(const char *path, char *name, size_t size)
{
	size_t end = strlen(path), start;

	while (end > 0 && path[end - 1] == '/')
		end--;
	for (start = end; start > 0 && path[start - 1] != '/';)
		start--;
	if (end - start >= size)
		end = start;
	memcpy(name, path + start, end - start);
	name[end - start] = '\0';
	if (strcmp(name, ".") == 0 || strcmp(name, "..") == 0)
		name[0] = '\0';
}

/* Nothing of the path can be sent. */
static int tell_failure(const char *path, int error, struct files_found *found)
{
	*found = (struct files_found){.kind = FILES_FOUND_FAILED, .fd = -1, .path = path};
	snprintf(found->text, sizeof found->text, "cannot open it: %s", error == -ENOTDIR ? "a part of its path is not a folder, or is a link" : strerror(-error));
	return 1;
}

static int begin_walk(struct files_list *list, const char *path, const char *name)
{
	struct files_bytes whole = files_text(path), folder, leaf;
	unsigned made = 0;
	int ret;

	if (!list->target)
		return files_walk_new(AT_FDCWD, path, name, true, list->recursive, &list->walk);
	if (whole.length > 0 && !files_name_is_safe(&whole))
		return -EINVAL;
	files_name_split(&whole, &folder, &leaf);
	ret = files_target_folder(list->target, &folder, false, &list->folder, &made);
	if (ret < 0)
		return ret;
	return files_walk_new(list->folder->fd, leaf.length > 0 ? (const char *)leaf.at : ".", name, false, list->recursive, &list->walk);
}

static int begin(struct files_list *list, const char *path, const char *name)
{
	int ret = begin_walk(list, path, name);

	if (ret == 0)
		files_walk_exclude(list->walk, list->excludes);
	return ret;
}

static void end(struct files_list *list)
{
	files_walk_free(&list->walk);
	files_folder_unref(&list->folder);
}

int files_list_next(void *arg, struct files_found *found)
{
	struct files_list *list = arg;
	char name[256];

	while (list->walk || list->next < list->count) {
		if (!list->walk) {
			const char *path = list->paths[list->next++];
			int ret;

			files_list_name(path, name, sizeof name);
			ret = begin(list, path, name);
			if (ret < 0) {
				end(list);
				return tell_failure(path, ret, found);
			}
		}
		if (files_walk_next(list->walk, found) == 1) {
			if (found->kind == FILES_FOUND_FAILED && found->path[0] == '\0')
				found->path = list->paths[list->next - 1];
			return 1;
		}
		end(list);
	}
	return 0;
}

int files_list_total(struct files_list *list, int (*live)(void *arg), void *arg, uint64_t *bytes, uint64_t *files)
{
	struct files_found found;
	int ret = 0;

	*bytes = *files = 0;
	while (ret >= 0 && files_list_next(list, &found) == 1) {
		if (found.fd >= 0)
			close(found.fd);
		if (found.kind == FILES_FOUND_FILE) {
			*bytes += (uint64_t)found.status.st_size;
			(*files)++;
		}
		ret = live ? live(arg) : 0;
	}
	end(list);
	list->next = 0;
	return ret;
}

void files_list_clear(struct files_list *list)
{
	end(list);
	while (list->count > 0)
		free(list->paths[--list->count]);
}
