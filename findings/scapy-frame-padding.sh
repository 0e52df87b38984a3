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
