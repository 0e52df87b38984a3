# SPDX-License-Identifier: Apache-2.0
"""What the programs python_*.py have in common: each of their functions is a test, which test_python.py runs in a process of its own.

usage of each: python_X.py CERTIFICATES HOST TEST
"""
import contextlib
import os
import sys
import threading
import time

import securdma

FOLDER, HOST = sys.argv[1:3]
SCALE = float(os.environ.get("SECURDMA_TEST_SCALE", "1"))
STEP = 30 * SCALE


def file(name):
    return os.path.join(FOLDER, name)


SERVER = securdma.TlsServer(cert_file=file("server.crt"), key_file=file("server.key"), client_ca_file=file("ca.crt"))
CLIENT = securdma.TlsClient(ca_file=file("ca.crt"), cert_file=file("client.crt"), key_file=file("client.key"))


def server(handlers=None, **options):
    # Most clients here do not answer a disconnect, since they are in no call.
    return securdma.Server(SERVER, handlers=handlers, port=0, drain_timeout_ms=int(300 * SCALE), **options)


def connect(to, **options):
    return securdma.connect(HOST, to.port, tls=CLIENT, timeout_ms=int(STEP * 1000), **options)


@contextlib.contextmanager
def pair(client=None, accepting=None, close=True):
    """Both ends of a connection, in one thread: neither could wait for the other's disconnect."""
    with securdma.Listener(port=0) as listener:
        result = []
        thread = threading.Thread(target=lambda: result.append(
            listener.accept(SERVER, timeout=STEP, timeout_ms=int(STEP * 1000), **(accepting or {}))))
        thread.start()
        conn = connect(listener, **(client or {}))
        thread.join()
    if not close:
        yield conn, result.pop()
        return
    with contextlib.closing(conn), contextlib.closing(result[0]):
        yield conn, result[0]


def raises(kind, function, *arguments, **more):
    try:
        function(*arguments, **more)
    except kind as error:
        return error
    raise AssertionError(f"{function} raised no {kind}")


def until(condition):
    deadline = time.monotonic() + STEP
    while not condition():
        assert time.monotonic() < deadline, "not within the deadline"
        time.sleep(0.005)


def main(tests):
    """The test that the command line names."""
    tests[sys.argv[3]]()
    print("done")
