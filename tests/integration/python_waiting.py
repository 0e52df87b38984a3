# SPDX-License-Identifier: Apache-2.0
"""Threads, signals, and programs that must not wait."""
import asyncio
import contextlib
import os
import select
import signal
import threading
import time

import securdma
from python_rig import CLIENT, HOST, SERVER, STEP, connect, main, pair, raises, server, until


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


def _repeated(waited, call):
    """What the call returns at last, whenever the descriptor says that it is worth repeating."""
    while True:
        with contextlib.suppress(BlockingIOError):
            return call()
        assert select.select([waited], [], [], STEP)[0]


def disconnects_go_on_side_by_side_without_waiting():
    with pair() as ends:
        raises(securdma.InvalidArgument, ends[0].disconnect_step)
        raises(securdma.InvalidArgument, ends[0].disconnect_start, None, 0)
        for end in ends:
            end.disconnect_start("both", STEP)
        left = list(ends)
        while left:
            for end in select.select(left, [], [], STEP)[0]:
                with contextlib.suppress(BlockingIOError):
                    end.disconnect_step()
                    left.remove(end)
        assert raises(securdma.Closed, ends[0].recv)


def link_never_waits():
    serving = [server(), server()]
    with contextlib.closing(securdma.Link.start([(HOST, one.port) for one in serving], tls=CLIENT, pause_min_ms=10)) as link:
        with contextlib.suppress(securdma.WouldBlock):  # on a busy machine one step may find that all is done
            link.step()
        _repeated(link, link.step)
        descriptor = link.fileno()
        assert _repeated(link, lambda: link.send(b"first", 0)) == 1 and _repeated(link, lambda: link.recv(0))[8:] == b"first"
        serving[0].stop()
        assert raises(securdma.Reconnected, _repeated, link, lambda: link.recv(0)).loss.sent == 1
        link.step()
        assert link.info.connections == 2 and link.fileno() == descriptor
        raises(securdma.InvalidArgument, link.disconnect_step)
        link.disconnect_start("done", STEP)
        _repeated(link, link.disconnect_step)
    serving[1].stop()


def link_lives_in_an_event_loop():
    async def repeat(link, call):
        loop, ready = asyncio.get_running_loop(), asyncio.Event()
        loop.add_reader(link.fileno(), ready.set)
        try:
            while True:
                with contextlib.suppress(BlockingIOError):
                    return call()
                ready.clear()
                await asyncio.wait_for(ready.wait(), STEP)
        finally:
            loop.remove_reader(link.fileno())

    async def talk(port, number):
        with contextlib.closing(securdma.Link.start([(HOST, port)], tls=CLIENT)) as link:
            await repeat(link, lambda: link.send(b"%d" % number, 0))
            assert (await repeat(link, lambda: link.recv(0)))[8:] == b"%d" % number
            link.disconnect_start()
            await repeat(link, link.disconnect_step)

    async def all_of_them(port):
        await asyncio.gather(*(talk(port, number) for number in range(4)))

    with server() as serving:
        asyncio.run(all_of_them(serving.port))
        until(lambda: serving.status.clients == 0)
        assert (serving.status.accepted, serving.status.lost) == (4, 0)


if __name__ == "__main__":
    main(globals())
