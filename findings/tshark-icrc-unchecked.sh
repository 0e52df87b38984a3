#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# tshark: a wrong ICRC is not noticed.
#
# Guess: as with the checksums of IP, UDP and Ethernet there is a preference that verifies the ICRC, and at least an expert warning.
# True:  the ICRC is shown as a number and never computed: no status field, no expert information, no preference. A damaged RoCEv2
#        packet looks the same as an intact one.
# Version: tshark 4.0.17 of Debian 12; the same in 4.4.19.
#
# Output seen (an RDMA WRITE, then the next one with one bit of its ICRC inverted; it should be 0x90cf9829):
#   intact:  0x9e5f138c||RC RDMA Write Only QP=0x000012
#   damaged: 0x91cf9829||RC RDMA Write Only QP=0x000012
#   fields and preferences that would hold a verdict: 0
. "$(dirname "$0")/lib/root.sh"
unpack bookworm tshark=4.0.17-0+deb12u3
. "$(dirname "$0")/lib/tshark.sh"
frame intact 02000000000202000000000108004500004400004000401126a70a0000010a000002c00012b7003000000a40ffff000000128000000a0000000000001000000000550000000831323334353637389e5f138c
frame damaged 02000000000202000000000108004500004400004000401126a70a0000010a000002c00012b7003000000a40ffff000000128000000b00000000000010000000005500000008313233343536373891cf9829
fields="-T fields -E separator=| -e infiniband.invariant.crc -e _ws.expert.message -e _ws.col.Info"
# shellcheck disable=SC2086  # fields are words
{ intact=$(show intact $fields) damaged=$(show damaged $fields); }
verdicts=$({ chroot "$t/root" tshark -G fields; chroot "$t/root" tshark -G defaultprefs; } 2>/dev/null | grep -c -E 'infiniband[._a-z]*crc[._](status|bad)|^#infiniband.*(crc|check)' || true)
printf 'intact:  %s\ndamaged: %s\nfields and preferences that would hold a verdict: %s\n' "$intact" "$damaged" "$verdicts"
[ "$intact" = "0x9e5f138c||RC RDMA Write Only QP=0x000012 " ] && [ "$damaged" = "0x91cf9829||RC RDMA Write Only QP=0x000012 " ] && [ "$verdicts" -eq 0 ]
