#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# tshark: every RoCEv2 packet over IPv6 is an error, "Illegal checksum value (0)".
#
# Guess: the dissector of RoCEv2 knows that its packets carry the UDP checksum 0 (the ICRC protects them), over IPv6 as well.
# True:  the UDP layer judges before it knows what is inside, so each IPv6 packet gets expert information of the severity "error";
#        over IPv4 zero is passed. -o udp.ignore_ipv6_zero_checksum:TRUE silences it, for all UDP.
# Version: tshark 4.0.17 of Debian 12; the same in 4.4.19 and 4.6.9.
#
# Output seen (an acknowledgement from fd00::1 to fd00::2):
#   as it is:        17|Illegal checksum value (0)|8388608
#   with the option: 17||
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
frame ack 02000000000202000000000186dd60000000001c1140fd000000000000000000000000000001fd000000000000000000000000000002c00012b7001c00001140ffff00000012000000071f000001085263d6

chroot "$t/root" tshark --version 2>/dev/null | head -n 1
fields="-T fields -E separator=| -e infiniband.bth.opcode -e _ws.expert.message -e _ws.expert.severity"
# shellcheck disable=SC2086  # fields are words
{ plain=$(show ack $fields) option=$(show ack -o udp.ignore_ipv6_zero_checksum:TRUE $fields); }
printf 'as it is:        %s\nwith the option: %s\n' "$plain" "$option"
[ "$plain" = "17|Illegal checksum value (0)|8388608" ] && [ "$option" = "17||" ]
