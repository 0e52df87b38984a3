# SPDX-License-Identifier: Apache-2.0
"""rdma_cm between two hosts: network namespaces, each with two addresses and a version of IP for each, and a link that may lose packets.
Needs root. UROCE_TEST_HOSTS=all: also the cases that others cover, or that wait for minutes."""
import os
import re
import subprocess
import time

import pytest

from rig import HERE, PYTHON, Program, free_port, wait_until, wrapped
from test_rdmacm import CMTIME_ENDS, RPING_ENDS, TCP, UDADDY_PORT, UDP, cmtime

ALL = os.environ.get("UROCE_TEST_HOSTS") == "all"
SPACE = [f"uroce-host-{os.getpid()}-{end}" for end in "ab"]
ADDRESS = {"v4": ("10.92.7.1", "10.92.7.2"), "v6": ("fd92::1", "fd92::2")}
SECOND = ("10.92.8.1", "10.92.8.2")
OF = [{"UROCE_ADDR": f"{ADDRESS['v4'][end]},{ADDRESS['v6'][end]}"} for end in (0, 1)]
SERVER, CLIENT = 0, 1


def ip(*words):
    subprocess.run(["ip", *words], check=True, timeout=20)


@pytest.fixture(scope="module", autouse=True)
def hosts():
    if os.getuid() != 0 or subprocess.run(["ip", "netns", "add", SPACE[0]], capture_output=True, timeout=20, check=False).returncode != 0:
        pytest.skip("only root makes network namespaces")
    try:
        ip("netns", "add", SPACE[1])
        ip("-n", SPACE[0], "link", "add", "wire", "type", "veth", "peer", "name", "wire", "netns", SPACE[1])
        for end in (0, 1):
            for address in (f"{ADDRESS['v4'][end]}/24", f"{SECOND[end]}/24"):
                ip("-n", SPACE[end], "address", "add", address, "dev", "wire")
            ip("-n", SPACE[end], "address", "add", f"{ADDRESS['v6'][end]}/64", "dev", "wire", "nodad")
            for name in ("lo", "wire"):
                ip("-n", SPACE[end], "link", "set", name, "up")
        yield
    finally:
        for space in SPACE:
            subprocess.run(["ip", "netns", "delete", space], capture_output=True, timeout=20, check=False)


def start(end, command, environment=None):
    """On this host, with its addresses."""
    return Program(["ip", "netns", "exec", SPACE[end], *wrapped(command)], {**OF[end], **(environment or {})}, on_uroce=False)


def is_bound(program, port, space):
    """By rdma_cm, or (cmtime's controller) by TCP."""
    with open(f"/proc/{program.process.pid}/net/unix", encoding="ascii", errors="replace") as table:
        if any(f"@uroce-service-{space << 16 | port:016x}-" in line for line in table):
            return True
    with open(f"/proc/{program.process.pid}/net/tcp", encoding="ascii") as table:
        return any(fields[1].endswith(f":{port:04X}") and fields[3] == "0A" for fields in map(str.split, table))


def serve(command, port, space=TCP, environment=None):
    server = start(SERVER, command, environment)
    wait_until(lambda: not server.running() or is_bound(server, port, space), lambda: f"server listens\n{server.output}")
    return server


def finish(server, client, port, space=TCP, environment=None):
    """Both ends, which end well: the client's output. Where packets are lost, the client may have gone before the server knows that all
    has arrived, and that server's end tells nothing."""
    listener = serve(server, port, space, environment)
    dialler = start(CLIENT, client, environment)
    try:
        for program in (dialler,) if environment else (dialler, listener):
            status = program.wait(120)
            assert status == 0 or RPING_ENDS in program.output, f"status {status}\nserver:\n{listener.output}\nclient:\n{dialler.output}"
        return dialler.output
    finally:
        dialler.close()
        listener.close()


def by_port(program, host, *options, server=(), client=(), environment=None):
    """Programs that take the server's address by -s or, of rping, by -a, and listen at theirs by -b."""
    port = free_port()
    both = ["-p", str(port), *options]
    if program == "rping":
        return finish(["rping", "-s", "-a", host, *both], ["rping", "-c", "-a", host, *both], port, environment=environment)
    other = {"rdma_server": "rdma_client", "rdma_xserver": "rdma_xclient"}.get(program, program)
    return finish([program, *server, *both], [other, "-s", host, *client, *both], port, environment=environment)


def check_programs(family):
    host = ADDRESS[family][SERVER]
    assert by_port("rping", host, "-C", "5", "-v", "-V").count("ping data: rdma-ping-") == 5
    # It binds to an IPv4 address unless it is told.
    assert "return status 0" in by_port("ucmatose", host, "-c", "10", "-C", "10", "-S", "4096", server=["-b", host])
    assert "return status 0" in finish(["udaddy", "-c", "4", "-b", host], ["udaddy", "-s", host, "-c", "4"], UDADDY_PORT, UDP)
    for options in (["-T", "v", "-S", "65536", "-C", "20", "-I", "2"], ["-T", "v", "-T", "n", "-S", "1000", "-C", "10", "-I", "2"]):
        assert re.search(r"^custom ", by_port("rstream", host, *options, server=["-b", host]), re.MULTILINE)


def test_programs():
    check_programs("v4")


@pytest.mark.skipif(not ALL, reason="UROCE_TEST_HOSTS=all")
def test_programs_by_ipv6():
    check_programs("v6")


@pytest.mark.skipif(not ALL, reason="UROCE_TEST_HOSTS=all")
def test_other_programs():
    host = ADDRESS["v4"][SERVER]
    assert "end 0" in by_port("rdma_server", host)
    assert "end 0" in by_port("rdma_xserver", host, "-c", "r")
    assert re.search(r"^custom ", by_port("riostream", host, "-S", "4096", "-C", "10", "-I", "2"), re.MULTILINE)
    for program in ("ib_write_bw", "ib_send_lat", "ib_read_bw"):
        port = free_port()
        finish([program, "-R", "-p", str(port), "-n", "200"], [program, "-R", "-p", str(port), "-n", "200", host], port)


def dial_many(environment):
    port = free_port()
    commands = cmtime(ADDRESS["v4"][SERVER], ADDRESS["v4"][CLIENT], port, 100)
    server = serve(commands[0], port, environment=environment)
    client = start(CLIENT, commands[1], environment)
    try:
        assert client.wait(120) == 0 and CMTIME_ENDS.search(client.output), f"{client.output}\n{server.output}"
    finally:
        client.close()
        server.close()


@pytest.mark.parametrize("fault", ["loss=2%,seed=3", pytest.param("loss=10%,duplicate=5%,reorder=5%,seed=4", marks=pytest.mark.skipif(
    not ALL, reason="UROCE_TEST_HOSTS=all"))])
def test_a_link_that_loses_packets(fault):
    lossy = {"UROCE_FAULT": fault}
    host = ADDRESS["v4"][SERVER]
    assert by_port("rping", host, "-C", "20", "-v", "-V", environment=lossy).count("ping data: rdma-ping-") == 20
    assert "return status 0" in by_port("ucmatose", host, "-c", "20", "-C", "10", environment=lossy)
    dial_many(lossy)


def test_the_device_has_one_of_two_addresses():
    """The kernel would send from another one than the device has."""
    host = SECOND[SERVER]
    port = free_port()
    server = serve(["rping", "-s", "-C", "2", "-p", str(port)], port, environment={"UROCE_ADDR": host})
    client = start(CLIENT, ["rping", "-c", "-a", host, "-C", "2", "-v", "-p", str(port)])
    try:
        status = client.wait()
        assert status == 0 or RPING_ENDS in client.output, f"{client.output}\n{server.output}"
        assert client.output.count("ping data: rdma-ping-") == 2
    finally:
        client.close()
        server.close()


def test_a_killed_server_leaves_its_port():
    port = free_port()
    host = ADDRESS["v4"][SERVER]
    command = ["rping", "-s", "-p", str(port), "-P"]
    server = serve(command, port)
    client = start(CLIENT, ["rping", "-c", "-a", host, "-p", str(port), "-C", "1000000", "-v"])
    wait_until(lambda: "ping data" in client.output or not client.running(), lambda: f"pings\n{client.output}")
    server.kill()
    client.close()
    server.close()
    server = serve(command, port)
    client = start(CLIENT, ["rping", "-c", "-a", host, "-p", str(port), "-C", "2", "-v"])
    try:
        client.wait()
        assert client.output.count("ping data: rdma-ping-") == 2, f"{client.output}\n{server.output}"
    finally:
        client.close()
        server.close()


@pytest.mark.parametrize("killed, neighbour", [(SERVER, False), (CLIENT, True)], ids=["alone", "among others"])
def test_a_killed_process_is_missed_by_a_peer_that_only_waits(killed, neighbour):
    """By what another process of its address says, or by its host's kernel."""
    host, port, script = {"CM_HOST": ADDRESS["v4"][SERVER]}, free_port(), [PYTHON, os.path.join(HERE, "connected.py")]
    other = start(killed, ["rping", "-s", "-p", str(free_port())]) if neighbour else None
    ends = [serve([*script, "serve", str(port)], port, environment=host), start(CLIENT, [*script, "dial", str(port)], host)]
    try:
        for end in ends:
            wait_until(lambda end=end: "connected" in end.output or not end.running(), lambda: ends[0].output + ends[1].output)
        left = ends[SERVER + CLIENT - killed]
        # Of three messages of the connection either end gets at most two; the others are questions and answers.
        while left.running() and left.counters().get("rx_packets", 0) < 4:
            time.sleep(0.5)
        ends[killed].kill()
        assert left.wait() == 0 and "disconnected" in left.output, left.output
    finally:
        for program in (*ends, other):
            if program:
                program.close()


@pytest.mark.skipif(not ALL, reason="UROCE_TEST_HOSTS=all")
def test_a_host_without_an_answer_is_unreachable_in_time():
    """Sixteen times 4.3 s, as the request says."""
    began = time.monotonic()
    client = start(CLIENT, ["rping", "-c", "-a", ADDRESS["v4"][SERVER], "-p", "7", "-C", "1"])
    try:
        client.wait(120)
        assert "RDMA_CM_EVENT_UNREACHABLE, error -110" in client.output and 60 < time.monotonic() - began < 90, client.output
    finally:
        client.close()
