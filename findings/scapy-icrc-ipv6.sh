#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# scapy: contrib.roce puts 0 in place of the ICRC of a packet over IPv6.
#
# Guess: a BTH without a given icrc gets the right one over both IP versions, as it does over IPv4.
# True:  2.5.0 prints a warning and stores 0, so the receiver drops the packet. 2.6.1 (Debian 13) computes it.
# Version: python3-scapy 2.5.0 of Debian 12.
#
# Output seen:
#   scapy 2.5.0
#   IPv4: stored e653a7ee, right e653a7ee
#   IPv6: stored 00000000, right 0f5a1dbc
. "$(dirname "$0")/lib/root.sh"
unpack bookworm python3-scapy=2.5.0+dfsg-2
cat >"$t/root/tmp/packet.py" <<'END'
import struct, zlib
def crc(ip, udp, ib):
    """The invariant CRC over an IPv4 or IPv6 header, a UDP header, and BTH with payload: what may change on the way counts as ones."""
    ip, udp, ib = bytearray(ip), bytearray(udp), bytearray(ib)
    if ip[0] >> 4 == 6:
        ip[0] |= 0x0f
        ip[1:4] = b"\xff" * 3
        ip[7] = 0xff
    else:
        ip[1] = ip[8] = ip[10] = ip[11] = 0xff
    udp[6] = udp[7] = ib[4] = 0xff
    return struct.pack("<I", zlib.crc32(b"\xff" * 8 + ip + udp + ib))
END
cat >"$t/root/tmp/try.py" <<'END'
import sys
sys.path.insert(0, "/tmp")
from packet import crc
from scapy.all import IP, IPv6, UDP, Raw, conf
from scapy.contrib.roce import BTH
print("scapy", conf.version)
good = []
for name, ip, header in (("IPv4", IP(src="10.0.0.1", dst="10.0.0.2"), 20), ("IPv6", IPv6(src="fd00::1", dst="fd00::2"), 40)):
    packet = bytes(ip / UDP(sport=0xc000, dport=4791) / BTH(opcode=4, dqpn=0x12, psn=1) / Raw(b"abcd"))
    right = crc(packet[:header], packet[header:header + 8], packet[header + 8:-4])
    print("%s: stored %s, right %s" % (name, packet[-4:].hex(), right.hex()))
    good.append(packet[-4:] == right)
    zero = packet[-4:] == bytes(4)
sys.exit(0 if good == [True, False] and zero else 1)
END
chroot "$t/root" /usr/bin/python3 /tmp/try.py 2>/dev/null
