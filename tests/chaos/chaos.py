#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""A server under everything that clients, networks and operators do to one, for as long as you like, by a seed.

usage: chaos.py BUILD [--seconds N] [--seed N] [--scale N]
A server on uroce, whose device loses, duplicates and reorders packets, has steady clients that verify every message all the
time. Around them clients come and go, are killed, stopped and continued, send garbage at every step of the set-up, hold
connections open without a word; some get new PSNs and queue pairs all the time, some are sealed; swarms come and are killed
whole; a second server is killed under its clients, and those that reconnect go on at the first one; certificates are replaced
by good and by bad ones, and read again. Between the rounds all of that has gone: then the server must be as it was:
descriptors, verbs objects, clients, and over the rounds its memory. Exit status 0: so it was. The last line is what was done,
as JSON; --seed repeats it (but for the timing).
"""
import argparse
import json
import os
import pathlib
import random
import signal
import socket
import sys
import tempfile
import time

parser = argparse.ArgumentParser(usage=__doc__)
parser.add_argument("build", type=lambda text: pathlib.Path(text).resolve())
parser.add_argument("--seconds", type=float, default=40)
parser.add_argument("--seed", type=int, default=int.from_bytes(os.urandom(3), "big"))
parser.add_argument("--scale", type=float, default=1)
options = parser.parse_args()
os.environ.update(SECURDMA_BUILD=str(options.build), SECURDMA_TEST_UROCE="1", SECURDMA_TEST_SCALE=str(options.scale))
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "integration"))
import conftest  # noqa: E402
import protocol  # noqa: E402
from conftest import (Client, Process, Server, client_args, find_device, resources, wait_for_resources,  # noqa: E402
                      wait_until)
from test_server import SMALL, Swarm, rss  # noqa: E402

SCALE = options.scale
STEADY = 12
MAX_CLIENTS = 200
ROUND_SECONDS = 6 * SCALE
# Lost, doubled and overtaken packets; RC repairs all of it, so nobody may notice but by time.
FAULT = "loss=0.3%,duplicate=0.3%,reorder=0.5%"
rng = random.Random(options.seed)
did = {}


def note(what):
    did[what] = did.get(what, 0) + 1


class Chaos:
    def __init__(self, certs, device):
        self.certs, self.device = certs, device
        self.things = []  # of this round: to be closed at its end
        self.server = self.start_server()
        self.port = self.server.port
        self.steady = Swarm(certs, self.port, STEADY, busy=STEADY, seconds=10 ** 6, threads=4)
        self.steady.connected(120)
        self.idle = self.server.fds(), resources(device)
        self.steady.send_line("")

    def start_server(self, *args):
        return Server(self.certs, self.device, *SMALL, *args, "--max-clients", MAX_CLIENTS, "--max-pending", "16", "--setup-timeout-ms",
                      str(int(3000 * SCALE)), "--drain-timeout-ms", str(int(2000 * SCALE)), "--log-level", "info")

    def keep(self, thing):
        self.things.append(thing)
        return thing

    def client(self, *args, name="client"):
        return self.keep(Process(*client_args(self.certs, self.port, *args, cert=name)))

    def epochs(self):
        """For half of the clients."""
        return ["--epoch-ms", str(rng.randint(100, 300))] if rng.random() < 0.5 else []

    # ---- what can happen: each takes a moment ----

    def comes_and_goes(self):
        client = self.client("--pattern", "abc", "--count", str(rng.randint(1, 300)), *self.epochs(), name=rng.choice(["client", "client2"]))
        if rng.random() < 0.7:
            assert client.wait(60) == 0, client.log()
            note("verified run")

    def is_killed(self):
        client = self.client("--pattern", "xyz", "--count", "100000000", *self.epochs())
        time.sleep(rng.uniform(0, 0.3) * SCALE)
        client.process.kill()
        note("client killed")

    def is_stopped(self):
        client = self.keep(Client(self.certs, self.port))
        client.check()
        client.signal(signal.SIGSTOP)
        time.sleep(rng.uniform(0.1, 1) * SCALE)
        client.signal(signal.SIGCONT)
        client.check("awake")
        client.leave()
        note("client stopped and continued")

    def stopped_in_traffic(self):
        client = self.client("--pattern", "xyz", "--count", "100000000", *self.epochs())
        time.sleep(0.2 * SCALE)
        client.signal(signal.SIGSTOP)
        note("client stopped in traffic")

    def garbage_for_tls(self):
        with socket.create_connection((self.certs.host, self.port), 10) as sock:
            sock.sendall(rng.randbytes(rng.randint(1, 600)))
        note("garbage instead of TLS")

    def garbage_for_hello(self):
        with protocol.open_tls(self.certs, self.port, 10 * SCALE) as sock:
            sock.sendall(rng.randbytes(rng.randint(1, 200)))
            time.sleep(rng.uniform(0, 0.05))
        note("garbage instead of HELLO")

    def hello_and_nothing(self):
        sock = protocol.open_tls(self.certs, self.port, 10 * SCALE)
        sock.sendall(protocol.hello(gid=protocol.gid(self.certs.host)))
        self.keep(sock)
        note("HELLO and no READY")

    def bad_hello(self):
        field = rng.choice(["qpn", "psn", "path_mtu", "depth", "message_size", "link_layer", "rd_initiator"])
        with protocol.open_tls(self.certs, self.port, 10 * SCALE) as sock:
            sock.sendall(protocol.hello(gid=protocol.gid(self.certs.host), **{field: 255 if field == "path_mtu" else 0}))
        note("bad HELLO")

    def says_nothing(self):
        for _ in range(rng.randint(1, 40)):
            self.keep(socket.create_connection((self.certs.host, self.port), 10))
        note("half-open connections")

    def swarm_is_killed(self):
        swarm = self.keep(Swarm(self.certs, self.port, rng.randint(5, 60), busy=60, seconds=600, threads=8))
        if rng.random() < 0.6:
            swarm.connected(60)
            swarm.send_line("")
        time.sleep(rng.uniform(0, 0.5) * SCALE)
        swarm.process.kill()
        note("swarm killed")

    def swarm_comes_and_goes(self):
        count = rng.randint(5, 60)
        swarm = self.keep(Swarm(self.certs, self.port, count, busy=count, seconds=1, threads=8))
        swarm.connected(60)
        assert swarm.go_on(60)["failures"] == 0
        note("swarm verified")

    def stranger(self):
        answer = conftest.connect(self.certs, self.port, "-e", "send x", cert="other-client")
        assert answer.returncode == 4, answer
        note("stranger refused")

    def server_is_killed(self):
        server = self.keep(self.start_server())
        client = self.keep(Process(*client_args(self.certs, server.port, "--pattern", "xyz", "--count", "100000000")))
        server.wait_status(connected=1)
        time.sleep(0.1 * SCALE)
        server.process.kill()
        assert client.wait(60) == 7, client.log()
        note("server killed")

    def sealed(self):
        """A server that seals: one client is verified while another is killed, and queue pairs are replaced under both."""
        words = ["--seal", "required", "--epoch-ms", str(rng.randint(100, 300))]
        server = self.keep(self.start_server(*words))
        killed, client = (self.keep(Process(*client_args(self.certs, server.port, *words, "--pattern", "abc", "--count", str(count))))
                          for count in (10 ** 8, rng.randint(1, 20000)))
        assert client.wait(60) == 0, client.log()
        killed.process.kill()
        server.wait_status(connected=0, pending=0)
        server.stop()
        note("sealed client verified" + (", with epochs" if "because its time limit has passed" in server.log() else ""))

    def server_dies_under_a_link(self):
        server = self.keep(self.start_server())
        command = client_args(self.certs, server.port, "--reconnect-ms", str(int(30000 * SCALE)), "--log-level", "info", "--pattern", "link", "--count",
                              str(rng.randint(500, 5000)))
        client = self.keep(Process(*command[:-1], f"{command[-1]},{self.certs.host}:{self.port}"))
        wait_until(lambda: server.status()["accepted"] == 1, "the link's client is connected")
        time.sleep(rng.uniform(0, 0.1) * SCALE)
        if rng.random() < 0.5:
            server.process.kill()
        else:
            server.signal(signal.SIGTERM)
        assert client.wait(60) == 0, client.log()
        note("server gone under a link that finished its work" if "reconnected" in client.log() else "link was faster than the loss")

    def certificates_rotate(self):
        """Connected clients notice nothing; newcomers meet the new certificates."""
        fresh = f"server{rng.randrange(10 ** 6)}"
        self.certs.make("server", fresh, "--name", self.certs.host, issuer="ca")
        for path in (self.certs.cert, self.certs.key):
            os.replace(path(fresh), path("server"))
        self.reload("reloaded: certificates")
        assert conftest.connect(self.certs, self.port, "-e", "send x").returncode == 0
        note("certificates rotated")

    def certificate_is_bad(self):
        good = pathlib.Path(self.certs.cert("server"))
        kept = good.read_bytes()
        good.write_bytes(rng.choice([b"", b"nonsense\n", pathlib.Path(self.certs.cert("self")).read_bytes()]))
        self.reload("not reloaded")
        assert conftest.connect(self.certs, self.port, "-e", "send x").returncode == 0
        good.write_bytes(kept)
        note("bad certificate not taken")

    def reload(self, expect):
        start = len(self.server.log())
        self.server.signal(signal.SIGHUP)
        self.server.wait_log(expect, start)

    # ---- rounds ----

    def steady_is_well(self):
        assert self.steady.process.poll() is None and "client" not in self.steady.log(), self.steady.log()

    def clear(self):
        """All of the round goes, however it is."""
        for thing in self.things:
            thing.close()
        self.things.clear()

    def check(self):
        fds, objects = self.idle
        self.server.wait_status(connected=STEADY, pending=0)
        wait_until(lambda: self.server.fds() == fds, lambda: f"{fds} descriptors of the server; it has {self.server.fds()}")
        wait_for_resources(self.device, objects)
        before = sum(client["messages_received"] for client in self.server.status()["clients"])
        wait_until(lambda: sum(client["messages_received"] for client in self.server.status()["clients"]) > before,
                   "the steady clients go on")
        self.steady_is_well()

    def round(self):
        deeds = [self.comes_and_goes] * 4 + [
            self.is_killed, self.is_killed, self.is_stopped, self.stopped_in_traffic, self.garbage_for_tls, self.garbage_for_hello,
            self.hello_and_nothing, self.bad_hello, self.says_nothing, self.swarm_is_killed, self.swarm_comes_and_goes, self.stranger,
            self.server_is_killed, self.sealed, self.sealed, self.server_dies_under_a_link, self.server_dies_under_a_link, self.certificates_rotate,
            self.certificate_is_bad]
        end = time.monotonic() + ROUND_SECONDS
        while time.monotonic() < end:
            rng.choice(deeds)()
            self.steady_is_well()
        self.clear()
        self.check()

    def finish(self):
        """The steady ones are told of the stop: they have to see it, and nothing wrong before."""
        assert self.server.stop()["unfinished"] == 0
        self.steady.wait(60)
        assert "wrong echo" not in self.steady.log(), self.steady.log()


def main():
    print(f"chaos: seed {options.seed}, {options.seconds:g} s", flush=True)
    os.environ["UROCE_FAULT"] = f"{FAULT},seed={options.seed}"
    device = find_device()
    folder = tempfile.mkdtemp(prefix="securdma-chaos.")
    certs = conftest.Certificates(folder, device.ipv4, [device.ipv4, "localhost"])
    chaos = Chaos(certs, device)
    memory, began = [], time.monotonic()
    try:
        while time.monotonic() - began < options.seconds:
            chaos.round()
            memory.append(rss(chaos.server))
            print(f"chaos: round {len(memory)}: well; the server has {memory[-1]} KiB", flush=True)
        chaos.finish()
    finally:
        chaos.clear()
        chaos.steady.close()
        chaos.server.close()
    # Caches fill at first; after that it must not creep.
    grown = memory[-1] - max(memory[:max(2, len(memory) // 2)])
    assert grown < 4096 * SCALE, f"the server grows: {memory} KiB"
    print(json.dumps({"seed": options.seed, "rounds": len(memory), "rss_kib": memory[-1], **dict(sorted(did.items()))}))


main()
