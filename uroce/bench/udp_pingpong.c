/* SPDX-License-Identifier: Apache-2.0 */
/* A bare UDP ping-pong over loopback, spinning on a non-blocking receive: what the latency of uroce is compared with.
 * With ACK, a shorter packet of so many bytes goes out behind each one in the same system call (UDP_SEGMENT), and both come in as one
 * (UDP_GRO): as a reliable protocol acknowledges what it answers. What is left is the protocol's own time.
 * usage: udp_pingpong SIZE ITERATIONS [ACK]: forks; prints half of the median, and of the mean, round trip in microseconds.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/udp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#ifndef UDP_SEGMENT
#define UDP_SEGMENT 103
#define UDP_GRO 104
#endif

enum { MAX_SIZE = 65000, WARM_UP = 1000 };

static size_t ack; /* bytes; 0: none */

__attribute__((noreturn)) static void die(const char *what)
{
	perror(what);
	exit(1);
}

static int open_socket(struct sockaddr_in *address)
{
	socklen_t length = sizeof *address;
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

	*address = (struct sockaddr_in){.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	if (fd < 0 || bind(fd, (struct sockaddr *)address, sizeof *address) ||
	    getsockname(fd, (struct sockaddr *)address, &length))
		die("udp_pingpong: socket");
	int on = 1;
	if (ack > 0 && setsockopt(fd, SOL_UDP, UDP_GRO, &on, sizeof on) != 0)
		die("udp_pingpong: this kernel does not put packets together (UDP_GRO)");
	return fd;
}

/* Reads what one system call has sent. */
static ssize_t receive(int fd, char *buffer)
{
	_Alignas(struct cmsghdr) char control[CMSG_SPACE(sizeof(int))];
	struct iovec iov = { buffer, MAX_SIZE };
	struct msghdr header = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control };
	return ack == 0 ? recv(fd, buffer, MAX_SIZE, 0) : recvmsg(fd, &header, 0);
}

static void spin_receive(int fd, char *buffer, size_t size)
{
	ssize_t n;

	do {
		n = receive(fd, buffer);
	} while (n < 0 && (errno == EAGAIN || errno == EINTR));
	if (n != (ssize_t)(size + ack))
		die("udp_pingpong: recv");
}

static void send_to(int fd, char *buffer, size_t size, struct sockaddr_in *peer)
{
	_Alignas(struct cmsghdr) char control[CMSG_SPACE(sizeof(uint16_t))] = { 0 };
	struct iovec iov = { buffer, size + ack };
	struct msghdr header = { .msg_name = peer, .msg_namelen = sizeof *peer, .msg_iov = &iov, .msg_iovlen = 1 };
	if (ack > 0) {
		uint16_t segment = (uint16_t)size;
		header.msg_control = control;
		header.msg_controllen = sizeof control;
		struct cmsghdr *c = CMSG_FIRSTHDR(&header);
		c->cmsg_level = SOL_UDP;
		c->cmsg_type = UDP_SEGMENT;
		c->cmsg_len = CMSG_LEN(sizeof segment);
		memcpy(CMSG_DATA(c), &segment, sizeof segment);
	}
	ssize_t sent = ack == 0 ? sendto(fd, buffer, size, 0, (const struct sockaddr *)peer, sizeof *peer) : sendmsg(fd, &header, 0);
	if (sent != (ssize_t)(size + ack))
		die("udp_pingpong: sendto");
}

static int compare(const void *a, const void *b)
{
	const uint64_t *x = a, *y = b;

	return (*x > *y) - (*x < *y);
}

static uint64_t now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

int main(int argc, char **argv)
{
	static char buffer[MAX_SIZE];
	struct sockaddr_in here, there;
	size_t size = argc >= 3 ? strtoul(argv[1], NULL, 10) : 0;
	size_t count = argc >= 3 ? strtoul(argv[2], NULL, 10) : 0;

	ack = argc == 4 ? strtoul(argv[3], NULL, 10) : 0;
	if (!size || size > MAX_SIZE / 2 || !count || count > 100000000 || argc > 4 || ack > size) {
		fprintf(stderr, "usage: udp_pingpong SIZE ITERATIONS [ACK]\n");
		return 2;
	}
	uint64_t *trip = calloc(count, sizeof *trip);
	int mine = open_socket(&here), theirs = open_socket(&there);
	pid_t parent = getpid();
	pid_t child = trip ? fork() : -1;

	if (child < 0)
		die("udp_pingpong: fork");
	if (child == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		for (size_t i = 0; getppid() == parent && i < count + WARM_UP; i++) {
			spin_receive(theirs, buffer, size);
			send_to(theirs, buffer, size, &here);
		}
		_exit(0);
	}
	uint64_t sum = 0;

	for (size_t i = 0; i < count + WARM_UP; i++) {
		uint64_t began = now();

		send_to(mine, buffer, size, &there);
		spin_receive(mine, buffer, size);
		if (i >= WARM_UP) {
			trip[i - WARM_UP] = now() - began;
			sum += trip[i - WARM_UP];
		}
	}
	waitpid(child, NULL, 0);
	qsort(trip, count, sizeof *trip, compare);
	printf("%.3f %.3f\n", (double)trip[count / 2] / 2000, (double)sum / (double)count / 2000);
	free(trip);
	return 0;
}
