/* SPDX-License-Identifier: Apache-2.0 */
/* The device, and the regions that all trials share. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "status.h"

enum { LOCAL_LENGTH = 1 << 20, AROUND = 65536 };

struct lab lab = {.patience = 10000, .timeout = 18};

void must(bool good, const char *what)
{
	if (good)
		return;
	fflush(stdout);
	fprintf(stderr, "status: %s failed: %m\n", what);
	exit(EXIT_NO_DEVICE);
}

uint64_t address(const void *memory)
{
	return (uint64_t)(uintptr_t)memory;
}

static void open_device(const char *name)
{
	struct ibv_device **list = ibv_get_device_list(NULL);

	must(list != NULL, "ibv_get_device_list");
	for (int i = 0; list[i] && !lab.context; i++)
		if (!name || strcmp(ibv_get_device_name(list[i]), name) == 0)
			lab.context = ibv_open_device(list[i]);
	must(lab.context != NULL, "opening the device");
	ibv_free_device_list(list);
}

static void *map(size_t length)
{
	void *memory = mmap(NULL, length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	must(memory != MAP_FAILED, "mmap");
	return memory;
}

static void register_regions(void)
{
	const int remote = IBV_ACCESS_REMOTE_READ | IBV_ACCESS_REMOTE_WRITE | IBV_ACCESS_REMOTE_ATOMIC;
	const int all = IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_MW_BIND | remote | (int)lab.flush_right;
	const struct {
		bool foreign, far;
		int access;
	} kinds[REGIONS] = {
		[LOCAL] = {false, false, IBV_ACCESS_LOCAL_WRITE},
		[LOCAL_FOREIGN] = {true, false, IBV_ACCESS_LOCAL_WRITE},
		[LOCAL_CONST] = {false, false, 0},
		[FAR] = {false, true, all},
		[FAR_FOREIGN] = {true, true, all},
		[FAR_NO_READ] = {false, true, all & ~IBV_ACCESS_REMOTE_READ},
		[FAR_NO_WRITE] = {false, true, all & ~IBV_ACCESS_REMOTE_WRITE},
		[FAR_NO_ATOMIC] = {false, true, all & ~IBV_ACCESS_REMOTE_ATOMIC},
		[FAR_NO_WINDOW] = {false, true, all & ~IBV_ACCESS_MW_BIND},
		[FAR_CONST] = {false, true, IBV_ACCESS_MW_BIND | IBV_ACCESS_REMOTE_READ},
		[FAR_NO_FLUSH] = {false, true, all & ~(int)lab.flush_right},
	};

	for (int i = 0; i < REGIONS; i++) {
		lab.region[i] = ibv_reg_mr(kinds[i].foreign ? lab.foreign : lab.pd, kinds[i].far ? lab.far : lab.local,
					   kinds[i].far ? FAR_LENGTH : LOCAL_LENGTH, (unsigned)kinds[i].access);
		must(lab.region[i] != NULL, "ibv_reg_mr");
	}
}

void lab_open(const char *device, unsigned gid_index)
{
	struct ibv_port_attr port;

	open_device(device);
	must(!ibv_query_port(lab.context, 1, &port), "ibv_query_port");
	must(!ibv_query_gid(lab.context, 1, (int)gid_index, &lab.gid), "ibv_query_gid");
	must(!fcntl(lab.context->async_fd, F_SETFL, O_NONBLOCK), "making the event descriptor non-blocking");
	lab.gid_index = gid_index;
	lab.mtu = port.active_mtu;
	placement_open();
	lab.pd = ibv_alloc_pd(lab.context);
	lab.foreign = ibv_alloc_pd(lab.context);
	must(lab.pd && lab.foreign, "ibv_alloc_pd");
	lab.local = map(LOCAL_LENGTH);
	lab.far = (uint8_t *)map(FAR_LENGTH + 2 * AROUND) + AROUND;
	register_regions();

	struct ibv_ah_attr attr = {
		.is_global = 1,
		.port_num = 1,
		.grh = {.dgid = lab.gid, .sgid_index = (uint8_t)gid_index, .hop_limit = 64},
	};
	lab.ah = ibv_create_ah(lab.pd, &attr);
	must(lab.ah != NULL, "ibv_create_ah");
}

void lab_close(void)
{
	must(!ibv_destroy_ah(lab.ah), "ibv_destroy_ah");
	for (int i = 0; i < REGIONS; i++)
		must(!ibv_dereg_mr(lab.region[i]), "ibv_dereg_mr");
	must(!ibv_dealloc_pd(lab.pd) && !ibv_dealloc_pd(lab.foreign), "ibv_dealloc_pd");
	must(!ibv_close_device(lab.context), "ibv_close_device");
	munmap(lab.local, LOCAL_LENGTH);
	munmap(lab.far - AROUND, FAR_LENGTH + 2 * AROUND);
}
