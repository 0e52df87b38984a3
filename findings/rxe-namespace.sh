#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# rdma_rxe: a device made in another network namespace is seen in all, connects queue pairs, and sends nothing.
#
# Guess: rxe sits on a network device and so belongs to its namespace: there it works, elsewhere it is not seen.
# True:  in the default mode ("netns shared") it is listed everywhere, ACTIVE, with GIDs that are no address of the others. In its own
#        namespace RTR and RTS succeed, the neighbour answers ARP; then the first send completes with IBV_WC_LOC_QP_OP_ERR, since
#        the packets are routed in the initial namespace.
# Version: Linux 6.1.176, iproute2 6.1.0 and libibverbs 44.0 of Debian 12. Linux 7.2 has one rxe a namespace.
#
# Output seen:
#   netns shared copy-on-fork on
#   outside: link rxe0/1 state ACTIVE physical_state LINK_UP
#   GID 1: 0000:0000:0000:0000:0000:ffff:0a58:0002
#   RTR and RTS done; first send: local QP operation error
. "$(dirname "$0")/lib/vm.sh"
compile <<'END'
#include "rc.h"

int main(void)
{
	struct end a;

	open_device();
	create(&a, 4);
	to_init(&a);
	gid.raw[15] = 1; /* the other end of the veth, 10.88.0.1 */
	to_rtr(&a, &a);
	to_rts(&a);
	must(!post_send(&a, IBV_WR_SEND, IBV_SEND_SIGNALED, 8, 0), "post_send");
	printf("RTR and RTS done; first send: %s\n", text(next_status(&a, 10000)));
	return 0;
}
END
cat >"$t/job" <<'END'
mkdir -p /run
/bin/ip netns add other
/bin/ip link add v0 type veth peer name v1 netns other
/bin/ip addr add 10.88.0.1/24 dev v0
/bin/ip link set v0 up
/bin/ip netns exec other /bin/ip addr add 10.88.0.2/24 dev v1
/bin/ip netns exec other /bin/ip link set v1 up
/bin/ip netns exec other /bin/rdma link add rxe0 type rxe netdev v1
sleep 2
/bin/rdma system show
echo "outside: $(/bin/rdma link show)"
echo "GID 1: $(cat /sys/class/infiniband/rxe0/ports/1/gids/1)"
/bin/ip netns exec other /bin/try
END
boot "crc32_generic veth rdma_rxe ib_uverbs" bin/ip bin/rdma tmp/try
told 'outside: link rxe0/1 state ACTIVE' 'GID 1: 0000:0000:0000:0000:0000:ffff:0a58:0002' 'RTR and RTS done; first send: local QP operation error'
