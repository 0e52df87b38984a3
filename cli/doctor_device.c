/* SPDX-License-Identifier: Apache-2.0 */
#include "doctor.h"

#include <arpa/inet.h>
#include <errno.h>
#include <glob.h>
#include <net/if.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define GET_DEVICE                                                                                                     \
	"uroce securdma doctor   (a device in user space; put `uroce` before any command), or: "                       \
	"modprobe rdma_rxe && rdma link add rxe0 type rxe netdev eth0   (the kernel's software device on eth0)"
#define UROCE_HAS_NONE                                                                                                 \
	"uroce --addr ADDRESS securdma doctor   (uroce is loaded, and its message says why it has no device: it needs an address of this " \
	"machine, see 'ip address')"

static const char *state_name(enum ibv_port_state state)
{
	const char *name = ibv_port_state_str(state);

	return strncmp(name, "PORT_", 5) == 0 ? name + 5 : name;
}

static bool wanted(const struct doctor *doctor, const struct srdma_port_info *port)
{
	const struct settings *settings = doctor->settings;

	return (!settings->device.name || strcmp(settings->device.name, port->device) == 0) &&
	       (settings->device.port == 0 || settings->device.port == port->port);
}

static bool read_word(const char *path, char *word, size_t size)
{
	FILE *file = fopen(path, "re");
	bool read = file && fgets(word, (int)size, file);

	if (file)
		fclose(file);
	if (read)
		word[strcspn(word, "\n")] = '\0';
	return read && word[0];
}

/* The kernel's software devices name it; a card's is that of its first GID. False: not known, or in another network namespace. */
static bool find_netdev(const struct srdma_port_info *port, char *name, size_t size)
{
	char path[256];

	snprintf(path, sizeof path, "/sys/class/infiniband/%s/parent", port->device);
	if (read_word(path, name, size))
		return true;
	snprintf(path, sizeof path, "/sys/class/infiniband/%s/ports/%u/gid_attrs/ndevs/0", port->device, port->port);
	return read_word(path, name, size);
}

/* rdma_rxe looks up the peer's hardware address. On an interface that has none, WireGuard's or a tun, its packets to a peer never leave. */
static void report_netdev(struct doctor *doctor, const struct srdma_port_info *port, const char *what)
{
	char name[64], path[256], length[16];

	if (!find_netdev(port, name, sizeof name))
		return;
	snprintf(path, sizeof path, "/sys/class/net/%s/addr_len", name);
	if (read_word(path, length, sizeof length) && strcmp(length, "0") == 0)
		doctor_find(doctor, FINDING_WARN, what, "rdma link add rxe1 type rxe netdev eth0   (on an Ethernet interface)",
			    "its network interface %s has no hardware address, like those of WireGuard and tun: no packet reaches another host", name);
}

static void report_ethernet(struct doctor *doctor, const struct srdma_port_info *port, const char *what)
{
	const char *fix = NULL;
	enum finding finding = FINDING_WARN;
	char flaw[160] = "";

	if (port->gid_count == 0) {
		fix = "ip address add ADDRESS/PREFIX dev NETDEV";
	} else if (!port->is_local) {
		snprintf(flaw, sizeof flaw, "; no GID is an address of this network namespace: the device belongs to another one");
		fix = "rdma system set netns exclusive   (hides it here), or choose another with --device";
	} else {
		finding = FINDING_OK;
	}
	doctor_find(doctor, finding, what, fix, "Ethernet (RoCE), ACTIVE, MTU %u, %d GIDs%s", port->active_mtu, port->gid_count, flaw);
}

static void report_port(struct doctor *doctor, const struct srdma_port_info *port)
{
	bool ethernet = port->link_layer == IBV_LINK_LAYER_ETHERNET;
	char what[96], netdev[112];

	snprintf(what, sizeof what, "port %s/%u", port->device, port->port);
	if (port->error[0]) {
		doctor_find(doctor, FINDING_WARN, what, "check the permissions below, and the kernel log (dmesg)", "%s",
			    port->error);
		return;
	}
	snprintf(netdev, sizeof netdev, "netdev of %s", port->device);
	if (ethernet)
		report_netdev(doctor, port, netdev);
	if (port->state != IBV_PORT_ACTIVE) {
		doctor_find(doctor, wanted(doctor, port) && doctor->settings->device.name ? FINDING_FAIL : FINDING_WARN, what,
			    ethernet ? "ip link set dev NETDEV up   (its network interface: 'rdma link' names it)"
				     : "check the cable, and that a subnet manager runs (systemctl start opensm)",
			    "%s, %s", ethernet ? "Ethernet" : "InfiniBand", state_name(port->state));
		return;
	}
	if (ethernet)
		report_ethernet(doctor, port, what);
	else
		doctor_find(doctor, FINDING_OK, what, NULL, "InfiniBand, ACTIVE, MTU %u, LID %u, %d GIDs",
			    port->active_mtu, port->lid, port->gid_count);
	if (wanted(doctor, port))
		doctor->usable_device = true;
}

static bool is_under_uroce(void)
{
	const char *preloaded = getenv("LD_PRELOAD");

	return preloaded && strstr(preloaded, "liburoce");
}

static void report_kernel(struct doctor *doctor)
{
	/* A device in user space may show a program /sys/class/infiniband all the same. */
	if (access("/sys/module/ib_core", F_OK) == 0)
		doctor_find(doctor, FINDING_OK, "kernel", NULL, "the kernel's RDMA core is loaded");
	else if (doctor->usable_device || is_under_uroce())
		doctor_find(doctor, FINDING_OK, "kernel", NULL, "the kernel's RDMA core is not loaded; a device in user space does not need it");
	else
		doctor_find(doctor, FINDING_WARN, "kernel", "modprobe ib_uverbs", "the kernel's RDMA core is not loaded");
}

/* The directory lists devices that the library could not show; then the rest of user space is missing. */
static bool kernel_has_devices(void)
{
	glob_t found;
	bool any = glob("/sys/class/infiniband/*", 0, NULL, &found) == 0;

	if (any)
		globfree(&found);
	return any;
}

static void report_uverbs(struct doctor *doctor)
{
	glob_t found;

	if (glob("/dev/infiniband/uverbs*", 0, NULL, &found) != 0) {
		if (kernel_has_devices())
			doctor_find(doctor, FINDING_FAIL, "device nodes", "modprobe ib_uverbs",
				    "the kernel has RDMA devices, but /dev/infiniband has no uverbs node for them");
		return;
	}
	for (size_t i = 0; i < found.gl_pathc; i++) {
		const char *node = found.gl_pathv[i];
		char what[64];

		snprintf(what, sizeof what, "node %s", strrchr(node, '/') + 1);
		if (access(node, R_OK | W_OK) == 0)
			doctor_find(doctor, FINDING_OK, what, NULL, "the user may read and write %s", node);
		else
			doctor_find(doctor, FINDING_FAIL, what,
				    "chmod 0666 /dev/infiniband/uverbs*   (Debian's rdma-core has a udev rule for it)",
				    "%s: %s", node, strerror(errno));
	}
	globfree(&found);
}

static void report_no_device(struct doctor *doctor)
{
	if (kernel_has_devices())
		doctor_find(doctor, FINDING_FAIL, "device", "apt-get install ibverbs-providers",
			    "the kernel has RDMA devices, but libibverbs has no driver for them");
	else
		doctor_find(doctor, FINDING_FAIL, "device", is_under_uroce() ? UROCE_HAS_NONE : GET_DEVICE,
			    "this machine has no RDMA device");
}

void doctor_check_devices(struct doctor *doctor)
{
	struct srdma_port_info *ports = NULL;
	size_t count = 0;
	int ret = srdma_device_list(&ports, &count);

	for (size_t i = 0; i < count; i++)
		report_port(doctor, &ports[i]);
	if (ret < 0 || count == 0)
		report_no_device(doctor);
	else if (!doctor->usable_device)
		doctor_find(doctor, FINDING_FAIL, "device", "securdma doctor   (without --device and --port-num it shows all ports)",
			    "%s has no usable port", doctor->settings->device.name ? doctor->settings->device.name : "this machine");
	report_kernel(doctor);
	report_uverbs(doctor);
	srdma_device_list_free(&ports);
}

static const char *gid_type(uint32_t type)
{
	switch (type) {
	case IBV_GID_TYPE_IB: return "IB";
	case IBV_GID_TYPE_ROCE_V1: return "RoCE v1";
	case IBV_GID_TYPE_ROCE_V2: return "RoCE v2";
	default: return "unknown type";
	}
}

static void format_gid(const union ibv_gid *gid, char *text, socklen_t size)
{
	const struct in6_addr *address = (const void *)gid->raw;

	if (IN6_IS_ADDR_V4MAPPED(address))
		inet_ntop(AF_INET, gid->raw + 12, text, size);
	else
		inet_ntop(AF_INET6, gid->raw, text, size);
}

/* Returns whether there is one of RoCE v2. */
static bool report_gids(struct doctor *doctor)
{
	const struct srdma_device *device = doctor->device;
	char what[96], text[INET6_ADDRSTRLEN], interface[IF_NAMESIZE];
	struct ibv_gid_entry entry;
	bool roce_v2 = false;

	for (uint32_t i = 0; i < (uint32_t)srdma_device_port_attr(device)->gid_tbl_len; i++) {
		/* An index in use is not promised to be followed by others in use. */
		if (ibv_query_gid_ex(srdma_device_context(device), srdma_device_port(device), i, &entry, 0) != 0)
			continue;
		format_gid(&entry.gid, text, sizeof text);
		if (!entry.ndev_ifindex || !if_indextoname(entry.ndev_ifindex, interface))
			interface[0] = '\0';
		roce_v2 = roce_v2 || entry.gid_type == IBV_GID_TYPE_ROCE_V2;
		snprintf(what, sizeof what, "GID %s/%u/%u", srdma_device_name(device), srdma_device_port(device), i);
		doctor_find(doctor, FINDING_OK, what, NULL, "%s, %s%s%s", text, gid_type(entry.gid_type),
			    interface[0] ? ", on " : "", interface);
	}
	return roce_v2;
}

void doctor_check_gids(struct doctor *doctor)
{
	bool roce_v2;

	if (!doctor->usable_device)
		return;
	if (srdma_device_open(&doctor->settings->device, &doctor->device) < 0) {
		doctor_find(doctor, FINDING_FAIL, "device", "check the findings above, and the kernel log (dmesg)", "%s",
			    srdma_error_text());
		doctor->usable_device = false;
		return;
	}
	doctor_find(doctor, FINDING_OK, "device", NULL, "%s, port %u: securdma uses this one", srdma_device_name(doctor->device),
		    srdma_device_port(doctor->device));
	roce_v2 = report_gids(doctor);
	if (srdma_device_port_attr(doctor->device)->link_layer == IBV_LINK_LAYER_ETHERNET && !roce_v2)
		doctor_find(doctor, FINDING_FAIL, "GIDs", "ip address add ADDRESS/PREFIX dev NETDEV",
			    "%s has no RoCE v2 GID: its network interface needs an IP address",
			    srdma_device_name(doctor->device));
}
