#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# rdma_rxe: an IPsec policy for UDP port 4791 does not apply to its packets, which leave in clear; one for all of UDP does.
#
# Guess: rxe's packets are UDP to port 4791, and go through the kernel's IPsec as those of a socket do: a policy for RoCE's port, which is
#        all that one wants to encrypt, encrypts them. A UDP datagram of the shell to that port proves the policy to be good.
# True:  rxe looks up its route, and the IPsec policy with it, before there are ports: the lookup has port 0. A policy that names a port never
#        matches, and without an error the packets leave unencrypted. A policy without ports matches.
# Version: Linux 6.1.176, iproute2 6.1.0 and libibverbs 44.0 of Debian 12.
#
# Output seen:
#   policy 'proto 17 dport 4791': a UDP datagram to port 4791: 0 in clear, 1 in ESP
#   policy 'proto 17 dport 4791': rdma_rxe: 4 in clear, 0 in ESP
#   policy 'proto 17': rdma_rxe: 0 in clear, 4 in ESP
. "$(dirname "$0")/lib/vm.sh"
compile <<'END'
#include "rc.h"
#include "wire.h"

int main(int argc, char **argv)
{
	struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(4791), .sin_addr.s_addr = inet_addr("10.77.0.2")};
	int wire = wire_open("v1");
	unsigned int clear, esp;

	must(argc == 2, "arguments");
	if (strcmp(argv[1], "socket") == 0) {
		sendto(socket(AF_INET, SOCK_DGRAM, 0), "x", 1, 0, (struct sockaddr *)&to, sizeof to);
		usleep(300000);
	} else {
		open_device();
		wire_send();
	}
	wire_count(wire, &clear, &esp);
	printf("%u in clear, %u in ESP\n", clear, esp);
	return 0;
}
END
cat >"$t/job" <<'END'
/bin/ip link set lo up
/bin/ip link add v0 type veth peer name v1 address 02:00:00:00:00:02
/bin/ip addr add 10.77.0.1/24 dev v0
/bin/ip link set v0 up
/bin/ip link set v1 up
/bin/ip neigh add 10.77.0.2 lladdr 02:00:00:00:00:02 dev v0 nud permanent
/bin/rdma link add rxe0 type rxe netdev v0
sleep 2
/bin/ip xfrm state add src 10.77.0.1 dst 10.77.0.2 proto esp spi 0x1001 reqid 1 mode transport aead 'rfc4106(gcm(aes))' \
    0x1111111111111111111111111111111122222222 128
use() {
    /bin/ip xfrm policy flush
    # shellcheck disable=SC2086  # words
    /bin/ip xfrm policy add src 10.77.0.1/32 dst 10.77.0.2/32 $1 dir out tmpl proto esp reqid 1 mode transport
}
use 'proto 17 dport 4791'
echo "policy 'proto 17 dport 4791': a UDP datagram to port 4791: $(/bin/try socket)"
echo "policy 'proto 17 dport 4791': rdma_rxe: $(/bin/try rxe)"
use 'proto 17'
echo "policy 'proto 17': rdma_rxe: $(/bin/try rxe)"
END
boot "crc32_generic veth rdma_rxe ib_uverbs xfrm_user esp4 gcm ctr ghash-generic seqiv drbg" bin/ip bin/rdma tmp/try
told "policy 'proto 17 dport 4791': a UDP datagram to port 4791: 0 in clear, 1 in ESP" \
    "policy 'proto 17 dport 4791': rdma_rxe: [1-9][0-9]* in clear, 0 in ESP" "policy 'proto 17': rdma_rxe: 0 in clear, [1-9][0-9]* in ESP"
