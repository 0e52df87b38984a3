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
# shellcheck disable=SC2016  # single quotes keep what apt, awk and the guest expand
set -eu
[ "$(id -u)" -eq 0 ] || exec sudo -n sh "$0"
t=$(mktemp -d)
trap 'rm -rf "$t"' EXIT
cannot() { echo "cannot run here: $*"; exit 77; }

# unpack SUITE PACKAGE[=VERSION]...: Debian's packages, and all that they depend on, into $t/root; nothing is installed.
unpack() {
    archive=$(apt-get indextargets --format '$(ORIGIN) $(LABEL) $(REPO_URI)' 'Created-By: Packages' |
        awk '$1 $2 == "DebianDebian" {print $3; exit}')
    [ -n "$archive" ] || cannot "apt has no Debian archive among its sources"
    mkdir -p "$t/lists/partial" "$t/cache/archives/partial" "$t/parts" "$t/root/dev" "$t/root/tmp"
    for d in bin sbin lib lib64; do mkdir -p "$t/root/usr/$d" && ln -s "usr/$d" "$t/root/$d"; done
    mknod -m 666 "$t/root/dev/null" c 1 3 && mknod -m 666 "$t/root/dev/urandom" c 1 9
    : >"$t/status"
    echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $archive $1 main" >"$t/sources"
    shift
    apt() {
        apt-get -qq -o Dir::State="$t" -o Dir::State::status="$t/status" -o Dir::Cache="$t/cache" \
            -o Dir::Etc::sourcelist="$t/sources" -o Dir::Etc::sourceparts="$t/parts" -o Dir::Etc::preferencesparts="$t/parts" \
            -o APT::Default-Release= -o APT::Install-Recommends=0 -o APT::Sandbox::User=root -o Acquire::Languages=none "$@"
    }
    if ! { apt update && apt -y --download-only install "$@"; } >"$t/log" 2>&1; then
        cannot "no such packages: $* ($(tail -n 1 "$t/log"))"
    fi
    for deb in "$t"/cache/archives/*.deb; do
        dpkg-deb --fsys-tarfile "$deb" |
            tar -x --keep-directory-symlink -C "$t/root" --exclude=./usr/share/doc --exclude=./usr/share/locale
        rm "$deb"
    done
}

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
