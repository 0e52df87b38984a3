#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# scapy: contrib.roce neither pads a payload to four bytes nor sets the pad count.
#
# Guess: fields that follow from the payload are filled in when they are not given, as lengths and checksums are everywhere in scapy:
#        5 bytes get 3 bytes of padding and a pad count of 3.
# True:  padcount stays 0, and the ICRC lands on an odd offset: no valid RoCEv2 packet. The caller must do both.
# Version: python3-scapy 2.6.1 of Debian 13; the same in 2.5.0.
#
# Output seen:
#   scapy 2.6.1
#   5 bytes: pad count 0, UDP payload of 21 bytes (valid: 3, 24)
. "$(dirname "$0")/lib/root.sh"
unpack trixie python3-scapy=2.6.1+dfsg-1
cat >"$t/root/tmp/try.py" <<'END'
import sys
from scapy.all import IP, UDP, Raw, conf
from scapy.contrib.roce import BTH
print("scapy", conf.version)
packet = bytes(IP(src="10.0.0.1", dst="10.0.0.2") / UDP(sport=0xc000, dport=4791) / BTH(opcode=4, dqpn=0x12, psn=1) / Raw(b"hello"))
pad, length = packet[29] >> 4 & 3, len(packet) - 28
print("5 bytes: pad count %d, UDP payload of %d bytes (valid: 3, 24)" % (pad, length))
sys.exit(0 if (pad, length) == (0, 21) else 1)
END
chroot "$t/root" /usr/bin/python3 /tmp/try.py
