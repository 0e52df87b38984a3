# SPDX-License-Identifier: Apache-2.0
"""Who frees what, and when: no order of Python's own may be wrong."""
import gc
import itertools
import os
import sys

import securdma
from python_rig import CLIENT, HOST, SCALE, SERVER, connect, file, main, pair, raises, server, until


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
             "buffer": (64,), "kick": (1,), "set_tls": (SERVER,), "from_fd": None, "start": None, "accept": (SERVER,), "__enter__": None,
             "withdraw": (1,), "find_region": ("x",), "get_region": (1,), "post": ("write",)}


def every_use_after_the_close_is_refused():
    """Of each class each method and property, those included that are added one day."""
    with server() as serving:
        conn = connect(serving)
        buffer = conn.buffer(64)
        link = securdma.Link([(HOST, serving.port)], tls=CLIENT)
        memory = securdma.Memory(bytearray(8))
        tried = 0
        for thing in (conn, buffer, link, securdma.Listener(port=0), securdma.Device(), securdma.Connecting(HOST, serving.port, tls=CLIENT), link.conn, server(),
                      securdma.Memory(b"x")):
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
                if name in ("offer", "forget", "local_memory"):
                    arguments = (memory,)
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


if __name__ == "__main__":
    main(globals())
