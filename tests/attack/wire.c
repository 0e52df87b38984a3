/* SPDX-License-Identifier: Apache-2.0 */
#include "wire.h"

#include <errno.h>
#include <linux/ethtool.h>
#include <linux/if_packet.h>
#include <linux/sockios.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <netinet/udp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#ifndef UDP_SEGMENT
#define UDP_SEGMENT 103
#endif

enum { BUFFER = 32 << 20, MAX_FEATURE_WORDS = 8 };

void wire_die(const char *what)
{
	fprintf(stderr, "forge: %s: %s\n", what, strerror(errno));
	exit(2);
}

/* ---- raw packets ---- */

void wire_open_raw(struct wire_batch *batch, const struct roce_flow *flow)
{
	int size = BUFFER;

	memset(batch, 0, offsetof(struct wire_batch, packet));
	batch->flow = *flow;
	/* IPPROTO_RAW: the header is the sender's own. */
	batch->fd = socket(flow->family, SOCK_RAW | SOCK_CLOEXEC, IPPROTO_RAW);
	if (batch->fd < 0)
		wire_die("a raw socket (needs root in its network namespace)");
	setsockopt(batch->fd, SOL_SOCKET, SO_SNDBUF, &size, sizeof(size));
}

void wire_open_segmented(struct wire_batch *batch, const struct roce_flow *flow)
{
	int size = BUFFER, on = 1, whole = IP_PMTUDISC_DO;
	struct sockaddr_in from = {
		.sin_family = AF_INET, .sin_port = htons(flow->source_port), .sin_addr = flow->source.v4};

	memset(batch, 0, offsetof(struct wire_batch, packet));
	batch->flow = *flow;
	batch->segmented = true;
	batch->fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	/* Transparent: the source may be anybody's address. */
	if (batch->fd < 0 || setsockopt(batch->fd, SOL_IP, IP_TRANSPARENT, &on, sizeof(on)) != 0 ||
	    setsockopt(batch->fd, SOL_IP, IP_MTU_DISCOVER, &whole, sizeof(whole)) != 0 ||
	    bind(batch->fd, (struct sockaddr *)&from, sizeof(from)) != 0)
		wire_die("a socket with a false address (needs root in its network namespace)");
	setsockopt(batch->fd, SOL_SOCKET, SO_SNDBUF, &size, sizeof(size));
}

static void flush_segmented(struct wire_batch *batch)
{
	struct sockaddr_in to = {
		.sin_family = AF_INET, .sin_port = htons(ROCE_PORT), .sin_addr = batch->flow.target.v4};
	_Alignas(struct cmsghdr) uint8_t control[CMSG_SPACE(sizeof(uint16_t))] = {0};
	struct iovec iov[WIRE_BATCH];
	struct msghdr header = {
		.msg_name = &to,
		.msg_namelen = sizeof(to),
		.msg_iov = iov,
		.msg_iovlen = batch->count,
		.msg_control = control,
		.msg_controllen = sizeof(control),
	};
	struct cmsghdr *c = CMSG_FIRSTHDR(&header);

	if (batch->count == 0)
		return;
	size_t head = roce_bth(batch->packet[0]);
	uint16_t segment = (uint16_t)(batch->length[0] - head);
	for (unsigned i = 0; i < batch->count; i++)
		iov[i] = (struct iovec){batch->packet[i] + head, segment};
	c->cmsg_level = SOL_UDP;
	c->cmsg_type = UDP_SEGMENT;
	c->cmsg_len = CMSG_LEN(sizeof(segment));
	memcpy(CMSG_DATA(c), &segment, sizeof(segment));
	while (sendmsg(batch->fd, &header, 0) < 0)
		if (errno != ENOBUFS && errno != EINTR && errno != EAGAIN)
			wire_die("sending");
	batch->sent += batch->count;
	batch->count = 0;
}

void wire_flush(struct wire_batch *batch)
{
	if (batch->segmented) {
		flush_segmented(batch);
		return;
	}
	struct mmsghdr header[WIRE_BATCH];
	struct iovec iov[WIRE_BATCH];
	struct sockaddr_in v4 = {.sin_family = AF_INET, .sin_addr = batch->flow.target.v4};
	struct sockaddr_in6 v6 = {.sin6_family = AF_INET6, .sin6_addr = batch->flow.target.v6};
	unsigned done = 0;

	memset(header, 0, sizeof(header));
	for (unsigned i = 0; i < batch->count; i++) {
		iov[i] = (struct iovec){batch->packet[i], batch->length[i]};
		header[i].msg_hdr.msg_iov = &iov[i];
		header[i].msg_hdr.msg_iovlen = 1;
		header[i].msg_hdr.msg_name = batch->flow.family == AF_INET ? (void *)&v4 : (void *)&v6;
		header[i].msg_hdr.msg_namelen = batch->flow.family == AF_INET ? sizeof(v4) : sizeof(v6);
	}
	while (done < batch->count) {
		int n = sendmmsg(batch->fd, header + done, batch->count - done, 0);
		if (n < 0 && errno != ENOBUFS && errno != EINTR && errno != EAGAIN)
			wire_die("sending");
		done += n > 0 ? (unsigned)n : 0;
	}
	batch->sent += batch->count;
	batch->count = 0;
}

uint8_t *wire_next(struct wire_batch *batch)
{
	if (batch->count == WIRE_BATCH)
		wire_flush(batch);
	return batch->packet[batch->count];
}

void wire_push(struct wire_batch *batch, size_t length)
{
	batch->length[batch->count++] = length;
}

/* ---- frames ---- */

int wire_open_frames(const char *interface, bool with_header)
{
	int on = 1, size = BUFFER;
	struct sockaddr_ll address = {
		.sll_family = AF_PACKET,
		.sll_protocol = htons(ETH_P_ALL),
		.sll_ifindex = (int)if_nametoindex(interface),
	};
	int fd = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0);

	if (fd < 0 || address.sll_ifindex == 0)
		wire_die(interface);
	setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &size, sizeof(size));
	if (with_header && setsockopt(fd, SOL_PACKET, PACKET_VNET_HDR, &on, sizeof(on)) != 0)
		wire_die("PACKET_VNET_HDR");
	/* What the relay itself sends would come back. */
	if (with_header && setsockopt(fd, SOL_PACKET, PACKET_IGNORE_OUTGOING, &on, sizeof(on)) != 0)
		wire_die("PACKET_IGNORE_OUTGOING");
	if (bind(fd, (struct sockaddr *)&address, sizeof(address)) != 0)
		wire_die(interface);
	return fd;
}

static void set_flag(int fd, struct ifreq *request, uint32_t command)
{
	struct ethtool_value value = {.cmd = command};

	request->ifr_data = (void *)&value;
	ioctl(fd, SIOCETHTOOL, request); /* an interface without the feature needs nothing turned off */
}

/* By its name: old commands do not know the segmentation of UDP. */
static void turn_off(int fd, struct ifreq *request, const char *name)
{
	union { /* the kernel's structure, with room for the one length that is asked for */
		struct ethtool_sset_info info;
		uint8_t room[sizeof(struct ethtool_sset_info) + sizeof(uint32_t)];
	} count = {.info = {.cmd = ETHTOOL_GSSET_INFO, .sset_mask = 1ull << ETH_SS_FEATURES}};
	uint32_t length;
	request->ifr_data = (void *)&count;
	if (ioctl(fd, SIOCETHTOOL, request) != 0)
		return;
	memcpy(&length, count.room + sizeof(count.info), sizeof(length));
	if (length == 0 || length > MAX_FEATURE_WORDS * 32)
		return;
	struct ethtool_gstrings *names = calloc(1, sizeof(*names) + length * ETH_GSTRING_LEN);
	struct ethtool_sfeatures *set = calloc(1, sizeof(*set) + MAX_FEATURE_WORDS * sizeof(set->features[0]));
	if (names == NULL || set == NULL)
		wire_die("memory");
	*names = (struct ethtool_gstrings){.cmd = ETHTOOL_GSTRINGS, .string_set = ETH_SS_FEATURES, .len = length};
	*set = (struct ethtool_sfeatures){.cmd = ETHTOOL_SFEATURES, .size = (length + 31) / 32};
	request->ifr_data = (void *)names;
	if (ioctl(fd, SIOCETHTOOL, request) == 0) {
		for (uint32_t i = 0; i < length; i++)
			if (strncmp((const char *)names->data + i * ETH_GSTRING_LEN, name, ETH_GSTRING_LEN) == 0)
				set->features[i / 32].valid |= 1u << i % 32;
		request->ifr_data = (void *)set;
		ioctl(fd, SIOCETHTOOL, request);
	}
	free(names);
	free(set);
}

void wire_cut_packets(const char *interface)
{
	struct ifreq request = {.ifr_ifindex = 0};
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	if (fd < 0)
		wire_die("socket");
	strncpy(request.ifr_name, interface, IFNAMSIZ - 1);
	set_flag(fd, &request, ETHTOOL_STSO);
	set_flag(fd, &request, ETHTOOL_SGSO);
	set_flag(fd, &request, ETHTOOL_SGRO);
	turn_off(fd, &request, "tx-udp-segmentation");
	turn_off(fd, &request, "rx-udp-gro-forwarding");
	close(fd);
}
