# SPDX-License-Identifier: Apache-2.0
"""Event channels of rdma_cm as programs rarely use them: closed by a forked child, closed unseen, moved from one to another, waited
for by threads that are interrupted. Prints "all as they should be"."""
import ctypes
import os
import signal
import sys
import threading

from librdmacm import ADDR_RESOLVED, CONNECT_REQUEST, ID, LIMIT, ROUTE_RESOLVED, Channel, libc


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
    dialler.dial(other, listener.listen())
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


for case in (a_child_that_closes_a_channel_leaves_it_to_its_parent, a_number_that_was_closed_unseen_is_another_files,
             an_id_may_move_to_the_channel_that_it_has, requests_move_with_their_listener, a_thread_that_waits_goes_on_after_a_signal,
             many_threads_share_the_events_of_a_channel):
    print(case.__name__, flush=True)
    case()
print("all as they should be")
