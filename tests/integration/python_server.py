# SPDX-License-Identifier: Apache-2.0
"""Servers with handlers in Python."""
import contextlib
import gc
import logging
import select
import threading
import weakref

import securdma
from python_rig import CLIENT, HOST, SERVER, STEP, connect, file, main, pair, raises, server, until


class Recorder(securdma.Handlers):
    def __init__(self):
        self.calls = []

    def on_connect(self, conn):
        conn.data = []
        self.calls.append("connect")

    def on_message(self, conn, data):
        self.calls.append(data)
        conn.data.append(data)
        if data == b"fail":
            raise LookupError("a secret of the server's")
        if data == b"out":
            raise securdma.Disconnect("out of here: " + "x" * 127)
        conn.send(b" ".join(conn.data))

    def on_disconnect(self, conn, error):
        self.calls.append(type(error).__name__)
        self.last = conn


def exceptions_of_a_handler_end_its_client_alone_and_are_logged():
    records = []
    handler = logging.Handler()
    handler.emit = records.append
    logging.getLogger("securdma").addHandler(handler)
    recorder = Recorder()
    with server(recorder) as serving, connect(serving) as bystander:
        for message, reason in ((b"fail", "the server's program failed: LookupError"), (b"out", ("out of here: " + "x" * 127)[:127])):
            with contextlib.closing(connect(serving)) as conn:
                conn.send(b"one")
                assert conn.recv() == b"one"
                conn.send(message)
                raises(securdma.Closed, conn.recv)
                assert conn.info.close_reason == reason, conn.info.close_reason
        until(lambda: serving.status.clients == 1)
        bystander.send(b"still here")
        assert bystander.recv() == b"still here"
    assert recorder.calls.count("connect") == 3 and recorder.calls[-1] == "NoneType" and recorder.calls.count("Aborted") == 2
    assert [record.exc_info[0] for record in records if record.exc_info] == [LookupError]
    raises(securdma.Gone, recorder.last.send, b"x")
    recorder.last.wake()


def handler_declines_a_message_and_speaks_first():
    opened, held, written = threading.Event(), [], []

    class Speaker(securdma.Handlers):
        def on_connect(self, conn):
            conn.data = 0
            conn.wake()

        def on_wake(self, conn):
            while conn.data < 300:  # more than there is room for: WouldBlock, and it comes again
                conn.send(b"%d" % conn.data, timeout=0)
                conn.data += 1
            if not held:
                held.append(conn)
                conn.post_write(conn.buffer(bytearray(b"from the server")), cookie="written")

        def on_complete(self, conn, cookie):
            conn.send(cookie.encode(), timeout=0)

        def on_message(self, conn, data):
            if not opened.is_set():
                raise BlockingIOError
            conn.send(data)

        def on_disconnect(self, conn, error):
            written.append(conn.region[:5])
            raises(securdma.Busy, serving.stop)

    with server(Speaker(), workers=1) as serving:
        with connect(serving, region_size=64) as conn:
            assert [conn.recv() for _ in range(300)] == [b"%d" % number for number in range(300)]
            assert conn.recv() == b"written" and conn.region[:15] == b"from the server"
            conn.write(b"to it")
            conn.send(b"later")
            raises(securdma.Timeout, conn.recv, 0.05)
            raises(securdma.Busy, held[0].send, b"from another thread")
            opened.set()
            held[0].wake()
            assert conn.recv() == b"later"
        until(lambda: written == [b"to it"])


def server_is_operated_while_it_runs():
    with securdma.Server(SERVER, port="0", address=HOST, limits={"max_clients": 2, "identities": [{"name": "client two", "denied": True}]}) as serving:
        assert serving.addresses == [f"[{HOST}]:{serving.port}" if ":" in HOST else f"{HOST}:{serving.port}"] and serving.fileno() >= 0
        conn = connect(serving)
        until(lambda: [client.peer_name for client in serving.clients()] == ["client one"])
        conn.send(b"hello")
        assert conn.recv()[securdma.ECHO_OVERHEAD:] == b"hello"
        metrics = serving.metrics()
        assert metrics.messages_received == 1 and len(metrics.setup_time) == len(securdma.SetupPhase) and sum(metrics.setup_time[3].counts) == 1
        other = securdma.TlsClient(ca_file=file("ca.crt"), cert_file=file("client2.crt"), key_file=file("client2.key"))
        error = raises(securdma.Rejected, securdma.connect, HOST, serving.port, tls=other)
        assert error.reason == securdma.RejectReason.REFUSED
        serving.set_limits(max_clients=1)
        assert raises(securdma.Rejected, connect, serving).reason == securdma.RejectReason.FULL
        serving.set_tls(SERVER)
        raises(securdma.InvalidArgument, serving.set_tls, CLIENT)
        raises(securdma.NotFound, serving.kick, 4711)
        serving.kick(conn.info.client_id, "kicked")
        raises(securdma.Closed, conn.recv)
        assert conn.info.close_reason == "kicked"
        conn.close()
        serving.drain(60)
        assert select.select([serving], [], [], STEP)[0] and serving.status.drained
        assert serving.stop() == 0
        assert serving.stop() == 0
        raises(securdma.Gone, serving.metrics)


def server_that_is_forgotten_stops_also_in_its_own_handler():
    class Forgetful(Recorder):
        def on_message(self, conn, data):
            self.cycle = None
            gc.collect()
            self.calls.append("collected")

    for forget in "here", "in a handler":
        recorder = Forgetful()
        serving = server(recorder)
        gone, running = weakref.ref(serving), serving._running
        conn = connect(serving)
        if forget == "here":
            del serving
        else:
            recorder.cycle = [serving]
            recorder.cycle.append(recorder.cycle)
            del serving
            conn.send(b"collect")
        raises((securdma.Closed, securdma.Lost), conn.recv)
        assert gone() is None
        until(lambda: running.pointer is None and recorder.calls[-1] != "collected")
        conn.close()


def stream_carries_bytes_both_ways():
    """Of a library that has streams."""
    if not hasattr(securdma, "Stream"):
        return
    data = bytes(range(251)) * 20000
    options = securdma.stream_conn_options(timeout_ms=int(STEP * 1000))

    class Echo(securdma.Handlers):
        def on_connect(self, conn):
            securdma.Stream(conn, buffer_size=65536)
            conn.data = b""

        def on_stream(self, conn, stream):
            for _ in range(64):
                if not conn.data:
                    conn.data = stream.read(16384, timeout=0)
                    if not conn.data:
                        stream.shutdown()
                        return False
                conn.data = conn.data[stream.write(conn.data, timeout=0):]
            return True

        def on_disconnect(self, conn, error):
            self.stream = conn._stream

    handlers = Echo()
    del options["timeout_ms"]
    with server(handlers, conn=options, workers=1) as serving:
        with connect(serving, **options) as conn, securdma.Stream(conn) as stream:
            raises(securdma.WouldBlock, stream.read, 10, 0)
            writer = bytearray()
            view = memoryview(data)
            while len(writer) < len(data):
                with contextlib.suppress(BlockingIOError):
                    if view:
                        view = view[stream.write(view[:100000], timeout=0):]
                        if not view:
                            stream.shutdown()
                with contextlib.suppress(BlockingIOError):
                    writer += stream.read(timeout=0)
                    continue
                select.select([stream], [], [], 0.02)
            assert writer == data and stream.read() == b""
            raises(BrokenPipeError, stream.write, b"x")
            assert stream.info.written == stream.info.read == len(data) and stream.info.peer_shut_down
            raises(securdma.Busy, securdma.Stream, conn)
        until(lambda: hasattr(handlers, "stream"))
        raises(securdma.Gone, handlers.stream.read)
        handlers.stream.close()
    with pair(options, options) as (one, other):
        first, second = securdma.Stream(one), securdma.Stream(other)
        thread = threading.Thread(target=first.write_all, args=(data,))
        thread.start()
        came = bytearray()
        while len(came) < len(data):
            came += second.read(timeout=STEP)
        thread.join()
        assert came == data
        second.abort("no more of this")
        assert "no more of this" in str(raises(ConnectionResetError, lambda: [first.read(timeout=STEP) for _ in range(9)]))
        raises(ConnectionAbortedError, second.read)
        one.close()
        raises(securdma.Gone, lambda: first.info)
        first.close()
        second.close()
        raises(securdma.Gone, second.read)


if __name__ == "__main__":
    main(globals())
