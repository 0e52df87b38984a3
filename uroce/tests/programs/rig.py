# SPDX-License-Identifier: Apache-2.0
"""Runs programs on uroce as an ordinary user would: under the wrapper, and without privileges.

UROCE_BUILD          the build folder (default: ./build)
UROCE_TEST_SCALE     factor for all deadlines, for builds and machines that are slow (default: 1)
UROCE_PRELOAD_FIRST  libraries to load before uroce (a sanitizer's runtime); the library is then preloaded directly
"""
import itertools
import json
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time

from public import for_everyone

FOLDER = os.path.dirname(os.path.abspath(__file__))
BUILD = for_everyone(os.environ.get("UROCE_BUILD", os.path.join(FOLDER, "..", "..", "build")),
                     "cli/uroce", "src/liburoce.so", "src/dropin/libibverbs.so.1", "src/dropin/libibverbs.so",
                     "src/dropin/liburoce.so", "src/dropin/libibverbs-real.so.1", "src/dropin/libibverbs-next.so.1", "tests/programs/verify", "tests/programs/place",
                     "tests/programs/status", "tests/programs/lookup", "tests/programs/lookup_plugin.so")
HERE = for_everyone(FOLDER, "answers.py", "channels.py", "commands.py", "connected.py", "connections.py", "endings.py", "fork_child.py", "librdmacm.py", "newer_functions.py", "refusals.py")
WRAPPER = os.path.join(BUILD, "cli", "uroce")
LIBRARY = os.path.join(BUILD, "src", "liburoce.so")
VERIFY = os.path.join(BUILD, "tests", "programs", "verify")
PLACE = os.path.join(BUILD, "tests", "programs", "place")
SCALE = float(os.environ.get("UROCE_TEST_SCALE", "1"))
PRELOAD_FIRST = os.environ.get("UROCE_PRELOAD_FIRST", "")
DEVICE = "uroce0"
WIRE = {"UROCE_WIRE": "1"}  # no shared memory
LIMIT = 60  # seconds, for one run of a program
# perftest's local ACK timeout is 67 ms, eight times of which a peer does not get the processor where many want it. This is
# half a second.
PATIENT = ["-u", "17"]
PYTHON = "/usr/bin/python3"  # the one that Debian's pyverbs is for
TOOLS = ("/usr/bin", "/usr/sbin", "/bin", "/sbin")
SANITIZER = re.compile(r"(AddressSanitizer|LeakSanitizer|ThreadSanitizer|runtime error:|UndefinedBehaviorSanitizer)")


def find(program):
    """The distribution's program, whatever else PATH offers."""
    path = shutil.which(program, path=os.pathsep.join(TOOLS))
    assert path, f"{program} not found: install the packages of the group [test]"
    return path


def unprivileged(command):
    if os.getuid() != 0:
        return command
    return [find("setpriv"), "--reuid=nobody", "--regid=nogroup", "--clear-groups", "--", *command]


def wrapped(command, preload=False):
    """The command on uroce; `preload`: by LD_PRELOAD alone."""
    program = command[0] if os.path.isabs(command[0]) else find(command[0])
    if preload or PRELOAD_FIRST:
        libraries = f"{PRELOAD_FIRST}:{LIBRARY}".strip(":")
        return unprivileged(["/usr/bin/env", f"LD_PRELOAD={libraries}", program, *command[1:]])
    return unprivileged([WRAPPER, program, *command[1:]])


class Program:
    """A running program in a process group of its own; its output goes to a file, so that no pipe can block it."""

    def __init__(self, command, environment=None, preload=False, on_uroce=True):
        self.command = command
        self.file = tempfile.TemporaryFile()
        self.process = subprocess.Popen(
            wrapped(command, preload) if on_uroce else command, stdin=subprocess.DEVNULL, stdout=self.file,
            stderr=subprocess.STDOUT, start_new_session=True, cwd="/",
            env={**os.environ, "HOME": "/nonexistent", "PYTHONDONTWRITEBYTECODE": "1", **(environment or {})})

    @property
    def output(self):
        self.file.seek(0)
        return self.file.read().decode(errors="replace")

    def running(self):
        return self.process.poll() is None

    def wait(self, limit=LIMIT):
        """The exit status; a program that does not end in time is killed, and the test fails."""
        try:
            status = self.process.wait(limit * SCALE)
        except subprocess.TimeoutExpired:
            where = self.stacks()
            self.kill()
            raise AssertionError(f"hangs, not ended after {limit * SCALE:.0f} s: {' '.join(self.command)}\n"
                                 f"{where}\n{self.output}") from None
        assert not SANITIZER.search(self.output), self.output
        return status

    def stacks(self):
        """Where its threads are, when a debugger is there to say so."""
        gdb = shutil.which("gdb")
        if not gdb:
            return ""
        result = subprocess.run([gdb, "-p", str(self.process.pid), "-batch", "-ex", "thread apply all bt 12"],
                                capture_output=True, text=True, timeout=60, check=False)
        return "\n".join(line for line in result.stdout.splitlines() if line.startswith(("#", "Thread")))

    def counters(self):
        """What the device of this process has counted so far; {} before it is used."""
        result = subprocess.run([WRAPPER, "stats", str(self.process.pid), "--json"], capture_output=True, text=True,
                                timeout=LIMIT, check=False)
        return json.loads(result.stdout) if result.returncode == 0 else {}

    def signal(self, number):
        os.killpg(self.process.pid, number)

    def kill(self):
        """The whole group: what it forked ends too."""
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self.process.wait()

    def close(self):
        self.kill()
        self.file.close()


def run(command, environment=None, limit=LIMIT, preload=False):
    """Runs it to its end: status and output."""
    program = Program(command, environment, preload)
    try:
        return program.wait(limit), program.output
    finally:
        program.close()


def succeed(command, environment=None, limit=LIMIT, preload=False):
    status, output = run(command, environment, limit, preload)
    assert status == 0, f"{' '.join(command)}: status {status}\n{output}"
    return output


def ports():
    """TCP ports that nobody uses, each given once. They lie below those that the kernel gives to connections, and tests that run
    side by side (pytest-xdist) have each their own thousand."""
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0")[2:]) % 20
    first = random.randrange(1000)
    for i in itertools.count():
        port = 10000 + 1000 * worker + (first + i) % 1000
        with socket.socket(socket.AF_INET6) as probe:
            try:
                probe.bind(("::", port))
            except OSError:
                continue
        yield port


PORTS = ports()


def free_port():
    return next(PORTS)


def listening(port):
    wanted = f":{port:04X}"
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        with open(table, encoding="ascii") as file:
            for line in file:
                fields = line.split()
                if fields[1].endswith(wanted) and fields[3] == "0A":
                    return True
    return False


TCP, UDP = 0x106, 0x111  # rdma_cm's port spaces


def is_bound(port, space=TCP):
    """Whether a process has the port by rdma_cm: its socket has a name."""
    name = f"@uroce-service-{space << 16 | port:016x}-"
    with open("/proc/net/unix", encoding="ascii", errors="replace") as table:
        return any(name in line for line in table)


def wait_until(condition, what, limit=20):
    end = time.monotonic() + limit * SCALE
    while not condition():
        assert time.monotonic() < end, f"not within {limit * SCALE:.0f} s: {what() if callable(what) else what}"
        time.sleep(0.01)


def wait_listening(server, port):
    wait_until(lambda: listening(port) or not server.running(), lambda: f"server listens\n{server.output}")
    assert listening(port), f"server {' '.join(server.command)} ended:\n{server.output}"


class Pair:
    """A server and a client of the same program, `options` for both. `port_option` takes the TCP port."""

    def __init__(self, command, server_options=(), client_options=(), host="127.0.0.1", environment=None, preload=False,
                 port_option="-p"):
        port = free_port()
        base = [*command, port_option, str(port)]
        self.client = None
        self.server = Program([*base, *server_options], environment, preload)
        try:
            wait_listening(self.server, port)
            self.client = Program([*base, *client_options, host], environment, preload)
        except BaseException:
            self.close()
            raise

    def finish(self, limit=LIMIT):
        """Both end well: the outputs of server and client."""
        try:
            client = self.client.wait(limit)
            assert client == 0, f"client: status {client}\n{self.client.output}\nserver:\n{self.server.output}"
            server = self.server.wait(limit)
            assert server == 0, f"server: status {server}\n{self.server.output}\nclient:\n{self.client.output}"
            return self.server.output, self.client.output
        finally:
            self.close()

    def close(self):
        for program in (self.client, self.server):
            if program:
                program.close()


def verify_pair(*client_options, server_options=(), environment=None, deadline=40, **more):
    both = [VERIFY, "--device", DEVICE, "--deadline", str(int(deadline * SCALE))]
    return Pair(both, server_options=server_options, client_options=client_options, environment=environment,
                port_option="--port", **more)
