#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""usage: client.py [HOST [PORT]]   with ca.crt, client.crt and client.key in the working folder"""
import sys

import securdma

host, port = (sys.argv[1:] + ["localhost", securdma.DEFAULT_PORT][len(sys.argv) - 1:])[:2]
try:
    tls = securdma.TlsClient(ca_file="ca.crt", cert_file="client.crt", key_file="client.key")
    with securdma.connect(host, port, tls=tls) as conn:
        conn.send(b"hello")  # a message
        reply = conn.recv()  # id and echo
        conn.write(b"world")  # RDMA write to our region of the server
        region = conn.read(5)  # RDMA read
except securdma.Error as error:
    sys.exit(f"client: {error.text}")
print(f"echo: {reply[securdma.ECHO_OVERHEAD:].decode()}, region: {region.decode()}")
