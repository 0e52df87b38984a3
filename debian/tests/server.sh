# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=sh
# Starts `securdma serve` under uroce, on a free port, with the credentials in the working folder. Sets $port.
start_server() {
    uroce securdma serve --listen 127.0.0.1 --port 0 --cert server.crt --key server.key --client-ca ca.crt >server.out 2>server.err &
    server=$!
    trap 'kill "$server" 2>/dev/null; cat server.out server.err >&2' EXIT
    tries=0
    until port=$(sed -n 's/^listening on 127\.0\.0\.1:\([0-9]*\) .*/\1/p' server.out) && [ -n "$port" ]; do
        tries=$((tries + 1))
        [ $tries -lt 600 ] && kill -0 "$server"
        sleep 0.1
    done
}

# The server must end in order.
stop_server() {
    kill "$server"
    wait "$server"
    trap - EXIT
}
