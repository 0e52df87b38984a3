#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# tshark: every RoCEv2 packet over IPv6 is an error, "Illegal checksum value (0)".
#
# Guess: the dissector of RoCEv2 knows that its packets carry the UDP checksum 0 (the ICRC protects them), over IPv6 as well.
# True:  the UDP layer judges before it knows what is inside, so each IPv6 packet gets expert information of the severity "error";
#        over IPv4 zero is passed. -o udp.ignore_ipv6_zero_checksum:TRUE silences it, for all UDP.
# Version: tshark 4.0.17 of Debian 12; the same in 4.4.19 and 4.6.9.
#
# Output seen (an acknowledgement from fd00::1 to fd00::2):
#   as it is:        17|Illegal checksum value (0)|8388608
#   with the option: 17||
. "$(dirname "$0")/lib/root.sh"
unpack bookworm tshark=4.0.17-0+deb12u3
. "$(dirname "$0")/lib/tshark.sh"
frame ack 02000000000202000000000186dd60000000001c1140fd000000000000000000000000000001fd000000000000000000000000000002c00012b7001c00001140ffff00000012000000071f000001085263d6
fields="-T fields -E separator=| -e infiniband.bth.opcode -e _ws.expert.message -e _ws.expert.severity"
# shellcheck disable=SC2086  # fields are words
{ plain=$(show ack $fields) option=$(show ack -o udp.ignore_ipv6_zero_checksum:TRUE $fields); }
printf 'as it is:        %s\nwith the option: %s\n' "$plain" "$option"
[ "$plain" = "17|Illegal checksum value (0)|8388608" ] && [ "$option" = "17||" ]
