#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# rdma_rxe: it refuses a VLAN device with "Operation not permitted"; the VLAN's addresses are GIDs of the device below.
#
# Guess: a VLAN is a network device like another: make an rxe device on it, as on a bridge or a macvlan; and EPERM means that root's
#        rights are missing.
# True:  rxe takes a bridge, but no VLAN, whoever asks. Make it on the physical device: every VLAN's (and macvlan's) addresses show up
#        in that one's GID table, with the VLAN's name in gid_attrs/ndevs, and the GID index chooses the VLAN.
# Version: Linux 6.1.176 and iproute2 6.1.0 of Debian 12.
#
# Output seen:
#   error: Operation not permitted
#   on a VLAN: exit status 1
#   on a bridge: exit status 0
#   0000:0000:0000:0000:0000:ffff:0a05:0001 of d0.5 is a GID of rxe0
. "$(dirname "$0")/lib/vm.sh"
unpack_kernel
cat >"$t/job" <<'END'
/bin/ip link add d0 type dummy
/bin/ip addr add 10.77.0.1/24 dev d0
/bin/ip link set d0 up
/bin/rdma link add rxe0 type rxe netdev d0
/bin/ip link add link d0 name d0.5 type vlan id 5
/bin/ip addr add 10.5.0.1/24 dev d0.5
/bin/ip link set d0.5 up
/bin/ip link add b0 type bridge
/bin/rdma link add rxe1 type rxe netdev d0.5
echo "on a VLAN: exit status $?"
/bin/rdma link add rxe2 type rxe netdev b0
echo "on a bridge: exit status $?"
sleep 2
cd /sys/class/infiniband/rxe0/ports/1
for i in 0 1 2 3 4 5 6 7; do
    [ "$(cat gid_attrs/ndevs/$i 2>/dev/null)" != d0.5 ] || echo "$(cat gids/$i) of d0.5 is a GID of rxe0"
done | grep ffff
END
boot "crc32_generic dummy 8021q bridge rdma_rxe" bin/ip bin/rdma
told 'on a VLAN: exit status 1$' 'on a bridge: exit status 0$' '0000:0000:0000:0000:0000:ffff:0a05:0001 of d0.5'
