# SPDX-License-Identifier: Apache-2.0
"""Threads, signals, and programs that must not wait."""
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


if __name__ == "__main__":
    main(globals())
