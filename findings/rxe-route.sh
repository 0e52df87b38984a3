#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# rdma_rxe: a route to the peer through another network device does not apply to it: it sends through the GID's own.
#
# Guess: rxe's packets are UDP over IP, so routes decide where they go: with a route to the peer through an encrypting device (a second veth pair
#        here), they go there, as a UDP datagram from the same address does.
# True:  rxe binds each lookup to the network device of the GID. If that device has no route to the peer, the kernel takes the peer to be on the
#        link. The packets leave by the first device, whatever the routing table says.
# Version: Linux 6.1.176, iproute2 6.1.0 and libibverbs 44.0 of Debian 12.
#
# Output seen:
#   10.77.0.2 from 10.77.0.1 dev w0 uid 0
#   a UDP datagram from 10.77.0.1 to port 4791: 0 by v0, 1 by w0
#   rdma_rxe: 4 by v0, 0 by w0
. "$(dirname "$0")/lib/vm.sh"
compile <<'END'
#include "rc.h"
#include "wire.h"

int main(int argc, char **argv)
{
	struct sockaddr_in from = {.sin_family = AF_INET, .sin_addr.s_addr = inet_addr("10.77.0.1")};
	struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(4791), .sin_addr.s_addr = inet_addr("10.77.0.2")};
	int first = wire_open("v1"), second = wire_open("w1"), fd = socket(AF_INET, SOCK_DGRAM, 0);
	unsigned int by_first, by_second, esp;

	must(argc == 2, "arguments");
	if (strcmp(argv[1], "socket") == 0) {
		must(!bind(fd, (struct sockaddr *)&from, sizeof from), "bind");
		sendto(fd, "x", 1, 0, (struct sockaddr *)&to, sizeof to);
		usleep(300000);
	} else {
		open_device();
		wire_send();
	}
	wire_count(first, &by_first, &esp);
	wire_count(second, &by_second, &esp);
	printf("%u by v0, %u by w0\n", by_first, by_second);
	return 0;
}
END
cat >"$t/job" <<'END'
/bin/ip link set lo up
for pair in v w; do
    /bin/ip link add "${pair}0" type veth peer name "${pair}1" address 02:00:00:00:00:02
    /bin/ip link set "${pair}0" up
    /bin/ip link set "${pair}1" up
    /bin/ip neigh add 10.77.0.2 lladdr 02:00:00:00:00:02 dev "${pair}0" nud permanent
done
/bin/ip addr add 10.77.0.1/24 dev v0
/bin/ip addr add 10.78.0.1/24 dev w0
/bin/ip route add 10.77.0.2/32 dev w0
/bin/rdma link add rxe0 type rxe netdev v0
sleep 2
/bin/ip route get 10.77.0.2 from 10.77.0.1
echo "a UDP datagram from 10.77.0.1 to port 4791: $(/bin/try socket)"
echo "rdma_rxe: $(/bin/try rxe)"
END
boot "crc32_generic veth rdma_rxe ib_uverbs" bin/ip bin/rdma tmp/try
told '10.77.0.2 from 10.77.0.1 dev w0' 'a UDP datagram from 10.77.0.1 to port 4791: 0 by v0, 1 by w0' 'rdma_rxe: [1-9][0-9]* by v0, 0 by w0'
