/* SPDX-License-Identifier: Apache-2.0 */
#include "device.h"

#include "array.h"
#include "gids.h"
#include "log.h"
#include "net.h"
#include "psn_watch.h"
#include "qp.h"
#include "sized.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct srdma_device {
	atomic_uint references;
	struct ibv_context *context;
	char name[64];
	uint8_t port;
	int gid_index; /* -1: chosen per connection */
	struct ibv_device_attr attr;
	struct ibv_port_attr port_attr;
	struct srdma_psn_watch sweep;
	union ibv_gid *own; /* addresses of this network namespace when the device was opened */
	size_t own_count;
};

#define HOW_TO_GET_ONE                                                                                                 \
	"put `uroce` before the command for a device in user space, or with an Ethernet card: modprobe rdma_rxe && rdma "  \
	"link add rxe0 type rxe netdev eth0; `securdma doctor` shows more"
#define UROCE_HAS_NONE "uroce is loaded and its message says why it has no device; `uroce --addr ADDRESS` needs an address of this machine (ip address)"

/* The advice differs when uroce already stands before the command. */
static const char *how_to_get_one(void)
{
	const char *preloaded = getenv("LD_PRELOAD");

	return preloaded && strstr(preloaded, "liburoce") ? UROCE_HAS_NONE : HOW_TO_GET_ONE;
}

SRDMA_DEFAULTS(srdma_device_options, .gid_index = -1)

/* ---- opening --------------------------------------------------------------------------------------------------- */

/* Takes the wanted port of an open device, or its first active one that is local, or its first active one. */
static int take_port(struct srdma_device *device, uint8_t wanted, bool *local)
{
	unsigned first = wanted ? wanted : 1, last = wanted ? wanted : device->attr.phys_port_cnt;
	struct ibv_port_attr attr;

	*local = false;
	if (wanted > device->attr.phys_port_cnt)
		return srdma_fail(-EINVAL, "RDMA device %s has no port %u; its ports are 1 to %u", device->name, wanted,
				  device->attr.phys_port_cnt);
	for (unsigned port = first; port <= last; port++) {
		int error = ibv_query_port(device->context, (uint8_t)port, &attr);

		if (error != 0)
			return srdma_fail(SRDMA_EVERBS, "cannot query port %u of %s: %s", port, device->name,
					  strerror(error));
		if (attr.state != IBV_PORT_ACTIVE)
			continue;
		*local = srdma_gids_are_local(device->context, port, attr.link_layer, device->own, device->own_count);
		if (device->port == 0 || *local) {
			device->port = (uint8_t)port;
			device->port_attr = attr;
		}
		if (*local)
			break;
	}
	if (device->port != 0)
		return 0;
	return srdma_fail(-ENODEV, "RDMA device %s has no active port%s; bring its network interface up (ip link set dev NETDEV up)",
			  device->name, wanted ? " of that number" : "");
}

static int open_one(struct ibv_device *verbs_device, const struct srdma_device_options *options, bool *local, struct srdma_device **out)
{
	struct srdma_device *device = calloc(1, sizeof *device);
	int ret, error;

	if (!device)
		return srdma_fail(-ENOMEM, "out of memory");
	atomic_init(&device->references, 1);
	device->gid_index = options->gid_index;
	snprintf(device->name, sizeof device->name, "%s", ibv_get_device_name(verbs_device));
	device->context = ibv_open_device(verbs_device);
	if (!device->context) {
		error = errno ? errno : EIO;
		ret = srdma_fail(error == EACCES || error == EPERM ? -EACCES : SRDMA_EVERBS,
				 "cannot open RDMA device %s: %s; check that this user may read and write /dev/infiniband/uverbs*",
				 device->name, strerror(error));
		goto free_device;
	}
	error = ibv_query_device(device->context, &device->attr);
	if (error != 0) {
		ret = srdma_fail(SRDMA_EVERBS, "cannot query RDMA device %s: %s", device->name, strerror(error));
		goto close_context;
	}
	device->own = srdma_net_own_addresses(&device->own_count);
	ret = take_port(device, options->port, local);
	if (ret != 0)
		goto close_context;
	if (device->gid_index < -1 || device->gid_index >= device->port_attr.gid_tbl_len) {
		ret = srdma_fail(-EINVAL, "RDMA device %s, port %u has no GID index %d; its table has %d", device->name, device->port,
				 device->gid_index, device->port_attr.gid_tbl_len);
		goto close_context;
	}
	srdma_psn_watch_init(&device->sweep, verbs_device->ibdev_path, device->port);
	*out = device;
	return 0;

close_context:
	free(device->own);
	ibv_close_device(device->context);
free_device:
	free(device);
	return ret;
}

/* Takes the first usable device, unless only a later one is local. */
static int open_best(struct ibv_device **devices, int n, const struct srdma_device_options *options, int *tried, struct srdma_device **out)
{
	struct srdma_device *best = NULL;
	int ret = -ENODEV;

	*tried = 0;
	for (int i = 0; i < n; i++) {
		struct srdma_device *device = NULL;
		bool local = false;
		int error;

		if (options->name && strcmp(options->name, ibv_get_device_name(devices[i])) != 0)
			continue;
		(*tried)++;
		error = open_one(devices[i], options, &local, &device);
		if (error != 0) {
			ret = best ? 0 : error;
			continue;
		}
		ret = 0;
		if (best && local)
			srdma_device_unref(&best);
		if (!best)
			best = device;
		else
			srdma_device_unref(&device);
		if (local)
			break;
	}
	*out = best;
	return ret;
}

int srdma_device_open(const struct srdma_device_options *given, struct srdma_device **out)
{
	int n = 0, tried, ret;
	struct srdma_device *device = NULL;
	struct ibv_device **devices;
	struct srdma_device_options options;

	ret = SRDMA_SIZED_TAKE(srdma_device_options, gid_index, given, &options);
	if (ret != 0)
		return ret;
	devices = ibv_get_device_list(&n);
	if (n == 0 && devices)
		ibv_free_device_list(devices);
	if (!devices || n == 0)
		return srdma_fail(-ENODEV, "this machine has no RDMA device; %s", how_to_get_one());
	ret = open_best(devices, n, &options, &tried, &device);
	ibv_free_device_list(devices);
	if (ret == 0)
		*out = device;
	if (tried == 0)
		return srdma_fail(-ENODEV, "no RDMA device is named %s; `securdma doctor` lists them", options.name);
	return ret;
}

struct srdma_device *srdma_device_ref(struct srdma_device *device)
{
	atomic_fetch_add(&device->references, 1);
	return device;
}

void srdma_device_unref(struct srdma_device **out)
{
	struct srdma_device *device = *out;

	*out = NULL;
	if (!device || atomic_fetch_sub(&device->references, 1) != 1)
		return;
	srdma_psn_watch_release(&device->sweep);
	free(device->own);
	ibv_close_device(device->context);
	free(device);
}

uint64_t srdma_device_sweeps(struct srdma_device *device)
{
	uint64_t packets, seen = srdma_psn_watch_look(&device->sweep, &packets);

	if (packets > 0) {
		const struct srdma_log_field fields[] = {SRDMA_FIELD_TEXT("device", device->name),
							 SRDMA_FIELD_NUMBER("packets_per_second", packets)};
		const struct srdma_event event = {SRDMA_LOG_WARN, "device.sweep", true, fields, SRDMA_COUNT(fields)};

		srdma_log_event(&event,
				"an attacker may be trying PSNs on %s: %llu packets in a second were out of sequence or duplicates; all "
				"connections with epochs draw new PSNs",
				device->name, (unsigned long long)packets);
	}
	return seen;
}

bool srdma_device_is_of_kernel(const struct srdma_device *device)
{
	char path[128];

	snprintf(path, sizeof path, "/sys/class/infiniband/%s", device->name);
	return access(path, F_OK) == 0;
}

bool srdma_device_watches(const struct srdma_device *device)
{
	return device->sweep.fd_count > 0;
}

const char *srdma_device_name(const struct srdma_device *device)
{
	return device->name;
}

uint8_t srdma_device_port(const struct srdma_device *device)
{
	return device->port;
}

struct ibv_context *srdma_device_context(const struct srdma_device *device)
{
	return device->context;
}

const struct ibv_device_attr *srdma_device_attr(const struct srdma_device *device)
{
	return &device->attr;
}

/* Those of the kernel's rdma_rxe (6.1 to 7.2, known by its vendor number and the lack of a firmware) add faults: a peer that has the key
 * of one can end the kernel. */
bool srdma_device_has_windows(const struct srdma_device *device)
{
	const struct ibv_device_attr *attr = srdma_device_attr(device);
	bool is_rxe = attr->vendor_id == 0xffffff && (strcmp(attr->fw_ver, "0.0.0") == 0 || attr->fw_ver[0] == '\0');

	return !is_rxe && (attr->device_cap_flags & (IBV_DEVICE_MEM_WINDOW_TYPE_2A | IBV_DEVICE_MEM_WINDOW_TYPE_2B)) != 0;
}

const struct ibv_port_attr *srdma_device_port_attr(const struct srdma_device *device)
{
	return &device->port_attr;
}

/* ---- GIDs ------------------------------------------------------------------------------------------------------ */

/* Ranks a GID for a connection between these addresses; 0: it does not suit. `interface`: of a link-local `local`. A GID that is no
 * address of this namespace would send packets in the name of another namespace. */
static int rank_gid(const struct srdma_device *device, const struct ibv_gid_entry *entry, const union ibv_gid *local,
		    uint32_t interface, const union ibv_gid *peer)
{
	bool same_link = !srdma_net_gid_is_link_local(&entry->gid) || interface == 0 || entry->ndev_ifindex == interface;
	int own = srdma_gid_is_among(device->own, device->own_count, &entry->gid) ? 3 : 0;

	if (entry->gid_type != IBV_GID_TYPE_ROCE_V2)
		return 0;
	/* Comes first, because a balancer may reach us over another address family than its client's. */
	if (srdma_net_gid_is_v4(&entry->gid) != srdma_net_gid_is_v4(peer))
		return 0;
	if (same_link && memcmp(&entry->gid, local, sizeof *local) == 0)
		return 7;
	if (!srdma_net_gid_is_link_local(&entry->gid))
		return own + 2;
	return own + (srdma_net_gid_is_link_local(peer) && same_link ? 3 : 1);
}

static int fixed_gid(const struct srdma_device *device, int index, uint8_t *gid_index, union ibv_gid *gid)
{
	static const union ibv_gid zero;

	if (ibv_query_gid(device->context, device->port, index, gid) != 0)
		return srdma_fail(SRDMA_EVERBS, "cannot read GID index %d of %s port %u", index, device->name, device->port);
	if (memcmp(gid, &zero, sizeof zero) == 0 && device->port_attr.link_layer == IBV_LINK_LAYER_ETHERNET)
		return srdma_fail(-EADDRNOTAVAIL, "GID index %d of %s port %u is empty; `securdma doctor` lists the GIDs",
				  index, device->name, device->port);
	*gid_index = (uint8_t)index;
	return 0;
}

int srdma_device_choose_gid(const struct srdma_device *device, const struct sockaddr *local,
			    const struct sockaddr *peer, uint8_t *gid_index, union ibv_gid *gid)
{
	union ibv_gid local_gid, peer_gid;
	struct ibv_gid_entry *entries;
	size_t count;
	int best = 0;

	if (device->gid_index >= 0)
		return fixed_gid(device, device->gid_index, gid_index, gid);
	if (device->port_attr.link_layer == IBV_LINK_LAYER_INFINIBAND)
		return fixed_gid(device, 0, gid_index, gid);
	if (!srdma_net_gid_of(local, &local_gid) || !srdma_net_gid_of(peer, &peer_gid))
		return srdma_fail(-EADDRNOTAVAIL, "the TLS connection is neither over IPv4 nor over IPv6, so no GID can be chosen; give a GID index (--gid-index)");
	count = srdma_gids_read(device->context, device->port, &entries);
	for (size_t i = 0; i < count; i++) {
		int rank = entries[i].gid_index <= UINT8_MAX
				   ? rank_gid(device, &entries[i], &local_gid, srdma_net_interface(local), &peer_gid)
				   : 0;

		if (rank > best) {
			best = rank;
			*gid_index = (uint8_t)entries[i].gid_index;
			*gid = entries[i].gid;
		}
	}
	free(entries);
	if (best == 0)
		return srdma_fail(-EADDRNOTAVAIL,
				  "%s, port %u has no RoCE v2 GID for an %s peer; give its network interface such an address (ip address add)",
				  device->name, device->port, srdma_net_gid_is_v4(&peer_gid) ? "IPv4" : "IPv6");
	return 0;
}

uint32_t srdma_device_gid_interface(const struct srdma_device *device, uint8_t gid_index)
{
	struct ibv_gid_entry entry;

	return ibv_query_gid_ex(device->context, device->port, gid_index, &entry, 0) == 0 ? entry.ndev_ifindex : 0;
}

bool srdma_device_has_gid(const struct srdma_device *device, const union ibv_gid *gid)
{
	struct ibv_gid_entry *entries;
	size_t count = srdma_gids_read(device->context, device->port, &entries);
	bool found = false;

	for (size_t i = 0; i < count && !found; i++)
		found = memcmp(&entries[i].gid, gid, sizeof *gid) == 0;
	free(entries);
	return found;
}
