/* SPDX-License-Identifier: Apache-2.0 */
/* A narrow link between two network namespaces, for kernels without netem: an interface "path" in each, and between them a queue of
 * so many bytes in each direction that drops what has no room, then a delay. It can lose packets at random, deliver some late, and mark
 * them (ECN). Needs root. It says "ready" when the interfaces are there, and what it did when it is told to end (SIGTERM). */
#include <errno.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

enum { LONGEST = 65536, FLYING = 1 << 16, AT_ONCE = 64, LOWER_HEADER = 14 };

static struct {
	double rate; /* bytes a nanosecond */
	uint64_t queue, mark, delay, late_by;
	double loss, late;
} link_of = { .rate = 0.125, .queue = 250000, .delay = 100000 };

struct packet {
	uint64_t due;
	size_t length;
	uint8_t bytes[];
};

/* Packets on the way, by the time when they are due: a heap, since some are late. */
struct direction {
	int from, to;
	uint64_t free_at; /* when the last byte has left the queue */
	struct packet *heap[FLYING + 1];
	size_t count;
	uint64_t carried, dropped, lost, late, marked;
};

static struct direction directions[2];
static volatile sig_atomic_t ended;

static void end(int signal)
{
	(void)signal;
	ended = 1;
}

static void die(const char *what)
{
	fprintf(stderr, "relay: cannot %s: %s\n", what, strerror(errno));
	exit(1);
}

static uint64_t now_ns(void)
{
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

static bool chance(double p)
{
	return p > 0 && drand48() < p;
}

static void put(struct direction *d, struct packet *packet)
{
	size_t at = ++d->count;
	for (; at > 1 && d->heap[at / 2]->due > packet->due; at /= 2)
		d->heap[at] = d->heap[at / 2];
	d->heap[at] = packet;
}

static struct packet *take(struct direction *d)
{
	struct packet *first = d->heap[1], *last = d->heap[d->count--];
	size_t at = 1;
	for (size_t child; (child = 2 * at) <= d->count; at = child) {
		if (child < d->count && d->heap[child + 1]->due < d->heap[child]->due)
			child++;
		if (d->heap[child]->due >= last->due)
			break;
		d->heap[at] = d->heap[child];
	}
	d->heap[at] = last;
	return first;
}

/* IPv4 that may be marked: its traffic class becomes "congestion experienced", and its checksum fits. */
static bool mark(uint8_t *ip, size_t length)
{
	if (length < 20 || ip[0] >> 4 != 4 || (ip[1] & 3) == 0 || (ip[1] & 3) == 3)
		return false;
	uint32_t sum = (uint32_t)(uint16_t)~(ip[10] << 8 | ip[11]) + (uint16_t)~(ip[0] << 8 | ip[1]);
	ip[1] |= 3;
	sum += (uint32_t)(ip[0] << 8 | ip[1]);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	ip[10] = (uint8_t)(~sum >> 8);
	ip[11] = (uint8_t)~sum;
	return true;
}

static void arrive(struct direction *d, uint8_t *bytes, size_t length, uint64_t now)
{
	uint64_t start = d->free_at > now ? d->free_at : now;
	double waiting = (double)(start - now) * link_of.rate;

	if (waiting + (double)length > (double)link_of.queue || d->count == FLYING) {
		d->dropped++;
		return;
	}
	d->free_at = start + (uint64_t)((double)(length + LOWER_HEADER) / link_of.rate);
	if (chance(link_of.loss)) {
		d->lost++;
		return;
	}
	if (link_of.mark != 0 && waiting > (double)link_of.mark && mark(bytes, length))
		d->marked++;
	struct packet *packet = malloc(sizeof *packet + length);
	if (!packet)
		die("keep a packet");
	packet->due = d->free_at + link_of.delay;
	if (chance(link_of.late)) {
		packet->due += link_of.late_by;
		d->late++;
	}
	packet->length = length;
	memcpy(packet->bytes, bytes, length);
	put(d, packet);
	d->carried++;
}

static void run(struct direction *d)
{
	static uint8_t bytes[LONGEST];
	for (int i = 0; i < AT_ONCE; i++) {
		ssize_t length = read(d->from, bytes, sizeof bytes);
		if (length <= 0)
			break;
		arrive(d, bytes, (size_t)length, now_ns());
	}
	uint64_t now = now_ns();
	while (d->count > 0 && d->heap[1]->due <= now) {
		struct packet *packet = take(d);
		if (write(d->to, packet->bytes, packet->length) < 0 && errno != EIO && errno != EAGAIN)
			die("deliver a packet");
		free(packet);
	}
}

/* An interface in the namespace of that name: its descriptor. */
static int open_in(const char *name)
{
	char path[256];
	struct ifreq request = { .ifr_flags = IFF_TUN | IFF_NO_PI };
	snprintf(path, sizeof path, "/run/netns/%s", name);
	int namespace = open(path, O_RDONLY | O_CLOEXEC);
	if (namespace < 0 || setns(namespace, CLONE_NEWNET) != 0)
		die("enter the network namespace");
	close(namespace);
	int fd = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);
	strcpy(request.ifr_name, "path");
	if (fd < 0 || ioctl(fd, TUNSETIFF, &request) != 0)
		die("make an interface");
	return fd;
}

static void wait_for_work(void)
{
	struct pollfd fds[2] = { { .fd = directions[0].from, .events = POLLIN }, { .fd = directions[1].from, .events = POLLIN } };
	uint64_t due = UINT64_MAX, now = now_ns();
	for (int i = 0; i < 2; i++)
		if (directions[i].count > 0 && directions[i].heap[1]->due < due)
			due = directions[i].heap[1]->due;
	if (due <= now)
		return;
	uint64_t wait = due == UINT64_MAX ? 100000000 : due - now;
	struct timespec time = { .tv_sec = (time_t)(wait / 1000000000), .tv_nsec = (long)(wait % 1000000000) };
	ppoll(fds, 2, &time, NULL);
}

static void set(const char *option)
{
	double value = strtod(strchr(option, '=') + 1, NULL);
	if (strncmp(option, "mbit=", 5) == 0)
		link_of.rate = value / 8000;
	else if (strncmp(option, "queue=", 6) == 0)
		link_of.queue = (uint64_t)value;
	else if (strncmp(option, "mark=", 5) == 0)
		link_of.mark = (uint64_t)value;
	else if (strncmp(option, "delay_us=", 9) == 0)
		link_of.delay = (uint64_t)(value * 1000);
	else if (strncmp(option, "loss=", 5) == 0)
		link_of.loss = value / 100;
	else if (strncmp(option, "late=", 5) == 0)
		link_of.late = value / 100;
	else if (strncmp(option, "late_us=", 8) == 0)
		link_of.late_by = (uint64_t)(value * 1000);
	else if (strncmp(option, "seed=", 5) == 0)
		srand48((long)value);
	else {
		fprintf(stderr, "relay: unknown option %s\n", option);
		exit(2);
	}
}

/* A link does not get slower since the programs at its ends poll: it takes a processor whenever it has something to do. */
static void run_first(void)
{
	struct sched_param first = { .sched_priority = 1 };
	if (sched_setscheduler(0, SCHED_FIFO, &first) != 0)
		fprintf(stderr, "relay: cannot go before other programs: %s; the link is as slow as they leave it\n", strerror(errno));
}

int main(int argc, char **argv)
{
	if (argc < 3) {
		fprintf(stderr, "usage: relay NAMESPACE NAMESPACE [mbit=N] [queue=BYTES] [delay_us=N] [loss=PERCENT] [late=PERCENT]\n"
				"       [late_us=N] [mark=BYTES] [seed=N]; the delay is one way\n");
		return 2;
	}
	srand48(1);
	for (int i = 3; i < argc; i++)
		if (strchr(argv[i], '='))
			set(argv[i]);
	signal(SIGTERM, end);
	signal(SIGINT, end);
	prctl(PR_SET_TIMERSLACK, 1000UL);
	run_first();
	int a = open_in(argv[1]), b = open_in(argv[2]);
	directions[0].from = directions[1].to = a;
	directions[0].to = directions[1].from = b;
	puts("ready");
	fflush(stdout);
	while (!ended) {
		wait_for_work();
		run(&directions[0]);
		run(&directions[1]);
	}
	for (int i = 0; i < 2; i++) {
		const struct direction *d = &directions[i];
		printf("carried=%llu dropped=%llu lost=%llu late=%llu marked=%llu\n", (unsigned long long)d->carried,
		       (unsigned long long)d->dropped, (unsigned long long)d->lost, (unsigned long long)d->late,
		       (unsigned long long)d->marked);
	}
	return 0;
}
