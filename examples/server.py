#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""usage: server.py [PORT]   serves until its standard input ends, with ca.crt, server.crt and server.key in the working folder"""
import logging
import sys

import securdma


class Echo(securdma.Handlers):
    def on_connect(self, conn):
        conn.data = conn.info.peer_name.encode()

    def on_message(self, conn, data):
        # Replies 8 bytes about the client, then its message, as the built-in service does. Runs in the client's thread.
        if not data:
            raise securdma.Disconnect("this server does not take empty messages")
        conn.send(b"%-8.8b%b" % (conn.data, data))

    def on_disconnect(self, conn, error):
        print(f"{conn.data.decode()} has gone: {error.text if error else 'in order'}", flush=True)


try:
    logging.basicConfig(level=logging.INFO)
    securdma.log_to()
    tls = securdma.TlsServer(cert_file="server.crt", key_file="server.key", client_ca_file="ca.crt")
    with securdma.Server(tls, handlers=Echo(), port=sys.argv[1] if len(sys.argv) > 1 else securdma.DEFAULT_PORT) as server:
        print(f"listening on port {server.port}", flush=True)
        sys.stdin.read()
except securdma.Error as error:
    sys.exit(f"server: {error.text}")
