/* SPDX-License-Identifier: Apache-2.0 */
#include "local_check.h"

#include <infiniband/verbs.h>
#include <stdbool.h>
#include <string.h>

#define MASK24 0xffffffu
#define LID_MAX 0xbfff

static const uint8_t no_gid[16];

/* How long a packet of this type is; 0: programs send none. */
static size_t length_of(unsigned type)
{
	switch (type) {
	case LOCAL_HELLO: return sizeof(struct local_hello);
	case LOCAL_DEVICE: return sizeof(struct local_device);
	case LOCAL_REGISTER:
	case LOCAL_FORGET:
	case LOCAL_RESTORE: return sizeof(struct local_queue_pair);
	case LOCAL_CONNECT: return sizeof(struct local_connect);
	case LOCAL_ADDRESS: return sizeof(struct local_address);
	case LOCAL_EVENT: return sizeof(struct local_event);
	default: return 0;
	}
}

/* A name as the kernel gives to devices, that can be shown and put into a path. */
static bool is_device_name(const char *name)
{
	size_t length = strnlen(name, LOCAL_NAME);

	if (length == 0 || length == LOCAL_NAME || name[0] == '.')
		return false;
	for (size_t i = 0; i < length; i++) {
		char c = name[i];

		if (!((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' || c == '-' || c == '.'))
			return false;
	}
	return true;
}

static bool is_text(const char *text, size_t size)
{
	return strnlen(text, size) < size;
}

static bool is_qpn(uint32_t qpn)
{
	return qpn > 1 && qpn <= MASK24;
}

static bool is_port(uint32_t port)
{
	return port >= 1 && port <= 255;
}

static bool is_gid(const uint8_t *gid)
{
	return memcmp(gid, no_gid, sizeof no_gid) != 0 && gid[0] != 0xff;
}

static const char *hello_problem(const struct local_hello *hello)
{
	if (hello->mode != LOCAL_ENFORCE && hello->mode != LOCAL_OBSERVE)
		return "its mode is not known";
	return hello->require_encryption > 1 || !is_text(hello->program, sizeof hello->program) ? "HELLO is out of range" : NULL;
}

static const char *device_problem(const struct local_device *device)
{
	if (!is_device_name(device->device) || !is_port(device->port))
		return "a device has no valid name or port";
	if (device->link_layer != IBV_LINK_LAYER_ETHERNET && device->link_layer != IBV_LINK_LAYER_INFINIBAND)
		return "a device's link layer is not known";
	if (device->lid > LID_MAX || device->kernel > 1 || device->count > LOCAL_GIDS || device->first > 4096)
		return "a device is out of range";
	return NULL;
}

static const char *queue_pair_problem(const struct local_queue_pair *pair)
{
	bool restored = pair->header.type == LOCAL_RESTORE;

	if (!is_device_name(pair->device) || !is_port(pair->port) || !is_qpn(pair->qpn))
		return "a queue pair has no valid device, port or number";
	if (pair->header.type != LOCAL_FORGET && pair->type != IBV_QPT_RC && pair->type != IBV_QPT_UC)
		return "a queue pair's type is neither RC nor UC";
	if (restored && (pair->psn > MASK24 || pair->connected > 1))
		return "a restored queue pair is out of range";
	if (restored && pair->connected && (!is_qpn(pair->peer_qpn) || pair->peer_psn > MASK24 || !is_gid(pair->gid) || pair->peer_lid > LID_MAX))
		return "a restored queue pair's connection is out of range";
	return NULL;
}

static const char *connect_problem(const struct local_connect *connect)
{
	if (!is_device_name(connect->device) || !is_port(connect->port) || !is_qpn(connect->qpn))
		return "a queue pair has no valid device, port or number";
	return is_gid(connect->gid) ? NULL : "a queue pair has no GID of its own";
}

static const char *address_problem(const struct local_address *address)
{
	return is_device_name(address->device) && is_port(address->port) ? NULL : "an address handle has no valid device or port";
}

bool local_destination_is_valid(const uint8_t gid[16], uint32_t lid)
{
	return is_gid(gid) || (memcmp(gid, no_gid, sizeof no_gid) == 0 && lid > 0 && lid <= LID_MAX);
}

bool local_qpn_is_valid(uint32_t qpn)
{
	return is_qpn(qpn);
}

const char *local_request_problem(const union local_request *request, size_t length)
{
	const struct local_header *header = &request->header;
	size_t wanted;

	if (length < sizeof *header || header->magic != LOCAL_MAGIC)
		return "it does not begin as one";
	if (header->version != LOCAL_VERSION)
		return NULL;
	wanted = length_of(header->type);
	if (wanted == 0)
		return "its type is not known";
	if (header->length != length || length != wanted)
		return "its length is wrong";
	switch (header->type) {
	case LOCAL_HELLO: return hello_problem(&request->hello);
	case LOCAL_DEVICE: return device_problem(&request->device);
	case LOCAL_CONNECT: return connect_problem(&request->connect);
	case LOCAL_ADDRESS: return address_problem(&request->address);
	case LOCAL_EVENT:
		return request->event.refused > 1 || !is_text(request->event.what, LOCAL_NAME) || !is_text(request->event.text, LOCAL_TEXT)
			       ? "an event is out of range"
			       : NULL;
	default: return queue_pair_problem(&request->queue_pair);
	}
}
