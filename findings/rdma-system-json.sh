#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# iproute2: "rdma -j system" prints plain text, while "rdma -j dev" and "-j link" print JSON.
#
# Guess: -j holds for all objects of the tool.
# True:  for "system show" the option is taken and ignored: "netns shared copy-on-fork on". Read /sys or parse the words.
# Version: iproute2 6.1.0 of Debian 12.
#
# Output seen:
#   dev:    [{"ifindex":0,"ifname":"rxe0",...
#   system: netns shared copy-on-fork on
. "$(dirname "$0")/lib/vm.sh"
unpack_kernel
cat >"$t/job" <<'END'
/bin/ip link add d0 type dummy
/bin/rdma link add rxe0 type rxe netdev d0
echo "dev:    $(/bin/rdma -j dev show)"
echo "system: $(/bin/rdma -j system show)"
END
boot "crc32_generic dummy rdma_rxe" bin/ip bin/rdma
told 'dev:    \[{"ifindex":0,"ifname":"rxe0"' 'system: netns shared copy-on-fork on'
