#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""One server, ten clients at once, an eleventh that is turned away; then a table of what each client saw.

usage: demo.py [BUILD] [--messages N]     BUILD: a build folder; else the installed commands are shown
Exit code: 0 when every check held, 1 when one did not, 2 when the demonstration could not run.
"""
import argparse
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time

CLIENTS = 10
DEADLINE = 120  # seconds, for any one step
LEFTOVER_DEADLINE = 10  # seconds for the kernel to show objects as gone


class Failure(Exception):
    """The demonstration could not go on."""


class Checks:
    """What must hold, and whether it did."""

    def __init__(self):
        self.failed = 0

    def check(self, holds, what):
        print(f"  {'ok' if holds else 'FAILED'}: {what}")
        if not holds:
            self.failed += 1


def gid_addresses():
    """Yields the IPv4 addresses that RoCE v2 GIDs of active ports stand for."""
    for port in sorted(pathlib.Path("/sys/class/infiniband").glob("*/ports/*")):
        if "ACTIVE" not in (port / "state").read_text():
            continue
        for gid in sorted((port / "gids").iterdir(), key=lambda p: int(p.name)):
            try:
                kind = (port / "gid_attrs" / "types" / gid.name).read_text()
            except OSError:
                continue  # an empty entry has no type
            words = gid.read_text().strip().split(":")
            if "v2" in kind and words[:6] == ["0000"] * 5 + ["ffff"]:
                number = int(words[6] + words[7], 16)
                yield ".".join(str(number >> shift & 0xFF) for shift in (24, 16, 8, 0))


def on_uroce():
    return "liburoce.so" in os.environ.get("LD_PRELOAD", "")


def command(build, name, folder):
    """The path of a command, in its folder of the build, or as installed."""
    path = str(build / folder / name) if build else shutil.which(name)
    if not path:
        raise Failure(f"the command {name} is not in PATH; name a build folder instead")
    return os.path.realpath(path)


def runs(pid, program):
    try:
        return os.readlink(f"/proc/{pid}/exe") == program
    except OSError:
        return False


def objects(build):
    """Counts of verbs objects of all processes, all devices together; None when `rdma` can't tell."""
    if on_uroce():
        text = subprocess.run([command(build, "uroce", "uroce/cli"), "resources", "--json"], capture_output=True, text=True,
                              check=True).stdout
        # Others may use uroce at the same time.
        program = command(build, "securdma", "cli")
        ours = [process["objects"] for process in json.loads(text)["processes"] if runs(process["pid"], program)]
        return {name: sum(counts[name] for counts in ours) for name in ("pd", "cq", "qp", "mr")}
    try:
        text = subprocess.run(["rdma", "resource", "show"], capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return None
    counts = dict.fromkeys(("pd", "cq", "qp", "mr"), 0)
    for name, number in re.findall(r"\b(pd|cq|qp|mr) (\d+)", text):
        counts[name] += int(number)
    return counts


def wait_for(condition, what):
    """Polls until `condition` returns something true, which is returned."""
    end = time.monotonic() + DEADLINE
    while time.monotonic() < end:
        value = condition()
        if value:
            return value
        time.sleep(0.05)
    raise Failure(f"{what}: not within {DEADLINE} s")


class Demo:
    def __init__(self, build, work, messages):
        self.build = build
        self.program = command(build, "securdma", "cli")
        self.work = work
        self.messages = messages
        self.address = next(gid_addresses(), "127.0.0.1")
        self.release = work / "all-may-leave"
        self.server = None
        self.clients = []

    def run(self, *arguments):
        result = subprocess.run([self.program, *arguments], cwd=self.work, capture_output=True, text=True,
                                timeout=DEADLINE, check=False)
        if result.returncode != 0:
            raise Failure(f"securdma {' '.join(arguments)}: exit code {result.returncode}: {result.stderr.strip()}")

    def make_certificates(self):
        self.run("cert", "ca", "--cn", "demo CA", "--days", "2")
        self.run("cert", "server", "--cn", "demo server", "--name", self.address, "--days", "2")
        for number in range(1, CLIENTS + 2):
            self.run("cert", "client", "--cn", f"client {number}", "--out", f"client{number}", "--days", "2")

    def start_server(self):
        self.log = open(self.work / "server.log", "w+")
        self.server = subprocess.Popen(
            [self.program, "serve", "--json", "--listen", self.address, "--port", "0", "--max-clients", str(CLIENTS),
             "--cert", "server.crt", "--key", "server.key", "--client-ca", "ca.crt"],
            cwd=self.work, stdout=subprocess.PIPE, stderr=self.log, text=True)
        line = self.server.stdout.readline()
        if not line:
            self.server.wait(DEADLINE)
            raise Failure(f"the server did not start: {(self.work / 'server.log').read_text().strip()}")
        self.port = json.loads(line)["port"]

    def start_client(self, number, hold=True):
        pattern = chr(ord("a") + number - 1) * 3
        command = [self.program, "connect", f"{self.address}:{self.port}", "--ca", "ca.crt", "--cert",
                   f"client{number}.crt", "--key", f"client{number}.key", "--pattern", pattern, "--count",
                   str(self.messages), "--json", "--show-psn"]
        if hold:
            command += ["--hold-file", str(self.release)]
        return subprocess.Popen(command, cwd=self.work, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def connected(self):
        return (self.work / "server.log").read_text().count(": connected from")

    def finish(self, client):
        out, err = client.communicate(timeout=DEADLINE)
        try:
            return client.returncode, json.loads(out), err.strip()
        except ValueError as error:
            raise Failure(f"a client printed no JSON: {out!r} {err!r}") from error

    def run_clients(self):
        """Returns the ten results, and that of the eleventh."""
        self.clients = [self.start_client(number) for number in range(1, CLIENTS + 1)]
        wait_for(lambda: self.connected() >= CLIENTS or any(c.poll() is not None for c in self.clients),
                 "ten clients connected")
        late = self.start_client(CLIENTS + 1, hold=False)
        self.clients.append(late)
        rejected = self.finish(late)
        self.release.touch()
        return [self.finish(client) for client in self.clients[:CLIENTS]], rejected

    def stop_server(self):
        self.server.send_signal(signal.SIGTERM)
        return self.server.wait(DEADLINE)

    def kill_all(self):
        for process in [*self.clients, self.server]:
            if process and process.poll() is None:
                process.kill()
                process.wait()


def print_table(results):
    print(f"\n{'client':<10} {'QPN own/peer':<17} {'PSN own/peer':<19} {'tcp':>6} {'tls':>7} {'exch.':>7} {'qp':>7} "
          f"{'total':>7}  {'verified':>8} {'written':>8} {'read back':>9}")
    print(f"{'':<10} {'':<17} {'':<19} {'us':>6} {'us':>7} {'us':>7} {'us':>7} {'us':>7}  {'messages':>8} "
          f"{'bytes':>8} {'bytes':>9}")
    for number, (_, r, _) in enumerate(results):
        if "phases" not in r:
            print(f"{chr(ord('a') + number) * 3:<10} not connected: {r.get('text', '')}")
            continue
        p = r["phases"]
        print(f"{r['client_id']:>3} {chr(ord('a') + number) * 3:<6} "
              f"{r['qpn']:06x}/{r['peer_qpn']:06x}     {r['psn']:06x}/{r['peer_psn']:06x}       "
              f"{p['tcp_us']:>6} {p['tls_us']:>7} {p['exchange_us']:>7} {p['qp_us']:>7} {p['total_us']:>7}  "
              f"{r['messages_verified']:>8} {r['bytes_written']:>8} {r['bytes_read_back']:>9}")


def judge(demo, results, rejected, server_code, before):
    checks = Checks()
    print("\nchecks")
    for number, (code, r, err) in enumerate(results, 1):
        if code != 0 or not r.get("ok"):
            checks.check(False, f"client {number} ended with {code}: {err}")
    good = [r for _, r, _ in results if r.get("ok")]
    checks.check(len(good) == CLIENTS, f"{len(good)} of {CLIENTS} clients connected at once and verified everything")
    checks.check(all(r["messages_verified"] == demo.messages for r in good), f"{demo.messages} echoes each were right")
    checks.check(all(r["bytes_read_back"] == r["bytes_written"] > 0 for r in good),
                 "what was written by RDMA was read back by RDMA")
    checks.check(len({r["client_id"] for r in good}) == CLIENTS, "every client has an id of its own")
    psns = [r[key] for r in good for key in ("psn", "peer_psn")]
    checks.check(len(psns) == 2 * CLIENTS and len(set(psns)) == len(psns), f"all {len(psns)} starting PSNs differ")
    code, r, _ = rejected
    checks.check(code == 5 and "full" in r.get("text", ""), f"client {CLIENTS + 1} was turned away: {r.get('text')}")
    checks.check(server_code == 0, "the server drained and ended with 0")
    if before is None:
        print("  not checked: `rdma resource` shows nothing here, so leftover verbs objects were not counted")
    else:
        end = time.monotonic() + LEFTOVER_DEADLINE
        while objects(demo.build) != before and time.monotonic() < end:
            time.sleep(0.1)
        after = objects(demo.build)
        checks.check(after == before, f"verbs objects before {before}, after {after}")
    return checks.failed


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("build", type=pathlib.Path, nargs="?")
    parser.add_argument("--messages", type=int, default=100)
    arguments = parser.parse_args()
    work = pathlib.Path(tempfile.mkdtemp(prefix="securdma-demo."))
    demo = None
    try:
        demo = Demo(arguments.build.resolve() if arguments.build else None, work, arguments.messages)
        before = objects(demo.build)
        print("making a certificate authority and certificates for a server and eleven clients")
        demo.make_certificates()
        demo.start_server()
        print(f"server on {demo.address}:{demo.port}, at most {CLIENTS} clients; starting {CLIENTS} clients, then one more",
              flush=True)
        results, rejected = demo.run_clients()
        code = demo.stop_server()
        print_table(results)
        failed = judge(demo, results, rejected, code, before)
    except (Failure, subprocess.TimeoutExpired) as error:
        print(f"demo: {error}", file=sys.stderr)
        log = work / "server.log"
        if log.exists():
            sys.stderr.write(log.read_text()[-4000:])
        return 2
    finally:
        if demo:
            demo.kill_all()
        shutil.rmtree(work, ignore_errors=True)
    print(f"\n{'all checks held' if failed == 0 else f'{failed} checks FAILED'}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
