# SPDX-License-Identifier: Apache-2.0
"""Programs that connect by rdma_cm, with the system's own librdmacm: those of Debian's rdmacm-utils, perftest and libfabric."""
import os
import pathlib
import re
import shutil
import tempfile

import pytest

from rig import HERE, PYTHON, Program, free_port, run, succeed, wait_until

TCP, UDP = 0x106, 0x111  # port spaces
UDADDY_PORT = 7174       # it has no option for another


def is_bound(port, space=TCP):
    """Whether a process listens there: its socket has a name."""
    name = f"@uroce-service-{space << 16 | port:016x}-"
    with open("/proc/net/unix", encoding="ascii", errors="replace") as table:
        return any(name in line for line in table)


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


def test_many_connections_at_once():
    port = free_port()
    listener = Program(["cmtime", "-p", str(port), "-c", "300"])
    try:
        wait_until(lambda: is_bound(port), lambda: f"server listens\n{listener.output}")
        assert re.search(r"^destroy ", succeed(["cmtime", "-s", "127.0.0.1", "-p", str(port), "-c", "300"]), re.MULTILINE)
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


def test_channels_are_the_processs_own():
    assert "all as they should be" in succeed([PYTHON, os.path.join(HERE, "channels.py")])


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
