/* SPDX-License-Identifier: Apache-2.0 */
#include "doctor.h"

#include <arpa/inet.h>
#include <errno.h>
#include <glob.h>
#include <net/if.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define MEND_NO_DEVICE                                                                                                 \
	"uroce securdma doctor   (a device in user space; put `uroce` before any command), or: "                       \
	"modprobe rdma_rxe && rdma link add rxe0 type rxe netdev eth0   (the kernel's software device on eth0)"

static const char *state_name(enum ibv_port_state state)
{
	const char *name = ibv_port_state_str(state);

	return strncmp(name, "PORT_", 5) == 0 ? name + 5 : name;
}

static bool wanted(const struct doctor *doctor, const struct srdma_port_info *port)
{
	const struct settings *settings = doctor->settings;

	return (!settings->device || strcmp(settings->device, port->device) == 0) &&
	       (settings->device_port == 0 || settings->device_port == port->port);
}

static void report_port(struct doctor *doctor, const struct srdma_port_info *port)
{
	bool ethernet = port->link_layer == IBV_LINK_LAYER_ETHERNET;
	char what[96], mend[256];

	snprintf(what, sizeof what, "port %s/%u", port->device, port->port);
	if (port->error[0]) {
		doctor_find(doctor, FINDING_WARN, what, "check the permissions below, and the kernel log (dmesg)", "%s",
			    port->error);
		return;
	}
	if (port->state != IBV_PORT_ACTIVE) {
		snprintf(mend, sizeof mend, "%s",
			 ethernet ? "ip link set dev NETDEV up   (its network interface: 'rdma link' names it)"
				  : "check the cable, and that a subnet manager runs (systemctl start opensm)");
		doctor_find(doctor, wanted(doctor, port) && doctor->settings->device ? FINDING_FAIL : FINDING_WARN,
			    what, mend, "%s, %s", ethernet ? "Ethernet" : "InfiniBand", state_name(port->state));
		return;
	}
	if (ethernet)
		doctor_find(doctor, port->gid_count > 0 ? FINDING_OK : FINDING_WARN, what,
			    port->gid_count > 0 ? NULL : "ip address add ADDRESS/PREFIX dev NETDEV",
			    "Ethernet (RoCE), ACTIVE, MTU %u, %d GIDs", port->active_mtu, port->gid_count);
	else
		doctor_find(doctor, FINDING_OK, what, NULL, "InfiniBand, ACTIVE, MTU %u, LID %u, %d GIDs",
			    port->active_mtu, port->lid, port->gid_count);
	if (wanted(doctor, port))
		doctor->usable_device = true;
}

static bool module_loaded(void)
{
	return access("/sys/class/infiniband", F_OK) == 0;
}

/* The directory lists devices that the library could not show; then the rest of user space is what is missing. */
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
				    "the kernel has RDMA devices, but there is no /dev/infiniband/uverbs*");
		return;
	}
	for (size_t i = 0; i < found.gl_pathc; i++) {
		const char *node = found.gl_pathv[i];

		if (access(node, R_OK | W_OK) == 0)
			doctor_find(doctor, FINDING_OK, "device node", NULL, "%s can be opened", node);
		else
			doctor_find(doctor, FINDING_FAIL, "device node",
				    "chmod 0666 /dev/infiniband/uverbs*   (Debian's rdma-core has a udev rule for it)",
				    "%s: %s", node, strerror(errno));
	}
	globfree(&found);
}

void doctor_check_devices(struct doctor *doctor)
{
	struct srdma_port_info *ports = NULL;
	size_t count = 0;
	int ret;

	if (module_loaded())
		doctor_find(doctor, FINDING_OK, "kernel", NULL, "RDMA core is loaded");
	else
		doctor_find(doctor, FINDING_WARN, "kernel", "modprobe ib_uverbs",
			    "/sys/class/infiniband does not exist");
	ret = srdma_device_list(&ports, &count);
	for (size_t i = 0; i < count; i++)
		report_port(doctor, &ports[i]);
	if (ret < 0 || count == 0) {
		if (kernel_has_devices())
			doctor_find(doctor, FINDING_FAIL, "device", "apt-get install ibverbs-providers",
				    "the kernel has RDMA devices that libibverbs has no driver for");
		else
			doctor_find(doctor, FINDING_FAIL, "device", MEND_NO_DEVICE, "this machine has no RDMA device");
	} else if (!doctor->usable_device) {
		doctor_find(doctor, FINDING_FAIL, "device", "securdma doctor without --device and --port-num shows all",
			    "no usable port on %s", doctor->settings->device ? doctor->settings->device : "any device");
	}
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

void doctor_check_gids(struct doctor *doctor)
{
	struct srdma_device *device = NULL;
	struct ibv_gid_entry entry;
	char what[96], text[INET6_ADDRSTRLEN], interface[IF_NAMESIZE];
	bool roce_v2 = false, ethernet;

	if (!doctor->usable_device)
		return;
	if (settings_open_device(doctor->settings, &device) < 0) {
		doctor_find(doctor, FINDING_FAIL, "open", "check the findings above, and the kernel log (dmesg)", "%s",
			    srdma_error_text());
		doctor->usable_device = false;
		return;
	}
	ethernet = srdma_device_port_attr(device)->link_layer == IBV_LINK_LAYER_ETHERNET;
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
	if (ethernet && !roce_v2)
		doctor_find(doctor, FINDING_FAIL, "GIDs", "ip address add ADDRESS/PREFIX dev NETDEV",
			    "%s has no RoCE v2 GID: its network interface needs an IP address",
			    srdma_device_name(device));
	srdma_device_unref(&device);
}
