/* SPDX-License-Identifier: Apache-2.0 */
/* Addresses of programs: to GIDs, and to the way between two. */
#include <arpa/inet.h>
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "ucma_parts.h"
#include "udp.h"

enum { DISCARD_PORT = 9 /* nothing is sent there: it only names a destination */ };

size_t ucma_address_size(const struct sockaddr_storage *address)
{
	switch (address->ss_family) {
	case AF_INET:
		return sizeof(struct sockaddr_in);
	case AF_INET6:
		return sizeof(struct sockaddr_in6);
	case UCMA_AF_IB:
		return sizeof(struct ucma_address_ib);
	default:
		return 0;
	}
}

static const struct sockaddr_in *v4(const struct sockaddr_storage *address)
{
	return (const struct sockaddr_in *)address;
}

static const struct sockaddr_in6 *v6(const struct sockaddr_storage *address)
{
	return (const struct sockaddr_in6 *)address;
}

static struct ucma_address_ib *ib(struct sockaddr_storage *address)
{
	return (struct ucma_address_ib *)address;
}

static const struct ucma_address_ib *const_ib(const struct sockaddr_storage *address)
{
	return (const struct ucma_address_ib *)address;
}

bool ucma_address_is_ib(const struct sockaddr_storage *address)
{
	return address->ss_family == UCMA_AF_IB;
}

bool ucma_address_is_any(const struct sockaddr_storage *address)
{
	switch (address->ss_family) {
	case AF_INET:
		return v4(address)->sin_addr.s_addr == INADDR_ANY;
	case AF_INET6:
		return IN6_IS_ADDR_UNSPECIFIED(&v6(address)->sin6_addr);
	case UCMA_AF_IB:
		return IN6_IS_ADDR_UNSPECIFIED((const struct in6_addr *)const_ib(address)->gid.raw);
	default:
		return true;
	}
}

/* Of a service: what its mask leaves of the lowest bits. */
static uint16_t service_port(const struct ucma_address_ib *address)
{
	return (uint16_t)(be64toh(address->service) & be64toh(address->service_mask));
}

uint16_t ucma_address_port(const struct sockaddr_storage *address)
{
	if (ucma_address_is_ib(address))
		return service_port(const_ib(address));
	return ntohs(address->ss_family == AF_INET6 ? v6(address)->sin6_port : v4(address)->sin_port);
}

void ucma_address_set_port(struct sockaddr_storage *address, uint16_t port)
{
	if (ucma_address_is_ib(address)) {
		ib(address)->service = htobe64((be64toh(ib(address)->service) & ~UINT64_C(0xffff)) | port);
		ib(address)->service_mask |= htobe64(0xffff);
	} else if (address->ss_family == AF_INET6) {
		((struct sockaddr_in6 *)address)->sin6_port = htons(port);
	} else {
		((struct sockaddr_in *)address)->sin_port = htons(port);
	}
}

void ucma_address_make_ib(const union ibv_gid *gid, uint64_t service, struct sockaddr_storage *out)
{
	memset(out, 0, sizeof *out);
	*ib(out) = (struct ucma_address_ib){
		.family = UCMA_AF_IB,
		.pkey = htons(WIRE_PKEY),
		.gid = *gid,
		.service = htobe64(service),
		.service_mask = UINT64_MAX,
	};
}

uint64_t ucma_address_service(uint16_t port_space, const struct sockaddr_storage *address)
{
	if (ucma_address_is_ib(address))
		return be64toh(const_ib(address)->service);
	return (uint64_t)port_space << 16 | ucma_address_port(address);
}

bool ucma_address_select_service(uint16_t port_space, struct sockaddr_storage *address)
{
	static const uint16_t spaces[] = {RDMA_PS_IB, RDMA_PS_TCP, RDMA_PS_UDP};

	if (!ucma_address_is_ib(address))
		return true;
	/* The lowest 16 bits are the port. */
	uint64_t mask = be64toh(ib(address)->service_mask) & ~UINT64_C(0xffff);
	uint64_t service = be64toh(ib(address)->service) & mask;
	for (size_t i = 0; i < sizeof spaces / sizeof spaces[0]; i++) {
		uint64_t space = (uint64_t)spaces[i] << 16;
		if ((port_space != RDMA_PS_IB && port_space != spaces[i]) || service != (space & mask))
			continue;
		ib(address)->service = htobe64(space | service_port(ib(address)));
		ib(address)->service_mask = UINT64_MAX;
		return true;
	}
	return false;
}

void ucma_address_to_gid(const struct sockaddr_storage *address, union ibv_gid *out)
{
	if (ucma_address_is_ib(address))
		*out = const_ib(address)->gid;
	else if (address->ss_family == AF_INET6)
		memcpy(out->raw, &v6(address)->sin6_addr, sizeof out->raw);
	else
		gid_map_v4(out, v4(address)->sin_addr.s_addr);
}

/* The same place as an address of IP, which a GID of RoCEv2 is. */
static struct sockaddr_storage to_ip(const struct sockaddr_storage *address)
{
	struct sockaddr_storage ip = *address;

	if (ucma_address_is_ib(address))
		ucma_address_from_gid(&const_ib(address)->gid, ucma_address_port(address), &ip);
	return ip;
}

void ucma_address_from_gid(const union ibv_gid *gid, uint16_t port, struct sockaddr_storage *out)
{
	memset(out, 0, sizeof *out);
	if (gid_is_v4(gid)) {
		struct sockaddr_in *address = (struct sockaddr_in *)out;
		address->sin_family = AF_INET;
		memcpy(&address->sin_addr, gid->raw + 12, sizeof address->sin_addr);
	} else {
		struct sockaddr_in6 *address = (struct sockaddr_in6 *)out;
		address->sin6_family = AF_INET6;
		memcpy(&address->sin6_addr, gid->raw, sizeof address->sin6_addr);
	}
	ucma_address_set_port(out, port);
}

/* ---- this host ---- */

static int open_for(const struct sockaddr_storage *address)
{
	return socket(address->ss_family, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
}

static bool is_of_this_host(const struct sockaddr_storage *address)
{
	struct sockaddr_storage any_port = *address;
	int fd = open_for(address);

	if (fd < 0)
		return false;
	ucma_address_set_port(&any_port, 0);
	bool own = bind(fd, (const struct sockaddr *)&any_port, (socklen_t)ucma_address_size(address)) == 0;
	close(fd);
	return own;
}

/* In loopback mode all addresses of this host are the loopback's, for nobody else is reached. */
static int find_loopback(const struct device *device, const struct sockaddr_storage *address, unsigned *index)
{
	union ibv_gid gid;

	ucma_address_to_gid(address, &gid);
	if (!gid_is_loopback(&gid) && !is_of_this_host(address))
		return -ENODEV;
	for (*index = 0; *index < udp_gid_count(device->udp); ++*index)
		if (gid_is_v4(udp_gid(device->udp, *index)) == gid_is_v4(&gid))
			return 0;
	return -ENODEV;
}

int ucma_find_own(const struct device *device, const struct sockaddr_storage *address, unsigned *index)
{
	union ibv_gid gid;

	if (udp_is_loopback(device->udp)) {
		const struct sockaddr_storage ip = to_ip(address);
		return find_loopback(device, &ip, index);
	}
	ucma_address_to_gid(address, &gid);
	*index = udp_find_gid(device->udp, &gid);
	return *index < udp_gid_count(device->udp) ? 0 : -ENODEV;
}

/* ---- the way ---- */

/* The address that the kernel would send from. */
static int find_source(const struct sockaddr_storage *destination, struct sockaddr_storage *out)
{
	struct sockaddr_storage to = *destination;
	socklen_t length = sizeof *out;
	int fd = open_for(destination);
	int error = 0;

	memset(out, 0, sizeof *out);
	if (fd < 0)
		return -errno;
	if (ucma_address_port(&to) == 0)
		ucma_address_set_port(&to, DISCARD_PORT);
	if (connect(fd, (const struct sockaddr *)&to, (socklen_t)ucma_address_size(&to)) != 0 ||
	    getsockname(fd, (struct sockaddr *)out, &length) != 0)
		error = -errno;
	close(fd);
	return error;
}

/* Whether packets from one of the device's addresses come there. */
static bool reaches(const struct device *device, unsigned index, const union ibv_gid *peer)
{
	return gid_is_multicast(peer) ? udp_reaches_group(device->udp, index, peer) : udp_reachable(device->udp, index, peer);
}

/* Where the kernel prefers an address that the device has not, or knows no way to a group: the first of the device's from which the peer is
 * reached. */
static int find_other_source(const struct device *device, const struct sockaddr_storage *destination, struct sockaddr_storage *out,
			     unsigned *index)
{
	union ibv_gid peer;

	ucma_address_to_gid(destination, &peer);
	bool group = gid_is_multicast(&peer);
	for (*index = 0; *index < udp_gid_count(device->udp); ++*index) {
		ucma_address_from_gid(udp_gid(device->udp, *index), 0, out);
		if ((group || out->ss_family == destination->ss_family) && reaches(device, *index, &peer))
			return 0;
	}
	return group ? -ENETUNREACH : -ENODEV;
}

/* From where a destination of IP is reached; both are. */
static int choose_source(const struct device *device, const struct sockaddr_storage *source, const struct sockaddr_storage *destination,
			 struct sockaddr_storage *out, unsigned *index)
{
	union ibv_gid peer;

	if (!ucma_address_is_any(source)) {
		*out = *source;
		return source->ss_family == destination->ss_family ? ucma_find_own(device, out, index) : -EINVAL;
	}
	int error = find_source(destination, out);
	if (error == 0)
		error = ucma_find_own(device, out, index);
	ucma_address_to_gid(destination, &peer);
	if (gid_is_multicast(&peer) ? error != 0 : error == -ENODEV && !udp_is_loopback(device->udp))
		error = find_other_source(device, destination, out, index);
	if (error == 0)
		ucma_address_set_port(out, source->ss_family == AF_UNSPEC ? 0 : ucma_address_port(source));
	return error;
}

int ucma_find_path(const struct device *device, struct sockaddr_storage *source, const struct sockaddr_storage *destination,
		   struct gsi_path *out)
{
	const struct sockaddr_storage asked = to_ip(source), to = to_ip(destination);
	struct sockaddr_storage from;
	unsigned index;

	if (ucma_address_is_ib(source) != ucma_address_is_ib(destination) && !ucma_address_is_any(source))
		return -EINVAL;
	int error = choose_source(device, &asked, &to, &from, &index);
	if (error != 0)
		return error;
	*out = (struct gsi_path){.own = *udp_gid(device->udp, index), .sgid_index = (uint8_t)index, .hop_limit = UCMA_HOPS};
	ucma_address_to_gid(&to, &out->peer);
	if (udp_is_loopback(device->udp) && !gid_is_multicast(&out->peer)) {
		unsigned there;
		error = ucma_find_own(device, &to, &there);
		if (error != 0)
			return error;
		out->peer = *udp_gid(device->udp, there);
	}
	if (!reaches(device, index, &out->peer))
		return -ENETUNREACH;
	if (ucma_address_is_ib(destination)) {
		uint64_t space = ucma_address_service(0, destination) & ~UINT64_C(0xffff);
		ucma_address_make_ib(&out->own, space | ucma_address_port(&from), source);
	} else {
		*source = from;
	}
	return 0;
}
