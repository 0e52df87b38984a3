#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Copying files within this host, on uroce: `securdma cp` beside scp, beside a pipe through `openssl s_server`, and beside RDMA writes,
and beside cp(1), which shows how fast this machine's file system takes the same files without any network.

usage: copies.py BUILD [--rounds N] [--size BYTES] [--files N] [--folder DIR] [--quick] [--only large|small]
       [--json | --markdown]
  --size    of the one large file; default: 4 GiB
  --files   how many small ones (2 KiB each); default: 10000
  --folder  where all is; default: /dev/shm, so that it is the copying that is measured, and not a disk
  --quick   512 MiB and 2000 files
  --only    the large file, or the small ones
Each command is measured whole, from its start to its end, with its handshake. securdma cp says that it is done when everything is on stable
storage; scp, the pipe and cp(1) leave that to the kernel, and so does securdma cp --no-sync. In /dev/shm there is nothing to wait for; on a
disk the difference shows, and the rows with --no-sync are the ones to compare. The rows
beside scp need the package openssh-server; the server that they start listens on the loopback address alone. On a busy machine they say
little: sshd makes sessions of its own, and the scheduler shares the processors out by session.
"""
import argparse
import contextlib
import getpass
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "uroce/bench"))
import rows  # noqa: E402
from peers import LIMIT, answer, free_port, listening, need  # noqa: E402
from rows import Failed, Missing, Row, in_turn  # noqa: E402

parser = argparse.ArgumentParser(usage=__doc__)
parser.add_argument("build", type=lambda text: pathlib.Path(text).resolve())
parser.add_argument("--rounds", type=int, default=3)
parser.add_argument("--size", type=int)
parser.add_argument("--files", type=int)
parser.add_argument("--folder", type=pathlib.Path, default=pathlib.Path("/dev/shm"))
parser.add_argument("--quick", action="store_true")
parser.add_argument("--only", choices=("large", "small"))
rows.add_options(parser)
options = parser.parse_args()
SIZE = options.size or (512 << 20 if options.quick else 4 << 30)
FILES = options.files or (2000 if options.quick else 10000)
SMALL = 2048
LONG = 10 * LIMIT  # for one copy: the default size takes some ways minutes on a busy machine
SECURDMA = options.build / "cli/securdma"
UROCE = options.build / "uroce/cli/uroce"
SSHD = "/usr/sbin/sshd"


def run(*command, **more):
    try:
        result = subprocess.run([str(word) for word in command], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=LONG, check=False, **more)
    except subprocess.TimeoutExpired as late:
        raise Failed(f"bench: {' '.join(map(str, command))}: not over after {LONG} s") from late
    if result.returncode != 0:
        raise Failed(f"bench: {' '.join(map(str, command))} failed:\n{result.stderr}")


def peak_of(pid):
    """The most memory that a process has had, in MiB; 0 when it has ended."""
    try:
        status = pathlib.Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    except OSError:
        return 0
    return next((int(line.split()[1]) / 1024 for line in status.splitlines() if line.startswith("VmHWM:")), 0)


def run_watched(*command):
    """Runs a command, and returns its peak_of()."""
    peak = 0
    with subprocess.Popen([str(word) for word in command], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        while process.poll() is None:
            peak = max(peak, peak_of(process.pid))
            time.sleep(0.005)
        if process.returncode != 0:
            raise Failed(f"bench: {' '.join(map(str, command))} failed:\n{process.stderr.read()}")
    return peak


@contextlib.contextmanager
def server(command, port, **more):
    with subprocess.Popen([str(word) for word in command], stderr=subprocess.DEVNULL,
                          **{"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, **more}) as process:
        try:
            end = time.monotonic() + 30
            while not listening(port, process.pid):
                if process.poll() is not None or time.monotonic() > end:
                    raise Failed(f"bench: does not listen: {' '.join(map(str, command))}")
                time.sleep(0.01)
            yield process
        finally:
            process.terminate()
            process.wait(LIMIT)


class Copies:
    """The large file, the tree of small ones, and the ways to copy them."""

    def __init__(self, work):
        self.work, self.target = work, work / "target"
        self.large, self.sixteenth, self.tree = work / "large", work / "sixteenth", work / "tree"
        block = os.urandom(1 << 20)
        for path, size in ((self.large, SIZE), (self.sixteenth, SIZE // 16)) if options.only != "small" else ():
            with open(path, "wb") as file:
                for _ in range(size >> 20):
                    file.write(block)
        for number in range(FILES if options.only != "large" else 0):
            folder = self.tree / str(number // 100)
            folder.mkdir(parents=True, exist_ok=True)
            (folder / str(number)).write_bytes(block[number:number + SMALL])
        for words in (["ca"], ["server", "--name", "127.0.0.1"], ["client", "--cn", "copy"]):
            run(SECURDMA, "cert", *words, cwd=work)
        for name in ("host", "user"):
            if shutil.which("ssh-keygen"):
                run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", work / name)

    def bytes_of(self, source):
        return FILES * SMALL if source == self.tree else source.stat().st_size

    def timed(self, source, copy):
        """MB/s; what was copied is checked once a round."""
        shutil.rmtree(self.target, ignore_errors=True)
        self.target.mkdir()
        begin = time.monotonic()
        copy()
        passed = time.monotonic() - begin
        run("diff", "-rq", source, self.target / source.name)
        return self.bytes_of(source) / passed / 1e6

    def securdma(self, source, *options, memory=None):
        """With `memory`, a dictionary, the peaks of both ends go there."""
        seal = options[:2] if "--seal" in options else ()
        port = free_port()
        serve = [UROCE, SECURDMA, "serve", "--listen", "127.0.0.1", "--port", port, "--cert", self.work / "server.crt", "--key", self.work / "server.key",
                 "--client-ca", self.work / "ca.crt", "--files-directory", self.target, "--files-rights", "w", "--region-size", "4M", *seal]
        self.target.mkdir(exist_ok=True)
        client = [UROCE, SECURDMA, "cp", "--quiet", "--port", port, "--ca", self.work / "ca.crt", "--cert", self.work / "client.crt", "--key",
                  self.work / "client.key", *options, "-r", source, "127.0.0.1:"]
        with server(serve, port) as process:
            if memory is None:
                return self.timed(source, lambda: run(*client))
            rate = self.timed(source, lambda: memory.update(client=run_watched(*client)))
            memory["server"] = peak_of(process.pid)
            return rate

    def peaks(self, source, *options):
        memory = {}
        self.securdma(source, *options, memory=memory)
        return memory

    def scp(self, source):
        if not os.path.exists(SSHD):
            raise Missing("openssh-server is not installed")
        need("scp")
        port = free_port()
        os.makedirs("/run/sshd", exist_ok=True)
        sshd = [SSHD, "-D", "-f", "/dev/null", "-h", self.work / "host", "-p", port, "-o", "ListenAddress=127.0.0.1", "-o", "StrictModes=no", "-o",
                f"AuthorizedKeysFile={self.work}/user.pub", "-o", "PidFile=none", "-o", "Subsystem=sftp internal-sftp"]
        with server(sshd, port):
            return self.timed(source, lambda: run("scp", "-q", "-r", "-p", "-P", port, "-i", self.work / "user", "-F", "/dev/null", "-o",
                                                  "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", source,
                                                  f"{getpass.getuser()}@127.0.0.1:{self.target}"))

    def local(self, source):
        """Without any network."""
        return self.timed(source, lambda: run("cp", "-r", "-p", source, self.target))

    def openssl(self, source):
        """The large file as it is, and the tree by tar, which is what a pipe needs. Neither of the two commands ends by itself."""
        need("openssl")
        port = free_port()
        is_file = source == self.large
        feed = f"cat {source}" if is_file else f"tar c -C {self.work} {source.name}"
        store = f"head -c {SIZE} > {self.target / source.name}" if is_file else f"tar x -C {self.target}"
        send = f"{feed} | exec openssl s_client -quiet -connect 127.0.0.1:{port} -CAfile {self.work}/ca.crt"
        listen = ["openssl", "s_server", "-quiet", "-naccept", "1", "-accept", f"127.0.0.1:{port}", "-cert", self.work / "server.crt", "-key",
                  self.work / "server.key"]

        def copy():
            with subprocess.Popen(["sh", "-c", store], stdin=process.stdout) as taker, \
                    subprocess.Popen(["sh", "-c", send], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                                     process_group=0) as sender:
                try:
                    if taker.wait(LONG) != 0:
                        raise Failed("bench: the pipe through openssl failed")
                finally:
                    os.killpg(sender.pid, signal.SIGKILL)

        # Its own input must stay open, or it ends the connection.
        with server(listen, port, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
            return self.timed(source, copy)


def writes():
    report = answer(UROCE, SECURDMA, "bench", "--json", "--only", "bandwidth", "--sizes", "262144", "--iterations", "8000")
    return next(line["mib_per_s"] * 1.048576 for line in report["bandwidth"] if line["operation"] == "write")


def add_peaks(report, copies, sealed):
    """Memory that grew with a file would be 16 times as much."""
    for word, seal in (("plain", ()), ("sealed", sealed)):
        large, small = copies.peaks(copies.large, *seal), copies.peaks(copies.sixteenth, *seal)
        for end in ("client", "server"):
            report.add(Row(f"peak memory of the {end}, {word}: one file of {SIZE >> 20} MiB", "MiB", [large[end]], f"one of {SIZE >> 24} MiB", [small[end]],
                           most=1.2))


def main():
    report = rows.Report(options)
    with tempfile.TemporaryDirectory(prefix="securdma-copy-", dir=options.folder) as folder:
        copies = Copies(pathlib.Path(folder))
        sealed = "--seal", "required"
        for source, what in ((copies.large, f"one file of {SIZE >> 20} MiB"), (copies.tree, f"{FILES} files of {SMALL >> 10} KiB")):
            if options.only and (options.only == "large") != (source == copies.large):
                continue
            seen = in_turn(options.rounds, {"sealed": lambda source=source: copies.securdma(source, *sealed), "scp": lambda source=source: copies.scp(source),
                                            "openssl": lambda source=source: copies.openssl(source),
                                            "sealed, left to the kernel": lambda source=source: copies.securdma(source, *sealed, "--no-sync"),
                                            "plain": lambda source=source: copies.securdma(source), "writes": writes,
                                            "plain, left to the kernel": lambda source=source: copies.securdma(source, "--no-sync"),
                                            "cp": lambda source=source: copies.local(source)})
            report.add(Row(f"securdma cp, sealed: {what}", "MB/s", seen["sealed"], "scp", seen["scp"], least=1.5),
                       Row(f"securdma cp, sealed: {what}", "MB/s", seen["sealed"], "openssl s_server in a pipe", seen["openssl"], least=1.2),
                       Row(f"securdma cp --no-sync, sealed: {what}", "MB/s", seen["sealed, left to the kernel"], "openssl s_server in a pipe",
                           seen["openssl"]))
            if source == copies.large:
                report.add(Row(f"securdma cp, plain: {what}", "MB/s", seen["plain"], "RDMA writes of 256 KiB", seen["writes"], least=0.8))
            else:
                report.add(Row(f"securdma cp, plain: {what}", "MB/s", seen["plain"], "scp", seen["scp"]))
            report.add(Row(f"securdma cp --no-sync, plain: {what}", "MB/s", seen["plain, left to the kernel"], "cp(1), without a network", seen["cp"]))
            if source == copies.large:
                report.add(Row(f"cp(1), without a network: {what}", "MB/s", seen["cp"], "RDMA writes of 256 KiB", seen["writes"],
                               after="what the file system allows"))
        if options.only != "small":
            add_peaks(report, copies, sealed)
    return report.end()


if __name__ == "__main__":
    sys.exit(main())
