# SPDX-License-Identifier: Apache-2.0
"""Programs that connect by rdma_cm, with the system's own librdmacm: those of Debian's rdmacm-utils, perftest and libfabric."""
import json
import os
import pathlib
import re
import shutil
import socket
import subprocess
import tempfile

import pytest

from rig import HERE, LIMIT, PYTHON, SCALE, TCP, UDP, WRAPPER, Program, find, free_port, is_bound, listening, run, succeed, wait_until

UDADDY_PORT = 7174       # it has no option for another


# Its main thread closes the channel without regard to the one that fetches events, and may be first.
RPING_ENDS = "rdma_get_cm_event: Bad file descriptor"


def finish(server, client, port, space=TCP, environment=None):
    """Both ends: the outputs of server and client, which end well."""
    listener = Program(server, environment)
    try:
        wait_until(lambda: is_bound(port, space) or not listener.running(), lambda: f"server listens\n{listener.output}")
        status, output = run(client, environment)
        assert status == 0 or (client[0] == "rping" and RPING_ENDS in output), f"client: status {status}\n{output}\nserver:\n{listener.output}"
        status = listener.wait()
        assert status == 0 or (server[0] == "rping" and RPING_ENDS in listener.output), f"server: status {status}\n{listener.output}\nclient:\n{output}"
        return listener.output, output
    finally:
        listener.close()


def by_port(server, client, *options, environment=None):
    port = free_port()
    return finish([*server, "-p", str(port), *options], [*client, "-p", str(port), *options], port, environment=environment)


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
def test_rping_verifies_its_data(address):
    server, client = by_port(["rping", "-s", "-a", address], ["rping", "-c", "-a", address], "-C", "5", "-v", "-V")
    assert client.count("ping data: rdma-ping-") == 5 and server.count("ping data: rdma-ping-") == 5


def test_an_address_of_this_host_is_reached_as_the_loopback_is():
    _, client = by_port(["rping", "-s"], ["rping", "-c", "-a", "127.0.0.9"], "-C", "2", "-v")
    assert client.count("ping data: rdma-ping-") == 2


@pytest.mark.parametrize("options", [[], ["-c", "20", "-C", "50", "-S", "4096"]], ids=["one", "many"])
def test_ucmatose(options):
    _, client = by_port(["ucmatose"], ["ucmatose", "-s", "127.0.0.1"], *options)
    assert "return status 0" in client


def test_a_datagram_is_passed_on_to_the_process_of_the_address_that_it_is_for():
    """With an address, the messages go by UDP, and the kernel gives them to any of the processes that have it."""
    address = {"UROCE_ADDR": "127.0.0.1"}
    others = [Program(["rping", "-s", "-p", str(port), "-P"], address) for port in (free_port(), free_port())]
    try:
        _, client = by_port(["rping", "-s"], ["rping", "-c", "-a", "127.0.0.1"], "-C", "3", "-v", "-V", environment=address)
        assert client.count("ping data: rdma-ping-") == 3
        _, client = by_port(["ucmatose"], ["ucmatose", "-s", "127.0.0.1"], "-c", "20", environment=address)
        assert "return status 0" in client
        assert all(other.running() for other in others)
    finally:
        for other in others:
            other.close()


def test_udaddy():
    for environment in ({}, {"UROCE_ADDR": "127.0.0.1"}):
        _, client = finish(["udaddy", "-c", "4"], ["udaddy", "-s", "127.0.0.1", "-c", "4"], UDADDY_PORT, UDP, environment)
        assert "return status 0" in client


def members(group):
    """How many sockets receive what is sent to the group. In loopback mode a group of IPv6 is carried by one of IPv4 (udp_group.c)."""
    if ":" in group:
        value = 0xcbf29ce484222325
        for byte in socket.inet_pton(socket.AF_INET6, group):
            value = (value ^ byte) * 0x100000001b3 & 0xffffffffffffffff
        carrier = b"\xef" + (value >> 20 & 0xffffff).to_bytes(3, "big")
    else:
        carrier = socket.inet_aton(group)
    wanted = r"^\s*\d+: %s:12B7 " % carrier[::-1].hex().upper()
    with open("/proc/net/udp", encoding="ascii") as table:
        return sum(1 for line in table if re.match(wanted, line))


@pytest.mark.parametrize("group, options, environment", [
    ("239.{}.{}.1", [], {}), ("239.{}.{}.2", [], {"UROCE_ADDR": "127.0.0.1"}), ("ff0e::5a:{}:{}", ["-b", "::1"], {}),
    ("239.{}.{}.3", ["-c", "3", "-S", "1024"], {"UROCE_WIRE": "1"})], ids=["loopback", "address", "IPv6", "many"])
def test_multicast_reaches_all_members(group, options, environment):
    """Two processes have joined; a third sends."""
    port = free_port()
    group = group.format(port >> 8, port & 255)
    before = members(group)
    command = ["mckey", "-m", group, "-C", "5", *(["-b", "127.0.0.1"] if ":" not in group else []), *options]
    receivers = [Program(command, environment) for _ in range(2)]
    try:
        wait_until(lambda: members(group) >= before + 2, lambda: f"both join {group}\n{[receiver.output for receiver in receivers]}")
        # They are attached a moment later, and nothing tells when: datagrams before that are lost.
        for _ in range(20):
            assert "return status 0" in succeed([*command, "-s"], environment)
            if not any(receiver.running() for receiver in receivers):
                break
        for receiver in receivers:
            assert receiver.wait() == 0 and "data transfers complete" in receiver.output, receiver.output
    finally:
        for receiver in receivers:
            receiver.close()


def test_synchronous_programs():
    assert "end 0" in by_port(["rdma_server"], ["rdma_client", "-s", "127.0.0.1"])[1]
    assert "end 0" in by_port(["rdma_xserver"], ["rdma_xclient", "-s", "127.0.0.1"], "-c", "r")[1]


# Not -T a: such a client ends with status 16 (POLLHUP) when the peer's last data and its goodbye are there at once, on rdma_rxe too.
@pytest.mark.parametrize("program, options", [
    ("rstream", ["-T", "v", "-T", "b", "-S", "65536", "-C", "100", "-I", "2"]),
    ("rstream", ["-T", "v", "-T", "n", "-S", "1000", "-C", "20", "-I", "2"]), ("rstream", ["-T", "r", "-S", "4096", "-C", "20", "-I", "2"]),
    ("riostream", ["-S", "4096", "-C", "10", "-I", "2"])], ids=["blocking", "nonblocking", "resolved", "offsets"])
def test_sockets_over_rdma(program, options):
    _, client = by_port([program], [program, "-s", "127.0.0.1"], *options)
    assert re.search(r"^custom ", client, re.MULTILINE), client


@pytest.fixture
def public_folder():
    """One that the programs' user may read and write."""
    with tempfile.TemporaryDirectory(prefix="rcopy.") as folder:
        os.chmod(folder, 0o777)
        yield pathlib.Path(folder)


def test_rcopy_copies_a_file(public_folder):
    data = os.urandom(300_000)
    source, target = public_folder / "source", public_folder / "target"
    source.write_bytes(data)
    source.chmod(0o644)
    port = free_port()
    listener = Program(["rcopy", "-p", str(port)])
    try:
        wait_until(lambda: is_bound(port), lambda: f"server listens\n{listener.output}")
        succeed(["rcopy", str(source), f"127.0.0.1:{target}", "-p", str(port)])
        assert target.read_bytes() == data
    finally:
        listener.close()  # it goes on for others


def cmtime(host, own, port, connections):
    """The commands of server and client. From rdma-core 60 on or so one of them tells the others by TCP at this port what to do."""
    usage = subprocess.run([find("cmtime"), "-h"], capture_output=True, text=True, timeout=20, check=False)
    both = ["-p", str(port), "-c", str(connections)]
    if "-C controller" in usage.stdout + usage.stderr:
        return ["cmtime", "-L", "-b", host, "-C", host, *both], ["cmtime", "-b", own, "-C", host, *both]
    return ["cmtime", *both], ["cmtime", "-s", host, *both]


CMTIME_ENDS = re.compile(r"^destroy ", re.MULTILINE)


def test_many_connections_at_once():
    port = free_port()
    server, client = cmtime("127.0.0.1", "127.0.0.1", port, 300)
    listener = Program(server)
    try:
        wait_until(lambda: is_bound(port) or listening(port), lambda: f"server listens\n{listener.output}")
        assert CMTIME_ENDS.search(succeed(client))
    finally:
        listener.close()


def test_nobody_listens_is_told_at_once():
    status, output = run(["rping", "-c", "-a", "127.0.0.1", "-p", str(free_port()), "-C", "1"])
    assert status != 0 and "RDMA_CM_EVENT_REJECTED, error 8" in output


def test_a_port_is_one_programs_alone():
    port = free_port()
    first = Program(["rping", "-s", "-p", str(port), "-P"])
    try:
        wait_until(lambda: is_bound(port), lambda: f"server listens\n{first.output}")
        status, output = run(["rping", "-s", "-p", str(port)])
        assert status != 0 and "Address already in use" in output
        first.kill()  # as kill -9 does: the name is free at once
        assert not is_bound(port)
    finally:
        first.close()


@pytest.mark.parametrize("program", ["channels", "connections", "endings", "commands", "refusals"])
def test_what_programs_rarely_do(program):
    assert "all as they should be" in succeed([PYTHON, os.path.join(HERE, f"{program}.py")])


def test_ports_are_one_space_for_those_who_cannot_reach_each_other():
    """With an address and without: the port is taken for both, and a request does not go astray."""
    port = free_port()
    address = {"UROCE_ADDR": "127.0.0.1"}
    first = Program(["rping", "-s", "-p", str(port), "-P"])
    try:
        wait_until(lambda: is_bound(port), lambda: f"server listens\n{first.output}")
        status, output = run(["rping", "-s", "-p", str(port)], address)
        assert status != 0 and "Address already in use" in output
        status, output = run(["rping", "-c", "-a", "127.0.0.1", "-p", str(port), "-C", "1"], address)
        assert status != 0 and "RDMA_CM_EVENT_REJECTED, error 8" in output
        assert first.running()
    finally:
        first.close()


def test_resources_show_ids_and_their_ports():
    port = free_port()
    server = Program(["rping", "-s", "-a", "127.0.0.1", "-p", str(port), "-P"])

    def shown():
        result = subprocess.run([WRAPPER, "resources", "--json"], capture_output=True, text=True, timeout=LIMIT * SCALE, check=True)
        return {process["pid"]: process for process in json.loads(result.stdout)["processes"]}

    try:
        wait_until(lambda: is_bound(port), lambda: f"server listens\n{server.output}")
        mine = next(process for process in shown().values() if {"space": "TCP", "port": port, "address": "127.0.0.1"} in process["ports"])
        assert mine["command"] == "rping" and mine["objects"]["cm_id"] == 1
        text = subprocess.run([WRAPPER, "resources"], capture_output=True, text=True, timeout=LIMIT * SCALE, check=True).stdout
        assert re.search(rf"^ *{mine['pid']} rping +TCP +{port} 127\.0\.0\.1$", text, re.MULTILINE), text
    finally:
        server.close()


@pytest.mark.parametrize("program, options", [("ib_write_bw", ["-n", "200"]), ("ib_send_lat", ["-n", "200"]), ("ib_read_bw", ["-n", "200"]),
                                              ("ib_send_bw", ["-c", "UD", "-s", "1024", "-n", "64"]), ("ib_atomic_bw", ["-q", "4", "-n", "100"])])
def test_perftest(program, options):
    by_port([program, "-R"], [program, "-R", "127.0.0.1"], *options)


@pytest.mark.skipif(not shutil.which("fi_pingpong"), reason="libfabric's programs are not installed")
def test_libfabric():
    listener = Program(["fi_pingpong", "-p", "verbs", "-I", "20"])
    try:
        succeed(["sh", "-c", "for i in 1 2 3 4 5 6 7 8 9 10; do fi_pingpong -p verbs -I 20 127.0.0.1 && exit; sleep 0.2; done; exit 1"])
        assert listener.wait() == 0, listener.output
    finally:
        listener.close()
