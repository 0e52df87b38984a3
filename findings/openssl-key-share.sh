#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# OpenSSL 3.5: a list of groups that names X25519MLKEM768 first costs a round trip with every older server.
#
# Guess: setting -groups (SSL_CTX_set1_groups_list) to X25519MLKEM768:X25519:P-256 keeps the default's behaviour, which sends shares
#        of both, and only orders the groups.
# True:  the default marks two groups with "*"; an own list without the mark sends a share of its first group alone, so a server
#        without the hybrid group answers with a HelloRetryRequest. "*X25519MLKEM768:*X25519:P-256" sends both.
# Version: openssl 3.5.9 of Debian 13.
#
# Output seen (the server has X25519 and P-256, as OpenSSL 3.0 does):
#   default:  1 ClientHello, the first one of 1524 bytes
#   plain:    2 ClientHellos, the first one of 1478 bytes
#   with "*": 1 ClientHello, the first one of 1514 bytes
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

unpack trixie openssl=3.5.9-1~deb13u1
in_root() { timeout 60 chroot "$t/root" "$@"; }
in_root openssl version
in_root openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout /tmp/key -out /tmp/cert -subj /CN=localhost 2>"$t/log"
: >"$t/server"
in_root openssl s_server -accept 127.0.0.1:0 -key /tmp/key -cert /tmp/cert -groups X25519:P-256 -www </dev/null >"$t/server" 2>&1 &
server=$!
trap 'kill $server 2>/dev/null; rm -rf "$t"' EXIT
for i in 1 2 3 4 5 6 7 8 9 10; do
    port=$(sed -n 's/^ACCEPT .*:\([0-9]*\)$/\1/p' "$t/server")
    [ -z "$port" ] || break
    sleep "0.$i"
done
[ -n "$port" ] || cannot "the server does not start: $(cat "$t/server")"

# hellos TITLE OPTION...: how many ClientHellos a connection takes
hellos() {
    title=$1; shift
    lengths=$(in_root openssl s_client -connect "127.0.0.1:$port" "$@" -trace </dev/null 2>&1 | sed -n 's/^ *ClientHello, Length=//p')
    count=$(echo "$lengths" | wc -w)
    echo "$title $count ClientHello, the first one of $(echo "$lengths" | head -n 1) bytes" | sed 's/ 2 ClientHello/&s/'
}
hellos 'default: '; default=$count
hellos 'plain:   ' -groups X25519MLKEM768:X25519:P-256; plain=$count
hellos 'with "*":' -groups '*X25519MLKEM768:*X25519:P-256'; starred=$count
[ "$default $plain $starred" = "1 2 1" ]
