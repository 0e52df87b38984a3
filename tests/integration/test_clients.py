# SPDX-License-Identifier: Apache-2.0
"""The two programs: many clients at once, ends in order and without, and a device that fails."""
import json
import os
import re
import shutil
import signal
import subprocess
import time

import pytest
from conftest import (ON_UROCE, SCALE, STEP, Client, Device, Process, Server, client_args, connect, connect_json,
                      resources, wait_for_resources, wait_until)

PATTERNS = [letter * 3 for letter in "abcdefghijk"]


def holding(certs, port, start, hold, pattern, cert="client"):
    """A client that sends its pattern and stays until the file `hold` exists."""
    return start(Process, *client_args(certs, port, "--json", "--show-psn", "--pattern", pattern, "--count", "20", "--hold-file",
                                       hold, cert=cert))


def finish(client):
    code = client.wait()
    assert code == 0, client.log()
    return json.loads(client.lines[0])


def queue_pairs(device):
    """Numbers of the queue pairs that exist, as the kernel knows them; uroce counts its own, and tells no numbers."""
    if ON_UROCE:
        return set(range(resources(device)["qp"]))
    text = subprocess.run(["rdma", "resource", "show", "qp", "link", f"{device.name}/{device.port}"], capture_output=True,
                          text=True, check=True, timeout=STEP).stdout
    return {int(number) for number in re.findall(r" lqpn (\d+)", text)}


# ---- one client --------------------------------------------------------------------------------------------------------


def test_pattern_is_echoed_written_and_read_back(server, certs):
    answer = connect_json(certs, server.port, "--pattern", "aaa", "--count", "50", "--size", "3000")
    assert answer["code"] == 0 and answer["ok"], answer
    assert answer["messages_verified"] == 50
    assert answer["bytes_written"] == answer["bytes_read_back"] == 65536
    assert answer["tls_version"] == "TLSv1.3" and answer["peer_name"] == certs.host
    assert "psn" not in answer
    server.wait_log("client 1: disconnected; 50 messages in, 50 out")
    assert f"{answer['qpn']:06x}" in server.log()
    status = server.wait_status(connected=0)
    assert (status["accepted"], status["rejected"], status["failed"], status["lost"]) == (1, 0, 0, 0)


def test_commands_of_a_script(server, certs):
    answer = connect_json(certs, server.port, "-e", "send hello; write 10 abc; read 9 5; stat")
    assert answer["code"] == 0, answer
    assert [result["command"] for result in answer["results"]] == ["send", "write", "read", "stat"]
    assert answer["results"][0]["reply"] == "hello"
    assert answer["results"][2]["data"].replace("\\x00", ".") == ".abc."
    assert answer["results"][3]["rdma_bytes_written"] == 3


def test_ipv6(certs, device, start):
    if not device.ipv6:
        pytest.skip("the device has no IPv6 GID besides the link-local one")
    server = start(Server, certs, device)
    answer = connect_json(certs, server.port, "--pattern", "six", "--count", "10", host=device.ipv6)
    assert answer["code"] == 0, answer
    assert answer["peer"] == f"[{device.ipv6}]:{server.port}" and answer["messages_verified"] == 10
    server.stop()


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
def test_loopback_name_uses_the_devices_own_gid(server, certs, host):
    assert connect(certs, server.port, "--pattern", "lo", "--count", "5", host=host).returncode == 0


def test_anonymous_clients_are_served_only_when_told_to(certs, device, start):
    server = start(Server, certs, device, "--insecure-anonymous-clients")
    assert connect(certs, server.port, "-e", "send x", cert=None).returncode == 0
    # One that is shown must verify all the same.
    assert connect(certs, server.port, "-e", "send x", cert="other-client").returncode == 4
    server.stop()


# ---- many clients ------------------------------------------------------------------------------------------------------


@pytest.mark.limit(300)
def test_ten_are_served_at_once_and_the_eleventh_is_told_why_not(certs, device, start, tmp_path):
    before = resources(device)
    server = start(Server, certs, device)
    fds, idle = server.fds(), resources(device)
    hold, leave = tmp_path / "hold", tmp_path / "leave"
    first = holding(certs, server.port, start, leave, PATTERNS[0])
    others = [holding(certs, server.port, start, hold, pattern, "client2" if index % 2 else "client")
              for index, pattern in enumerate(PATTERNS[1:10])]
    server.wait_status(connected=10, pending=0)
    used = resources(device)
    # Each client has its own, at either end.
    assert used["qp"] - idle["qp"] == used["pd"] - idle["pd"] == 20 and used["cq"] - idle["cq"] == 40

    answer = connect_json(certs, server.port, "-e", "stat")
    assert answer["code"] == 5
    assert answer["reject"]["reason"] == 3 and answer["reject"]["retry_after_ms"] > 0
    assert "full" in answer["reject"]["text"] and "full" in answer["stderr"]
    server.wait_log("rejected (full)")
    assert server.wait_status(connected=10)["rejected"] == 1

    leave.touch()
    results = [finish(first)]
    late = connect_json(certs, server.port, "--pattern", PATTERNS[10], "--show-psn")
    assert late["code"] == 0, late
    hold.touch()
    results += [finish(client) for client in others] + [late]
    assert all(result["ok"] and result["messages_verified"] == (100 if result is late else 20) for result in results)
    assert all(result["bytes_read_back"] == 65536 for result in results)
    ids = [result["client_id"] for result in results]
    assert len(set(ids)) == 11 and max(ids) == late["client_id"]
    psns = [result[name] for result in results[:10] for name in ("psn", "peer_psn")]
    assert len(set(psns)) == 20 and all(0 <= psn < 1 << 24 for psn in psns)

    server.wait_status(connected=0, pending=0)
    wait_until(lambda: server.fds() == fds, lambda: f"{fds} descriptors; there are {server.fds()}")
    wait_for_resources(device, idle)
    assert server.stop()["lost"] == 0
    wait_for_resources(device, before)


# ---- ends without order ------------------------------------------------------------------------------------------------


def test_killed_client_is_freed_and_disturbs_nobody(server, certs, device, start):
    other = start(Client, certs, server.port, cert="client2")
    alive = queue_pairs(device)
    fds, idle = server.fds(), resources(device)
    victim = start(Client, certs, server.port)
    victim.check()
    assert len(queue_pairs(device) - alive) == 2
    begin = time.monotonic()
    victim.signal(signal.SIGKILL)
    victim.wait()
    server.wait_status(connected=1)
    assert time.monotonic() - begin < 5 * SCALE
    server.wait_log(f"client {victim.id} at")
    wait_until(lambda: server.fds() == fds, lambda: f"{fds} descriptors; there are {server.fds()}")
    wait_for_resources(device, idle)
    assert queue_pairs(device) == alive
    assert server.status()["lost"] == 1
    other.check()
    other.leave()


def test_killed_server_is_told_by_the_clients(certs, device, start):
    before = resources(device)
    server = start(Server, certs, device)
    idle = start(Client, certs, server.port)
    busy = start(Process, *client_args(certs, server.port, "--pattern", "xyz", "--count", "100000000"))
    server.wait_status(connected=2)
    begin = time.monotonic()
    server.signal(signal.SIGKILL)
    server.wait()
    assert idle.wait() == 7 and busy.wait() == 7
    assert time.monotonic() - begin < 10 * SCALE
    assert "went away" in idle.log() and "securdma: " in busy.log()
    wait_for_resources(device, before)


def test_terminated_server_tells_its_clients(certs, device, start):
    before = resources(device)
    server = start(Server, certs, device)
    clients = [start(Client, certs, server.port) for _ in range(2)]
    busy = start(Process, *client_args(certs, server.port, "--pattern", "xyz", "--count", "100000000"))
    server.wait_status(connected=3, pending=0)
    stopped = server.stop()
    assert (stopped["clients"], stopped["unfinished"]) == (3, 0)
    for client in [*clients, busy]:
        assert client.wait() == 7, client.log()
        assert "shutting down" in client.log()
    wait_for_resources(device, before)


def test_terminated_server_waits_no_longer_than_its_drain_timeout(certs, device, start):
    server = start(Server, certs, device, "--drain-timeout-ms", str(int(1000 * SCALE)))
    client = start(Client, certs, server.port)
    client.signal(signal.SIGSTOP)
    try:
        begin = time.monotonic()
        assert server.stop(expect=8)["unfinished"] == 1
        assert time.monotonic() - begin < (1 + 5) * SCALE
    finally:
        client.signal(signal.SIGCONT)
    assert client.wait() == 7


def test_stopped_client_holds_nobody_up(server, certs, start):
    sleeper = start(Client, certs, server.port)
    sleeper.check()
    sleeper.signal(signal.SIGSTOP)
    try:
        other = start(Client, certs, server.port, cert="client2")
        for round in range(3):
            other.check(f"round {round}")
        assert connect(certs, server.port, "--pattern", "abc", "--count", "20").returncode == 0
    finally:
        sleeper.signal(signal.SIGCONT)
    sleeper.check("awake again")
    sleeper.leave()
    other.leave()


def test_interrupted_client_leaves_in_order(server, certs, start):
    client = start(Process, *client_args(certs, server.port, "--hold-ms", "60000"))
    server.wait_status(connected=1)
    client.wait_line(lambda line: line.startswith("set-up"))
    client.signal(signal.SIGINT)
    assert client.wait() == 0, client.log()
    server.wait_log("disconnected: interrupted")
    assert server.wait_status(connected=0)["lost"] == 0


# ---- a device that fails -----------------------------------------------------------------------------------------------


@pytest.fixture
def extra(certs, device):
    """Another rxe device, on a network interface of its own, that may be broken."""
    if os.geteuid() != 0 or not shutil.which("rdma") or "rxe" not in device.name:
        pytest.skip("needs root and rdma_rxe")
    name, netdev, address = "rxetest", "dtest", "10.99.0.1"

    def tool(*args, check=True):
        return subprocess.run(args, check=check, capture_output=True, text=True, timeout=STEP)

    tool("ip", "link", "add", netdev, "type", "dummy")
    try:
        tool("ip", "addr", "add", f"{address}/24", "dev", netdev)
        tool("ip", "link", "set", netdev, "up")
        tool("rdma", "link", "add", name, "type", "rxe", "netdev", netdev)
        port = wait_until(lambda: next((port for port in [Device(f"/sys/class/infiniband/{name}/ports/1")]
                                        if port.active and port.ipv4), None), "the extra device is active")
        port.tool = tool
        yield port
    finally:
        tool("ip", "link", "del", netdev, check=False)
        wait_until(lambda: not os.path.exists(f"/sys/class/infiniband/{name}"), "the extra device is gone")


def on(extra, start, certs, server, *args):
    return start(Client, certs, server.port, "--device", extra.name, "--server-name", "localhost", *args, host=extra.ipv4)


# What a client on a dead port may take: its time-out, and the retries of the device.
DEAD = ("--timeout-ms", str(int(3000 * SCALE)), "--retry-count", "2")


def test_port_that_goes_down_and_comes_back(certs, device, start, extra):
    server = start(Server, certs, extra)
    client = on(extra, start, certs, server, *DEAD)
    client.check()
    extra.tool("ip", "link", "set", extra.netdev, "down")
    server.wait_log("went down")
    client.send_line("send is anybody there")
    assert client.wait() in (3, 6, 7), client.log()
    assert "securdma: " in client.log()
    extra.tool("ip", "link", "set", extra.netdev, "up")
    server.wait_log("is active")
    # The address of an interface may be gone for a moment after it came back.
    wait_until(lambda: Device(extra.path).ipv4 == extra.ipv4, "the GID is back")
    server.wait_status(connected=0, pending=0)
    again = on(extra, start, certs, server)
    again.check()
    again.leave()
    server.stop()


def test_device_that_is_removed(certs, device, start, extra):
    server = start(Server, certs, extra)
    client = on(extra, start, certs, server, *DEAD)
    client.check()
    removal = start(Process, "ip", "link", "del", extra.netdev)
    code = server.wait()
    assert code == 6, f"{code}\n{server.log()}"
    assert "is gone" in server.log() or "went down" in server.log()
    assert client.wait() != 0
    assert removal.wait() == 0
