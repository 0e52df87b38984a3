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

unpack bookworm tshark=4.0.17-0+deb12u3
# frame NAME HEX: an Ethernet frame of which a capture, NAME.pcap, is made
frame() {
    echo "$2" | sed 's/../ &/g; s/^/000000/' >"$t/root/tmp/$1.hex"
    chroot "$t/root" text2pcap -q "/tmp/$1.hex" "/tmp/$1.pcap" >"$t/log" 2>&1 || cannot "text2pcap failed: $(cat "$t/log")"
}
# show NAME OPTION...: what tshark says about NAME.pcap
show() { name=$1; shift; chroot "$t/root" tshark -n -r "/tmp/$name.pcap" "$@" 2>/dev/null; }
frame intact 02000000000202000000000108004500004400004000401126a70a0000010a000002c00012b7003000000a40ffff000000128000000a0000000000001000000000550000000831323334353637389e5f138c
frame damaged 02000000000202000000000108004500004400004000401126a70a0000010a000002c00012b7003000000a40ffff000000128000000b00000000000010000000005500000008313233343536373891cf9829

chroot "$t/root" tshark --version 2>/dev/null | head -n 1
fields="-T fields -E separator=| -e infiniband.invariant.crc -e _ws.expert.message -e _ws.col.Info"
# shellcheck disable=SC2086  # fields are words
{ intact=$(show intact $fields) damaged=$(show damaged $fields); }
verdicts=$({ chroot "$t/root" tshark -G fields; chroot "$t/root" tshark -G defaultprefs; } 2>/dev/null | grep -c -E 'infiniband[._a-z]*crc[._](status|bad)|^#infiniband.*(crc|check)' || true)
printf 'intact:  %s\ndamaged: %s\nfields and preferences that would hold a verdict: %s\n' "$intact" "$damaged" "$verdicts"
[ "$intact" = "0x9e5f138c||RC RDMA Write Only QP=0x000012 " ] && [ "$damaged" = "0x91cf9829||RC RDMA Write Only QP=0x000012 " ] && [ "$verdicts" -eq 0 ]
