/* SPDX-License-Identifier: Apache-2.0 */
/* Sockets to other processes, what epoll tells of them, and counting: what both directions need. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "shm_parts.h"

enum { BYTES = 64 /* read of a socket in one go */ };

void traffic_count(struct traffic *traffic, _Atomic uint64_t *packets, _Atomic uint64_t *bytes, _Atomic uint64_t *local)
{
	if (traffic->packets == 0)
		return;
	counter_add(packets, traffic->packets);
	counter_add(bytes, traffic->bytes);
	counter_add(local, traffic->packets);
	*traffic = (struct traffic){ 0 };
}

int watch_add(struct shm *shm, struct watch *watch, enum kind kind, int fd)
{
	struct epoll_event event = { .events = EPOLLIN, .data.ptr = watch };
	watch->kind = kind;
	watch->fd = fd;
	if (epoll_ctl(shm->epoll_fd, EPOLL_CTL_ADD, fd, &event) != 0)
		return -errno;
	watch->next = shm->watches;
	shm->watches = watch;
	return 0;
}

void watch_remove(struct shm *shm, struct watch *watch)
{
	struct watch **at = &shm->watches;
	while (*at && *at != watch)
		at = &(*at)->next;
	if (*at)
		*at = watch->next;
	close(watch->fd);
	watch->fd = -1;
}

socklen_t shm_name_of(const struct shm *shm, unsigned block, struct sockaddr_un *out)
{
	memset(out, 0, sizeof *out);
	out->sun_family = AF_UNIX;
	int length = snprintf(out->sun_path + 1, sizeof out->sun_path - 1, "uroce-ring-%s%u", shm->config.loopback ? "lo-" : "", block);
	return (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + (size_t)length);
}

bool shm_is_own_user(const struct shm *shm, int fd)
{
	struct ucred peer;
	socklen_t length = sizeof peer;
	return getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &length) == 0 && peer.uid == shm->uid;
}

void shm_say(int fd, enum shm_word word)
{
	const char byte = (char)word;
	send(fd, &byte, 1, MSG_DONTWAIT | MSG_NOSIGNAL);
}

bool shm_read_bytes(int fd, char *last)
{
	for (unsigned i = 0; i < BYTES; i++) {
		ssize_t got = recv(fd, last, 1, MSG_DONTWAIT);
		if (got <= 0)
			return got < 0 && (errno == EAGAIN || errno == EINTR);
	}
	return true;
}
