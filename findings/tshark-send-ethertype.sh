#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# tshark: an RC SEND whose data begin with 0800 0000 is shown as an IP packet between other hosts.
#
# Guess: the payload of a reliable connection is the application's; only unreliable datagrams (IPoIB) carry an EtherType.
# True:  whatever the queue pair's type, a payload that begins with a known EtherType and two zero bytes is taken apart as that
#        protocol, and the inner addresses replace the real ones in the summary. 0x0800 is also 2048, so a message that begins with
#        a length can do this. --disable-heuristic eth_over_ib switches it off.
# Version: tshark 4.0.17 of Debian 12; seen in 4.4.19 and 4.6.9 too.
#
# Output seen (the frame is an RC SEND of 10.0.0.1 to 10.0.0.2, with an intact ICRC):
#   eth:ethertype:ip:udp:infiniband:ethertype:ip|4|192.0.2.1|192.0.2.2
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
frame send 02000000000202000000000108004500004400004000401126a70a0000010a000002c00012b7003000000440ffff000000128000000f08000000450000140000400040000000c0000201c00002023d2cde6c

chroot "$t/root" tshark --version 2>/dev/null | head -n 1
seen=$(show send -T fields -E 'separator=|' -e frame.protocols -e infiniband.bth.opcode -e _ws.col.Source -e _ws.col.Destination)
echo "$seen"
[ "$seen" = "eth:ethertype:ip:udp:infiniband:ethertype:ip|4|192.0.2.1|192.0.2.2" ]
