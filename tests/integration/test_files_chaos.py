# SPDX-License-Identifier: Apache-2.0
"""Copies and tunnels at once while everything around them goes wrong: sealed, with an epoch every 200 ms, packets lost, certificates
that rotate, and clients that are killed."""
import contextlib
import os
import random
import signal
import threading
import time

from conftest import SCALE, SECURDMA, STEP, Configured, Process, resources, run, wait_for_resources, wait_until
from test_files import cp_args, describe, remote
from test_tunnel import Target, Tunnel, echo

SEAL = "--seal", "required", "--epoch-ms", "200"
CONFIGURATION = """
[connection]
region-size = 1M
[files]
directory = {folder}
rights = rwd
[tunnel]
allow = *
[tunnel-targets]
echo = 127.0.0.1:{port}
"""
CONNECTIONS = 3
KILLS = 2


def make_tree(folder, chance):
    for number in range(120):
        path = folder / str(number // 40) / str(number)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(chance.randbytes(chance.randrange(20_000)))
    (folder / "large").write_bytes(chance.randbytes(2_000_000))


class Rotation(threading.Thread):
    """Puts new certificates under a server, and has it read them."""

    def __init__(self, certs, server, name):
        super().__init__(daemon=True)
        self.certs, self.server, self.name_of = certs, server, name
        self.over, self.rotated = threading.Event(), 0

    def run(self):
        while not self.over.wait(0.5):
            self.certs.make("server", "fresh", "--name", self.certs.host, issuer="ca")
            for path in (self.certs.cert, self.certs.key):
                os.replace(path("fresh"), path(self.name_of))
            start = len(self.server.log())
            self.server.signal(signal.SIGHUP)
            # A later one might find the key of the next certificate.
            self.server.wait_log('"event":"server.reloaded"', start)
            self.rotated += 1


class Talker(threading.Thread):
    """Sends random bytes through a tunnel to an echo, in both directions at the same time, and compares what comes."""

    def __init__(self, tunnel, seed):
        super().__init__(daemon=True)
        self.chance, self.connection = random.Random(seed), tunnel.connect()
        self.over, self.bytes, self.error = threading.Event(), 0, "it did not end"

    def run(self):
        try:
            with self.connection:
                while not self.over.is_set():
                    data = self.chance.randbytes(self.chance.randrange(1, 60_000))
                    sender = threading.Thread(target=self.connection.sendall, args=(data,), daemon=True)
                    sender.start()
                    for at in range(0, len(data), 4096):
                        assert self.receive(len(data[at:at + 4096])) == data[at:at + 4096]
                    sender.join(STEP)
                    self.bytes += len(data)
            self.error = None
        except (OSError, AssertionError) as error:
            self.error = repr(error)

    def receive(self, size):
        parts = b""
        while len(parts) < size:
            part = self.connection.recv(size - len(parts))
            assert part, "the connection has ended"
            parts += part
        return parts


def copy_with_kills(certs, server, start, chance, done, *args):
    """Copies; the client is killed when another part of the copy is done, and begun again; the last one comes to its end."""
    for kill in range(KILLS):
        client = start(Process, *cp_args(certs, server.port, *SEAL, "--limit-rate", "3M", "-r", *args))
        goal = done() + chance.randrange(1, 600_000)
        wait_until(lambda: done() >= goal or client.process.poll() is not None, f"{goal} bytes are not copied: {client.log()}")
        client.signal(signal.SIGKILL)
        client.process.wait(STEP)
    result = run(*cp_args(certs, server.port, *SEAL, "-r", *args))
    assert result.returncode == 0, result


def bytes_below(folder):
    total = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(FileNotFoundError):  # it has got its name meanwhile
                total += os.lstat(os.path.join(parent, name)).st_size
    return total


def test_copies_and_tunnels_stay_right_while_all_goes_wrong(certs, device, start, tmp_path, monkeypatch):
    seed = random.randrange(1 << 24)
    print("seed", seed)
    chance = random.Random(seed)
    before = resources(device)
    (tmp_path / "files").mkdir()
    make_tree(tmp_path / "tree", chance)
    monkeypatch.setenv("UROCE_FAULT", f"loss=1%,seed={seed}")
    certs.make("server", "rotating", "--name", certs.host, issuer="ca")
    text = CONFIGURATION.format(folder=tmp_path / "files", port=start(Target, echo).port)
    server = start(Configured, certs, device, tmp_path / "server.conf", text, *SEAL, "--log-level", "info", cert="rotating")
    tunnel = start(Tunnel, certs, server, "echo", *SEAL)
    talkers = [Talker(tunnel, seed + number) for number in range(CONNECTIONS)]
    rotation = Rotation(certs, server, "rotating")
    for thread in (*talkers, rotation):
        thread.start()
    began = time.monotonic()
    copy_with_kills(certs, server, start, chance, lambda: bytes_below(tmp_path / "files"), tmp_path / "tree", remote(certs))
    copy_with_kills(certs, server, start, chance, lambda: bytes_below(tmp_path / "back"), remote(certs, "tree"), tmp_path / "back")
    wait_until(lambda: rotation.rotated >= 3 and all(talker.bytes > 100_000 or talker.error != "it did not end" for talker in talkers),
               lambda: f"rotations: {rotation.rotated}, bytes: {[talker.bytes for talker in talkers]}")
    for thread in (*talkers, rotation):
        thread.over.set()
    for thread in (*talkers, rotation):
        thread.join(STEP)
    assert [talker.error for talker in talkers] == [None] * CONNECTIONS, tunnel.log()
    assert describe(tmp_path / "files" / "tree") == describe(tmp_path / "back" / "tree") == describe(tmp_path / "tree")
    assert not [path for path in tmp_path.rglob(".securdma-part-*")]
    assert server.log().count("because its time limit has passed") > 5 * CONNECTIONS
    assert server.log().count("server.reloaded") == rotation.rotated and not server.events("server.reload_failed")
    tunnel.terminate()
    server.wait_status(connected=0)
    server.stop()
    wait_for_resources(device, before)
    assert time.monotonic() - began < 120 * SCALE
