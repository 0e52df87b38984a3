#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Connections in the event loop of asyncio: no call waits. Three clients at once send five messages each and print the echoes.

usage: asyncio_client.py HOST PORT   with ca.crt, client.crt and client.key in the working folder
"""
import asyncio
import sys

import securdma


async def readable(file):
    """Waits until the descriptor of a connection, or of a connection attempt, is readable."""
    loop, ready = asyncio.get_running_loop(), asyncio.Event()
    descriptor = file.fileno()
    loop.add_reader(descriptor, ready.set)
    try:
        await ready.wait()
    finally:
        loop.remove_reader(descriptor)


async def without_waiting(file, call, *arguments):
    """Repeats a call with timeout 0 until it need not wait. The descriptor becomes readable when it is worth repeating."""
    while True:
        try:
            return call(*arguments)
        except BlockingIOError:
            await readable(file)


async def client(number, tls):
    connecting = securdma.Connecting(sys.argv[1], sys.argv[2], tls=tls)
    conn = await without_waiting(connecting, connecting.step)
    try:
        for word in range(5):
            await without_waiting(conn, conn.send, b"%d of client %d" % (word, number), 0)
            echo = await without_waiting(conn, conn.recv, 0)
            print(f"echo: {echo[securdma.ECHO_OVERHEAD:].decode()}")
        await without_waiting(conn, conn.disconnect, "done", 0)
    finally:
        conn.close()


async def main():
    tls = securdma.TlsClient(ca_file="ca.crt", cert_file="client.crt", key_file="client.key")
    async with asyncio.timeout(60):
        await asyncio.gather(*(client(number, tls) for number in range(3)))


if len(sys.argv) != 3:
    sys.exit(__doc__)
try:
    asyncio.run(main())
except securdma.Error as problem:
    sys.exit(f"asyncio_client: {problem.text}")
