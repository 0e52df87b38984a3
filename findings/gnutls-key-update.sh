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
. "$(dirname "$0")/lib/root.sh"
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
