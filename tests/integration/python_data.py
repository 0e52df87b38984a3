# SPDX-License-Identifier: Apache-2.0
"""Messages, writes and reads, regions, control messages and private data, from and into any memory of Python's."""
import array
import contextlib
import errno
import mmap
import os
import threading

import securdma
from python_rig import HOST, connect, main, pair, raises, server, until


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
        # Without waiting it may not have said a word yet: its last messages come first.
        leaving = threading.Thread(target=one.disconnect, args=("that is all",))
        leaving.start()
        assert "that is all" in str(raises(securdma.Closed, other.recv)) and other.info.close_reason == "that is all"
        leaving.join()


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
    declined = []

    def answer(conn, data):
        if data == b"later" and len(declined) < 3:  # it comes again
            declined.append(conn)
            raise BlockingIOError
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
            conn.control_send(b"later")
            until(lambda: declined)
            answers = []

            def is_answered():
                declined[0].wake()
                with contextlib.suppress(BlockingIOError):
                    answers.append(conn.control_recv(0))
                return answers

            until(is_answered)
            assert answers == [b"later"] and len(declined) == 3
            conn.control_send(b"bad")
            raises(securdma.Closed, conn.control_recv)
            assert conn.info.close_reason == "a bad control message"
        until(lambda: serving.status.clients == 0)


def stream_lends_its_memory():
    """Without a copy in Python: the views are memory of the library's."""
    options = securdma.stream_conn_options(region_size=16384)
    for protection in ({}, {"seal": "required"}):
        with pair({**options, **protection}, {**options, **protection}) as ends:
            one, other = (securdma.Stream(end, buffer_size=8192) for end in ends)
            raises(securdma.InvalidArgument, one.commit, 1)
            raises(securdma.WouldBlock, other.peek, 0)
            raises(securdma.InvalidArgument, other.consume, 1)
            sent, got, total = b"", b"", 100000
            while len(got) < total:
                with contextlib.suppress(BlockingIOError):
                    if len(sent) == total:
                        one.shutdown()
                        one.flush(0)
                    else:
                        part = one.reserve(0)
                        length = min(len(part), 777, total - len(sent))
                        assert not part.readonly and part.itemsize == 1
                        part[:length] = data = bytes((len(sent) + i) % 251 for i in range(length))
                        one.commit(length)
                        sent += data
                with contextlib.suppress(BlockingIOError):
                    seen = other.peek(0)
                    assert seen.readonly and len(seen) > 0
                    raises(TypeError, seen.__setitem__, 0, 1)
                    got += bytes(seen[:500])
                    other.consume(min(len(seen), 500))
            assert got == sent
            raises(securdma.BrokenPipe, one.reserve)
            until(lambda other=other: _is_over(other))
            raises(securdma.InvalidArgument, other.consume, 1)
            one.close()
            other.close()
            raises(securdma.Gone, other.peek)


def _is_over(stream):
    with contextlib.suppress(BlockingIOError):
        return len(stream.peek(0)) == 0
    return False


if __name__ == "__main__":
    main(globals())
