/* SPDX-License-Identifier: Apache-2.0 */
#include "devices.h"

#include "clock.h"
#include "gid_map.h"
#include "log.h"
#include "net.h"
#include "peer_frames.h"
#include "places.h"

#include <errno.h>
#include <ifaddrs.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define FRESH_US 1000000u
/* Of one program, and GIDs of one port: more than any adapter has. */
#define DEVICES_MAX 64
#define GIDS_MAX 256

static const uint8_t no_gid[16];

static int compare(const void *a, const void *b)
{
	return memcmp(a, b, sizeof(union ibv_gid));
}

static bool has(const struct addresses *addresses, const uint8_t gid[16])
{
	return addresses->count > 0 && bsearch(gid, addresses->list, addresses->count, sizeof *addresses->list, compare);
}

bool addresses_contain(struct addresses *addresses, const uint8_t gid[16])
{
	uint64_t now = srdma_clock_us();
	union ibv_gid given;

	memcpy(given.raw, gid, sizeof given.raw);
	/* All of 127.0.0.0/8 is this host's, and the interface lists one of it. */
	if (srdma_net_gid_is_v4(&given) && given.raw[12] == 127)
		return true;
	if (has(addresses, gid))
		return true;
	if (addresses->read_at != 0 && now - addresses->read_at < FRESH_US)
		return false;
	free(addresses->list);
	addresses->list = srdma_net_own_addresses(&addresses->count);
	addresses->read_at = now;
	if (addresses->count > 0)
		qsort(addresses->list, addresses->count, sizeof *addresses->list, compare);
	return has(addresses, gid);
}

const char *address_interface(const uint8_t gid[16], char name[IF_NAMESIZE])
{
	struct ifaddrs *all = NULL;
	union ibv_gid own, at_gid;
	bool found = false;

	memcpy(own.raw, gid, sizeof own.raw);
	if (!srdma_net_gid_is_link_local(&own) || getifaddrs(&all) != 0)
		return NULL;
	for (const struct ifaddrs *at = all; at && !found; at = at->ifa_next) {
		found = at->ifa_addr && srdma_net_gid_of(at->ifa_addr, &at_gid) && memcmp(at_gid.raw, gid, 16) == 0;
		if (found)
			snprintf(name, IF_NAMESIZE, "%s", at->ifa_name);
	}
	freeifaddrs(all);
	return found ? name : NULL;
}

void addresses_free(struct addresses *addresses)
{
	free(addresses->list);
	*addresses = (struct addresses){0};
}

struct device *devices_find(struct device *list, const char *name, uint32_t port)
{
	while (list && (list->port != port || strcmp(list->name, name) != 0))
		list = list->next;
	return list;
}

static int add(struct device **list, const struct local_device *report, struct device **out)
{
	struct device *device;
	unsigned count = 0;

	for (const struct device *at = *list; at; at = at->next)
		count++;
	if (count >= DEVICES_MAX)
		return srdma_fail(-E2BIG, "the program reports more than %d ports of devices", DEVICES_MAX);
	device = calloc(1, sizeof *device);
	if (!device)
		return srdma_fail(-ENOMEM, "out of memory");
	snprintf(device->name, sizeof device->name, "%s", report->device);
	device->port = (uint8_t)report->port;
	device->next = *list;
	*list = *out = device;
	return 0;
}

/* Room for the GIDs of one more packet. */
static int make_room(struct device *device, unsigned more)
{
	uint8_t(*grown)[16];

	if (device->count + more > GIDS_MAX)
		return srdma_fail(-E2BIG, "the program reports more than %d GIDs of %s", GIDS_MAX, device->name);
	grown = realloc(device->gids, (device->count + more + 1) * sizeof *grown);
	if (!grown)
		return srdma_fail(-ENOMEM, "out of memory");
	device->gids = grown;
	return 0;
}

/* The agent looks itself: a program could say that the kernel does not know a device, so that nobody asks whose its queue pairs are. */
static bool kernel_has(const char *device)
{
	char path[32 + LOCAL_NAME];

	snprintf(path, sizeof path, "/sys/class/infiniband/%s", device);
	return access(path, F_OK) == 0;
}

static struct peer_end end_of(const uint8_t gid[16])
{
	struct peer_end end = {0};

	memcpy(end.gid, gid, sizeof end.gid);
	return end;
}

/* Where the device is no longer. */
static void leave_places(struct device *device, struct places *places)
{
	for (unsigned i = 0; i < device->count; i++) {
		struct peer_end end = end_of(device->gids[i]);

		places_remove(places, &end);
	}
	if (device->has_lid)
		places_remove(places, &(struct peer_end){.lid = device->lid});
	device->count = 0;
	device->has_lid = false;
}

/* There is room for it. */
static int add_gid(struct device *device, const uint8_t gid[16], struct places *places)
{
	struct peer_end end = end_of(gid);
	int ret = places_add(places, &end);

	if (ret == 0)
		memcpy(device->gids[device->count++], gid, sizeof end.gid);
	return ret;
}

static int add_lid(struct device *device, uint32_t lid, struct places *places)
{
	int ret = 0;

	if (device->has_lid && (device->lid != lid || !device->infiniband)) {
		places_remove(places, &(struct peer_end){.lid = device->lid});
		device->has_lid = false;
	}
	device->lid = (uint16_t)lid;
	if (device->infiniband && !device->has_lid) {
		ret = places_add(places, &(struct peer_end){.lid = device->lid});
		device->has_lid = ret == 0;
	}
	return ret;
}

int devices_take(struct device **list, const struct local_device *report, struct addresses *addresses, const struct gid_map *map, struct places *places)
{
	struct device *device = devices_find(*list, report->device, report->port);
	bool infiniband = report->link_layer == IBV_LINK_LAYER_INFINIBAND;
	int ret = device ? 0 : add(list, report, &device), foreign = 0;

	if (ret != 0)
		return ret;
	/* A table that is reported again replaces the old one. */
	if (report->first == 0)
		leave_places(device, places);
	device->kernel = kernel_has(report->device);
	device->infiniband = infiniband;
	ret = add_lid(device, report->lid, places);
	if (ret == 0)
		ret = make_room(device, report->count);
	for (uint32_t i = 0; ret == 0 && i < report->count; i++) {
		const uint8_t *gid = report->gids[i];

		if (memcmp(gid, no_gid, sizeof no_gid) == 0 || device_has_gid(device, gid))
			continue;
		if (addresses_contain(addresses, gid) || (map && gid_map_find(map, gid)))
			ret = add_gid(device, gid, places);
		else
			foreign++;
	}
	return ret != 0 ? ret : foreign;
}

bool device_has_gid(const struct device *device, const uint8_t gid[16])
{
	for (unsigned i = 0; i < device->count; i++)
		if (memcmp(device->gids[i], gid, 16) == 0)
			return true;
	return false;
}

bool device_is_at(const struct device *device, const struct peer_end *end)
{
	if (memcmp(end->gid, no_gid, sizeof no_gid) != 0)
		return device_has_gid(device, end->gid);
	return device->infiniband && device->lid == end->lid;
}

bool devices_meet(const struct device *a, const struct device *b)
{
	if (a->port == b->port && strcmp(a->name, b->name) == 0)
		return true;
	/* Adapters of separate fabrics may have the same LID. */
	if (a->infiniband && b->infiniband && !(a->kernel && b->kernel) && a->lid == b->lid && a->lid != 0)
		return true;
	for (unsigned i = 0; i < a->count; i++)
		if (device_has_gid(b, a->gids[i]))
			return true;
	return false;
}

void devices_free(struct device **list, struct places *places)
{
	struct device *next;

	for (struct device *device = *list; device; device = next) {
		next = device->next;
		leave_places(device, places);
		free(device->gids);
		free(device);
	}
	*list = NULL;
}
