#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# rdma_rxe: GID 0 is a link-local IPv6 address even where IPv6 is switched off, and a queue pair cannot use it.
#
# Guess: the GID table mirrors the addresses of the network device: with IPv4 alone, GID 0 is ::ffff:a.b.c.d.
# True:  entry 0 is made from the MAC address whether or not the device has that address (and wherever it has another one). So
#        index 0, the default of many programs, ends in ENETUNREACH at RTR, and the usable one is 1.
# Version: Linux 6.1.176 of Debian 12.
#
# Output seen (the middle of GID 0 follows the random MAC address):
#   IPv6 addresses of d0: 0
#   GID 0: fe80:0000:0000:0000:...
#   GID 1: 0000:0000:0000:0000:0000:ffff:0a4d:0001
#   RTR with GID 0: Network is unreachable
#   RTR with GID 1: done
. "$(dirname "$0")/lib/vm.sh"
compile <<'END'
#include "rc.h"

static void try(int index, const unsigned char *to)
{
	struct end a;
	struct ibv_qp_attr attr = {
		.qp_state = IBV_QPS_RTR, .path_mtu = IBV_MTU_1024, .dest_qp_num = 17, .max_dest_rd_atomic = 1, .min_rnr_timer = 1,
		.ah_attr = {.is_global = 1, .port_num = 1, .grh = {.sgid_index = (unsigned char)index, .hop_limit = 64}},
	};
	int mask = IBV_QP_STATE | IBV_QP_AV | IBV_QP_PATH_MTU | IBV_QP_DEST_QPN | IBV_QP_RQ_PSN | IBV_QP_MAX_DEST_RD_ATOMIC, error;

	memcpy(&attr.ah_attr.grh.dgid, to, 16);
	create(&a, 4);
	to_init(&a);
	error = ibv_modify_qp(a.qp, &attr, mask | IBV_QP_MIN_RNR_TIMER);
	printf("RTR with GID %d: %s\n", index, error ? strerror(error) : "done");
}

int main(void)
{
	open_device();
	try(0, (const unsigned char[16]){0xfe, 0x80, [15] = 9});
	try(1, gid.raw);
	return 0;
}
END
cat >"$t/job" <<'END'
/bin/ip link add d0 type dummy
echo 1 >/proc/sys/net/ipv6/conf/d0/disable_ipv6
/bin/ip addr add 10.77.0.1/24 dev d0
/bin/ip link set d0 up
/bin/rdma link add rxe0 type rxe netdev d0
sleep 1
echo "IPv6 addresses of d0: $(/bin/ip -6 -o addr show dev d0 | wc -l)"
for i in 0 1; do echo "GID $i: $(cat /sys/class/infiniband/rxe0/ports/1/gids/$i)"; done
exec /bin/try
END
boot "crc32_generic dummy rdma_rxe ib_uverbs" bin/ip bin/rdma tmp/try
told 'IPv6 addresses of d0: 0' 'GID 0: fe80:0000:0000:0000:' 'GID 1: 0000:0000:0000:0000:0000:ffff:0a4d:0001' 'RTR with GID 0: Network is unreachable' 'RTR with GID 1: done'
