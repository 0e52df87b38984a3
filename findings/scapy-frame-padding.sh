#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# scapy: a RoCEv2 packet that Ethernet padded to its 60 bytes is rebuilt with a wrong ICRC.
#
# Guess: what follows the IP packet in the frame ("Padding" to scapy) has no part in the ICRC, as it has none in the UDP checksum.
# True:  an empty RC SEND is 58 bytes of Ethernet, so on a wire two zero bytes follow. Dissected, icrc deleted, built again, the ICRC
#        covers these too. Without them it comes out right. So a checker that rebuilds to compare cries wolf for empty SENDs.
# Version: python3-scapy 2.6.1 of Debian 13; the same in 2.5.0.
#
# Output seen:
#   scapy 2.6.1
#   58 bytes: captured 2d9c9606, rebuilt 2d9c9606
#   60 bytes: captured 2d9c9606, rebuilt e9914a98
. "$(dirname "$0")/lib/root.sh"
unpack trixie python3-scapy=2.6.1+dfsg-1
cat >"$t/root/tmp/try.py" <<'END'
import logging, sys
logging.getLogger("scapy.runtime").setLevel(logging.ERROR)
from scapy.all import Ether, conf
from scapy.contrib.roce import BTH
print("scapy", conf.version)
frame = bytes.fromhex("02000000000202000000000108004500002c00004000401126bf0a0000010a000002c00012b7001800000440ffff00000012800000072d9c9606")
seen = []
for captured in (frame, frame + bytes(2)):
    packet = Ether(captured)
    del packet[BTH].icrc
    rebuilt = bytes(packet)
    print("%d bytes: captured %s, rebuilt %s" % (len(captured), captured[54:58].hex(), rebuilt[54:58].hex()))
    seen.append(rebuilt)
sys.exit(0 if seen[0] == frame and seen[1][:58] != frame else 1)
END
chroot "$t/root" /usr/bin/python3 /tmp/try.py
