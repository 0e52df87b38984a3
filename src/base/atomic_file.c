/* SPDX-License-Identifier: Apache-2.0 */
#include "atomic_file.h"

#include "log.h"

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Directory and last part of a path, in copies that the caller frees. */
static int split_path(const char *path, char **directory, char **base)
{
	char *first = strdup(path), *second = strdup(path);

	*directory = first ? strdup(dirname(first)) : NULL;
	*base = second ? strdup(basename(second)) : NULL;
	free(first);
	free(second);
	if (*directory && *base)
		return 0;
	free(*directory);
	free(*base);
	*directory = *base = NULL;
	return srdma_fail(-ENOMEM, "no memory for the path %s", path);
}

bool srdma_same_entry(const char *a, const char *b)
{
	char *dir_a = NULL, *dir_b = NULL, *base_a = NULL, *base_b = NULL;
	bool same = split_path(a, &dir_a, &base_a) == 0 && split_path(b, &dir_b, &base_b) == 0 && strcmp(base_a, base_b) == 0 &&
		    srdma_same_file(dir_a, dir_b);

	free(dir_a);
	free(base_a);
	free(dir_b);
	free(base_b);
	return same;
}

bool srdma_same_file(const char *a, const char *b)
{
	struct stat stat_a, stat_b;

	return stat(a, &stat_a) == 0 && stat(b, &stat_b) == 0 && stat_a.st_dev == stat_b.st_dev && stat_a.st_ino == stat_b.st_ino;
}

static char *beside(const char *path, const char *suffix)
{
	char *directory, *base, *name = NULL;

	if (split_path(path, &directory, &base))
		return NULL;
	if (asprintf(&name, "%s/.%s.%s", directory, base, suffix) < 0)
		name = NULL;
	free(directory);
	free(base);
	return name;
}

static int write_all(int fd, const char *data, size_t length)
{
	while (length > 0) {
		ssize_t done = write(fd, data, length);

		if (done < 0 && errno != EINTR)
			return -errno;
		if (done > 0) {
			data += done;
			length -= (size_t)done;
		}
	}
	return 0;
}

int srdma_atomic_file_prepare(struct srdma_atomic_file *output, BIO *content)
{
	char *data;
	long length = BIO_get_mem_data(content, &data);
	int fd, error = 0;

	output->temporary = beside(output->path, "XXXXXX");
	if (!output->temporary)
		return srdma_fail(-ENOMEM, "no memory to write %s", output->path);
	/* mkostemp uses O_EXCL and mode 0600, so that nobody can open the key before its mode is set. */
	fd = mkostemp(output->temporary, O_CLOEXEC);
	if (fd < 0) {
		error = -errno;
		free(output->temporary);
		output->temporary = NULL;
		return srdma_fail(error, "cannot write %s: %s; check that the directory exists and is writable",
				  output->path, strerror(-error));
	}
	error = write_all(fd, data, (size_t)length);
	if (!error && (fchmod(fd, output->mode) || fsync(fd)))
		error = -errno;
	if (close(fd) && !error)
		error = -errno;
	return error ? srdma_fail(error, "cannot write %s: %s", output->path, strerror(-error)) : 0;
}

/* Keeps the group, so that a service that reads the file as a member of its group can read the new one, too. Keeps nothing of another
 * user's file, since that user could have put it there to gain access to its replacement. */
static int keep_group(const struct srdma_atomic_file *output)
{
	mode_t rights;
	struct stat old;

	if (stat(output->path, &old) != 0 || !S_ISREG(old.st_mode) || old.st_uid != geteuid())
		return 0;
	rights = old.st_mode & output->group_mode;
	if (rights == 0)
		return 0;
	/* The group comes first, so that no other group gets the rights. */
	if (chown(output->temporary, (uid_t)-1, old.st_gid) != 0 || chmod(output->temporary, output->mode | rights) != 0)
		return -errno;
	return 0;
}

static int publish_over(struct srdma_atomic_file *output)
{
	struct stat existing;
	int kept = keep_group(output);

	if (kept != 0)
		return kept;
	if (lstat(output->path, &existing) == 0) {
		if (!S_ISREG(existing.st_mode) && !S_ISLNK(existing.st_mode))
			return -EINVAL;
		/* mkostemp's name is unique, and so are names derived from it. */
		if (asprintf(&output->backup, "%s.old", output->temporary) < 0)
			output->backup = NULL;
		if (!output->backup)
			return -ENOMEM;
		if (link(output->path, output->backup)) {
			int error = -errno;

			free(output->backup);
			output->backup = NULL;
			return error;
		}
	}
	if (rename(output->temporary, output->path))
		return -errno;
	free(output->temporary);
	output->temporary = NULL;
	return 0;
}

int srdma_atomic_file_publish(struct srdma_atomic_file *output, bool overwrite)
{
	int error;

	/* Unlike rename(), link() fails when the name exists. */
	if (overwrite)
		error = publish_over(output);
	else
		error = link(output->temporary, output->path) ? -errno : 0;
	if (!error) {
		output->published = true;
		return 0;
	}
	if (error == -EEXIST)
		return srdma_fail(error,
				  "%s already exists; choose another name, "
				  "or replace it (--force)",
				  output->path);
	if (error == -EINVAL)
		return srdma_fail(error, "cannot replace %s: it is not a regular file", output->path);
	return srdma_fail(error, "cannot rename the new file to %s: %s", output->path, strerror(-error));
}

void srdma_atomic_file_revert(struct srdma_atomic_file *output)
{
	if (!output->published)
		return;
	if (!output->backup)
		unlink(output->path);
	else if (rename(output->backup, output->path))
		srdma_log(SRDMA_LOG_ERROR, "cannot restore %s: %s; its content is in %s", output->path, strerror(errno),
			  output->backup);
	free(output->backup);
	output->backup = NULL;
	output->published = false;
}

void srdma_atomic_file_finish(struct srdma_atomic_file *output)
{
	char *directory, *base;
	int fd;

	if (output->temporary)
		unlink(output->temporary);
	if (output->backup)
		unlink(output->backup);
	free(output->temporary);
	free(output->backup);
	if (!output->published || split_path(output->path, &directory, &base))
		return;
	/* The new names survive a power cut from here on; not all file systems offer that, hence no error. */
	fd = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd >= 0) {
		fsync(fd);
		close(fd);
	}
	free(directory);
	free(base);
}
