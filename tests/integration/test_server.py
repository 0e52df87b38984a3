# SPDX-License-Identifier: Apache-2.0
"""A server with many clients: workers, placement, limits, and that no client holds up another."""
import json
import os
import re
import subprocess
import time

import pytest
from conftest import (ON_UROCE, SCALE, SWARM, Client, Process, Server, connect, left_out_of, resources, run, serve_args, wait_for_resources,
                      wait_until)

SMALL = ("--depth", "4", "--message-size", "1088", "--region-size", "4096", "--rdma-depth", "1")


class Swarm(Process):
    """Many clients in one process: bench/swarm.c."""

    def __init__(self, certs, port, clients, busy=0, seconds=0, threads=16):
        super().__init__(SWARM, certs.host, port, certs.cert("ca"), certs.cert("client"), certs.key("client"), clients, busy, seconds,
                         threads, stdin=subprocess.PIPE)
        self.clients = clients

    def connected(self, timeout=60):
        wait_until(lambda: self.lines, lambda: f"the swarm has connected\n{self.log()}", timeout)
        answer = json.loads(self.lines[0])
        assert answer["connected"] == self.clients, self.log()
        return answer

    def go_on(self, timeout=60):
        """Lets the busy ones work and all of them leave; what came of it."""
        self.send_line("")
        code = self.wait(timeout)
        assert code == 0, self.log()
        return json.loads(self.lines[1])


def rss(server):
    with open(f"/proc/{server.pid}/status", encoding="ascii") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("VmRSS"))


def cpu(server):
    with open(f"/proc/{server.pid}/stat", encoding="ascii") as file:
        fields = file.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def threads(server):
    return len(os.listdir(f"/proc/{server.pid}/task"))


# ---- workers -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", ["1", "3", "auto", "per-client"])
def test_every_kind_of_worker_serves_many_at_once(certs, device, start, workers):
    before = resources(device)
    server = start(Server, certs, device, *SMALL, "--max-clients", "60", "--workers", workers)
    swarm = start(Swarm, certs, server.port, 60, busy=30, seconds=1)
    swarm.connected()
    assert server.status()["connected"] == 60
    answer = swarm.go_on()
    assert answer["failures"] == 0 and answer["slowest"] > 0, answer
    status = server.wait_status(connected=0)
    assert (status["accepted"], status["lost"], status["failed"]) == (60, 0, 0)
    server.stop()
    wait_for_resources(device, before)


@left_out_of("tsan")
def test_workers_are_used_again(certs, device, start):
    server = start(Server, certs, device, *SMALL, "--workers", "per-client")
    assert connect(certs, server.port, "-e", "send x").returncode == 0
    server.wait_status(connected=0)
    fds, count, idle = server.fds(), threads(server), resources(device)
    for _ in range(5):
        assert connect(certs, server.port, "-e", "send x").returncode == 0
        server.wait_status(connected=0)
    wait_until(lambda: (server.fds(), threads(server)) == (fds, count), lambda: f"{(fds, count)}; there are {(server.fds(), threads(server))}")
    wait_for_resources(device, idle)
    server.stop()


@left_out_of("tsan")
def test_number_of_threads_does_not_grow_with_the_clients(certs, device, start):
    server = start(Server, certs, device, *SMALL, "--max-clients", "100", "--workers", "2")
    count = threads(server)
    swarm = start(Swarm, certs, server.port, 100)
    swarm.connected()
    assert threads(server) == count
    swarm.go_on()
    server.stop()


@left_out_of("tsan")
@pytest.mark.limit(480)
def test_a_thousand_clients_are_connected_verified_and_gone(certs, device, start):
    """Each sends, and checks the echo of, one message and more; the idle ones cost no processor time."""
    count = 1000
    before = resources(device)
    server = start(Server, certs, device, *SMALL, "--max-clients", str(count), "--setup-timeout-ms", "60000")
    empty, fds = rss(server), server.fds()
    swarm = start(Swarm, certs, server.port, count, busy=100, seconds=1)
    swarm.connected(timeout=200)
    assert server.status()["connected"] == count
    if SCALE == 1 and ON_UROCE:  # a sanitizer's own memory would be counted, and rdma_rxe's is the kernel's
        # 68 with OpenSSL 3.0, 81 with 3.5, rings of 10 KiB and region of 4 KiB included.
        assert (rss(server) - empty) / count < 96, "KiB a client"
    time.sleep(1)
    began = cpu(server)
    time.sleep(2)
    assert cpu(server) - began < 0.2, "an idle server computes"
    answer = swarm.go_on(timeout=100)
    assert answer["failures"] == 0 and answer["messages"] >= 100, answer
    status = server.wait_status(connected=0)
    assert (status["accepted"], status["rejected"], status["failed"], status["lost"]) == (count, 0, 0, 0)
    wait_until(lambda: server.fds() == fds, lambda: f"{fds} descriptors; there are {server.fds()}")
    server.stop()
    wait_for_resources(device, before)


def test_killed_swarm_leaves_nothing(certs, device, start):
    server = start(Server, certs, device, *SMALL, "--max-clients", "201")
    neighbour = start(Client, certs, server.port, cert="client2")
    fds, idle = server.fds(), resources(device)
    swarm = start(Swarm, certs, server.port, 200, busy=200, seconds=60)
    swarm.connected()
    swarm.send_line("")
    time.sleep(0.3)
    swarm.process.kill()
    swarm.process.wait()
    server.wait_status(connected=1, lost=200)
    neighbour.check()
    wait_until(lambda: server.fds() == fds, lambda: f"{fds} descriptors; there are {server.fds()}")
    wait_for_resources(device, idle)
    neighbour.leave()
    server.stop()


# ---- nobody holds up another -------------------------------------------------------------------------------------------


def test_client_that_does_not_read_waits_alone_and_loses_nothing(probe):
    assert probe("stuffed")["stuffed"] > 4


@pytest.mark.parametrize("protection", [{}, {"SECURDMA_PROBE_SEAL": "1"}, {"SECURDMA_PROBE_SEAL": "1", "SECURDMA_PROBE_EPOCH_MS": "100"}],
                         ids=["plain", "sealed", "sealed, epochs"])
def test_server_speaks_first_and_a_sleeping_client_holds_up_none(probe, monkeypatch, protection):
    for name, value in protection.items():
        monkeypatch.setenv(name, value)
    probe("speaks-first")


# ---- limits ------------------------------------------------------------------------------------------------------------


@left_out_of("tsan")
def test_rate_of_set_ups_is_limited(certs, device, start):
    server = start(Server, certs, device, *SMALL, "--max-clients", "40", "--max-setups-per-second", "10")
    swarm = start(Swarm, certs, server.port, 30)
    answer = swarm.connected()
    # Ten at once, then ten a second.
    assert answer["seconds"] > 1.5, answer
    swarm.go_on()
    server.stop()


@pytest.mark.parametrize("args, words", [
    (["--max-clients", "1000000"], "(?s)max-clients 1000000.*need"),
    *((["--workers", value], "auto, per-client, or a number from 1 to 1024") for value in ("0", "1025", "many", "-1"))])
def test_setting_that_cannot_be_is_refused_at_the_start(certs, device, args, words):
    result = run(*serve_args(certs, device, *args))
    assert result.returncode == 2 and re.search(words, result.stderr), result.stderr
