# SPDX-License-Identifier: Apache-2.0
"""What the package for Python promises, on the device: each function is a test, which test_python.py runs in a process of its own.

usage: python_probe.py CERTIFICATES HOST TEST
"""
import array
import contextlib
import errno
import gc
import itertools
import logging
import mmap
import os
import select
import signal
import sys
import tempfile
import threading
import time
import weakref

import securdma

FOLDER, HOST, NAME = sys.argv[1:4]
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
def pair(client=None, accepting=None):
    """Both ends of a connection, in one thread: neither could wait for the other's disconnect."""
    with securdma.Listener(port=0) as listener:
        result = []
        thread = threading.Thread(target=lambda: result.append(
            listener.accept(SERVER, timeout=STEP, timeout_ms=int(STEP * 1000), **(accepting or {}))))
        thread.start()
        conn = connect(listener, **(client or {}))
        thread.join()
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


# ---- data ---------------------------------------------------------------------------------------------------------------


def messages_come_whole_from_and_into_any_memory():
    with pair() as (one, other):
        for data in (b"", b"bytes", bytearray(b"bytearray"), memoryview(b"a memoryview")[2:], array.array("I", [1, 2, 3])):
            one.send(data)
            assert other.recv() == bytes(data)
        one.send(b"longer than it may be")
        small, large = bytearray(5), bytearray(64)
        error = raises(securdma.TooLong, other.recv_into, small)
        assert (error.needed, error.code, error.name) == (21, -errno.EMSGSIZE, "EMSGSIZE")
        assert other.recv_into(memoryview(large)[10:]) == 21 and large[10:31] == b"longer than it may be"
        raises(securdma.TooLong, one.send, bytes(one.info.message_size + 1))
        raises((BufferError, TypeError), other.recv_into, b"read-only", 0)
        raises(TypeError, one.send, "text")
        raises(securdma.WouldBlock, one.disconnect, "that is all", 0)
        assert "that is all" in str(raises(securdma.Closed, other.recv)) and other.info.close_reason == "that is all"


def writes_and_reads_use_the_programs_memory_in_place():
    memories = [bytearray(4096), mmap.mmap(-1, 4096), array.array("B", bytes(4096))]
    with contextlib.suppress(ImportError):
        import numpy
        memories.append(numpy.zeros(512, dtype="u8"))
    with server() as serving, connect(serving) as conn:
        conn.write(b"in one call", 7)
        assert conn.read(11, 7) == b"in one call"
        into = bytearray(b"----------------")
        conn.read_into(memoryview(into)[2:13], 7)
        assert into == b"--in one call---"
        for number, memory in enumerate(memories):
            view = memoryview(memory).cast("B")
            view[:8] = b"%08d" % number
            with conn.buffer(memory) as buffer:
                assert len(buffer) == 4096 and not buffer.readonly and bytes(buffer.data[:8]) == b"%08d" % number
                cookie = object()
                conn.post_write(buffer, 8, offset=100, cookie=cookie)
                conn.post_read(buffer, 8, offset=100, buffer_offset=64, cookie=("a", "tuple"))
                done = []
                while len(done) < 2:
                    done += conn.complete()
                assert done == [cookie, ("a", "tuple")] and view[64:72] == view[:8] == conn.read(8, 100)
                assert conn.complete() == []
        # It cannot go away below the device; afterwards it can.
        buffer = conn.buffer(memories[0])
        raises(BufferError, memories[0].append, 1)
        buffer.close()
        view.release()
        memories[0].append(1)
        constant = conn.buffer(b"a constant")
        conn.post_write(constant, offset=50)
        assert conn.complete() == [None] and conn.read(10, 50) == b"a constant"
        raises(securdma.Denied, conn.post_read, constant)
        raises(securdma.OutOfRange, conn.post_write, constant, 11)
        raises(securdma.OutOfRange, conn.write, b"x", 65536)
        raises(securdma.InvalidArgument, conn.buffer, 0)
        own = conn.buffer(64)
        own.data[:3] = b"own"
        conn.post_write(own, 3)
        assert conn.complete() == [None] and conn.read(3) == b"own"


def region_is_seen_without_a_copy_or_copied():
    with pair(accepting={"region_size": 4096}) as (one, other):
        view = other.region_view()
        assert len(view) == len(other.region) == one.info.peer_region_size == 4096 and not view.readonly
        one.write(b"hello", 4091)
        assert bytes(view[4091:]) == other.region[4091:] == b"hello"
        view[:2], other.region[2:4] = b"ab", b"cd"
        assert one.read(4) == b"abcd" and other.region[0] == b"a"
        raises(ValueError, other.region.__setitem__, slice(0, 2), b"abc")
        assert "no region" in raises(securdma.Error, one.region_view).text
        raises(securdma.Error, len, one.region)
        other.withdraw_region()
        until(lambda: raises(securdma.WouldBlock, one.recv, 0) and one.info.peer_region_size == 0)
        assert raises(securdma.Error, one.write, b"x").code == -errno.ENXIO


def sealed_connection_says_so_and_renews_its_keys():
    with server(conn={"seal": "required"}) as serving:
        with connect(serving, seal=securdma.Seal.REQUIRED, seal_threads=1) as conn:
            assert conn.info.seal and len(conn.seal_bytes()) == 2
            conn.renew()
            until(lambda: (conn.write(b"x"), conn.info.epoch)[1] > 0)
            assert "psn" not in repr(conn.info).replace("epoch_psns", "") and conn.info.psn >= 0
        raises((securdma.Rejected, securdma.ProtocolError), connect, serving, seal="off")


# ---- what the peer says outside of messages -----------------------------------------------------------------------------------


def private_data_is_there_before_the_client_is_accepted():
    asked = []

    def judge(request):
        asked.append(request)
        if (request.private_data or b"").startswith(b"!"):
            raise securdma.Refuse("say please", retry_after_ms=7)
        return b"for you" if (request.private_data or b"").startswith(b"?") else None

    with server(on_admit=judge, conn={"private_data": b"the server's"}) as serving:
        for said, answer in ((None, None), (b"", b"the server's"), (b"x", b"the server's"), (bytes(512), b"the server's"), (b"?", b"for you")):
            with connect(serving, private_data=said) as conn:
                assert conn.peer_private_data == answer, said
        error = raises(securdma.Rejected, connect, serving, private_data=b"!")
        assert (error.reason, error.reject.retry_after_ms, error.reject.text) == (securdma.RejectReason.REFUSED, 7, "say please")
        raises(securdma.InvalidArgument, connect, serving, private_data=bytes(513))
        until(lambda: serving.status.clients == serving.status.pending == 0)
    assert len(asked) == 6 and {request.peer_name for request in asked} == {"client one"}
    for request in asked:
        assert request.peer_pin.startswith("sha256:") and (request.names[0].kind, request.names[0].text) == (securdma.NameKind.CN, "client one")
        assert request.address.startswith(f"{HOST}:")


def control_messages_need_both_ends():
    for client in (True, False):
        with pair({"control_messages": client}, {"control_messages": not client}) as ends:
            for conn in ends:
                raises(securdma.NotSupported, conn.control_send, b"x", 0)
                raises(securdma.NotSupported, conn.control_recv, 0)
                assert conn.peer_private_data is None


def server_answers_control_messages():
    """While messages, and epochs if there are any, go on."""
    def answer(conn, data):
        if data == b"bad":
            raise securdma.Disconnect("a bad control message")
        conn.control_send(data)

    protection = {"seal": os.environ.get("SECURDMA_PROBE_SEAL") or 0, "epoch_ms": int(os.environ.get("SECURDMA_PROBE_EPOCH_MS", "0"))}
    if protection["seal"]:
        protection["seal"] = "required"
    options = {"control_messages": True, **protection}
    raises(securdma.InvalidArgument, server, conn=options)
    with server(on_control=answer, on_message=lambda conn, data: conn.send(data), workers=1, conn=options) as serving:
        with contextlib.closing(connect(serving, **options)) as conn:
            for number in range(300):
                message = b"%064d" % number
                conn.control_send(message)
                conn.send(message)
                assert conn.control_recv() == conn.recv() == message
            conn.control_send(b"bad")
            raises(securdma.Closed, conn.control_recv)
            assert conn.info.close_reason == "a bad control message"
        until(lambda: serving.status.clients == 0)


# ---- servers --------------------------------------------------------------------------------------------------------------


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


# ---- threads, signals, waiting -----------------------------------------------------------------------------------------------


def threads_work_side_by_side_while_others_wait():
    with server(on_message=lambda conn, data: conn.send(data)) as serving:
        idle, ticks, wrong = connect(serving), [], []
        waiting = threading.Thread(target=lambda: raises(securdma.Interrupted, idle.wait, STEP))
        waiting.start()

        def work(number):
            with connect(serving) as conn:
                for turn in range(100):
                    message = b"%d of %d" % (turn, number)
                    conn.send(message)
                    if conn.recv() != message:
                        wrong.append(message)
                ticks.append(number)

        workers = [threading.Thread(target=work, args=(number,)) for number in range(8)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        assert sorted(ticks) == list(range(8)) and not wrong and waiting.is_alive()
        idle.wake()
        waiting.join()
        # One connection in two threads: one waits for the other, as long as it may.
        number = idle.info.client_id
        reader = threading.Thread(target=lambda: raises(securdma.Closed, idle.recv, STEP))
        reader.start()
        until(lambda: idle._user)
        raises(securdma.WouldBlock, idle.send, b"x", 0)
        assert "another thread" in raises(securdma.Timeout, idle.send, b"x", 0.01).text
        closing = threading.Thread(target=idle.close)  # when the other one's call is over
        closing.start()
        serving.kick(number)
        reader.join()
        closing.join()
        assert idle.closed


def signal_is_handled_while_a_call_waits():
    with pair() as (one, other):
        handled = []

        def interrupt(times):
            until(lambda: one._user)
            os.kill(os.getpid(), signal.SIGALRM)
            until(lambda: len(handled) == times)
            other.send(b"after it")

        def interrupted(number, frame):
            handled.append(raises(securdma.Busy, one.close))
            if len(handled) > 1:
                raise KeyboardInterrupt

        signal.signal(signal.SIGALRM, interrupted)
        for turn in range(2):
            thread = threading.Thread(target=interrupt, args=(turn + 1,))
            thread.start()
            if turn == 0:
                assert one.recv(STEP) == b"after it"
                thread.join()
            else:
                raises(KeyboardInterrupt, one.recv, STEP)
                thread.join()
                assert one.recv(STEP) == b"after it"
        began = time.monotonic()
        assert "after 600 ms" in raises(securdma.Timeout, one.recv, 0.6).text and time.monotonic() - began >= 0.55


def selectors_tell_when_a_call_is_worth_repeating():
    with pair() as (one, other):
        for number in range(20):
            raises(securdma.WouldBlock, one.recv, 0)
            other.send(b"%d" % number)
            while True:
                assert select.select([one], [], [], STEP)[0]
                with contextlib.suppress(BlockingIOError):
                    assert one.recv(0) == b"%d" % number
                    break
    listener = securdma.Listener(port=0)
    raises(securdma.WouldBlock, listener.accept_socket, 0)
    raises(securdma.Timeout, listener.accept_socket, 0.01)
    connecting = securdma.Connecting(HOST, listener.port, tls=CLIENT)
    raises(BlockingIOError, connecting.step)
    accepting = securdma.Accepting(listener.accept_socket(STEP), SERVER)
    ends = {}
    while len(ends) < 2:
        for name, step in (("client", connecting.step), ("server", accepting.step)):
            with contextlib.suppress(BlockingIOError):
                ends.setdefault(name, step() if name not in ends else None)
        poll = select.poll()
        for each, events in ((connecting, lambda: select.POLLIN), (accepting, lambda: accepting.events)):
            if not each.closed:
                poll.register(each, events())
        poll.poll(20)
    raises(securdma.Gone, accepting.fileno)
    raises(securdma.Gone, connecting.step)
    ends["client"].send(b"x")
    assert ends["server"].recv() == b"x"
    securdma.disconnect_all([])
    raises(securdma.Busy, securdma.disconnect_all, [ends["client"]] * 2)
    securdma.disconnect_all(list(ends.values()))
    for each in (listener, connecting, accepting, *ends.values()):
        each.close()


# ---- who frees what, and when ----------------------------------------------------------------------------------------------------


def objects_may_go_in_any_order_while_their_memory_is_in_use():
    """In each order of the four, by their last reference or by the collector, with requests under way."""
    with server() as serving:
        for number, order in enumerate(itertools.permutations(("conn", "buffer", "view", "memory"))):
            for collected in [number % 2 == 0]:
                memory = bytearray(b"kept".ljust(4096, b"."))
                conn = connect(serving, region_size=4096)
                buffer, own = conn.buffer(memory), conn.buffer(4096)
                view = memoryview(conn.region_view()[8:16])
                view[:] = b"12345678"
                for number in range(4):
                    conn.post_write(buffer, offset=4096 * number)
                    conn.post_read(own, offset=4096 * number)
                data = own.data[:4]
                conn.post_write(conn.buffer(bytearray(100)), offset=0)  # which nobody else refers to
                holder = {"conn": conn, "buffer": (buffer, own), "view": view, "memory": memory}
                holder["self"] = holder if collected else None
                del conn, buffer, own, memory
                for name in order:
                    del holder[name]
                    gc.collect()
                    assert name == "view" or "view" not in holder or bytes(view) == b"12345678"
                del holder
                gc.collect()
                assert bytes(view) == b"12345678" and len(bytes(data)) == 4
                view[:4] = b"last"
                del view, data
        gc.collect()
        until(lambda: serving.status.clients == 0)


def view_outlives_a_closed_connection():
    with pair(accepting={"region_size": 1 << 20}) as (one, other):
        view = other.region_view()
        own = other.buffer(1 << 20)
        data = own.data
        one.write(b"to keep", 1000)
        for each in other, own, one:
            each.close()
        gc.collect()
        view[:4] = data[:4] = b"also"
        assert bytes(view[1000:1007]) == b"to keep" and bytes(data[:4]) == b"also"
        raises(securdma.Gone, other.region_view)
        raises(securdma.Gone, getattr, own, "data")
        raises(securdma.Gone, other.wake)


ARGUMENTS = {"send": (b"x",), "control_send": (b"x",), "recv_into": (bytearray(8),), "read": (1,), "read_into": (bytearray(1),), "write": (b"x",),
             "buffer": (64,), "kick": (1,), "set_tls": (SERVER,), "from_fd": None, "accept": (SERVER,), "__enter__": None}


def every_use_after_the_close_is_refused():
    """Of each class each method and property, those included that are added one day."""
    with server() as serving:
        conn = connect(serving)
        buffer = conn.buffer(64)
        link = securdma.Link([(HOST, serving.port)], tls=CLIENT)
        tried = 0
        for thing in (conn, buffer, link, securdma.Listener(port=0), securdma.Device(), securdma.Connecting(HOST, serving.port, tls=CLIENT), link.conn, server()):
            if hasattr(thing, "close"):
                thing.close()
                thing.close()
            elif hasattr(thing, "stop"):
                thing.stop()
            harmless = {"closed", "close", "stop", "size", "readonly", "region", "conn"}
            for name in sorted(set(dir(thing)) - harmless):
                arguments = ARGUMENTS.get(name, ())
                if name.startswith("_") or arguments is None or name in vars(thing):
                    continue
                if name in ("post_write", "post_read"):
                    arguments = (securdma.Buffer.__new__(securdma.Buffer),) if thing is buffer else (buffer, 1)
                try:
                    member = getattr(thing, name)
                    result = member(*arguments) if callable(member) else member
                except securdma.Gone:
                    tried += 1
                    continue
                raise AssertionError(f"{thing}.{name} gave {result!r}")
            raises((securdma.Gone, TypeError), lambda thing=thing: len(thing.region) if hasattr(thing, "region") else len(None))
        assert tried > 60, tried


def nothing_leaks():
    def resident():
        gc.collect()
        with open("/proc/self/statm", encoding="ascii") as statm:
            return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    with server(on_message=lambda conn, data: conn.send(data)) as serving, connect(serving, region_size=65536) as conn:
        def everything():
            for _ in range(300):
                conn.buffer(65536).close()
                conn.buffer(bytearray(65536)).data.release()
                conn.region_view().release()
                conn.info, conn.timing, conn.peer_cert(), serving.clients(), serving.metrics(), serving.status  # noqa: B018
                conn.send(bytes(4000))
                conn.recv()
                raises(securdma.WouldBlock, conn.recv, 0)
                securdma.read_certificate(file("ca.crt"))

        everything()
        files, before = len(os.listdir("/proc/self/fd")), resident()
        for _ in range(3):
            everything()
        assert len(os.listdir("/proc/self/fd")) == files
        # 900 rounds. A sanitizer keeps what was freed.
        assert SCALE > 1 or resident() - before < 900 * 2048, resident() - before


def process_that_was_forked_leaves_everything_to_its_parent():
    with server(on_message=lambda conn, data: conn.send(data)) as serving, connect(serving, region_size=64) as conn:
        buffer, view = conn.buffer(bytearray(64)), conn.region_view()
        conn.post_write(buffer)
        child = os.fork()
        if child == 0:
            for use in (lambda: conn.send(b"x"), lambda: conn.info, lambda: buffer.data, lambda: serving.status, lambda: serving.port):
                raises(securdma.Gone, use)
            conn.close()
            del buffer, view
            gc.collect()
            sys.exit(7)  # through the interpreter's end
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
        assert conn.complete() == [None]
        conn.send(b"still here")
        assert conn.recv() == b"still here" and len(view) == 64


# ---- the rest of the library ------------------------------------------------------------------------------------------------------


def errors_are_those_of_python_where_it_has_them():
    listener = securdma.Listener(port=0)
    port = listener.port
    listener.close()
    error = raises(ConnectionRefusedError, securdma.connect, HOST, port, tls=CLIENT)
    assert isinstance(error, securdma.Error) and error.code == -errno.ECONNREFUSED == -error.errno and HOST in error.text
    raises(FileNotFoundError, securdma.TlsClient, ca_file="/nowhere")
    raises(ValueError, securdma.TlsClient, pin="sha256:1")
    raises(securdma.ConfigError, securdma.TlsClient)
    raises(TypeError, securdma.TlsClient, ca_flie="x")
    assert "ca_file" in str(raises(TypeError, securdma.TlsClient, ca_file=7)) and "NUL" in str(raises(ValueError, securdma.TlsClient, ca_file="a\0b"))
    raises(securdma.Error, securdma.Device, name="nonesuch")
    with server() as serving:
        stranger = securdma.TlsClient(ca_file=file("other-ca.crt"))
        raises(securdma.CertificateError, securdma.connect, HOST, serving.port, tls=stranger)
        raises(securdma.InvalidArgument, connect, serving, depth=5000)
        raises(OverflowError, connect, serving, depth=-1)
        raises(KeyError, connect, serving, seal="perhaps")
        with connect(serving, qp={"path_mtu": 256}) as conn:
            assert conn.info.path_mtu == 256
            raises(ValueError, conn.recv, -1)
            raises(TimeoutError, conn.recv, 0.01)
            state, receives, sends = conn.query_qp()
            assert state == securdma.QpState.RTS and receives and sends and conn.peer_region()[2] == 65536 and all(conn.verbs().values())
    assert "WouldBlock -ETIMEDOUT, -EAGAIN: No message came." in securdma.Conn.recv.__doc__
    listed = [port for port in securdma.devices() if port.device == securdma.default_device().name]
    assert listed and listed[0].state == securdma.PortState.ACTIVE


def certificates_are_made_read_and_checked():
    with tempfile.TemporaryDirectory() as folder:
        def path(name):
            return os.path.join(folder, name)

        issuer = {"ca_cert_file": path("ca.crt"), "ca_key_file": path("ca.key"), "days": 1}
        securdma.make_certificate("ca", common_name="from Python", days=1, cert_file=path("ca.crt"), key_file=path("ca.key"))
        for kind, more in (("server", {"names": ["localhost", HOST]}), ("client", {})):
            securdma.make_certificate(kind, common_name="alice", cert_file=path(f"{kind}.crt"), key_file=path(f"{kind}.key"), **issuer, **more)
        raises(FileExistsError, securdma.make_certificate, "ca", common_name="x", days=1, cert_file=path("ca.crt"), key_file=path("ca.key"))
        info = securdma.read_certificate(path("server.crt"))
        assert info.names == f"DNS:localhost, IP:{HOST}" and info.server_auth and not info.is_ca and info.issuer == "CN=from Python"
        fine = securdma.check_certificate("server", path("server.crt"), path("server.key"), path("ca.crt"))
        assert fine and all(one.result != securdma.CheckResult.FAIL for one in fine)
        bad = securdma.check_tls_client(ca_file=path("ca.crt"), cert_file=path("client.crt"), key_file=path("ca.key"))
        assert any(one.result == securdma.CheckResult.FAIL and one.error < 0 and one.text for one in bad)
        tls = securdma.TlsServer(cert_file=path("server.crt"), key_file=path("server.key"), client_ca_file=path("ca.crt"))
        with securdma.Server(tls, port=0) as serving:
            pinned = securdma.TlsClient(pin=info.pin, cert_file=path("client.crt"), key_file=path("client.key"))
            with securdma.connect(HOST, serving.port, tls=pinned) as conn:
                assert conn.peer_cert().info.pin == conn.info.peer_pin == info.pin
        assert securdma.check_server(limits={"max_clients": 3})


def link_tells_of_a_loss_once():
    serving = [server(), server()]
    with securdma.Link([(HOST, one.port) for one in serving], tls=CLIENT, conn={"depth": 4}, pause_min_ms=10) as link:
        assert link.send(b"first") == 1 and link.recv(STEP)[8:] == b"first"
        link.conn.write(b"there")
        buffer = link.conn.buffer(8)
        serving[0].stop()
        error = raises(securdma.Reconnected, link.recv, STEP)
        assert error.loss.sent == 1 and link.info.connections == 2 and link.info.port == str(serving[1].port)
        raises(securdma.InvalidArgument, link.conn.post_write, buffer)
        buffer.close()
        assert link.send(b"second") == 2 and link.recv(STEP)[8:] == b"second" and link.conn.info.depth == 4
        thread = threading.Timer(0.05, link.wake)
        thread.start()
        raises(InterruptedError, link.wait, STEP)
    serving[1].stop()


def log_comes_as_records_of_python():
    records = []
    target = logging.getLogger("a test")
    target.setLevel(logging.DEBUG)
    target.handle = records.append
    securdma.log_to(target, "info")
    raises(RuntimeError, securdma.log_to)
    with server() as serving:
        connect(serving).close()
        until(lambda: serving.status.clients == 0)
    until(lambda: {"client.connected", "client.lost"} <= {record.event for record in records})
    lost = next(record for record in records if record.event == "client.lost")
    assert lost.levelno == logging.WARNING and lost.fields["name"] == "client one" and lost.security is False, vars(lost)


def program_may_end_with_everything_open():
    """Clients, their buffers, and a server in whose handlers threads are."""
    serving = server(on_message=lambda conn, data: (conn.send(data), time.sleep(0.01)))
    conns = [connect(serving) for _ in range(4)]
    for conn in conns:
        conn.send(b"x")
        conn.post_write(conn.buffer(4096), cookie=conn)
    globals()["kept"] = serving, conns
    threading.Thread(target=lambda: conns[0].recv(), daemon=True).start()


if __name__ == "__main__":
    globals()[NAME]()
    print("done")
