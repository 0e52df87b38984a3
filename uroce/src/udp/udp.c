/* SPDX-License-Identifier: Apache-2.0 */
/* The link over UDP: its addresses, sockets and blocks of QPNs. udp_tx.c and udp_rx.c do the work. */
#include "udp.h"

#include <arpa/inet.h>
#include <errno.h>
#include <net/if.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "log.h"
#include "share.h"
#include "udp_group.h"
#include "udp_link.h"
#include "udp_rx.h"
#include "udp_tx.h"
#include "wipe.h"

/* Takes the descriptor, also when it fails. */
static int add_socket(struct udp_link *link, int fd, const union ibv_gid *local, unsigned gid_index)
{
	struct epoll_event event = { .events = EPOLLIN, .data.u32 = link->socket_count };
	struct udp_socket *sockets = realloc(link->sockets, (link->socket_count + 1) * sizeof *sockets);
	int error = -ENOMEM;

	if (!sockets)
		goto fail;
	link->sockets = sockets;
	if (epoll_ctl(link->epoll_fd, EPOLL_CTL_ADD, fd, &event) != 0) {
		error = -errno;
		goto fail;
	}
	if (link->reports_path)
		udp_socket_report_path(fd, gid_is_v4(local));
	/* On the loopback the time costs more than it tells: nothing there has a queue to be measured. */
	if (!link->loopback)
		udp_socket_report_time(fd);
	int size = 0;
	socklen_t length = sizeof size;
	if (getsockopt(fd, SOL_SOCKET, SO_RCVBUF, &size, &length) == 0 &&
	    (link->socket_count == 0 || (size_t)size < link->receive_buffer))
		link->receive_buffer = (size_t)size;
	sockets[link->socket_count++] = (struct udp_socket){
		.fd = fd,
		.v4 = gid_is_v4(local),
		.gso = true,
		.gid_index = (uint8_t)gid_index,
		.local = *local,
	};
	return 0;
fail:
	close(fd);
	return error;
}

/* ---- loopback mode ---- */

static int claim_carrier(void *arg, unsigned block)
{
	union ibv_gid local;
	gid_map_v4(&local, block_carrier(block).s_addr);
	return udp_socket_bind(&local, 0, false, arg);
}

/* Whether somebody has the port on all addresses at once: then no carrier is free, though nobody has it. */
static bool port_is_taken(void)
{
	union ibv_gid nobody;
	int fd;

	gid_map_v4(&nobody, block_carrier(BLOCK_COUNT).s_addr);
	int error = udp_socket_bind(&nobody, 0, false, &fd);
	if (error == 0)
		close(fd);
	return error == -EADDRINUSE;
}

static void complain_socket(const char *where, int error)
{
	bool files = error == -EMFILE || error == -ENFILE;
	log_write(LOG_ERROR, "cannot make a socket on %s port %d: %s%s", where, WIRE_PORT, strerror(-error),
		  files ? "; raise the limit of open files (ulimit -n)" : "");
}

static void complain_carrier(int error)
{
	switch (error) {
	case -ENOSPC:
		if (port_is_taken()) {
			log_write(LOG_ERROR,
				  "UDP port %d is taken on all addresses: by the kernel's rdma_rxe or another program "
				  "(see: ss -ulpn, lsmod); unload it (modprobe -r rdma_rxe), or use another network "
				  "namespace",
				  WIRE_PORT);
			break;
		}
		log_write(LOG_ERROR, "other processes of this host have all %d blocks of queue pair numbers",
			  BLOCK_LAST - BLOCK_FIRST + 1);
		break;
	case -EADDRNOTAVAIL:
	case -ENETDOWN:
		log_write(LOG_ERROR, "cannot use the loopback interface: %s; bring it up (ip link set lo up), or set UROCE_ADDR",
			  strerror(-error));
		break;
	default:
		complain_socket("127.91.0.0/16", error);
	}
}

static int claim_on_loopback(struct udp_link *link, unsigned *block)
{
	union ibv_gid local;
	int fd;

	int error = block_choose(claim_carrier, &fd, block);
	if (error == 0) {
		gid_map_v4(&local, block_carrier(*block).s_addr);
		error = add_socket(link, fd, &local, UDP_LOOPBACK_GID);
	}
	if (error != 0) {
		complain_carrier(error);
		return error;
	}
	link->owner[*block] = (uint16_t)link->socket_count; /* from 1 */
	return 0;
}

/* One that is down lets sockets be bound, and carries nothing: so it is in a fresh network namespace. */
static bool is_down(const char *interface)
{
	struct ifreq answer;
	return udp_ask_interface(interface, SIOCGIFFLAGS, &answer) && !(answer.ifr_flags & IFF_UP);
}

static int open_loopback(struct udp_link *link)
{
	unsigned ifindex = if_nametoindex("lo");

	if (is_down("lo")) {
		complain_carrier(-ENETDOWN);
		return -ENETDOWN;
	}
	link->loopback = true;
	link->gids = BLOCK_GIDS;
	gid_map_v4(&link->gid[UDP_LOOPBACK_GID].gid, htonl(INADDR_LOOPBACK));
	link->gid[UDP_LOOPBACK_GID + 1].gid.raw[15] = 1;
	for (unsigned i = 0; i < link->gids; i++) {
		link->gid[i].ifindex = ifindex;
		link->gid[i].mtu = 65536;
	}
	return 0;
}

/* ---- address mode ---- */

static void complain_address(const struct udp_address *address, int error)
{
	char text[UDP_ADDRESS_TEXT];

	udp_address_text(address, text);
	switch (error) {
	case -EADDRINUSE:
		log_write(LOG_ERROR,
			  "%s UDP port %d is taken: by another user's process, or in this network namespace by the "
			  "kernel's rdma_rxe (see: ss -ulpn, rdma link); stop it, or use another address",
			  text, WIRE_PORT);
		break;
	case -EADDRNOTAVAIL:
		log_write(LOG_ERROR, "cannot use %s: it is not an address of this host, or not yet (see: ip address)", text);
		break;
	default:
		complain_socket(text, error);
	}
}

static unsigned header_bytes(const union ibv_gid *gid)
{
	return (gid_is_v4(gid) ? 20 : 40) + 8 + UDP_PAYLOAD_HEADER + WIRE_ICRC;
}

static int open_address(struct udp_link *link, const struct udp_address *address)
{
	int fd = -1;
	int error = udp_socket_bind(&address->gid, address->ifindex, true, &fd);

	if (error == 0 && address->mtu < header_bytes(&address->gid) + 256) {
		log_write(LOG_ERROR, "the interface of UROCE_ADDR has an MTU of %u bytes, which is too small for RoCE", address->mtu);
		close(fd);
		return -EMSGSIZE;
	}
	if (error == -EADDRNOTAVAIL && address->of_interface) {
		char text[UDP_ADDRESS_TEXT];
		udp_address_text(address, text);
		log_write(LOG_WARN, "left out %s: it cannot be used, or not yet", text);
		return 0;
	}
	if (error == 0)
		error = add_socket(link, fd, &address->gid, link->gids);
	if (error != 0) {
		complain_address(address, error);
		return error;
	}
	link->gid[link->gids++] = *address;
	return 0;
}

static int open_addresses(struct udp_link *link)
{
	struct udp_address address[UDP_MAX_GIDS];
	unsigned count;

	int error = udp_parse_addresses(link->config.addresses, address, &count);
	for (unsigned i = 0; error == 0 && i < count; i++)
		error = open_address(link, &address[i]);
	if (error != 0)
		return error;
	if (link->gids == 0) {
		complain_address(&address[0], -EADDRNOTAVAIL);
		return -EADDRNOTAVAIL;
	}
	return share_open(link);
}

/* ---- blocks ---- */

static int claim(struct udp_link *link, uint32_t *first_qpn)
{
	unsigned block;
	int error = link->loopback ? claim_on_loopback(link, &block) : share_claim(link, &block);
	if (error == 0)
		*first_qpn = block_first_qpn(block);
	return error;
}

uint32_t udp_next_block(const struct udp_link *link)
{
	return link->spare;
}

int udp_claim_block(struct udp_link *link, uint32_t *first_qpn)
{
	int error = 0;

	if (link->spare != 0)
		*first_qpn = link->spare;
	else
		error = claim(link, first_qpn);
	link->spare = 0;
	if (error == 0 && link->share)
		share_announce(link);
	return error;
}

void udp_report_path(struct udp_link *link)
{
	for (unsigned i = 0; !link->reports_path && i < link->socket_count; i++)
		udp_socket_report_path(link->sockets[i].fd, link->sockets[i].v4);
	link->reports_path = true;
}

/* ---- opening and closing ---- */

static int open_faults(struct udp_link *link)
{
	struct epoll_event event = { .events = EPOLLIN, .data.u32 = UDP_EVENT_TIMER };

	if (!link->config.fault || *link->config.fault == '\0')
		return 0;
	int error = fault_parse(link->config.fault, &link->fault);
	if (error != 0)
		return error;
	fault_set_counters(link->fault, link->config.counters);
	link->timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
	if (link->timer_fd < 0 || epoll_ctl(link->epoll_fd, EPOLL_CTL_ADD, link->timer_fd, &event) != 0) {
		error = -errno;
		log_write(LOG_ERROR, "cannot make a timer for fault injection: %s", strerror(-error));
	}
	return error;
}

int udp_open(const struct udp_config *config, struct udp_link **out)
{
	struct udp_link *link = calloc(1, sizeof *link);

	if (!link) {
		log_write(LOG_ERROR, "out of memory for the device");
		return -ENOMEM;
	}
	link->link.ops = &udp_ops;
	link->config = *config;
	link->timer_fd = -1;
	link->timer_due = UINT64_MAX;
	link->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	int error = link->epoll_fd < 0 ? -errno : 0;
	if (error == 0)
		error = udp_tx_open(link);
	if (error == 0)
		error = udp_rx_open(link);
	if (error != 0) {
		log_write(LOG_ERROR, "cannot make the device: %s", strerror(-error));
		goto fail;
	}
	bool addresses = config->addresses && *config->addresses != '\0';
	link->reports_path = addresses;
	error = addresses ? open_addresses(link) : open_loopback(link);
	/* Now, so that the device is only there when it can work. */
	if (error == 0)
		error = claim(link, &link->spare);
	if (error == 0)
		error = open_faults(link);
	if (error != 0)
		goto fail;
	/* A capture that can't be written is logged, and no reason to have no device. */
	if (config->capture && *config->capture != '\0' && capture_open(config->capture, &link->capture) != 0)
		link->capture = NULL;
	if (link->capture)
		udp_report_path(link);
	*out = link;
	return 0;
fail:
	udp_close(&link);
	return error;
}

void udp_close(struct udp_link **handle)
{
	struct udp_link *link = *handle;

	if (!link)
		return;
	*handle = NULL;
	capture_close(&link->capture);
	fault_close(&link->fault);
	share_close(link);
	udp_group_close(link);
	for (unsigned i = 0; i < link->socket_count; i++)
		close(link->sockets[i].fd);
	free(link->sockets);
	if (link->timer_fd >= 0)
		close(link->timer_fd);
	if (link->epoll_fd >= 0)
		close(link->epoll_fd);
	udp_rx_close(link);
	udp_tx_close(link);
	wipe_free(link, sizeof *link);
}

void udp_end_capture(struct udp_link *link)
{
	capture_close(&link->capture);
}

void udp_abandon(struct udp_link *link)
{
	if (!link)
		return;
	share_abandon(link);
	udp_group_abandon(link);
	for (unsigned i = 0; i < link->socket_count; i++)
		close(link->sockets[i].fd);
	if (link->timer_fd >= 0)
		close(link->timer_fd);
	if (link->epoll_fd >= 0)
		close(link->epoll_fd);
	link->socket_count = 0;
	link->timer_fd = link->epoll_fd = -1;
	/* Its thread, and the packets that it has not written yet, are the parent's. */
	link->capture = NULL;
}

/* ---- questions ---- */

struct link *udp_link_of(struct udp_link *link)
{
	return &link->link;
}

unsigned udp_gid_count(const struct udp_link *link)
{
	return link->gids;
}

const union ibv_gid *udp_gid(const struct udp_link *link, unsigned index)
{
	return index < link->gids ? &link->gid[index].gid : NULL;
}

unsigned udp_find_gid(const struct udp_link *link, const union ibv_gid *gid)
{
	unsigned index = 0;
	while (index < link->gids && memcmp(&link->gid[index].gid, gid, sizeof *gid) != 0)
		index++;
	return index;
}

bool udp_is_loopback(const struct udp_link *link)
{
	return link->loopback;
}

unsigned udp_gid_ifindex(const struct udp_link *link, unsigned index)
{
	return index < link->gids ? link->gid[index].ifindex : 0;
}

enum ibv_mtu udp_mtu(const struct udp_link *link)
{
	enum ibv_mtu mtu = IBV_MTU_4096;
	for (unsigned i = 0; i < link->gids; i++)
		while (mtu > IBV_MTU_256 && header_bytes(&link->gid[i].gid) + (128u << mtu) > link->gid[i].mtu)
			mtu = (enum ibv_mtu)(mtu - 1);
	return mtu;
}

size_t udp_receive_buffer(const struct udp_link *link)
{
	return link->receive_buffer;
}

bool udp_reachable(const struct udp_link *link, unsigned sgid_index, const union ibv_gid *dgid)
{
	const struct in6_addr *v6 = (const struct in6_addr *)dgid->raw;

	if (sgid_index >= link->gids)
		return false;
	if (link->loopback)
		return gid_is_loopback(dgid);
	const union ibv_gid *own = &link->gid[sgid_index].gid;
	/* Loopback addresses reach each other alone. */
	if (gid_is_v4(own) != gid_is_v4(dgid) || gid_is_loopback(own) != gid_is_loopback(dgid))
		return false;
	/* 0.0.0.0/8, multicast and higher addresses are no hosts. */
	if (gid_is_v4(dgid))
		return dgid->raw[12] != 0 && dgid->raw[12] < 224;
	return !IN6_IS_ADDR_UNSPECIFIED(v6) && !IN6_IS_ADDR_MULTICAST(v6);
}

bool udp_same_peer(const struct udp_link *link, const union ibv_gid *dgid, const union ibv_gid *sgid)
{
	if (memcmp(dgid, sgid, sizeof *dgid) == 0)
		return true;
	return link->loopback && gid_is_loopback(dgid) && gid_is_loopback(sgid);
}

int udp_watch(struct udp_link *link, int fd, unsigned place)
{
	struct epoll_event event = { .events = EPOLLIN, .data.u32 = UDP_EVENT_WATCHED | place };
	if (epoll_ctl(link->epoll_fd, EPOLL_CTL_ADD, fd, &event) != 0)
		return -errno;
	link->watched++;
	return 0;
}

void udp_unwatch(struct udp_link *link, int fd)
{
	epoll_ctl(link->epoll_fd, EPOLL_CTL_DEL, fd, NULL);
	link->watched--;
}

int udp_fd(const struct udp_link *link)
{
	return link->epoll_fd;
}
