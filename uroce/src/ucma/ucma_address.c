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

bool ucma_address_is_any(const struct sockaddr_storage *address)
{
	switch (address->ss_family) {
	case AF_INET:
		return v4(address)->sin_addr.s_addr == INADDR_ANY;
	case AF_INET6:
		return IN6_IS_ADDR_UNSPECIFIED(&v6(address)->sin6_addr);
	default:
		return true;
	}
}

uint16_t ucma_address_port(const struct sockaddr_storage *address)
{
	return ntohs(address->ss_family == AF_INET6 ? v6(address)->sin6_port : v4(address)->sin_port);
}

void ucma_address_set_port(struct sockaddr_storage *address, uint16_t port)
{
	if (address->ss_family == AF_INET6)
		((struct sockaddr_in6 *)address)->sin6_port = htons(port);
	else
		((struct sockaddr_in *)address)->sin_port = htons(port);
}

void ucma_address_to_gid(const struct sockaddr_storage *address, union ibv_gid *out)
{
	if (address->ss_family == AF_INET6)
		memcpy(out->raw, &v6(address)->sin6_addr, sizeof out->raw);
	else
		gid_map_v4(out, v4(address)->sin_addr.s_addr);
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

	if (udp_is_loopback(device->udp))
		return find_loopback(device, address, index);
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

	if (fd < 0)
		return -errno;
	if (ucma_address_port(&to) == 0)
		ucma_address_set_port(&to, DISCARD_PORT);
	memset(out, 0, sizeof *out);
	if (connect(fd, (const struct sockaddr *)&to, (socklen_t)ucma_address_size(&to)) != 0 ||
	    getsockname(fd, (struct sockaddr *)out, &length) != 0)
		error = -errno;
	close(fd);
	return error;
}

/* Where the host has an address that the kernel prefers, and the device has it not: one that the device has. */
static int find_other_source(const struct device *device, const struct sockaddr_storage *destination, struct sockaddr_storage *out,
			     unsigned *index)
{
	union ibv_gid peer;

	ucma_address_to_gid(destination, &peer);
	for (*index = 0; *index < udp_gid_count(device->udp); ++*index) {
		ucma_address_from_gid(udp_gid(device->udp, *index), 0, out);
		if (out->ss_family == destination->ss_family && udp_reachable(device->udp, *index, &peer))
			return 0;
	}
	return -ENODEV;
}

static int choose_source(const struct device *device, const struct sockaddr_storage *source, const struct sockaddr_storage *destination,
			 struct sockaddr_storage *out, unsigned *index)
{
	if (!ucma_address_is_any(source)) {
		*out = *source;
		return source->ss_family == destination->ss_family ? ucma_find_own(device, out, index) : -EINVAL;
	}
	int error = find_source(destination, out);
	if (error == 0)
		error = ucma_find_own(device, out, index);
	if (error == -ENODEV && !udp_is_loopback(device->udp))
		error = find_other_source(device, destination, out, index);
	ucma_address_set_port(out, source->ss_family == AF_UNSPEC ? 0 : ucma_address_port(source));
	return error;
}

int ucma_find_path(const struct device *device, struct sockaddr_storage *source, const struct sockaddr_storage *destination,
		   struct gsi_path *out)
{
	struct sockaddr_storage from;
	unsigned index;

	int error = choose_source(device, source, destination, &from, &index);
	if (error != 0)
		return error;
	*out = (struct gsi_path){.own = *udp_gid(device->udp, index), .sgid_index = (uint8_t)index, .hop_limit = UCMA_HOPS};
	if (udp_is_loopback(device->udp)) {
		unsigned there;
		error = ucma_find_own(device, destination, &there);
		if (error != 0)
			return error;
		out->peer = *udp_gid(device->udp, there);
	} else {
		ucma_address_to_gid(destination, &out->peer);
	}
	if (!udp_reachable(device->udp, index, &out->peer))
		return -ENETUNREACH;
	*source = from;
	return 0;
}
