/* SPDX-License-Identifier: Apache-2.0 */
/* Attributes of the device and its port. */
#include <errno.h>
#include <string.h>

#include "newer.h"
#include "own_device.h"
#include "udp.h"
#include "verbs.h"

enum {
	/* No organisation's number, as other devices made of software say it. */
	VENDOR_NONE = 0xffffff,
	/* 4.096 us * 2^10: the device's thread, when it is needed, looks every millisecond. */
	ACK_DELAY = 10,
	/* There is no such speed here, but programs plan by one: loopback of a small machine reaches 4 lanes of 10 Gb/s. */
	WIDTH_4X = 2,
	SPEED_10G = 4,
	PHYSICAL_LINK_UP = 5,
	ONE_LANE_OF_PRIORITY = 1, /* max_vl_num: VL0 */
	CORE_CLOCK_KHZ = 1000000, /* time stamps are nanoseconds */
};

#define CAPABILITIES \
	(IBV_DEVICE_BAD_PKEY_CNTR | IBV_DEVICE_BAD_QKEY_CNTR | IBV_DEVICE_CURR_QP_STATE_MOD | \
	 IBV_DEVICE_SYS_IMAGE_GUID | IBV_DEVICE_RC_RNR_NAK_GEN | IBV_DEVICE_SRQ_RESIZE | IBV_DEVICE_MEM_WINDOW | \
	 IBV_DEVICE_MEM_WINDOW_TYPE_2B | IBV_DEVICE_MEM_MGT_EXTENSIONS)

/* Nothing is pinned, so that every operation may be of memory that comes and goes. */
#define ODP_BOTH (IBV_ODP_SUPPORT_SEND | IBV_ODP_SUPPORT_RECV)
#define ODP_RC \
	(ODP_BOTH | IBV_ODP_SUPPORT_WRITE | IBV_ODP_SUPPORT_READ | IBV_ODP_SUPPORT_ATOMIC | IBV_ODP_SUPPORT_SRQ_RECV | \
	 ODP_FLUSH | ODP_ATOMIC_WRITE)
#define ODP_CAPS \
	{ \
		.general_caps = IBV_ODP_SUPPORT | IBV_ODP_SUPPORT_IMPLICIT, \
		.per_transport_caps = { \
			.rc_odp_caps = ODP_RC, \
			.uc_odp_caps = ODP_BOTH | IBV_ODP_SUPPORT_WRITE, \
			.ud_odp_caps = ODP_BOTH | IBV_ODP_SUPPORT_SRQ_RECV, \
		}, \
	}

static void fill_device(struct ibv_device_attr *attr)
{
	*attr = (struct ibv_device_attr){
		.fw_ver = UROCE_VERSION,
		.node_guid = own_device_guid(),
		.sys_image_guid = own_device_guid(),
		.max_mr_size = UINT64_MAX,
		.page_size_cap = UINT64_MAX << 12,
		.vendor_id = VENDOR_NONE,
		.max_qp = MAX_QP,
		.max_qp_wr = MAX_QP_WR,
		.device_cap_flags = CAPABILITIES,
		.max_sge = MAX_SGE,
		.max_sge_rd = MAX_SGE,
		.max_cq = MAX_CQ,
		.max_cqe = MAX_CQE,
		.max_mr = MAX_MR,
		.max_pd = MAX_PD,
		.max_qp_rd_atom = MAX_RD_ATOMIC,
		.max_res_rd_atom = MAX_RD_ATOMIC * MAX_QP,
		.max_qp_init_rd_atom = MAX_RD_ATOMIC,
		/* Atomic among queue pairs of this process. Not GLOB: two processes may register the same
		 * shared memory, each with a device of its own, and the application's own accesses do not ask the
		 * device's lock. */
		.atomic_cap = IBV_ATOMIC_HCA,
		.max_mw = MAX_MW,
		.max_mcast_grp = MAX_MULTICAST_GROUPS,
		.max_mcast_qp_attach = MAX_MULTICAST_QPS,
		.max_total_mcast_qp_attach = MAX_MULTICAST_GROUPS * MAX_MULTICAST_QPS,
		.max_ah = MAX_AH,
		.max_srq = MAX_SRQ,
		.max_srq_wr = MAX_SRQ_WR,
		.max_srq_sge = MAX_SGE,
		.max_pkeys = 1,
		.local_ca_ack_delay = ACK_DELAY,
		.phys_port_cnt = 1,
	};
}

/* As much of `known` as fits, and zeros for fields that only a newer program knows. */
static void give(void *to, size_t room, const void *known, size_t size)
{
	memset(to, 0, room);
	memcpy(to, known, room < size ? room : size);
}

int context_query_device_ex(struct ibv_context *context, const struct ibv_query_device_ex_input *input,
			    struct ibv_device_attr_ex *attr, size_t size)
{
	struct ibv_device_attr_ex known = {
		.completion_timestamp_mask = UINT64_MAX,
		.hca_core_clock = CORE_CLOCK_KHZ,
		.device_cap_flags_ex = CAPABILITIES | DEVICE_FLUSH_GLOBAL | DEVICE_ATOMIC_WRITE,
		.phys_port_cnt_ex = 1,
		.odp_caps = ODP_CAPS,
	};

	(void)context;
	if ((input && input->comp_mask != 0) || size < sizeof attr->orig_attr) {
		errno = EINVAL;
		return EINVAL;
	}
	fill_device(&known.orig_attr);
	give(attr, size, &known, sizeof known);
	return 0;
}

static uint32_t count_of(const _Atomic uint64_t *counter)
{
	uint64_t count = atomic_load_explicit(counter, memory_order_relaxed);
	return count > UINT32_MAX ? UINT32_MAX : (uint32_t)count;
}

int context_query_port(struct ibv_context *context, uint8_t port, struct ibv_port_attr *attr, size_t size)
{
	const struct device *device = context_of(context)->device;
	if (port != 1) {
		errno = EINVAL;
		return EINVAL;
	}

	struct ibv_port_attr known = {
		.state = IBV_PORT_ACTIVE,
		.max_mtu = IBV_MTU_4096,
		.active_mtu = device->mtu,
		.port_cap_flags = IBV_PORT_IP_BASED_GIDS,
		.max_msg_sz = MAX_MESSAGE,
		.bad_pkey_cntr = count_of(&device->counters->drop_pkey),
		.qkey_viol_cntr = count_of(&device->counters->drop_qkey),
		.pkey_tbl_len = 1,
		.max_vl_num = ONE_LANE_OF_PRIORITY,
		.active_width = WIDTH_4X,
		.active_speed = SPEED_10G,
		.phys_state = PHYSICAL_LINK_UP,
		.link_layer = IBV_LINK_LAYER_ETHERNET,
		.flags = IBV_QPF_GRH_REQUIRED,
	};
	/* A device that a forked child has inherited is not connected to anything. */
	if (device->udp) {
		known.gid_tbl_len = (int)udp_gid_count(device->udp);
	} else {
		known.state = IBV_PORT_DOWN;
		known.phys_state = 0;
	}
	give(attr, size, &known, sizeof known);
	return 0;
}

int context_query_gid(struct ibv_context *context, uint32_t port, uint32_t index, struct ibv_gid_entry *entry)
{
	const struct udp_link *udp = context_of(context)->device->udp;
	if (port != 1 || !udp || index >= udp_gid_count(udp)) {
		errno = EINVAL;
		return EINVAL;
	}
	*entry = (struct ibv_gid_entry){
		.gid = *udp_gid(udp, index),
		.gid_index = index,
		.port_num = port,
		.gid_type = IBV_GID_TYPE_ROCE_V2,
		.ndev_ifindex = udp_gid_ifindex(udp, index),
	};
	return 0;
}
