#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# tshark: the congestion notification of RoCEv2 (CNP, opcode 0x81) is an "Unknown OpCode".
#
# Guess: a dissector that knows RoCEv2 by its port names the one packet that RoCEv2 added to InfiniBand's.
# True:  it has no name for it and leaves the 16 reserved bytes and the ICRC out. The younger opcodes FLUSH and ATOMIC WRITE have
#        names. Filter with infiniband.bth.opcode == 0x81.
# Version: tshark 4.4 of Debian 13; 4.0.17 and 4.6.9 have no name for it either.
#
# Output seen:
#   CNP:          129|Unknown OpCode QP=0x000012|
#   ATOMIC WRITE: 29|RC Atomic Write QP=0x000012|
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

unpack trixie tshark=4.4.19-0+deb13u1
# frame NAME HEX: an Ethernet frame of which a capture, NAME.pcap, is made
frame() {
    echo "$2" | sed 's/../ &/g; s/^/000000/' >"$t/root/tmp/$1.hex"
    chroot "$t/root" text2pcap -q "/tmp/$1.hex" "/tmp/$1.pcap" >"$t/log" 2>&1 || cannot "text2pcap failed: $(cat "$t/log")"
}
# show NAME OPTION...: what tshark says about NAME.pcap
show() { name=$1; shift; chroot "$t/root" tshark -n -r "/tmp/$name.pcap" "$@" 2>/dev/null; }
frame cnp 02000000000202000000000108004500003c00004000401126af0a0000010a000002c00012b7002800008140ffff0000001200000000000000000000000000000000000000006fc47aff
frame atomic 02000000000202000000000108004500004400004000401126a70a0000010a000002c00012b7003000001d40ffff0000001280000003000000000000100000000055000000083132333435363738121d62b8

chroot "$t/root" tshark --version 2>/dev/null | head -n 1
fields="-T fields -E separator=| -e infiniband.bth.opcode -e _ws.col.Info -e infiniband.invariant.crc"
# shellcheck disable=SC2086  # fields are words
{ cnp=$(show cnp $fields) atomic=$(show atomic $fields); }
printf 'CNP:          %s\nATOMIC WRITE: %s\n' "$cnp" "$atomic"
[ "$cnp" = "129|Unknown OpCode QP=0x000012 |" ] && [ "$atomic" = "29|RC Atomic Write QP=0x000012 |0x121d62b8" ]
