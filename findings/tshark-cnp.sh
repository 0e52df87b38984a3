#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# tshark: the congestion notification of RoCEv2 (CNP, opcode 0x81) is an "Unknown OpCode".
#
# Guess: a dissector that knows RoCEv2 by its port names the one packet that RoCEv2 added to InfiniBand's.
# True:  it has no name for it and leaves the 16 reserved bytes and the ICRC out. The younger opcodes FLUSH and ATOMIC WRITE have
#        names. Filter with infiniband.bth.opcode == 0x81.
# Version: tshark 4.4 of Debian 13; 4.0.17 and 4.6.9 have no name for it either.
#
# Output seen:
#   CNP:          129|Unknown OpCode QP=0x000012|
#   ATOMIC WRITE: 29|RC Atomic Write QP=0x000012|
. "$(dirname "$0")/lib/root.sh"
unpack trixie tshark=4.4.19-0+deb13u1
. "$(dirname "$0")/lib/tshark.sh"
frame cnp 02000000000202000000000108004500003c00004000401126af0a0000010a000002c00012b7002800008140ffff0000001200000000000000000000000000000000000000006fc47aff
frame atomic 02000000000202000000000108004500004400004000401126a70a0000010a000002c00012b7003000001d40ffff0000001280000003000000000000100000000055000000083132333435363738121d62b8
fields="-T fields -E separator=| -e infiniband.bth.opcode -e _ws.col.Info -e infiniband.invariant.crc"
# shellcheck disable=SC2086  # fields are words
{ cnp=$(show cnp $fields) atomic=$(show atomic $fields); }
printf 'CNP:          %s\nATOMIC WRITE: %s\n' "$cnp" "$atomic"
[ "$cnp" = "129|Unknown OpCode QP=0x000012 |" ] && [ "$atomic" = "29|RC Atomic Write QP=0x000012 |0x121d62b8" ]
