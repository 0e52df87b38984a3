# SPDX-License-Identifier: Apache-2.0
"""Connections of rdma_cm whose other end goes away, listeners that come back, and programs that have many IDs or few descriptors.
Prints "all as they should be"."""
import ctypes
import errno
import os
import resource
import select
import signal
import sys
import threading

from librdmacm import (ADDR_RESOLVED, CONNECT_REQUEST, CONNECT_RESPONSE, DISCONNECTED, ESTABLISHED, LIMIT, REJECTED, Channel, ID, cm, parameters)


class Other:
    """Another process, which does something, tells of it line by line, and then waits."""

    def __init__(self, what, *arguments):
        reading, writing = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            try:
                what(lambda text: os.write(writing, f"{text}\n".encode()), *arguments)
                signal.pause()
            except BaseException as error:  # the parent must see it as a status
                print(f"other process: {error!r}", file=sys.stderr, flush=True)
            os._exit(1)
        os.close(writing)
        self.told = open(reading, encoding="ascii")

    def line(self):
        text = self.told.readline().strip()
        assert text, "the other process has failed"
        return text

    def kill(self):
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        self.told.close()


def serve(tell, accepts, ends=None):
    """One connection; `ends`: how the process ends once it is asked to, by a connection."""
    channel = Channel()
    tell(ID(channel).listen())
    request = ID(channel, channel.expect(CONNECT_REQUEST)[1])
    if accepts:
        request.call("rdma_accept", parameters())
    tell("asked")
    if ends:
        channel.expect(ESTABLISHED)
        ends()


def dial(tell, port, confirms):
    channel = Channel()
    one = ID(channel)
    one.dial(channel, port)
    tell("asks")
    channel.expect(CONNECT_RESPONSE)
    if confirms:
        one.call("rdma_establish")
    tell("answered")


def a_killed_server_is_told_in_each_state():
    for accepts, confirms, told in ((False, False, REJECTED), (True, False, REJECTED), (True, True, DISCONNECTED)):
        other = Other(serve, accepts)
        channel = Channel()
        one = ID(channel)
        one.dial(channel, int(other.line()))
        other.line()
        if accepts:
            channel.expect(CONNECT_RESPONSE)
        if confirms:
            one.call("rdma_establish")
        other.kill()
        channel.expect(told)
        one.destroy()
        channel.destroy()


def a_killed_client_is_told_in_each_state():
    for confirms, told in ((False, REJECTED), (True, DISCONNECTED)):
        channel = Channel()
        listener = ID(channel)
        other = Other(dial, listener.listen(), confirms)
        request = ID(channel, channel.expect(CONNECT_REQUEST)[1])
        request.call("rdma_accept", parameters())
        assert [other.line(), other.line()] == ["asks", "answered"]
        if confirms:
            channel.expect(ESTABLISHED)
        other.kill()
        channel.expect(told)
        request.destroy()
        listener.destroy()
        channel.destroy()


def a_program_that_ends_says_so():
    for ends in (lambda: os._exit(0), lambda: ctypes.CDLL(None).exit(0), lambda: os.execv("/bin/sleep", ["sleep", "60"])):
        other = Other(serve, True, ends)
        channel = Channel()
        one = ID(channel)
        one.dial(channel, int(other.line()))
        channel.expect(CONNECT_RESPONSE)
        one.call("rdma_establish")
        channel.expect(DISCONNECTED)
        one.destroy()
        channel.destroy()
        other.kill()


def the_port_of_a_killed_listener_is_free_at_once():
    port = 0
    for _ in range(5):
        other = Other(lambda tell, wanted: tell(ID(Channel()).listen(wanted)), port)
        port = int(other.line())
        other.kill()
    channel = Channel()
    one = ID(channel)
    assert one.listen(port) == port
    one.destroy()
    channel.destroy()


def a_backlog_is_of_requests_that_the_program_has_not_seen():
    served, channels = Channel(), [Channel() for _ in range(6)]
    listener = ID(served)
    port = listener.listen(backlog=2)
    ids, requests = [ID(channel) for channel in channels], []
    for one, channel in zip(ids[:5], channels):
        one.dial(channel, port)
        requests.append(ID(served, served.expect(CONNECT_REQUEST)[1]))
    for request, channel, one in zip(requests, channels, ids):
        request.call("rdma_accept", parameters())
        channel.expect(CONNECT_RESPONSE)
        one.call("rdma_establish")
        served.expect(ESTABLISHED)
    more = [ID(channel) for channel in channels[:3]]
    for one, channel in zip(more, channels):
        one.dial(channel, port)
    channels[2].expect(REJECTED)
    for one in [*ids, *more, *requests, listener]:
        one.destroy()
    for channel in [*channels, served]:
        channel.destroy()


def a_channel_has_a_thousand_ids():
    channel = Channel()
    ids = [ID(channel) for _ in range(1000)]
    for one in ids:
        one.resolve()
    told = {channel.expect(ADDR_RESOLVED)[1] for _ in ids}
    assert told == {one.pointer.value for one in ids} and not channel.readable()
    for one in ids:
        one.destroy()
    channel.destroy()


def few_descriptors_are_an_error_that_passes():
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    used = len(os.listdir("/proc/self/fd"))
    resource.setrlimit(resource.RLIMIT_NOFILE, (used + 20, hard))
    channels = []
    try:
        while len(channels) < 20:
            channels.append(Channel())
        raise AssertionError("20 channels in 20 descriptors")
    except OSError as error:
        assert error.errno == errno.EMFILE, error
    listener = ID(channels[0])
    try:
        listener.listen()
        full = False
    except AssertionError:
        full = True
    for channel in channels[1:]:
        channel.destroy()
    if full:
        listener.listen()
    again = Channel()
    one = ID(again)
    one.resolve()
    again.expect(ADDR_RESOLVED)
    one.destroy()
    listener.destroy()
    again.destroy()
    channels[0].destroy()
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert len(os.listdir("/proc/self/fd")) == used


def a_channel_that_does_not_block_is_polled():
    channel = Channel()
    os.set_blocking(channel.fd, False)
    poll = select.epoll()
    poll.register(channel.fd, select.EPOLLIN | select.EPOLLET)
    ids = [ID(channel) for _ in range(3)]
    for _ in range(2):
        assert not poll.poll(0)
        for one in ids:
            one.resolve()
        assert poll.poll(LIMIT)
        for _ in ids:
            assert channel.get()[0] == ADDR_RESOLVED
        try:
            channel.get()
            raise AssertionError("an event, of which there is none")
        except BlockingIOError:
            pass
        for one in ids:
            one.destroy()
        ids = [ID(channel) for _ in range(3)]
    for one in ids:
        one.destroy()
    poll.close()
    channel.destroy()


def an_id_lives_until_its_events_are_acknowledged():
    channel = Channel()
    one = ID(channel)
    one.resolve()
    event = channel.fetch()
    thread = threading.Thread(target=one.destroy)
    thread.start()
    thread.join(0.2)
    assert thread.is_alive(), "destroyed under an event that the program looks at"
    cm.rdma_ack_cm_event(event)
    thread.join(LIMIT)
    assert not thread.is_alive(), "not destroyed"
    channel.destroy()


for case in (a_killed_server_is_told_in_each_state, a_killed_client_is_told_in_each_state, a_program_that_ends_says_so,
             the_port_of_a_killed_listener_is_free_at_once, a_backlog_is_of_requests_that_the_program_has_not_seen,
             a_channel_has_a_thousand_ids, few_descriptors_are_an_error_that_passes, a_channel_that_does_not_block_is_polled,
             an_id_lives_until_its_events_are_acknowledged):
    print(case.__name__, flush=True)
    case()
print("all as they should be")
