#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# rdma_rxe: on a device without ARP (a dummy) a queue pair connects to a peer, and its packets never reach the device.
#
# Guess: rxe's packets are UDP over IP and take the way of all others: what is sent to 10.77.0.9 through a dummy is counted and
#        swallowed there, as a ping is.
# True:  RTR and RTS succeed, the send ends with IBV_WC_RETRY_EXC_ERR, and the device's tx_packets stay at 0, so a capture on the device
#        shows nothing either. A ping to the same address counts 1. Test with a veth pair.
# Version: Linux 6.1.176, iproute2 6.1.0 and libibverbs 44.0 of Debian 12.
#
# Output seen:
#   send to 10.77.0.9: transport retry counter exceeded
#   packets that the device saw: 0
#   and of a ping: 1
. "$(dirname "$0")/lib/vm.sh"
compile <<'END'
#include "rc.h"

int main(void)
{
	struct end a;

	open_device();
	create(&a, 4);
	to_init(&a);
	gid.raw[15] = 9; /* the peer: 10.77.0.9 */
	to_rtr(&a, &a);
	to_rts(&a);
	must(!post_send(&a, IBV_WR_SEND, IBV_SEND_SIGNALED, 8, 0), "post_send");
	printf("send to 10.77.0.9: %s\n", text(next_status(&a, 20000)));
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
seen() { cat /sys/class/net/d0/statistics/tx_packets; }
before=$(seen)
/bin/try
echo "packets that the device saw: $(($(seen) - before))"
before=$(seen)
ping -c 1 -W 1 10.77.0.9 >/dev/null
echo "and of a ping: $(($(seen) - before))"
END
boot "crc32_generic dummy rdma_rxe ib_uverbs" bin/ip bin/rdma tmp/try
told 'send to 10.77.0.9: transport retry counter exceeded' 'packets that the device saw: 0' 'and of a ping: 1'
