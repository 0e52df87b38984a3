#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# tshark: an RC SEND of fewer than 16 bytes is a "Malformed Packet", and its ICRC is not shown.
#
# Guess: the payload of a SEND is opaque; tshark shows it as data, and the ICRC behind it, whatever its length.
# True:  a heuristic (RPC over RDMA) claims every payload shorter than its own header, fails in it, and so the frame counts as
#        malformed and the ICRC field is missing. From 16 bytes on all is well, and so it is with --disable-protocol rpcordma.
# Version: tshark 4.0.17 of Debian 12; seen in 4.4.19 and 4.6.9 too.
#
# Output seen:
#   12 bytes:                  eth:ethertype:ip:udp:infiniband:rpcordma|Malformed Packet (Exception occurred)|
#   16 bytes:                  eth:ethertype:ip:udp:infiniband:data||0x2f4330b6
#   12 bytes without rpcordma: eth:ethertype:ip:udp:infiniband:data||0xd30f7fc0
. "$(dirname "$0")/lib/root.sh"
unpack bookworm tshark=4.0.17-0+deb12u3
. "$(dirname "$0")/lib/tshark.sh"
fields="-T fields -E separator=| -e frame.protocols -e _ws.expert.message -e infiniband.invariant.crc"
frame short 02000000000202000000000108004500003800004000401126b30a0000010a000002c00012b7002400000440ffff000000128000000168656c6c6f20776f726c6421d30f7fc0
frame long 02000000000202000000000108004500003c00004000401126af0a0000010a000002c00012b7002800000440ffff00000012800000016162636465666768696a6b6c6d6e6f702f4330b6
# shellcheck disable=SC2086  # fields are words
{ short=$(show short $fields) long=$(show long $fields) without=$(show short --disable-protocol rpcordma $fields); }
printf '12 bytes:                  %s\n16 bytes:                  %s\n12 bytes without rpcordma: %s\n' "$short" "$long" "$without"
[ "$short" = "eth:ethertype:ip:udp:infiniband:rpcordma|Malformed Packet (Exception occurred)|" ] &&
    [ "$long" = "eth:ethertype:ip:udp:infiniband:data||0x2f4330b6" ] &&
    [ "$without" = "eth:ethertype:ip:udp:infiniband:data||0xd30f7fc0" ]
