# SPDX-License-Identifier: Apache-2.0
"""Programs that use rdma_cm and verbs for their own ends, where they are installed: QEMU's live migration; iSCSI's iSER between tgt and
libiscsi; fio."""
import hashlib
import json
import os
import pathlib
import re
import shutil
import socket
import tempfile

import pytest

from rig import Program, TOOLS, free_port, run, succeed, wait_until
from test_rdmacm import is_bound

KB, MB = 1 << 10, 1 << 20


def needs(*programs):
    missing = [program for program in programs if not shutil.which(program, path=os.pathsep.join(TOOLS))]
    return pytest.mark.skipif(bool(missing), reason=f"not installed: {' '.join(missing)}")


@pytest.fixture
def place():
    """A folder that the programs' user may read and write."""
    with tempfile.TemporaryDirectory(prefix="uroce.") as folder:
        os.chmod(folder, 0o777)
        yield pathlib.Path(folder)


def random_file(path, size):
    path.write_bytes(os.urandom(size))
    path.chmod(0o666)
    return path


def same(one, other):
    return hashlib.sha256(one.read_bytes()).digest() == hashlib.sha256(other.read_bytes()).digest()


# ---- QEMU ----

QEMU = "qemu-system-x86_64"


class Machine:
    """One without disks, that runs its firmware."""

    def __init__(self, path, *options):
        self.program = Program([QEMU, "-accel", "tcg", "-m", "32", "-nodefaults", "-display", "none", "-qmp", f"unix:{path},server=on,wait=off", *options])
        try:
            self.socket = socket.socket(socket.AF_UNIX)
            wait_until(lambda: self.socket.connect_ex(str(path)) == 0 or not self.program.running(), lambda: f"its socket\n{self.program.output}")
        except BaseException:
            self.program.close()
            raise
        self.answers = self.socket.makefile("r")
        self.answers.readline()
        self.ask("qmp_capabilities")

    def ask(self, command, **arguments):
        self.socket.sendall(json.dumps({"execute": command, "arguments": arguments}).encode())
        while True:
            line = self.answers.readline()
            assert line, f"{command}: no answer\n{self.program.output}"
            answer = json.loads(line)
            assert "error" not in answer, f"{command}: {answer}\n{self.program.output}"
            if "return" in answer:
                return answer["return"]

    def migration(self):
        return self.ask("query-migrate").get("status")

    def close(self):
        self.socket.close()
        self.program.close()


@pytest.fixture(scope="module")
def qemu_with_rdma():
    """Builds of QEMU without it know no such address."""
    _, output = run([QEMU, "-machine", "none", "-display", "none", "-incoming", "rdma:192.0.2.1:9"])
    if "unknown migration protocol" in output:
        pytest.skip("this QEMU has no migration by RDMA")


@needs(QEMU)
@pytest.mark.parametrize("pinned", [False, True], ids=["chunks", "pinned"])
def test_a_virtual_machine_moves_with_its_memory(place, pinned, qemu_with_rdma):
    data, got = random_file(place / "data", 4 * MB), place / "got"
    where, at = f"rdma:127.0.0.1:{free_port()}", 16 * MB
    target = Machine(place / "target", "-incoming", "defer")
    try:
        source = Machine(place / "source", "-device", f"loader,file={data},addr={at},force-raw=on")
        try:
            for machine in (source, target):
                machine.ask("migrate-set-capabilities", capabilities=[{"capability": "rdma-pin-all", "state": pinned}])
            target.ask("migrate-incoming", uri=where)
            source.ask("migrate", uri=where)
            wait_until(lambda: source.migration() in ("completed", "failed"), "the migration ends", 60)
            assert source.migration() == "completed", source.program.output + target.program.output
            wait_until(lambda: target.ask("query-status")["running"], "it runs at its new place")
            target.ask("human-monitor-command", **{"command-line": f'pmemsave {at} {4 * MB} "{got}"'})
            assert same(data, got)
        finally:
            source.close()
    finally:
        target.close()


# ---- iSER ----

ISER_PORT = 3260  # tgtd has no option for another


@needs("tgtd", "tgtadm", "iscsi-inq", "qemu-img", "qemu-io")
def test_a_disk_is_read_and_written_over_iser(place):
    if not list(pathlib.Path("/usr/lib").glob("*/qemu/block-iscsi.so")):
        pytest.skip("not installed: qemu-block-extra")
    disk, wanted, copy = random_file(place / "disk", 4 * MB), random_file(place / "wanted", 256 * KB), place / "copy"
    target_name, name = "iqn.2026-11.org.example:disk", "iqn.2026-11.org.example:reader"
    image = f"driver=iscsi,transport=iser,portal=127.0.0.1:{ISER_PORT},target={target_name},lun=1,initiator-name={name}"
    environment = {"TGT_IPC_SOCKET": str(place / "control")}
    # Its pool has 1 GiB by default. It listens at 0.0.0.0 and at :: alone, which are two of the same port.
    target = Program(["tgtd", "-f", "--iscsi", f"portal=127.0.0.1:{free_port()}", "--iser", "pool_sz_mb=64"], environment)
    try:
        wait_until(lambda: is_bound(ISER_PORT) and (place / "control.0").exists() or not target.running(), lambda: f"tgtd listens\n{target.output}")
        for options in (["new", "--mode", "target", "-T", target_name], ["new", "--mode", "logicalunit", "--lun", "1", "-b", str(disk)],
                        ["bind", "--mode", "target", "-I", "127.0.0.1"], ["bind", "--mode", "target", "-Q", name]):
            succeed(["tgtadm", "--lld", "iser", "--tid", "1", "--op", *options], environment)
        url = f"iser://127.0.0.1:{ISER_PORT}/{target_name}/1"
        assert "DIRECT_ACCESS" in succeed(["iscsi-inq", "-i", name, url])
        # libiscsi 1.19 takes no more than 512 KiB at once over iSER, and `qemu-img convert` reads 2 MiB.
        succeed(["qemu-img", "dd", "--image-opts", "-O", "raw", "bs=64k", f"if={image}", f"of={copy}"])
        assert same(disk, copy)
        succeed(["qemu-io", "--image-opts", "-c", f"write -s {wanted} 64k 256k", image])
        assert disk.read_bytes()[64 * KB:320 * KB] == wanted.read_bytes()
    finally:
        target.close()


# ---- fio ----

BLOCKS = 64
FIO = ["fio", "--ioengine=rdma", "--bs=16k", f"--size={BLOCKS * 16}k"]


def run_fio(verb, written, read):
    """The status of the reading end, which listens, and both outputs. It has a buffer for each block: fio allows no RNR retry, and hangs
    after that error."""
    port = free_port()
    server = Program([*FIO, "--name=reads", "--rw=read", f"--iodepth={BLOCKS}", f"--port={port}", f"--verb={verb}", *read])
    try:
        wait_until(lambda: is_bound(port) or not server.running(), lambda: f"it listens\n{server.output}")
        output = succeed([*FIO, "--name=writes", "--hostname=127.0.0.1", "--rw=write", "--iodepth=8", f"--port={port}", f"--verb={verb}", *written])
        return server.wait(), output, server.output
    finally:
        server.close()


@needs("fio")
@pytest.mark.parametrize("verb", ["write", "read", "send"])
def test_fio_moves_its_blocks(verb):
    status, output, other = run_fio(verb, [], [])
    assert status == 0 and re.search(r"\bio=1024KiB", output), output + other


@needs("fio")
@pytest.mark.parametrize("check", ["crc32c", "md5"])
def test_fio_verifies_what_it_gets(check):
    status, output, other = run_fio("send", [f"--verify={check}", "--do_verify=0"], [f"--verify={check}", "--verify_fatal=1"])
    assert status == 0 and re.search(r"READ:.*\bio=1024KiB", other), output + other
