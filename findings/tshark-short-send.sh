#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# tshark: an RC SEND of fewer than 16 bytes is a "Malformed Packet", and its ICRC is not shown.
#
# Guess: the payload of a SEND is opaque; tshark shows it as data, and the ICRC behind it, whatever its length.
# True:  a heuristic (RPC over RDMA) claims every payload shorter than its own header, fails in it, and so the frame counts as
#        malformed and the ICRC field is missing. From 16 bytes on all is well, and so it is with --disable-protocol rpcordma.
# Version: tshark 4.0.17 of Debian 12; seen in 4.4.19 and 4.6.9 too.
#
# Output seen:
#   12 bytes:                  eth:ethertype:ip:udp:infiniband:rpcordma|Malformed Packet (Exception occurred)|
#   16 bytes:                  eth:ethertype:ip:udp:infiniband:data||0x2f4330b6
#   12 bytes without rpcordma: eth:ethertype:ip:udp:infiniband:data||0xd30f7fc0
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
fields="-T fields -E separator=| -e frame.protocols -e _ws.expert.message -e infiniband.invariant.crc"
frame short 02000000000202000000000108004500003800004000401126b30a0000010a000002c00012b7002400000440ffff000000128000000168656c6c6f20776f726c6421d30f7fc0
frame long 02000000000202000000000108004500003c00004000401126af0a0000010a000002c00012b7002800000440ffff00000012800000016162636465666768696a6b6c6d6e6f702f4330b6

chroot "$t/root" tshark --version 2>/dev/null | head -n 1
# shellcheck disable=SC2086  # fields are words
{ short=$(show short $fields) long=$(show long $fields) without=$(show short --disable-protocol rpcordma $fields); }
printf '12 bytes:                  %s\n16 bytes:                  %s\n12 bytes without rpcordma: %s\n' "$short" "$long" "$without"
[ "$short" = "eth:ethertype:ip:udp:infiniband:rpcordma|Malformed Packet (Exception occurred)|" ] &&
    [ "$long" = "eth:ethertype:ip:udp:infiniband:data||0x2f4330b6" ] &&
    [ "$without" = "eth:ethertype:ip:udp:infiniband:data||0xd30f7fc0" ]
