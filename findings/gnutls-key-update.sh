#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# GnuTLS: a peer that updates its TLS 1.3 keys nine times within a second is disconnected, with an "internal error" alert.
#
# Guess: the number of KeyUpdates is without limit, as RFC 8446 sets none and OpenSSL takes any number; or an alert says that the peer did
#        something unexpected.
# True:  GnuTLS lets 8 pass in a second and ends the connection at the 9th with alert 80; its own log says "Too many handshake
#        packets". Spread over more time, any number passes.
# Version: gnutls-bin 3.7.9 and openssl 3.0.20 of Debian 12.
#
# Output seen:
#   16 KeyUpdates, 2 a second: hello comes back 1 times, alert 80: 0
#   9 KeyUpdates, fast:       hello comes back 0 times, alert 80: 1
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

unpack bookworm gnutls-bin=3.7.9-2+deb12u7 openssl=3.0.20-1~deb12u2
in_root() { timeout 120 chroot "$t/root" "$@"; }
in_root gnutls-serv --version | head -n 1
in_root openssl version
in_root openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout /tmp/key -out /tmp/cert -subj /CN=localhost 2>"$t/log"
port=$((20000 + $$ % 10000))
in_root gnutls-serv -q --echo -p "$port" --x509keyfile /tmp/key --x509certfile /tmp/cert >"$t/server" 2>&1 &
server=$!
trap 'kill $server 2>/dev/null; rm -rf "$t"' EXIT
sleep 2
kill -0 $server 2>/dev/null || cannot "gnutls-serv does not start: $(cat "$t/server")"

# updates PAUSE: 16 times s_client's command for KeyUpdate, then a line, which the server sends back
updates() {
    { sleep 2; for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16; do echo k; sleep "$1"; done; sleep 2; echo hello; sleep 2; echo Q; } |
        in_root openssl s_client -connect "127.0.0.1:$port" >"$t/client" 2>&1 || true
    back=$(grep -c '^hello' "$t/client" || true) alert=$(grep -c 'alert number 80' "$t/client" || true)
    sent=$(grep -c '^KEYUPDATE' "$t/client" || true)
    echo "$sent KeyUpdates, $2 hello comes back $back times, alert 80: $alert"
}
updates 0.5 "2 a second:"; slow="$sent $back $alert"
updates 0.05 "fast:      "; fast="$back $alert"
[ "$slow" = "16 1 0" ] && [ "$fast" = "0 1" ]
