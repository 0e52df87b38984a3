# SPDX-License-Identifier: Apache-2.0
"""Event channels of rdma_cm as programs rarely use them: closed by a forked child, closed unseen, moved from one to another, waited
for by threads that are interrupted. By the system's librdmacm. Prints "all as they should be"."""
import ctypes
import errno
import os
import select
import signal
import socket
import struct
import sys
import threading

LIMIT = 20 * float(os.environ.get("UROCE_TEST_SCALE", "1"))
PS_TCP = 0x106
ADDR_RESOLVED, ROUTE_RESOLVED, CONNECT_REQUEST = 0, 2, 4

cm = ctypes.CDLL("librdmacm.so.1", use_errno=True)
libc = ctypes.CDLL(None, use_errno=True)  # with what is preloaded
cm.rdma_create_event_channel.restype = ctypes.c_void_p
cm.rdma_event_str.restype = ctypes.c_char_p


class Event(ctypes.Structure):
    _fields_ = [("id", ctypes.c_void_p), ("listen_id", ctypes.c_void_p), ("event", ctypes.c_int), ("status", ctypes.c_int)]


class Channel:
    def __init__(self):
        self.pointer = cm.rdma_create_event_channel()
        assert self.pointer, os.strerror(ctypes.get_errno())
        self.fd = ctypes.c_int.from_address(self.pointer).value

    def readable(self, seconds=0.0):
        return bool(select.select([self.fd], [], [], seconds)[0])

    def get(self):
        """The kind of the next event, its ID and the listener, acknowledged."""
        event = ctypes.POINTER(Event)()
        if cm.rdma_get_cm_event(ctypes.c_void_p(self.pointer), ctypes.byref(event)) != 0:
            raise OSError(ctypes.get_errno(), "rdma_get_cm_event")
        told = event.contents.event, event.contents.id, event.contents.listen_id
        cm.rdma_ack_cm_event(event)
        return told

    def expect(self, kind):
        assert self.readable(LIMIT), f"no event {kind}"
        told = self.get()
        assert told[0] == kind, told
        return told

    def destroy(self):
        cm.rdma_destroy_event_channel(ctypes.c_void_p(self.pointer))


class ID:
    def __init__(self, channel, pointer=None):
        self.pointer = ctypes.c_void_p(pointer)
        if not pointer:
            assert cm.rdma_create_id(ctypes.c_void_p(channel.pointer), ctypes.byref(self.pointer), None, PS_TCP) == 0

    def call(self, name, *arguments):
        result = getattr(cm, name)(self.pointer, *arguments)
        assert result == 0, f"{name}: {os.strerror(ctypes.get_errno())}"

    def resolve(self, port=9):
        self.call("rdma_resolve_addr", None, address(port), 2000)

    def listen(self):
        self.call("rdma_bind_addr", address(0))
        self.call("rdma_listen", 8)
        cm.rdma_get_src_port.restype = ctypes.c_uint16
        return socket.ntohs(cm.rdma_get_src_port(self.pointer))

    def destroy(self):
        self.call("rdma_destroy_id")


def address(port, host="127.0.0.1"):
    return ctypes.create_string_buffer(struct.pack("=H", socket.AF_INET) + struct.pack("!H4s8x", port, socket.inet_aton(host)), 16)


def any_v6(port):
    return ctypes.create_string_buffer(struct.pack("=H", socket.AF_INET6) + struct.pack("!H24x", port), 28)


def in_child(what):
    pid = os.fork()
    if pid == 0:
        try:
            what()
            status = 0
        except BaseException as error:  # the parent must see it as a status
            print(f"child: {error!r}", file=sys.stderr, flush=True)
            status = 1
        os._exit(status)
    assert os.waitpid(pid, 0)[1] == 0, "the child failed"


def a_child_that_closes_a_channel_leaves_it_to_its_parent():
    channel = Channel()
    first = ID(channel)
    first.resolve()

    def child():
        assert libc.close(channel.fd) == 0
        mine = Channel()  # of the same number
        own = ID(mine)
        own.resolve()
        mine.expect(ADDR_RESOLVED)
        own.destroy()
        mine.destroy()

    in_child(child)
    in_child(lambda: [libc.close(fd) for fd in range(3, 256)])
    assert channel.readable(), "a child has taken the event"
    channel.expect(ADDR_RESOLVED)
    assert not channel.readable()
    first.call("rdma_resolve_route", 2000)
    channel.expect(ROUTE_RESOLVED)
    first.destroy()
    channel.destroy()


def a_number_that_was_closed_unseen_is_another_files():
    channel = Channel()
    ID(channel).resolve()
    ends = os.pipe()
    assert libc.dup2(ends[1], channel.fd) == channel.fd
    assert os.write(channel.fd, b"through") == 7 and os.read(ends[0], 10) == b"through"
    os.close(channel.fd)
    os.close(ends[0])
    os.close(ends[1])
    again = Channel()
    one = ID(again)
    one.resolve()
    again.expect(ADDR_RESOLVED)
    one.destroy()
    again.destroy()


def an_id_may_move_to_the_channel_that_it_has():
    channel = Channel()
    one = ID(channel)
    one.resolve()
    one.call("rdma_migrate_id", ctypes.c_void_p(channel.pointer))
    channel.expect(ADDR_RESOLVED)
    one.destroy()
    channel.destroy()


def requests_move_with_their_listener():
    old, new, other = Channel(), Channel(), Channel()
    listener = ID(old)
    dialler = ID(other)
    dialler.resolve(listener.listen())
    other.expect(ADDR_RESOLVED)
    dialler.call("rdma_resolve_route", 2000)
    other.expect(ROUTE_RESOLVED)
    # A connection's parameters need a queue pair's number alone.
    param = ctypes.create_string_buffer(64)
    struct.pack_into("=I", param, 16, 0x1234)
    dialler.call("rdma_connect", param)
    assert old.readable(LIMIT), "no request"
    listener.call("rdma_migrate_id", ctypes.c_void_p(new.pointer))
    assert not old.readable()
    old.destroy()
    told = new.expect(CONNECT_REQUEST)
    assert told[2] == listener.pointer.value
    ID(new, told[1]).call("rdma_reject", None, 0)
    ID(new, told[1]).destroy()
    listener.destroy()
    new.destroy()
    dialler.destroy()
    other.destroy()


def a_thread_that_waits_goes_on_after_a_signal():
    channel = Channel()
    one = ID(channel)
    hits = []
    signal.signal(signal.SIGALRM, lambda *_: hits.append(1))
    signal.siginterrupt(signal.SIGALRM, False)
    timer = threading.Timer(0.3, one.resolve)
    timer.start()
    signal.setitimer(signal.ITIMER_REAL, 0.05)
    assert channel.get()[0] == ADDR_RESOLVED
    timer.join()
    assert hits, "no signal"
    signal.siginterrupt(signal.SIGALRM, True)
    signal.setitimer(signal.ITIMER_REAL, 0.05)
    try:
        channel.get()
        raise AssertionError("an event, of which there is none")
    except InterruptedError:
        pass
    one.call("rdma_resolve_route", 2000)
    channel.expect(ROUTE_RESOLVED)
    one.destroy()
    channel.destroy()


def many_threads_share_the_events_of_a_channel():
    channel = Channel()
    ids = [ID(channel) for _ in range(40)]
    told = []
    threads = [threading.Thread(target=lambda: [told.append(channel.get()[1]) for _ in range(10)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for one in ids:
        one.resolve()
    for thread in threads:
        thread.join(LIMIT)
        assert not thread.is_alive(), f"{len(told)} events of 40"
    assert sorted(told) == sorted(one.pointer.value for one in ids)
    assert not channel.readable()
    for one in ids:
        one.destroy()
    channel.destroy()


def a_port_is_that_of_each_family():
    """As servers listen that want both apart (RDMA_OPTION_ID_AFONLY), and as those that want all at once."""
    channel = Channel()
    v4, v6, both = ID(channel), ID(channel), ID(channel)
    v4.call("rdma_bind_addr", address(0, "0.0.0.0"))
    cm.rdma_get_src_port.restype = ctypes.c_uint16
    port = socket.ntohs(cm.rdma_get_src_port(v4.pointer))
    assert cm.rdma_bind_addr(both.pointer, any_v6(port)) != 0 and ctypes.get_errno() == errno.EADDRINUSE
    yes = ctypes.c_int(1)
    v6.call("rdma_set_option", 0, 2, ctypes.byref(yes), 4)
    v6.call("rdma_bind_addr", any_v6(port))
    v4.call("rdma_listen", 8)
    v6.call("rdma_listen", 8)
    v4.destroy()
    v6.destroy()
    both.call("rdma_bind_addr", any_v6(port))
    both.destroy()
    channel.destroy()


for case in (a_child_that_closes_a_channel_leaves_it_to_its_parent, a_number_that_was_closed_unseen_is_another_files,
             an_id_may_move_to_the_channel_that_it_has, requests_move_with_their_listener, a_thread_that_waits_goes_on_after_a_signal,
             many_threads_share_the_events_of_a_channel, a_port_is_that_of_each_family):
    print(case.__name__, flush=True)
    case()
print("all as they should be")
