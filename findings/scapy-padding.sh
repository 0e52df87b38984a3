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
