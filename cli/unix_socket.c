/* SPDX-License-Identifier: Apache-2.0 */
#include "unix_socket.h"

#include "cli.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define LOCK_TRIES 100

/* The lock is on a file that no other user can open: any user can read the folder, and one that locked it could stop the server from
 * starting. The file exists as long as the lock is held: the server removes it before it releases the lock. */
struct lock {
	char *path;
	int fd;
};

static bool is_own(int fd, const char *path)
{
	struct stat opened, there;

	if (fstat(fd, &opened) != 0)
		return false;
	if (!S_ISREG(opened.st_mode) || opened.st_uid != geteuid() || (opened.st_mode & 077) != 0) {
		errno = EPERM;
		return false;
	}
	if (lstat(path, &there) == 0 && there.st_dev == opened.st_dev && there.st_ino == opened.st_ino)
		return true;
	errno = ESTALE; /* also when another server has just taken it away: try again */
	return false;
}

/* Two servers that start at once must not each take the other's new socket for a dead one's. */
static int lock_take(struct lock *lock, const char *path)
{
	if (asprintf(&lock->path, "%s.lock", path) < 0) {
		lock->path = NULL;
		errno = ENOMEM;
		return -1;
	}
	for (int i = 0; i < LOCK_TRIES; i++) {
		lock->fd = open(lock->path, O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK, 0600);
		if (lock->fd < 0)
			return -1;
		if (flock(lock->fd, LOCK_EX | LOCK_NB) == 0 && is_own(lock->fd, lock->path))
			return 0;
		int error = errno;

		close(lock->fd);
		lock->fd = -1;
		errno = error;
		if (error != EWOULDBLOCK && error != EINTR && error != ESTALE)
			return -1;
		poll(NULL, 0, 10);
	}
	return -1;
}

static void lock_release(struct lock *lock)
{
	if (lock->path && lock->fd >= 0) {
		unlink(lock->path);
		close(lock->fd);
	}
	free(lock->path);
}

/* Whether somebody accepts connections there. A full backlog is somebody's too. */
static bool is_served(const struct sockaddr_un *address, int type)
{
	int fd = socket(AF_UNIX, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	bool served = fd >= 0 && (connect(fd, (const struct sockaddr *)address, sizeof *address) == 0 || errno != ECONNREFUSED);

	if (fd >= 0)
		close(fd);
	return served;
}

static int bind_with(int fd, const struct sockaddr_un *address, mode_t mode)
{
	mode_t mask = umask(0777 & ~mode);
	int ret = bind(fd, (const struct sockaddr *)address, sizeof *address);
	int error = errno;

	umask(mask);
	errno = error;
	return ret;
}

/* What the socket and its owners are called. */
struct names {
	const char *what, *who;
};

static int take_path(const struct names *names, struct unix_socket *own, int type, mode_t mode)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	struct stat there;

	snprintf(address.sun_path, sizeof address.sun_path, "%s", own->path);
	if (bind_with(own->fd, &address, mode) != 0) {
		if (errno != EADDRINUSE)
			goto fail;
		if (lstat(own->path, &there) != 0 || !S_ISSOCK(there.st_mode))
			return cli_failed(CLI_EXIT_USAGE, "%s %s: a file that is not a socket exists there; remove it, or give another path", names->what,
					  own->path);
		if (is_served(&address, type))
			return cli_failed(CLI_EXIT_FAILED, "%s %s: another %s uses it; stop that %s, or give another path", names->what, own->path,
					  names->who, names->who);
		if (unlink(own->path) != 0 || bind_with(own->fd, &address, mode) != 0)
			goto fail;
	}
	if (listen(own->fd, 128) == 0 && lstat(own->path, &own->file) == 0)
		return CLI_EXIT_OK;
fail:
	return cli_failed(CLI_EXIT_FAILED, "%s %s: %s", names->what, own->path, strerror(errno));
}

static void say_not_locked(const char *what, const char *path)
{
	const char *slash = strrchr(path, '/');
	int length = slash ? (int)(slash - path) + (slash == path) : 1, error = errno;
	const char *folder = slash ? path : ".";

	switch (error) {
	case ENOENT: cli_error("%s %s: there is no folder %.*s; make it, or give another path", what, path, length, folder); break;
	case ENOTDIR: cli_error("%s %s: %.*s is not a folder; give another path", what, path, length, folder); break;
	case EACCES:
	case EROFS: cli_error("%s %s: this user cannot make files in %.*s (%s); give another path", what, path, length, folder, strerror(error)); break;
	default: cli_error("%s %s: cannot lock %s.lock, which only this user may own: %s", what, path, path, strerror(error));
	}
}

int unix_socket_listen(const char *what, const char *who, const char *path, int type, mode_t mode, struct unix_socket *out)
{
	const struct names names = {what, who};
	struct lock lock = {.fd = -1};
	int code;

	*out = (struct unix_socket){.fd = -1};
	if (strlen(path) >= sizeof((struct sockaddr_un *)0)->sun_path)
		return cli_failed(CLI_EXIT_USAGE, "%s %s: the path is too long for a socket; give a shorter one", what, path);
	out->path = strdup(path);
	if (!out->path)
		return cli_failed(CLI_EXIT_FAILED, "%s %s: out of memory", what, path);
	out->fd = socket(AF_UNIX, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (out->fd < 0) {
		cli_error("%s %s: %s", what, path, strerror(errno));
		code = CLI_EXIT_FAILED;
	} else if (lock_take(&lock, path) != 0) {
		say_not_locked(what, path);
		code = CLI_EXIT_FAILED;
	} else {
		code = take_path(&names, out, type, mode);
	}
	lock_release(&lock);
	if (code != CLI_EXIT_OK)
		unix_socket_close(out);
	return code;
}

void unix_socket_close(struct unix_socket *own)
{
	struct stat there;

	if (own->file.st_ino != 0 && lstat(own->path, &there) == 0 && there.st_ino == own->file.st_ino && there.st_dev == own->file.st_dev)
		unlink(own->path);
	if (own->fd >= 0)
		close(own->fd);
	free(own->path);
	*own = (struct unix_socket){.fd = -1};
}
