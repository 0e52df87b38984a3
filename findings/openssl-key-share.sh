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
. "$(dirname "$0")/lib/root.sh"
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
