#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# tshark: an RC SEND whose data begin with 0800 0000 is shown as an IP packet between other hosts.
#
# Guess: the payload of a reliable connection is the application's; only unreliable datagrams (IPoIB) carry an EtherType.
# True:  whatever the queue pair's type, a payload that begins with a known EtherType and two zero bytes is taken apart as that
#        protocol, and the inner addresses replace the real ones in the summary. 0x0800 is also 2048, so a message that begins with
#        a length can do this. --disable-heuristic eth_over_ib switches it off.
# Version: tshark 4.0.17 of Debian 12; seen in 4.4.19 and 4.6.9 too.
#
# Output seen (the frame is an RC SEND of 10.0.0.1 to 10.0.0.2, with an intact ICRC):
#   eth:ethertype:ip:udp:infiniband:ethertype:ip|4|192.0.2.1|192.0.2.2
. "$(dirname "$0")/lib/root.sh"
unpack bookworm tshark=4.0.17-0+deb12u3
. "$(dirname "$0")/lib/tshark.sh"
frame send 02000000000202000000000108004500004400004000401126a70a0000010a000002c00012b7003000000440ffff000000128000000f08000000450000140000400040000000c0000201c00002023d2cde6c
seen=$(show send -T fields -E 'separator=|' -e frame.protocols -e infiniband.bth.opcode -e _ws.col.Source -e _ws.col.Destination)
echo "$seen"
[ "$seen" = "eth:ethertype:ip:udp:infiniband:ethertype:ip|4|192.0.2.1|192.0.2.2" ]
