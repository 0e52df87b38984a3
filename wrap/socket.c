/* SPDX-License-Identifier: Apache-2.0 */
#include "socket.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

/* Programs count on low numbers for what they open, and some close all up to a number. */
enum { HIGH_FD = 900 };

int64_t socket_now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static int connect_to(int fd, const char *path)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};

	if (strlen(path) >= sizeof address.sun_path)
		return -ENAMETOOLONG;
	memcpy(address.sun_path, path, strlen(path) + 1);
	return connect(fd, (struct sockaddr *)&address, sizeof address) == 0 ? 0 : -errno;
}

/* Whether only its owner and root can put files into the folder of `path`, and into those above. Shortens `path`. */
static bool is_private(char *path, uid_t *owner)
{
	bool first = true;
	struct stat st;
	char *slash;

	while ((slash = strrchr(path, '/')) != NULL) {
		slash[slash == path] = '\0';
		if (stat(path, &st) < 0 || st.st_mode & S_IWOTH)
			return false;
		if (first)
			*owner = st.st_uid;
		first = false;
		if (slash == path)
			return true;
	}
	return false;
}

/* Where any user can make files, another one may listen before the agent does, and would learn and choose all PSNs. */
static bool is_trusted(int fd, const char *given)
{
	char path[sizeof((struct sockaddr_un *)0)->sun_path];
	struct ucred peer;
	socklen_t length = sizeof peer;
	uid_t owner;

	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &length) < 0)
		return false;
	if (peer.uid == 0 || peer.uid == geteuid())
		return true;
	memcpy(path, given, strlen(given) + 1);
	return is_private(path, &owner) && owner == peer.uid;
}

int socket_open(struct socket *out, const char *path)
{
	struct stat st;
	int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0), high, error;

	if (fd < 0)
		return -errno;
	high = fcntl(fd, F_DUPFD_CLOEXEC, HIGH_FD);
	if (high >= 0) {
		close(fd);
		fd = high;
	}
	error = connect_to(fd, path);
	if (error == 0 && !is_trusted(fd, path))
		error = -EPERM;
	if (error == 0 && fstat(fd, &st) < 0)
		error = -errno;
	if (error != 0) {
		close(fd);
		return error;
	}
	*out = (struct socket){.fd = fd, .device = st.st_dev, .inode = st.st_ino};
	return 0;
}

bool socket_is_ours(const struct socket *socket)
{
	struct stat st;

	return socket->fd >= 0 && fstat(socket->fd, &st) == 0 && st.st_dev == socket->device && st.st_ino == socket->inode;
}

void socket_close(struct socket *socket)
{
	if (socket_is_ours(socket))
		close(socket->fd);
	socket->fd = -1;
}

void socket_shutdown(const struct socket *socket)
{
	if (socket_is_ours(socket))
		shutdown(socket->fd, SHUT_RDWR);
}

int socket_send(const struct socket *socket, void *packet, size_t length, uint16_t type, uint32_t request)
{
	struct local_header header = {
		.magic = LOCAL_MAGIC, .version = LOCAL_VERSION, .type = type, .length = (uint32_t)length, .request = request};
	ssize_t sent;

	memcpy(packet, &header, sizeof header);
	if (!socket_is_ours(socket))
		return -EBADF;
	do
		sent = send(socket->fd, packet, length, MSG_DONTWAIT | MSG_NOSIGNAL);
	while (sent < 0 && errno == EINTR);
	return sent == (ssize_t)length ? 0 : sent < 0 ? -errno : -EPROTO;
}

static size_t length_of(uint16_t type)
{
	switch (type) {
	case LOCAL_WELCOME: return sizeof(struct local_welcome);
	case LOCAL_ANSWER: return sizeof(struct local_answer);
	case LOCAL_REVOKE: return sizeof(struct local_revoke);
	default: return 0;
	}
}

/* Texts that have no end would be read beyond it. */
static void end_texts(union local_received *packet)
{
	switch (packet->header.type) {
	case LOCAL_WELCOME:
		packet->welcome.name[LOCAL_NAME - 1] = packet->welcome.text[LOCAL_TEXT - 1] = '\0';
		break;
	case LOCAL_ANSWER:
		packet->answer.peer[LOCAL_NAME - 1] = packet->answer.encryption[LOCAL_NAME - 1] = packet->answer.text[LOCAL_TEXT - 1] = '\0';
		break;
	default:
		packet->revoke.device[LOCAL_NAME - 1] = packet->revoke.text[LOCAL_TEXT - 1] = '\0';
	}
}

int socket_receive(const struct socket *socket, union local_received *packet)
{
	ssize_t length;

	if (!socket_is_ours(socket))
		return -EBADF;
	do
		length = recv(socket->fd, packet, sizeof *packet, MSG_DONTWAIT | MSG_TRUNC);
	while (length < 0 && errno == EINTR);
	if (length < 0)
		return errno == EWOULDBLOCK ? -EAGAIN : -errno;
	if (length == 0)
		return -ECONNRESET;
	if ((size_t)length < sizeof packet->header || packet->header.magic != LOCAL_MAGIC || packet->header.version != LOCAL_VERSION ||
	    (size_t)length != length_of(packet->header.type) || packet->header.length != length)
		return -EPROTO;
	end_texts(packet);
	return 0;
}

void socket_wait(const struct socket *socket, bool write, int timeout_ms)
{
	struct pollfd at = {.fd = socket->fd, .events = (short)(POLLIN | (write ? POLLOUT : 0))};

	poll(&at, 1, timeout_ms);
}
