/* SPDX-License-Identifier: Apache-2.0 */
#include "own_files.h"

#include <dirent.h>
#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <rdma/rdma_user_cm.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "log.h"
#include "udp.h"

#define CLASS "/sys/class/infiniband"
#define VERBS_CLASS "/sys/class/infiniband_verbs"

enum {
	PATH = DEVICE_FILES_PATH,
	MOST_DEVICES = 1024,
	MISC_MAJOR = 10,
	CHANNEL_MINOR = 58, /* any */
};

/* What is being made. */
struct making {
	const struct device_files *files;
	char folder[PATH / 2];
	bool failed;
};

static void write_text(struct making *making, const char *name, const char *format, ...) __attribute__((format(printf, 3, 4)));

static void write_text(struct making *making, const char *name, const char *format, ...)
{
	char path[PATH], text[256];
	va_list list;

	va_start(list, format);
	vsnprintf(text, sizeof text - 1, format, list);
	va_end(list);
	strcat(text, "\n");
	if (snprintf(path, sizeof path, "%s/%s", making->folder, name) >= (int)sizeof path ||
	    !device_files_write(making->files, path, text))
		making->failed = true;
}

static void write_guid(struct making *making, const char *name, __be64 guid)
{
	uint64_t value = be64toh(guid);
	write_text(making, name, "%04x:%04x:%04x:%04x", (unsigned)(value >> 48), (unsigned)(value >> 32) & 0xffff,
		   (unsigned)(value >> 16) & 0xffff, (unsigned)value & 0xffff);
}

static void write_gid(struct making *making, const struct udp_link *udp, unsigned index)
{
	const uint8_t *raw = udp_gid(udp, index)->raw;
	char name[64], text[64] = "", interface[IF_NAMESIZE];

	for (int i = 0; i < 16; i += 2)
		snprintf(text + strlen(text), sizeof text - strlen(text), "%s%02x%02x", i == 0 ? "" : ":", raw[i], raw[i + 1]);
	snprintf(name, sizeof name, "gids/%u", index);
	write_text(making, name, "%s", text);
	snprintf(name, sizeof name, "gid_attrs/types/%u", index);
	write_text(making, name, "RoCE v2");
	if (if_indextoname(udp_gid_ifindex(udp, index), interface)) {
		snprintf(name, sizeof name, "gid_attrs/ndevs/%u", index);
		write_text(making, name, "%s", interface);
	}
}

static void port_folder(char port[PATH / 2], const struct ibv_device *listed)
{
	snprintf(port, PATH / 2, CLASS "/%s/ports/1", listed->name);
}

/* As ibv_query_port tells. */
static void write_port(struct making *making, const struct udp_link *udp)
{
	write_text(making, "state", "4: ACTIVE");
	write_text(making, "phys_state", "5: LinkUp");
	write_text(making, "link_layer", "Ethernet");
	write_text(making, "rate", "40 Gb/sec (4X QDR)");
	write_text(making, "lid", "0x0");
	write_text(making, "lid_mask_count", "0");
	write_text(making, "sm_lid", "0x0");
	write_text(making, "sm_sl", "0");
	write_text(making, "cap_mask", "0x%08x", (unsigned)IBV_PORT_IP_BASED_GIDS);
	write_text(making, "pkeys/0", "0xffff");
	for (unsigned i = 0; i < udp_gid_count(udp); i++)
		write_gid(making, udp, i);
}

/* Programs look here for the network interface of a device, and for its addresses then. There is no hardware: the rest is not there. */
static void make_interface(struct making *making, const struct udp_link *udp, const struct ibv_device *listed)
{
	char path[PATH], interface[IF_NAMESIZE];

	if (!if_indextoname(udp_gid_ifindex(udp, 0), interface))
		return;
	snprintf(path, sizeof path, CLASS "/%s/device/net/%s", listed->name, interface);
	if (!device_files_folder(making->files, path))
		making->failed = true;
}

static void write_device(struct making *making, const struct ibv_device *listed, __be64 guid)
{
	snprintf(making->folder, sizeof making->folder, CLASS "/%s", listed->name);
	write_text(making, "node_type", "%d: CA", IBV_NODE_CA);
	write_text(making, "node_desc", "%s", listed->name);
	write_text(making, "fw_ver", UROCE_VERSION);
	write_guid(making, "node_guid", guid);
	write_guid(making, "sys_image_guid", guid);
	write_text(making, "uevent", "NAME=%s", listed->name);
}

static void write_verbs(struct making *making, const struct ibv_device *listed, unsigned number)
{
	char path[PATH];

	snprintf(making->folder, sizeof making->folder, VERBS_CLASS);
	write_text(making, "abi_version", "6");
	snprintf(making->folder, sizeof making->folder, VERBS_CLASS "/%s", listed->dev_name);
	write_text(making, "ibdev", "%s", listed->name);
	write_text(making, "abi_version", "1");
	write_text(making, "dev", "%d:%u", UVERBS_MAJOR, UVERBS_MINOR + number);
	write_text(making, "uevent", "MAJOR=%d\nMINOR=%u\nDEVNAME=infiniband/%s", UVERBS_MAJOR, UVERBS_MINOR + number, listed->dev_name);
	snprintf(making->folder, sizeof making->folder, "/sys/class/misc/rdma_cm");
	write_text(making, "abi_version", "%d", RDMA_USER_CM_ABI_VERSION);
	if (!device_files_link(making->files, "/dev/infiniband/rdma_cm", "/dev/null"))
		making->failed = true;
	/* Only the kernel's system administrator may make a device: this leads to one that may be read and written. */
	snprintf(path, sizeof path, "/dev/infiniband/%s", listed->dev_name);
	if (!device_files_link(making->files, path, "/dev/null"))
		making->failed = true;
}

/* The first line of a file of the kernel's; false: there is none. By system calls: the C library's functions are asked about uroce's
 * files too, and would want the device that is being made. */
static bool read_line(const char *path, char *line, size_t size)
{
	int fd = (int)syscall(SYS_openat, AT_FDCWD, path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return false;
	ssize_t length = read(fd, line, size - 1);
	close(fd);
	line[length > 0 ? length : 0] = '\0';
	line[strcspn(line, "\n")] = '\0';
	return true;
}

/* The name of the device that is uverbs`number`; false: there is none. */
static bool find_name(unsigned number, char name[IBV_SYSFS_NAME_MAX])
{
	char path[PATH];

	snprintf(path, sizeof path, VERBS_CLASS "/uverbs%u/ibdev", number);
	return read_line(path, name, IBV_SYSFS_NAME_MAX);
}

void own_files_channel_node(unsigned *major, unsigned *minor)
{
	char line[32];

	if (!read_line("/sys/class/misc/rdma_cm/dev", line, sizeof line) || sscanf(line, "%u:%u", major, minor) != 2) {
		*major = MISC_MAJOR;
		*minor = CHANNEL_MINOR;
	}
}

unsigned own_files_number(const struct ibv_device *listed)
{
	char name[IBV_SYSFS_NAME_MAX];
	unsigned number = 0;

	while (number < MOST_DEVICES && find_name(number, name) && strcmp(name, listed->name) != 0)
		number++;
	return number;
}

void own_files_make(struct device *device, const struct ibv_device *listed, __be64 guid)
{
	struct making making = {.files = &device->files};
	unsigned number = 0;

	device_files_make(&device->files);
	if (device->files.root[0] == '\0')
		return;
	sscanf(listed->dev_name, "uverbs%u", &number);
	write_device(&making, listed, guid);
	make_interface(&making, device->udp, listed);
	write_verbs(&making, listed, number);
	port_folder(making.folder, listed);
	write_port(&making, device->udp);
	if (!making.failed && hw_counters_open(&device->hw_counters, &device->files, making.folder, device->counters))
		return;
	log_write(LOG_INFO, "cannot write files of the device to %s: %s", device->files.root, strerror(errno));
	device_files_remove(&device->files);
}

void own_files_refresh(const struct device *device, const struct ibv_device *listed, const char *path)
{
	char port[PATH / 2];

	port_folder(port, listed);
	hw_counters_refresh(&device->files, port, path, device->counters);
}

void own_files_add_kernel(const struct device *device, const char *folder)
{
	DIR *kernel = opendir(folder);
	struct dirent *entry;

	while (kernel && (entry = readdir(kernel))) {
		char target[PATH];
		if (entry->d_name[0] != '.' && snprintf(target, sizeof target, "%s/%s", folder, entry->d_name) < (int)sizeof target)
			device_files_link(&device->files, target, target);
	}
	if (kernel)
		closedir(kernel);
}

void own_files_remove(struct device *device)
{
	hw_counters_close(&device->hw_counters);
	device_files_remove(&device->files);
}
