/* SPDX-License-Identifier: Apache-2.0 */
/* Addresses of an ID: the one that it is bound to, and its port; and the one that it connects to. */
#include <errno.h>
#include <string.h>

#include "random.h"
#include "ucma_parts.h"
#include "udp.h"

enum {
	EPHEMERAL_FIRST = 32768, /* ports that are given to those who ask for any, as Linux does */
	EPHEMERAL_LAST = 60999,
	PORT_TRIES = 1000,
};

/* The name of a port. */
static struct gsi_name name_of(const struct ucma_id *id, const struct sockaddr_storage *address)
{
	struct gsi_name name = {.service = ucma_address_service(id->port_space, address)};
	/* As the kernel has it: 0.0.0.0 is IPv4 alone, and :: is IPv4's addresses too, unless the program says otherwise. */
	bool one_family = id->family_told ? id->one_family : address->ss_family == AF_INET;

	if (ucma_address_is_any(address) && !one_family)
		name.where = GSI_ANY;
	else if (ucma_address_is_any(address))
		name.where = address->ss_family == AF_INET ? GSI_ANY_V4 : GSI_ANY_V6;
	ucma_address_to_gid(address, &name.address);
	return name;
}

/* Takes it, so that no other process listens there. */
static int reserve(struct ucma_id *id, const struct sockaddr_storage *address)
{
	const struct gsi_name name = name_of(id, address);

	return cm_reserve(&id->endpoint, &name);
}

int ucma_reserve(struct ucma_id *id)
{
	return reserve(id, &id->source);
}

int ucma_set_one_family(struct ucma_id *id, bool one_family)
{
	if (id->endpoint.state != CM_IDLE || id->resolved)
		return -EINVAL;
	id->family_told = true;
	id->one_family = one_family;
	if (id->endpoint.name.fd < 0)
		return 0;
	/* The kernel does not look whether somebody has the rest of the port; here the ID then keeps what it has. */
	const struct gsi_name name = name_of(id, &id->source);
	int error = cm_rename(&id->endpoint, &name);
	return error == -EADDRINUSE ? 0 : error;
}

static int any_port(uint16_t *out)
{
	uint32_t random;
	int error = random_u32(&random);

	*out = (uint16_t)(EPHEMERAL_FIRST + random % (EPHEMERAL_LAST - EPHEMERAL_FIRST + 1));
	return error;
}

int ucma_bind(struct ucma_id *id, const struct sockaddr_storage *address)
{
	struct sockaddr_storage wanted = *address;
	unsigned index;
	int error = -EADDRINUSE;

	if (id->endpoint.state != CM_IDLE || id->source.ss_family != AF_UNSPEC)
		return -EINVAL;
	if (ucma_address_size(address) == 0)
		return -EAFNOSUPPORT;
	if (!ucma_address_select_service(id->port_space, &wanted))
		return -EPROTONOSUPPORT;
	if (!ucma_address_is_any(address)) {
		error = ucma_find_own(id->file->device, address, &index);
		if (error != 0)
			return error;
		id->endpoint.path.own = *udp_gid(id->file->device->udp, index);
		id->endpoint.path.sgid_index = (uint8_t)index;
	}
	if (ucma_address_port(address) != 0) {
		/* It may share the port with others, but not while it listens. */
		error = id->reuses_address ? 0 : reserve(id, &wanted);
	} else {
		error = -EADDRINUSE;
		for (unsigned tries = 0; tries < PORT_TRIES && error == -EADDRINUSE; tries++) {
			uint16_t port;
			error = any_port(&port);
			ucma_address_set_port(&wanted, port);
			if (error == 0)
				error = reserve(id, &wanted);
		}
	}
	if (error != 0)
		return error;
	id->source = wanted;
	id->bound = !ucma_address_is_any(address);
	return 0;
}

int ucma_resolve(struct ucma_id *id, const struct sockaddr_storage *source, const struct sockaddr_storage *destination)
{
	struct sockaddr_storage from = id->source;

	if (id->endpoint.state != CM_IDLE || id->resolved)
		return -EINVAL;
	if (ucma_address_size(destination) == 0 || ucma_address_is_any(destination))
		return -EINVAL;
	if (source->ss_family != AF_UNSPEC && from.ss_family == AF_UNSPEC) {
		/* It is bound there first, as the kernel does. */
		if (!ucma_address_is_any(source) || ucma_address_port(source) != 0) {
			int error = ucma_bind(id, source);
			if (error != 0)
				return error;
		}
		from = id->source;
	}
	id->destination = *destination;
	if (from.ss_family == AF_UNSPEC) {
		memset(&from, 0, sizeof from);
		from.ss_family = destination->ss_family;
	}
	int error = ucma_find_path(id->file->device, &from, destination, &id->endpoint.path);
	if (error == 0 && ucma_address_port(&from) == 0) {
		uint16_t port;
		error = any_port(&port);
		ucma_address_set_port(&from, port);
	}
	if (error != 0) {
		ucma_event_tell(id, UCMA_ADDR_ERROR, error);
		return 0;
	}
	id->endpoint.path.tclass = id->tos;
	id->source = from;
	id->bound = id->resolved = true;
	ucma_event_tell(id, UCMA_ADDR_RESOLVED, 0);
	return 0;
}
