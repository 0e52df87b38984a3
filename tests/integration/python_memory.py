# SPDX-License-Identifier: Apache-2.0
"""Memory of the program's: regions with names, requests of several pieces, notices, and the end of each."""
import errno
import gc
import itertools
import mmap
import threading

import securdma
from python_rig import STEP, connect, main, pair, raises, server, until

NAMED = {"named_regions": True}
READ, WRITE, ATOMIC = securdma.ACCESS_REMOTE_READ, securdma.ACCESS_REMOTE_WRITE, securdma.ACCESS_REMOTE_ATOMIC


def _ends():
    """Both ends of a connection, which are the caller's alone."""
    with pair(NAMED, NAMED, close=False) as two:
        return two


def _done(conn, other=None):
    """The cookie of one request; `other` is served meanwhile."""
    while True:
        if other is not None:
            raises(securdma.WouldBlock, other.find_region, "none", 0)
        try:
            return conn.complete(1, 0.01 if other is not None else STEP)[0]
        except securdma.Timeout:
            assert other is not None


def regions_are_found_used_and_withdrawn():
    memories = [bytearray(4096), mmap.mmap(-1, 4096)]
    try:
        import numpy
        memories.append(numpy.zeros(512, dtype="u8"))
    except ImportError:
        pass
    with pair(NAMED, NAMED) as (one, other):
        raises(securdma.WouldBlock, one.find_region, "0", 0)
        raises(securdma.Timeout, one.wait_regions, 0, 0.01)
        changes = 0
        for number, place in enumerate(memories):
            view = memoryview(place).cast("B")
            there, here = securdma.Memory(place, READ | WRITE), securdma.Memory(bytearray(b"from several pieces"))
            region = other.offer(there, str(number), offset=96, length=1000)
            raises(securdma.Exists, other.offer, there, str(number))
            found = one.find_region(str(number), STEP)
            assert (found.id, found.name, found.length, found.access) == (region, str(number), 1000, READ | WRITE)
            assert one.regions() == [found] and one.get_region(region) == found
            changes = one.wait_regions(changes, STEP)
            one.post("write", (here, 5, 8), (here, 0, 5), (here, 13), region=found, offset=10, cookie="written")
            assert _done(one) == "written" and bytes(view[106:125]) == b"several from pieces"
            into = bytearray(30)
            one.post(securdma.RequestKind.READ, securdma.Memory(into), region=region, offset=10, cookie=into)
            assert _done(one) is into and into.startswith(b"several from pieces")
            raises(securdma.OutOfRange, one.post, "write", here, region=found, offset=990)
            raises(securdma.OutOfRange, other.offer, there, offset=5000)
            raises(TypeError, one.post, "write", b"bytes", region=found)
            raises(KeyError, one.post, "wipe", here, region=found)
            other.withdraw(region)
            assert one.wait_regions(changes, STEP) == changes + 1 and one.regions() == []
            changes += 1
            for call, arguments in ((one.post, ("write", here)), (one.get_region, ())):
                assert raises(securdma.Error, call, *arguments, region=region).code == -errno.ENXIO
            view.release()
    with pair() as (one, other):
        raises(securdma.NotSupported, other.offer, there)
        raises(securdma.NotSupported, one.post, "write", here)


def memory_that_is_read_only_is_only_read():
    with pair(NAMED, NAMED) as (one, other):
        raises(securdma.Denied, securdma.Memory, b"a constant", WRITE)
        constant = securdma.Memory(b"a constant", READ)
        assert constant.readonly and len(constant) == 10
        other.offer(constant, "constant")
        region, into = one.find_region("constant", STEP), bytearray(10)
        here = securdma.Memory(into)
        raises(securdma.Denied, one.post, "write", here, region=region)
        one.post("read", here, region=region)
        assert _done(one) is None and into == b"a constant"
        raises(securdma.Denied, one.post, "read", constant, region=region)
        raises(securdma.Denied, other.offer, securdma.Memory(bytearray(8)), access=WRITE)
        raises(securdma.InvalidArgument, securdma.Memory, b"")


def notices_come_in_order_with_messages():
    with pair(NAMED, NAMED) as (one, other):
        place = bytearray(64)
        other.offer(securdma.Memory(place, WRITE), "in")
        region = one.find_region("in", STEP)
        one.post("write_notify", securdma.Memory(b"with a notice"), region=region, notice=7, cookie=1)
        one.send(b"a message")
        assert _done(one) == 1
        other.wait(STEP)
        raises(securdma.WrongKind, other.recv, 0)
        notice = other.recv_notice(STEP)
        assert (notice.value, notice.length) == (7, 13) and place.startswith(b"with a notice")
        raises(securdma.WrongKind, other.recv_notice, STEP)
        assert other.recv(STEP) == b"a message"
        raises(securdma.WouldBlock, other.recv_notice, 0)


def atomic_operations_return_what_was_there():
    with pair(NAMED, NAMED) as (one, other):
        words, result = memoryview(bytearray(16)).cast("Q"), memoryview(bytearray(8)).cast("Q")
        other.offer(securdma.Memory(words, ATOMIC), "words")
        region, here = one.find_region("words", STEP), securdma.Memory(result)
        for turn in range(3):
            one.post("fetch_add", here, region=region, offset=8, operand=5)
            assert _done(one, other) is None and result[0] == 5 * turn
        for compare, was, now in ((1, 15, 15), (15, 15, 2**64 - 1)):
            one.post("compare_swap", here, region=region, offset=8, compare=compare, operand=2**64 - 1)
            assert _done(one, other) is None and (result[0], words[1]) == (was, now)
        raises(securdma.InvalidArgument, one.post, "fetch_add", here, region=region, offset=4)


def memory_stays_until_nothing_reaches_it():
    with pair(NAMED, NAMED) as (one, other):
        released, place = [], bytearray(4096)
        there = securdma.Memory(place, READ | WRITE, on_release=lambda: (place.append(1), released.append("there"), 1 // 0))
        other.offer(there, "there")
        region = one.find_region("there", STEP)
        here = bytearray(b"after the close")
        memory = securdma.Memory(here, on_release=lambda: released.append("here"))
        one.post("write", memory, region=region, cookie="written")
        memory.close()
        raises(BufferError, here.append, 1)
        raises(securdma.Gone, one.post, "write", memory, region=region)
        raises(securdma.Gone, one.forget, memory)
        assert _done(one) == "written" and place.startswith(b"after the close")
        raises(securdma.WouldBlock, one.recv, 0)
        until(lambda: raises(securdma.WouldBlock, one.recv, 0) and released == ["here"])
        here.append(1)
        other.forget(there)
        raises(BufferError, place.append, 1)
        assert released == ["here"]
        del there
        gc.collect()
        assert released == ["here", "there"] and len(place) == 4097


def objects_may_go_in_any_order_while_regions_are_used():
    """In each order, by their last reference or by the collector, with requests under way."""
    released, made = [], 0

    def told():
        released.append(threading.get_ident())

    for number, order in enumerate(itertools.permutations(("one", "other", "there", "here"))):
        one, other = _ends()
        there = securdma.Memory(bytearray(4096), READ | WRITE, on_release=told)
        here = securdma.Memory(bytearray(4096), on_release=told)
        other.offer(there, "there")
        region = one.find_region("there", STEP)
        for kind in ("write", "read", "write_notify"):
            one.post(kind, here, region=region)
        one.post("write", securdma.Memory(bytearray(100), on_release=told), region=region)  # which nobody else refers to
        made += 3
        holder = {"one": one, "other": other, "there": there, "here": here}
        holder["self"] = holder if number % 2 else None
        del one, other, there, here
        for name in order:
            del holder[name]
            gc.collect()
        del holder
        gc.collect()
        assert len(released) == made, (order, len(released), made)


def server_offers_and_is_told():
    words, taken, declined = [], [], []

    class Service(securdma.Handlers):
        def on_connect(self, conn):
            conn.data = bytearray(64)
            conn.offer(securdma.Memory(conn.data, READ | WRITE, on_release=lambda: words.append("released")), "served")

        def on_notice(self, conn, notice):
            taken.append(notice.value)
            if len(taken) == 1:
                declined.append(conn)
                raise BlockingIOError  # it comes again
            if notice.value == 13:
                raise securdma.Disconnect("an unlucky number")
            conn.send(bytes(conn.data[:notice.length]))

        def on_regions(self, conn):
            conn.send(b" ".join(region.name.encode() for region in conn.regions()))

        def on_message(self, conn, data):
            """The built-in service of messages is not for this server."""

    with server(Service(), conn=NAMED) as serving, connect(serving, **NAMED) as conn:
        region, own = conn.find_region("served", STEP), securdma.Memory(b"own memory", READ)
        conn.post("write_notify", own, region=region, notice=7)
        until(lambda: declined)
        until(lambda: (declined[0].wake(), len(taken) == 2)[1])
        assert conn.recv() == b"own memory" and _done(conn) is None and taken == [7, 7]
        number = conn.offer(own, "own")
        assert conn.recv() == b"own"
        conn.withdraw(number)
        assert conn.recv() == b""
        conn.post("write_notify", region=region, notice=13)
        raises(securdma.Closed, conn.recv)
        assert conn.info.close_reason == "an unlucky number"
        until(lambda: words == ["released"])


def program_may_end_with_its_memory_in_use():
    one, other = _ends()
    there, here = (securdma.Memory(bytearray(4096), READ | WRITE, on_release=lambda: None) for _ in range(2))
    other.offer(there, "there")
    one.post("write", here, region=one.find_region("there", STEP))
    globals()["kept"] = one, other, there, here


if __name__ == "__main__":
    main(globals())
