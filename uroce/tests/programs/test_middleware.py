# SPDX-License-Identifier: Apache-2.0
"""Libraries that carry other programs over verbs, as Debian ships them: UCX, libfabric, and MPI over UCX where it is installed."""
import os
import shutil
import subprocess
import tempfile

import pytest

from rig import DEVICE, FOLDER, Pair, Program, TOOLS, find, free_port, succeed, wait_listening

# A connection of rc_verbs is made by datagrams. Nothing else is allowed, or shared memory would carry it all.
TRANSPORTS = {"rc": "rc_verbs,ud_verbs:aux,self", "ud": "ud_verbs,self"}


@pytest.fixture(scope="module")
def with_verbs():
    """Debian's UCX 1.23 (sid, November 2026) is built without its part for verbs."""
    parts = succeed(["sh", "-c", "ls /usr/lib/*/ucx"]).split()
    if not any(part.startswith("libuct_ib.") for part in parts):
        pytest.skip("this UCX has no libuct_ib")


def ucx(transport):
    return {"UCX_TLS": TRANSPORTS[transport], "UCX_NET_DEVICES": f"{DEVICE}:1"}


def test_ucx_finds_the_device(with_verbs):
    """It looks for a character device in /dev/infiniband."""
    text = succeed(["ucx_info", "-d"])
    for transport in ("rc_verbs", "ud_verbs"):
        part = text.split(f"Transport: {transport}\n")[1].split("Transport:")[0]
        assert f"Device: {DEVICE}:1" in part, text


@pytest.fixture(scope="module")
def without_mpi():
    """An ucx_perftest that was built with MPI thinks that it is run by MPI."""
    usage = subprocess.run([find("ucx_perftest"), "-h"], capture_output=True, text=True, check=False)
    return ["-P", "0"] if " -P <0|1>" in usage.stdout + usage.stderr else []


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("test, size", [(test, size) for test in ("tag_lat", "tag_bw", "stream_lat", "ucp_am_lat", "ucp_put_lat",
                                                                  "ucp_get") for size in (8, 65536)] + [("ucp_fadd", 8)])
def test_ucx_perftest(transport, test, size, without_mpi, with_verbs):
    options = ["-t", test, "-s", str(size), "-n", "50", "-w", "5", *without_mpi]
    _, client = Pair(["ucx_perftest", *options], environment=ucx(transport)).finish(limit=120)
    # UCX 1.18 asks every rc_verbs endpoint for what it has for mlx5 alone, says that this fails, and goes on without.
    errors = [line for line in client.splitlines() if "ERROR" in line and "flush(remote) is not supported" not in line and
              "error during flush: Unsupported operation" not in line]
    assert "Final:" in client and not errors, client


def test_libfabric_datagrams_with_data_checked():
    port = str(free_port())
    command = ["fi_pingpong", "-p", "verbs;ofi_rxd", "-e", "rdm", "-d", f"{DEVICE}-dgram", "-c", "-I", "20"]
    server = Program([*command, "-B", port])
    client = None
    try:
        wait_listening(server, int(port))
        client = Program([*command, "-P", port, "127.0.0.1"])
        assert client.wait(120) == 0, f"{client.output}\n{server.output}"
        assert server.wait() == 0, server.output
        assert "1m" in client.output, client.output
    finally:
        for program in (client, server):
            if program:
                program.close()


@pytest.fixture(scope="module")
def folder():
    made = tempfile.mkdtemp(prefix="uroce-mpi.")
    os.chmod(made, 0o777)
    yield made
    shutil.rmtree(made, ignore_errors=True)


def has_mpi(kind):
    """The compiler comes with the programs, and its header with another package."""
    if not all(shutil.which(f"{word}.{kind}", path=os.pathsep.join(TOOLS)) for word in ("mpicc", "mpiexec")):
        return False
    return subprocess.run([find(f"mpicc.{kind}"), "-E", "-include", "mpi.h", "-x", "c", os.devnull], capture_output=True, check=False).returncode == 0


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("kind", ["openmpi", "mpich"])
def test_mpi_over_ucx(kind, transport, folder, with_verbs):
    if not has_mpi(kind):
        pytest.skip(f"{kind} is not installed, or not its header")
    program = os.path.join(folder, f"mpi_check.{kind}")
    subprocess.run([find(f"mpicc.{kind}"), "-o", program, os.path.join(FOLDER, "mpi_check.c")], check=True)
    environment = {**ucx(transport), "HOME": folder, "OMPI_MCA_pml": "ucx", "OMPI_MCA_osc": "ucx",
                   "OMPI_MCA_rmaps_base_oversubscribe": "1", "PRTE_MCA_rmaps_default_mapping_policy": ":oversubscribe"}
    # One-sided access of MPICH 4.0 with Debian 12's UCX gives wrong numbers over TCP too.
    text = succeed([f"mpiexec.{kind}", "-n", "2", program, *(["two-sided"] if kind == "mpich" else [])], environment, limit=120)
    assert "2 processes: all numbers are right" in text
