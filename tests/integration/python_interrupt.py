# SPDX-License-Identifier: Apache-2.0
"""Ctrl-C ends every call that waits, in the main thread, long before the call itself would end."""
import contextlib
import os
import select
import signal
import socket
import threading
import time

import securdma
from python_rig import CLIENT, HOST, SCALE, SERVER, STEP, connect, main, pair, server

NAMED = {"named_regions": True, "control_messages": True}
SEALED = {"seal": "required"}
# A quarter of a second, on a machine that has nothing else to do; the calls themselves would take ten seconds or more.
WITHIN = 5 * SCALE


class Interrupted(Exception):
    """Of the signal's handler, as KeyboardInterrupt is."""


def _interrupted(call):
    """Whether the exception comes out of the call in time."""
    raised = []

    def handle(number, frame):
        raised.append(time.monotonic())
        raise Interrupted

    signal.signal(signal.SIGALRM, handle)
    timer = threading.Timer(0.1, lambda: os.kill(os.getpid(), signal.SIGALRM))
    timer.start()
    sent = time.monotonic() + 0.1
    try:
        call()
    except Interrupted:
        took = time.monotonic() - sent
        timer.join()
        assert took < WITHIN, f"{call} went on for {took} s"
        return
    raise AssertionError(f"{call} ended by itself")


def _fill(send):
    while True:
        send()


def _asleep(name, one):
    """The call, on a connection whose peer is in no call."""
    memory = bytearray(64)
    return {
        "conn_recv": lambda: one.recv(),
        "conn_send": lambda: _fill(lambda: one.send(b"x" * 64)),
        "conn_control_send": lambda: _fill(lambda: one.control_send(b"x")),
        "conn_control_recv": lambda: one.control_recv(),
        "conn_wait": lambda: one.wait(),
        "conn_write": lambda: one.write(b"x" * 4096),
        "conn_read": lambda: one.read_into(memory),
        "conn_complete": lambda: (one.post_write(one.buffer(64)), one.complete()),
        "conn_find_region": lambda: one.find_region("none"),
        "conn_wait_regions": lambda: one.wait_regions(),
        "conn_recv_notice": lambda: one.recv_notice(),
        "conn_disconnect": lambda: one.disconnect(),
        "conn_disconnect_all": lambda: securdma.disconnect_all([one]),
    }[name]


CALLS = ("conn_recv", "conn_send", "conn_control_send", "conn_control_recv", "conn_wait", "conn_write", "conn_read", "conn_complete", "conn_find_region",
         "conn_wait_regions", "conn_recv_notice", "conn_disconnect", "conn_disconnect_all")
STREAM_CALLS = ("stream_read", "stream_write", "stream_flush", "stream_wait", "stream_reserve", "stream_peek")
LINK_CALLS = ("link_recv", "link_send", "link_wait", "link_disconnect")
OTHERS = ("conn_connect", "conn_accept", "listener_accept", "link_connect", "link_reconnect", "server_stop")


def calls_on_a_connection():
    for name in CALLS:
        with pair({**NAMED, **SEALED}, {**NAMED, **SEALED, "region_size": 65536}, close=False) as (one, other), contextlib.closing(one), contextlib.closing(other):
            _interrupted(_asleep(name, one))


def calls_on_a_stream():
    for name in STREAM_CALLS:
        options = securdma.stream_conn_options(region_size=4096)
        with pair(options, options) as (one, other):
            stream, peer = securdma.Stream(one, buffer_size=4096), securdma.Stream(other)
            _interrupted({
                "stream_read": lambda: stream.read(),
                "stream_write": lambda: stream.write_all(b"x" * (8 << 20)),
                "stream_flush": lambda: (stream.write(b"x" * 8192, 0.05), stream.flush()),
                "stream_wait": lambda: stream.wait(select.POLLIN),
                "stream_reserve": lambda: _fill(lambda: stream.commit(len(stream.reserve()))),
                "stream_peek": lambda: stream.peek(),
            }[name])
            peer.close()
            stream.close()


def calls_on_a_link():
    silent, busy = threading.Event(), threading.Event()

    def hold(conn, data):
        """The server takes no message, and answers no disconnect, until this ends."""
        busy.set()
        silent.wait(5 * SCALE)

    for name in LINK_CALLS:
        with server(on_message=hold) as serving:
            link = securdma.Link([(HOST, serving.port)], tls=CLIENT)
            with contextlib.closing(link):
                link.send(b"x")
                assert busy.wait(STEP)
                _interrupted({
                    "link_recv": lambda: link.recv(),
                    "link_send": lambda: _fill(lambda: link.send(b"x" * 64)),
                    "link_wait": lambda: link.wait(),
                    "link_disconnect": lambda: link.disconnect(),
                }[name])
            silent.set()
        silent.clear()
        busy.clear()


def calls_for_a_new_connection():
    """The other end takes the TCP connection, and says nothing."""
    with socket.create_server((HOST, 0)) as mute:
        port = mute.getsockname()[1]
        _interrupted(lambda: securdma.connect(HOST, port, tls=CLIENT))
        _interrupted(lambda: securdma.Link([(HOST, port)], tls=CLIENT, connect_ms=60000))
    with securdma.Listener(HOST, 0) as listener:
        _interrupted(listener.accept_socket)
        with socket.create_connection((HOST, listener.port)):
            _interrupted(lambda: securdma.accept(listener.accept_socket(), SERVER))
    serving = server()
    with contextlib.closing(securdma.Link([(HOST, serving.port)], tls=CLIENT)) as link:
        serving.stop()
        _interrupted(link.reconnect)
    slow = securdma.Server(SERVER, port=0, drain_timeout_ms=int(20000 * SCALE))
    with contextlib.closing(connect(slow)):
        _interrupted(slow.stop)


def none_is_missing():
    """Every function of the library that takes a time to wait, and that the package calls, is in one of the tables."""
    here = {*CALLS, *STREAM_CALLS, *LINK_CALLS, *OTHERS}
    with open(os.environ["SECURDMA_TIMED"], encoding="ascii") as names:
        timed = {name.removeprefix("srdma_").removesuffix("_sized") for name in names.read().split()}
    # These return at once: the time is for something that goes on.
    timed -= {"conn_disconnect_start", "link_disconnect_start", "server_drain"}
    assert timed <= here, timed - here


if __name__ == "__main__":
    main(globals())
