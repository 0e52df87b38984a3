/* SPDX-License-Identifier: Apache-2.0 */
/* Packet capture. Records collect in a buffer that a thread writes after a few milliseconds, or the caller when it is
 * full: a packet costs a copy, and a killed process loses next to nothing. Each write is of whole records under a file
 * lock, so that processes may share a file, and one that fails is undone. */
#include "capture.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "log.h"
#include "thread.h"
#include "wire.h"

enum {
	PCAP_MAGIC_NS = 0xa1b23c4d, /* in the writer's byte order */
	PCAP_MAJOR = 2,
	PCAP_MINOR = 4,
	LINKTYPE_RAW = 101,
	IPV4_HEADER = 20,
	IPV6_HEADER = 40,
	UDP_HEADER = 8,
	IP_LONGEST = 65535,
	BUFFER = 256 << 10,
	FLUSH_MS = 5,
	/* The file has no place for a packet's direction, and routers may change the hop limit: it tells. */
	HOPS_SENT = 64,
	HOPS_RECEIVED = 63,
};

struct pcap_header {
	uint32_t magic;
	uint16_t major;
	uint16_t minor;
	uint32_t zone;
	uint32_t accuracy;
	uint32_t longest;
	uint32_t linktype;
};

struct pcap_record {
	uint32_t seconds;
	uint32_t nanoseconds;
	uint32_t kept;
	uint32_t length;
};

struct capture {
	char *path; /* for messages */
	int fd;
	dev_t dev; /* of fd: an application that closes descriptors it does not know may get its number */
	ino_t ino;
	pid_t pid; /* in a forked child a capture is silent: the buffer is the parent's, and there is no thread */

	pthread_mutex_t lock; /* guards the rest */
	pthread_cond_t wake;  /* the first record in an empty buffer, or the end */
	bool ended;
	bool failed;
	bool threaded;
	pthread_t thread;
	size_t used;
	uint8_t *buffer;
};

/* ---- headers ---------------------------------------------------------------------------------------------------- */

/* The internet checksum goes over 16-bit words wherever the pieces end: `odd` is the offset's parity. */
struct checksum {
	uint64_t sum;
	bool odd;
};

static void checksum_add(struct checksum *c, const void *bytes, size_t length)
{
	const uint8_t *p = bytes;

	for (size_t i = 0; i < length; i++, c->odd = !c->odd)
		c->sum += c->odd ? p[i] : (uint64_t)p[i] << 8;
}

static uint16_t checksum_end(const struct checksum *c)
{
	uint64_t sum = c->sum;

	while (sum >> 16)
		sum = (sum & 0xffff) + (sum >> 16);
	return (uint16_t)~sum;
}

/* The identification that the ICRC of a received packet proves; ours have 0. */
static uint16_t ipv4_id(const struct icrc_flow *flow, const struct iovec *pieces, size_t count)
{
	if (count != 1 || pieces[0].iov_len < WIRE_BTH + WIRE_ICRC)
		return 0;
	size_t length = pieces[0].iov_len - WIRE_ICRC;
	const uint8_t *icrc = (const uint8_t *)pieces[0].iov_base + length;
	int id = icrc_find_id(flow, pieces[0].iov_base, length,
			  (uint32_t)icrc[0] | (uint32_t)icrc[1] << 8 | (uint32_t)icrc[2] << 16 | (uint32_t)icrc[3] << 24);
	return id < 0 ? 0 : (uint16_t)id;
}

static size_t put_ipv4(uint8_t *header, const struct icrc_flow *flow, uint8_t tclass, uint8_t hops, uint16_t id,
		       size_t length)
{
	struct checksum sum = {0};
	uint8_t *p = header;

	*p++ = 0x45;
	*p++ = tclass;
	p = wire_put16(p, (unsigned)(IPV4_HEADER + UDP_HEADER + length));
	p = wire_put16(p, id);
	p = wire_put16(p, 0x4000); /* don't fragment */
	*p++ = hops;
	*p++ = IPPROTO_UDP;
	p = wire_put16(p, 0);
	memcpy(p, flow->src.raw + 12, 4);
	memcpy(p + 4, flow->dst.raw + 12, 4);
	checksum_add(&sum, header, IPV4_HEADER);
	wire_put16(header + 10, checksum_end(&sum));
	return IPV4_HEADER;
}

static size_t put_ipv6(uint8_t *header, const struct icrc_flow *flow, uint8_t tclass, uint8_t hops, size_t length)
{
	uint8_t *p = header;

	*p++ = (uint8_t)(0x60 | tclass >> 4);
	*p++ = (uint8_t)(tclass << 4);
	p = wire_put16(p, 0); /* flow label */
	p = wire_put16(p, (unsigned)(UDP_HEADER + length));
	*p++ = IPPROTO_UDP;
	*p++ = hops;
	memcpy(p, flow->src.raw, 16);
	memcpy(p + 16, flow->dst.raw, 16);
	return IPV6_HEADER;
}

/* With IPv4 a UDP checksum of 0 means none, with IPv6 it must be there. */
static void put_udp(uint8_t *header, const struct icrc_flow *flow, bool v4, const struct iovec *pieces, size_t count,
		    size_t length)
{
	const uint8_t next[4] = {0, 0, 0, IPPROTO_UDP};
	struct checksum sum = {0};
	uint8_t *p = header;
	uint8_t long_length[4] = {0};

	p = wire_put16(p, flow->src_port);
	p = wire_put16(p, flow->dst_port);
	p = wire_put16(p, (unsigned)(UDP_HEADER + length));
	wire_put16(p, 0);
	if (v4)
		return;
	wire_put16(long_length + 2, (unsigned)(UDP_HEADER + length));
	checksum_add(&sum, flow->src.raw, 16);
	checksum_add(&sum, flow->dst.raw, 16);
	checksum_add(&sum, long_length, sizeof long_length);
	checksum_add(&sum, next, sizeof next);
	checksum_add(&sum, header, UDP_HEADER);
	for (size_t i = 0; i < count; i++)
		checksum_add(&sum, pieces[i].iov_base, pieces[i].iov_len);
	uint16_t value = checksum_end(&sum);
	wire_put16(p, value ? value : 0xffff);
}

/* ---- the file --------------------------------------------------------------------------------------------------- */

static int write_all(int fd, const uint8_t *bytes, size_t length)
{
	while (length) {
		ssize_t n = write(fd, bytes, length);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n < 0 ? -errno : -EIO;
		bytes += n;
		length -= (size_t)n;
	}
	return 0;
}

static int lock_file(int fd, int operation)
{
	while (flock(fd, operation) < 0)
		if (errno != EINTR)
			return -errno;
	return 0;
}

/* Whole or not at all, behind the records of other processes. The file lock is held. */
static int capture_append(const struct capture *capture, const uint8_t *bytes, size_t length)
{
	struct stat st;

	if (fstat(capture->fd, &st) < 0)
		return -errno;
	if (st.st_dev != capture->dev || st.st_ino != capture->ino)
		return -EBADF;
	int ret = write_all(capture->fd, bytes, length);
	if (ret && ftruncate(capture->fd, st.st_size) < 0)
		log_write(LOG_WARN, "capture %s: cannot repair its damaged end: %s", capture->path, strerror(errno));
	return ret;
}

/* `lock` is held: packets wait while the buffer is written, for they would have no room. */
static void capture_flush(struct capture *capture)
{
	if (!capture->used || capture->failed)
		return;
	int ret = lock_file(capture->fd, LOCK_EX);
	if (!ret) {
		ret = capture_append(capture, capture->buffer, capture->used);
		lock_file(capture->fd, LOCK_UN);
	}
	explicit_bzero(capture->buffer, capture->used);
	capture->used = 0;
	if (ret) {
		capture->failed = true;
		log_write(LOG_ERROR, "capture %s: cannot write any more: %s", capture->path, strerror(-ret));
	}
}

static void *flush_thread(void *arg)
{
	const struct timespec pause = {.tv_nsec = FLUSH_MS * 1000000L};
	struct capture *capture = arg;

	pthread_mutex_lock(&capture->lock);
	while (!capture->ended) {
		if (!capture->used) {
			pthread_cond_wait(&capture->wake, &capture->lock);
			continue;
		}
		/* Let more come, for one write. */
		pthread_mutex_unlock(&capture->lock);
		nanosleep(&pause, NULL);
		pthread_mutex_lock(&capture->lock);
		capture_flush(capture);
	}
	pthread_mutex_unlock(&capture->lock);
	return NULL;
}

static bool start_thread(struct capture *capture)
{
	int ret = thread_start(&capture->thread, flush_thread, capture);
	if (ret)
		log_write(LOG_WARN, "capture %s: cannot start a thread (%s), so each packet is written at once, which is slower", capture->path,
			  strerror(ret));
	return ret == 0;
}

/* ---- opening ---------------------------------------------------------------------------------------------------- */

/* "%p" and "%%". */
static int expand_path(const char *path, char *out, size_t size)
{
	size_t used = 0;

	for (const char *p = path; *p; p++) {
		char pid[16] = {*p, '\0'};
		size_t length;

		if (*p == '%' && p[1] == 'p')
			snprintf(pid, sizeof pid, "%d", (int)getpid());
		if (*p == '%' && (p[1] == 'p' || p[1] == '%'))
			p++;
		length = strlen(pid);
		if (used + length >= size)
			return -ENAMETOOLONG;
		memcpy(out + used, pid, length);
		used += length;
	}
	out[used] = '\0';
	return used ? 0 : -EINVAL;
}

/* Cuts off a half record, left by a process that was killed while it wrote. The file lock is held. */
static int repair_end(int fd)
{
	off_t at = sizeof(struct pcap_header);
	struct pcap_record record;
	struct stat st;

	if (fstat(fd, &st) < 0)
		return -errno;
	while (at < st.st_size) {
		ssize_t n = pread(fd, &record, sizeof record, at);
		off_t end = at + (off_t)sizeof record;

		if (n < 0)
			return -errno;
		if (n == (ssize_t)sizeof record) {
			if (record.kept > BUFFER)
				return -EEXIST; /* not written by this code */
			end += record.kept;
		}
		if (n < (ssize_t)sizeof record || end > st.st_size)
			return ftruncate(fd, at) < 0 ? -errno : 0;
		at = end;
	}
	return 0;
}

/* Makes a new file a capture; lets an old one be if it is one that can be continued. */
static int start_file(struct capture *capture)
{
	const struct pcap_header ours = {
		.magic = PCAP_MAGIC_NS, .major = PCAP_MAJOR, .minor = PCAP_MINOR, .longest = IP_LONGEST,
		.linktype = LINKTYPE_RAW,
	};
	struct pcap_header theirs;
	struct stat st;

	if (fstat(capture->fd, &st) < 0)
		return -errno;
	if (!S_ISREG(st.st_mode))
		return -EOPNOTSUPP;
	capture->dev = st.st_dev;
	capture->ino = st.st_ino;
	int ret = lock_file(capture->fd, LOCK_EX);
	if (ret)
		return ret;
	ssize_t n = pread(capture->fd, &theirs, sizeof theirs, 0);
	if (n < 0)
		ret = -errno;
	else if (n == 0)
		ret = capture_append(capture, (const uint8_t *)&ours, sizeof ours);
	else if (n < (ssize_t)sizeof theirs || theirs.magic != ours.magic || theirs.major != ours.major ||
		 theirs.linktype != ours.linktype)
		ret = -EEXIST;
	else
		ret = repair_end(capture->fd);
	lock_file(capture->fd, LOCK_UN);
	return ret;
}

static void explain(const char *path, int error)
{
	if (error == -EEXIST)
		log_write(LOG_ERROR, "capture %.128s: the file exists and is not a capture that can be continued (pcap, nanoseconds, "
			  "raw IP); remove it or choose another", path);
	else if (error == -EOPNOTSUPP)
		log_write(LOG_ERROR, "capture %.128s: not a regular file", path);
	else
		log_write(LOG_ERROR, "capture %.128s: %s", path, strerror(-error));
}

int capture_open(const char *path, struct capture **out)
{
	char name[PATH_MAX];
	struct capture *capture;
	int ret = expand_path(path, name, sizeof name);

	if (ret) {
		explain(path, ret);
		return ret;
	}
	ret = -ENOMEM;
	capture = calloc(1, sizeof *capture);
	if (!capture)
		goto failed;
	capture->path = strdup(name);
	capture->buffer = malloc(BUFFER);
	if (!capture->path || !capture->buffer)
		goto free_capture;
	/* Packets are for the owner alone. Not blocking: opening a pipe must not wait for a reader. */
	capture->fd = open(name, O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC | O_NOCTTY | O_NONBLOCK, 0600);
	if (capture->fd < 0) {
		ret = -errno;
		goto free_capture;
	}
	ret = start_file(capture);
	if (ret)
		goto close_file;
	capture->pid = getpid();
	pthread_mutex_init(&capture->lock, NULL);
	pthread_cond_init(&capture->wake, NULL);
	capture->threaded = start_thread(capture);
	*out = capture;
	return 0;

close_file:
	close(capture->fd);
free_capture:
	free(capture->buffer);
	free(capture->path);
	free(capture);
failed:
	explain(name, ret);
	return ret;
}

void capture_close(struct capture **capture)
{
	struct capture *c = *capture;

	if (!c)
		return;
	*capture = NULL;
	/* In a child only the memory and the descriptor are ours; the lock may be held for ever. */
	if (c->pid == getpid()) {
		pthread_mutex_lock(&c->lock);
		c->ended = true;
		pthread_cond_signal(&c->wake);
		pthread_mutex_unlock(&c->lock);
		if (c->threaded)
			pthread_join(c->thread, NULL);
		capture_flush(c);
		pthread_cond_destroy(&c->wake);
		pthread_mutex_destroy(&c->lock);
	}
	explicit_bzero(c->buffer, BUFFER);
	close(c->fd);
	free(c->buffer);
	free(c->path);
	free(c);
}

/* ---- packets ---------------------------------------------------------------------------------------------------- */

static void add_record(struct capture *capture, const uint8_t *header, size_t header_length, const struct iovec *pieces,
		       size_t count, size_t length)
{
	size_t whole = header_length + length;
	struct pcap_record record = {.kept = (uint32_t)whole, .length = (uint32_t)whole};
	struct timespec now;

	if (capture->used + sizeof record + whole > BUFFER)
		capture_flush(capture);
	if (capture->failed)
		return;
	/* Under the lock, so that the records are in the order of their times. */
	clock_gettime(CLOCK_REALTIME, &now);
	record.seconds = (uint32_t)now.tv_sec;
	record.nanoseconds = (uint32_t)now.tv_nsec;
	if (!capture->used && capture->threaded)
		pthread_cond_signal(&capture->wake);
	memcpy(capture->buffer + capture->used, &record, sizeof record);
	capture->used += sizeof record;
	memcpy(capture->buffer + capture->used, header, header_length);
	capture->used += header_length;
	for (size_t i = 0; i < count; i++) {
		if (pieces[i].iov_len)
			memcpy(capture->buffer + capture->used, pieces[i].iov_base, pieces[i].iov_len);
		capture->used += pieces[i].iov_len;
	}
	if (!capture->threaded)
		capture_flush(capture);
}

void capture_packet(struct capture *capture, bool sent, const struct icrc_flow *flow, uint8_t tclass,
		    const struct iovec *pieces, size_t count)
{
	bool v4 = gid_is_v4(&flow->src) && gid_is_v4(&flow->dst);
	uint8_t hops = sent ? HOPS_SENT : HOPS_RECEIVED;
	uint8_t header[IPV6_HEADER + UDP_HEADER] = {0};
	size_t header_length;
	size_t length = 0;

	if (!capture || capture->pid != getpid())
		return;
	for (size_t i = 0; i < count; i++) {
		if (pieces[i].iov_len > IP_LONGEST - IPV4_HEADER - UDP_HEADER - length)
			return; /* no UDP datagram */
		length += pieces[i].iov_len;
	}
	if (v4)
		header_length = put_ipv4(header, flow, tclass, hops, sent ? 0 : ipv4_id(flow, pieces, count), length);
	else
		header_length = put_ipv6(header, flow, tclass, hops, length);
	put_udp(header + header_length, flow, v4, pieces, count, length);
	header_length += UDP_HEADER;
	pthread_mutex_lock(&capture->lock);
	add_record(capture, header, header_length, pieces, count, length);
	pthread_mutex_unlock(&capture->lock);
}
