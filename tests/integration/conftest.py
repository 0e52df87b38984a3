# SPDX-License-Identifier: Apache-2.0
"""The rig of the integration tests: an RDMA device, certificates, servers, clients, and what they may not leave behind.

SECURDMA_BUILD       the build folder (default: ./build)
SECURDMA_TEST_SCALE  factor for all deadlines, for builds and machines that are slow (default: 1)
SECURDMA_TEST_UROCE  1: on uroce, which needs no RDMA device, instead of a device that the kernel knows
"""
import concurrent.futures
import contextlib
import functools
import glob
import json
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time

import pytest
from pki import Pki

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BUILD = os.path.realpath(os.environ.get("SECURDMA_BUILD", os.path.join(ROOT, "build")))
SECURDMA = os.path.join(BUILD, "cli", "securdma")
PROBE = os.path.join(BUILD, "tests", "integration", "probe")
PROBE_WRAPPED = PROBE + "-wrapped"
EXAMPLES = os.path.join(BUILD, "examples")
PYTHON = os.path.join(BUILD, "python", "securdma")
EXAMPLE_LINK = os.path.join(EXAMPLES, "example-link")
SWARM = os.path.join(BUILD, "bench", "swarm")
ON_UROCE = os.environ.get("SECURDMA_TEST_UROCE") == "1"
UROCE = os.path.join(BUILD, "uroce", "cli", "uroce")
UROCE_LIBRARY = os.path.join(BUILD, "uroce", "src", "liburoce.so")
SCALE = float(os.environ.get("SECURDMA_TEST_SCALE", "1"))
# For one step that should take well under a second, and for one test. They end what hangs; a machine that many want is ten times as slow.
STEP = 30 * SCALE
TEST_LIMIT = 240 * SCALE
SANITIZER = re.compile(r"(AddressSanitizer|LeakSanitizer|ThreadSanitizer|runtime error:|UndefinedBehaviorSanitizer)")
os.environ.setdefault("TSAN_OPTIONS", "suppressions=" + os.path.join(ROOT, "tests", "tsan.supp"))
RESOURCES = ("pd", "cq", "qp", "mr", "ctx")


def free_port(host):
    """A port of this host that nobody listens on. It lies below those that the kernel gives to connections: one of those could be a
    connection's by the time a server asks for it, even a client's own that finds nobody there."""
    while True:
        port = random.randrange(20000, 32768)
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
            try:
                probe.bind((host, port))
            except OSError:
                continue
        return port


def open_files(pid):
    """What each descriptor of the process is open on."""
    targets = {}
    for name in os.listdir(f"/proc/{pid}/fd"):
        with contextlib.suppress(FileNotFoundError):  # closed meanwhile
            targets[name] = os.readlink(f"/proc/{pid}/fd/{name}")
    return targets


def descriptors(pid):
    """The number of descriptors, but for those of uroce's rings: the sockets to other processes, and a ring's memory on its way."""
    while True:
        targets = open_files(pid)
        with open(f"/proc/{pid}/net/unix", encoding="ascii") as table:
            rings = {f"socket:[{fields[6]}]" for fields in map(str.split, table) if fields[4] == "0005"}
        if open_files(pid) == targets:  # else the table may tell of sockets of another moment
            return sum(target not in rings and not target.startswith("/memfd:uroce-ring") for target in targets.values())


def wait_until(condition, what, timeout=None):
    """Polls `condition` until it is true, and returns what it returned."""
    deadline = time.monotonic() + (STEP if timeout is None else timeout * SCALE)
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            pytest.fail(f"not within the deadline: {what() if callable(what) else what}")
        time.sleep(0.02)


def assert_clean(text):
    assert not SANITIZER.search(text), text


# ---- time limit of each test ------------------------------------------------------------------------------------------


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_call(item):
    marker = item.get_closest_marker("limit")
    limit = int((marker.args[0] if marker else TEST_LIMIT / SCALE) * SCALE)

    def expire(number, frame):
        raise TimeoutError(f"the test took more than {limit} s")

    previous = signal.signal(signal.SIGALRM, expire)
    signal.alarm(limit)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, previous)


def pytest_configure(config):
    config.addinivalue_line("markers", "limit(seconds): time limit of the test instead of the default")
    config.addinivalue_line("markers", "left_out_of(name, ...): the runs of scripts/test without it")


# ---- runs that leave tests out ----------------------------------------------------------------------------------------

# Which run of scripts/test this is, and all runs that a test can be left out of, since it takes long there and another one shows the
# same: with sanitizers, and in the machine with the kernel's device. Without a name nothing is left out.
RUN = os.environ.get("SECURDMA_TEST_RUN", "")
RUNS = ("", "asan", "tsan", "vm")
assert RUN in RUNS, f"SECURDMA_TEST_RUN is {RUN!r}, and not one of {RUNS}"


def left_out_of(*runs):
    assert set(runs) < set(RUNS), runs
    return pytest.mark.left_out_of(*runs)


def pytest_collection_modifyitems(config, items):
    left_out = [item for item in items if any(RUN in marker.args for marker in item.iter_markers("left_out_of"))]
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item in items if item not in left_out]


# ---- the device -------------------------------------------------------------------------------------------------------


def read(path):
    try:
        with open(path, encoding="ascii") as file:
            return file.read().strip()
    except OSError:
        return ""


class Device:
    """A port of an RDMA device, as sysfs describes it."""

    def __init__(self, path):
        self.path = path
        self.name, self.port = path.split("/")[-3], int(path.split("/")[-1])
        self.active = "ACTIVE" in read(f"{path}/state")
        self.ipv4 = self.ipv6 = self.netdev = None
        for gid_file in sorted(glob.glob(f"{path}/gids/*"), key=lambda name: int(name.split("/")[-1])):
            index = gid_file.split("/")[-1]
            gid = read(gid_file)
            if not gid or read(f"{path}/gid_attrs/types/{index}") != "RoCE v2":
                continue
            raw = bytes.fromhex(gid.replace(":", ""))
            if raw[:12] == bytes(10) + b"\xff\xff" and not self.ipv4:
                self.ipv4 = socket.inet_ntop(socket.AF_INET, raw[12:])
                self.netdev = read(f"{path}/gid_attrs/ndevs/{index}")
            elif raw[0] & 0xFE == 0xFC and not self.ipv6:
                self.ipv6 = socket.inet_ntop(socket.AF_INET6, raw)

    def counters(self):
        """The hardware counters; {} when the device has none."""
        return {name.split("/")[-1]: int(read(name) or 0) for name in glob.glob(f"{self.path}/hw_counters/*")
                if name.split("/")[-1] != "lifespan"}


class UroceDevice:
    """uroce in its loopback mode: every process that has the library loaded is on it."""

    name, port, active, ipv4, ipv6, netdev = "uroce0", 1, True, "127.0.0.1", "::1", "lo"

    def counters(self):
        return {}


def find_device():
    if ON_UROCE:
        return UroceDevice()
    ports = [Device(path) for path in sorted(glob.glob("/sys/class/infiniband/*/ports/*"))]
    return next((port for port in ports if port.active and port.ipv4), None)


@pytest.fixture(scope="session")
def device():
    found = find_device()
    if not found:
        pytest.fail("no active RDMA port with an IPv4 RoCE v2 GID; run the tests on a virtual one: "
                    "tests/rxe-vm/run --env SECURDMA_BUILD=... /usr/bin/python3 -m pytest tests/integration", pytrace=False)
    return found


def is_ours(pid):
    """Whether this run started the process: others may use uroce at the same time, runs of these tests among them."""
    while pid > 1:
        if pid == os.getpid():
            return True
        # The parent is the second field behind the command's name, which may hold anything.
        pid = int((read(f"/proc/{pid}/stat") or ") ? 0").rpartition(")")[2].split()[1])
    return False


def resources(device):
    """Verbs objects on the device, of all processes and the kernel, as `rdma resource show` counts them."""
    if ON_UROCE:
        text = subprocess.run([UROCE, "resources", "--json"], capture_output=True, text=True, check=True, timeout=STEP).stdout
        ours = [process["objects"] for process in json.loads(text)["processes"] if is_ours(process["pid"])]
        return {name: sum(objects[name] for objects in ours) for name in RESOURCES}
    text = subprocess.run(["rdma", "resource", "show", device.name], capture_output=True, text=True, check=True,
                          timeout=STEP, env=dict(os.environ, PATH=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")).stdout
    words = text.split()
    return {name: int(words[words.index(name) + 1]) for name in RESOURCES if name in words}


def wait_for_resources(device, expected):
    wait_until(lambda: resources(device) == expected, lambda: f"{expected} verbs objects; there are {resources(device)}")


# ---- programs ---------------------------------------------------------------------------------------------------------


@functools.lru_cache
def sanitizer_library():
    """What has to be loaded before any other library, in a build with AddressSanitizer or ThreadSanitizer."""
    loaded = subprocess.run(["ldd", SECURDMA], capture_output=True, text=True, check=True).stdout
    return next((line.split()[2] for line in loaded.splitlines() if re.search("lib[at]san", line)), None)


def on_device(args, more):
    """The options of Popen with which a program of ours finds the device."""
    if not ON_UROCE or str(args[0]) not in (SECURDMA, PROBE, PROBE_WRAPPED, SWARM) and not str(args[0]).startswith(EXAMPLES):
        return more
    preload = " ".join(filter(None, (sanitizer_library(), UROCE_LIBRARY)))
    return dict(more, env=dict(more.get("env") or os.environ, LD_PRELOAD=preload))


def run(*args, input=None, timeout=60, **more):
    """Runs a program to its end. Sanitizer reports fail the test whatever its exit code."""
    more = on_device(args, more)
    result = subprocess.run([str(arg) for arg in args], input=input, stdin=None if input is not None else subprocess.DEVNULL,
                            capture_output=True, text=True, timeout=timeout * SCALE, **more)
    assert_clean(result.stderr)
    return result


def in_python(*args):
    """The command of a program in Python that uses the package of the build folder. It finds the device itself, because the interpreter
    is no program of ours."""
    preload = " ".join(filter(None, (sanitizer_library(), UROCE_LIBRARY if ON_UROCE else None)))
    # What the interpreter still has at its end is not lost.
    return ["/usr/bin/env", f"PYTHONPATH={os.path.dirname(PYTHON)}", "PYTHONDONTWRITEBYTECODE=1", "PYTHONMALLOC=debug", "ASAN_OPTIONS=detect_leaks=0", *([f"LD_PRELOAD={preload}"] if preload else []),
            "/usr/bin/python3", "-X", "faulthandler", "-W", "error", *args]


def python(*args, **more):
    """Runs a program in Python to its end."""
    return run(*in_python(*args), **more)


def skip_where_too_little_may_be_locked(text):
    """An ordinary user may lock 8 MiB unless the machine is set up for RDMA; root has no limit."""
    if os.geteuid() != 0 and "ulimit -l unlimited" in text:
        pytest.skip("this user may lock too little memory (ulimit -l)")


class Process:
    """A program in the background: stdout in lines, stderr in a file that can be read meanwhile."""

    def __init__(self, *args, stdin=subprocess.DEVNULL, **more):
        self.lines = []
        more = on_device(args, more)
        self.changed = threading.Condition()
        self.stderr = tempfile.TemporaryFile()
        self.process = subprocess.Popen([str(arg) for arg in args], stdin=stdin, stdout=subprocess.PIPE, stderr=self.stderr,
                                        text=True, bufsize=1, **more)
        self.pid = self.process.pid
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def _read(self):
        for line in self.process.stdout:
            with self.changed:
                self.lines.append(line.rstrip("\n"))
                self.changed.notify_all()
        with self.changed:
            self.lines.append(None)
            self.changed.notify_all()

    def log(self):
        return os.pread(self.stderr.fileno(), 1 << 24, 0).decode(errors="replace")

    def events(self, *names):
        """Those in a log that is JSON, or those of these names; not of a line that is being written."""
        lines = (json.loads(line) for line in self.log().rpartition("\n")[0].splitlines() if line.startswith("{"))
        return [event for event in lines if not names or event["event"] in names]

    def end_of(self, client_id):
        """How the connection of a client ended, or its set-up."""
        ends = "client.lost", "client.ended", "client.disconnected", "client.not_connected"
        return wait_until(lambda: next((event for event in self.events(*ends) if event.get("client_id") == client_id), None),
                          lambda: f"the end of client {client_id}\n{self.log()}")

    def wait_line(self, match, start=0):
        """The first line of stdout from `start` on for which match(line) is true."""
        deadline = time.monotonic() + STEP
        with self.changed:
            while True:
                for line in self.lines[start:]:
                    if line is None:
                        skip_where_too_little_may_be_locked(self.log())
                        pytest.fail(f"{self.process.args} ended early\n{self.log()}")
                    if match(line):
                        return line
                left = deadline - time.monotonic()
                if left <= 0 or not self.changed.wait(left):
                    pytest.fail(f"no such line from {self.process.args}: {self.lines}\n{self.log()}")

    def wait_log(self, text, start=0):
        """Waits until stderr, from `start` on, has a line with `text`; returns the line."""
        def line():
            return next((line for line in self.log()[start:].splitlines() if text in line), None)

        return wait_until(line, lambda: f"{text!r} in the log:\n{self.log()[start:]}")

    def send_line(self, text):
        self.process.stdin.write(text + "\n")
        self.process.stdin.flush()

    def signal(self, number):
        self.process.send_signal(number)

    def terminate(self):
        self.signal(signal.SIGTERM)
        assert self.wait() == 0, self.log()

    def wait(self, timeout=60):
        try:
            code = self.process.wait(timeout * SCALE)
        except subprocess.TimeoutExpired:
            pytest.fail(f"{self.process.args} does not end\n{self.log()}")
        self.reader.join(STEP)
        assert_clean(self.log())
        return code

    def close(self):
        """Makes sure that nothing is left of it, however the test went."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self.reader.join()
        for file in (self.process.stdin, self.process.stdout, self.stderr):
            if file:
                file.close()


class Listening(Process):
    """A server; its credentials are among the arguments."""

    held_port = None

    def __init__(self, certs, device, *args, **more):
        super().__init__(SECURDMA, "serve", "--json", "--port", "0", "--device", device.name, *args, **more)
        self.certs, self.device = certs, device
        try:
            self.port = json.loads(self.wait_line(lambda line: '"listening"' in line))["port"]
        except BaseException:
            self.close()
            raise

    def status(self):
        start = len(self.lines)
        self.signal(signal.SIGUSR1)
        return json.loads(self.wait_line(lambda line: '"status"' in line, start))

    def wait_status(self, **expected):
        """Waits until the status has these values; returns it."""
        last = {}

        def reached():
            last.update(self.status())
            return all(last[name] == value for name, value in expected.items())

        wait_until(reached, lambda: f"{expected}; the status is {last}\n{self.log()}")
        return last

    def fds(self):
        """Descriptors, but for uroce's sockets to other processes: it has two for each, for as long as that process lives."""
        return descriptors(self.pid)

    def kill(self):
        """Ends it without a word. Its port stays taken, so that no server of another test answers the clients that try it again."""
        self.process.kill()
        self.process.wait()
        self.held_port = socket.socket(socket.AF_INET6 if ":" in self.certs.host else socket.AF_INET)
        self.held_port.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.held_port.bind((self.certs.host, self.port))

    def close(self):
        super().close()
        if self.held_port:
            self.held_port.close()

    def stop(self, expect=0):
        self.signal(signal.SIGTERM)
        code = self.wait()
        assert code == expect, f"exit code {code}\n{self.log()}"
        return json.loads(next(line for line in reversed(self.lines) if line and '"stopped"' in line))


class Server(Listening):
    """A server with the usual credentials."""

    def __init__(self, certs, device, *args, cert="server", client_ca="ca", **more):
        super().__init__(certs, device, "--cert", certs.cert(cert), "--key", certs.key(cert), "--client-ca", certs.cert(client_ca), *args, **more)


class Configured(Server):
    """A server with a configuration file that a test can change."""

    def __init__(self, certs, device, path, text, *args, **more):
        self.path = path
        self.write(text)
        super().__init__(certs, device, "--config", path, "--log-format", "json", *args, **more)

    def write(self, text):
        self.path.write_text(text, encoding="utf-8")

    def reload(self, text, expect="server.reloaded"):
        start = len(self.log())
        self.write(text)
        self.signal(signal.SIGHUP)
        return json.loads(self.wait_log(f'"event":"{expect}"', start))


def serve_args(certs, device, *args):
    """The command line of a server that is to end by itself."""
    return [SECURDMA, "serve", "--port", "0", "--device", device.name, "--cert", certs.cert("server"), "--key", certs.key("server"),
            "--client-ca", certs.cert("ca"), *args]


def client_args(certs, port, *args, host=None, cert="client", ca="ca"):
    """The command line of a client; cert None: anonymous, ca None: nothing to verify with."""
    command = [SECURDMA, "connect"]
    if ca:
        command += ["--ca", certs.cert(ca)]
    if cert:
        command += ["--cert", certs.cert(cert), "--key", certs.key(cert)]
    host = host or certs.host
    return [*command, *args, f"[{host}]:{port}" if ":" in host else f"{host}:{port}"]


def connect(certs, port, *args, timeout=60, **more):
    """Runs `securdma connect` to its end."""
    return run(*client_args(certs, port, *args, **more), timeout=timeout)


def connect_json(certs, port, *args, **more):
    """The same with --json; the object has the exit code as "code"."""
    result = connect(certs, port, "--json", *args, **more)
    answer = json.loads(result.stdout) if result.stdout.strip() else {}
    return dict(answer, code=result.returncode, stderr=result.stderr)


def is_let_in(certs, server, cert="client", **more):
    answer = connect_json(certs, server.port, "-e", "send x", cert=cert, **more)
    assert answer["code"] == 0, answer
    return answer


def is_refused(certs, server, words, cert="client", reason=8):
    answer = connect_json(certs, server.port, "-e", "send x", cert=cert)
    assert answer["code"] == 5 and answer["reject"]["reason"] == reason and words in answer["reject"]["text"], answer
    return answer


class Client(Process):
    """A connected client that obeys the commands of its standard input."""

    def __init__(self, certs, port, *args, **more):
        super().__init__(*client_args(certs, port, "--show-psn", *args, **more), stdin=subprocess.PIPE)
        try:
            self.id = int(re.search(r"as client (\d+)", self.wait_line(lambda line: "connected to" in line))[1])
            psn = re.search(r"PSN 0x(\w+), peer 0x(\w+)", self.wait_line(lambda line: line.startswith("PSN")))
            self.psns = int(psn[1], 16), int(psn[2], 16)
            self.wait_line(lambda line: line.startswith("set-up"))
        except BaseException:
            self.close()
            raise

    def ask(self, command, answer):
        start = len(self.lines)
        self.send_line(command)
        line = self.wait_line(lambda line: True, start)
        assert line == answer, f"{command}: {line}\n{self.log()}"

    def check(self, text="still here"):
        """Echo, write and read all work."""
        self.ask(f"send {text}", f"client {self.id}: {text}")
        self.ask(f"write 7 {text}", f"wrote {len(text)} bytes at 7")
        self.ask(f"read 7 {len(text)}", text)

    def leave(self):
        self.send_line("quit")
        code = self.wait()
        assert code == 0, f"exit code {code}\n{self.log()}"


@contextlib.contextmanager
def server_with_neighbour(certs, device, *args):
    """A server, and a client of it (`neighbour`) that must not notice what else happens. In the end nothing may be left of any other
    client; `idle` has the descriptors and objects."""
    before, neighbour = resources(device), None
    server = Server(certs, device, *args)
    try:
        server.neighbour = neighbour = Client(certs, server.port, cert="client2")
        neighbour.check()
        server.idle = server.fds(), resources(device)
        yield server
        expect_idle(server, device)
        neighbour.leave()
        server.stop()
        wait_for_resources(device, before)
    finally:
        if neighbour:
            neighbour.close()
        server.close()


def expect_idle(server, device):
    """Of server_with_neighbour(): only the neighbour is there, and it is well."""
    server.wait_status(connected=1, pending=0)
    fds, objects = server.idle
    wait_until(lambda: server.fds() == fds, lambda: f"{fds} descriptors of the server; it has {server.fds()}")
    wait_for_resources(device, objects)
    server.neighbour.check()


@pytest.fixture
def start(request):
    """Starts something that has a close(), and closes it when the test is over."""
    started = []

    def starter(kind, *args, **more):
        started.append(kind(*args, **more))
        return started[-1]

    yield starter
    for item in reversed(started):
        # pytest shows what was printed here only of a test that failed.
        if isinstance(item, Process) and not item.stderr.closed:
            print(f"{item.process.args}, exit code {item.process.poll()}; the end of its log:", *item.log().splitlines()[-20:], sep="\n  ")
        item.close()


# ---- certificates -----------------------------------------------------------------------------------------------------


class Certificates:
    """Files NAME.crt and NAME.key in one folder that other users can enter."""

    def __init__(self, folder, host, names):
        self.folder, self.host = folder, host
        sans = [word for name in names for word in ("--name", name)]
        past = ["--not-after", "2020-01-01T00:00:00Z"]
        self.make("ca", "ca", "--cn", "test CA")
        self.make("ca", "other-ca", "--cn", "other CA")
        # Where the machine is emulated, each takes seconds.
        with concurrent.futures.ThreadPoolExecutor(4) as pool:
            made = [pool.submit(self.make, *words, issuer=issuer) for issuer, *words in (
                ("ca", "server", "server", *sans), ("other-ca", "server", "other-server", *sans),
                ("ca", "server", "wrong-name", "--name", "elsewhere.invalid"), ("ca", "server", "expired-server", *sans, *past),
                ("ca", "client", "client", "--cn", "client one"), ("ca", "client", "client2", "--cn", "client two"),
                ("other-ca", "client", "other-client", "--cn", "stranger"), ("ca", "client", "expired-client", "--cn", "old client", *past),
                (None, "self-signed", "self", *sans), (None, "self-signed", "self2", *sans))]
        for one in made:
            one.result()

    def cert(self, name):
        return os.path.join(self.folder, name + ".crt")

    def key(self, name):
        return os.path.join(self.folder, name + ".key")

    def make(self, kind, name, *args, issuer=None):
        signer = ["--ca", self.cert(issuer), "--ca-key", self.key(issuer)] if issuer else []
        result = run(SECURDMA, "cert", kind, "--out", os.path.join(self.folder, name), *signer, *args)
        assert result.returncode == 0, result.stderr

    def pin(self, name):
        return run(SECURDMA, "cert", "pin", self.cert(name)).stdout.strip()


@pytest.fixture(scope="session")
def certs():
    if not os.access(SECURDMA, os.X_OK):
        pytest.fail(f"no program {SECURDMA}: build it, and name the build folder in SECURDMA_BUILD", pytrace=False)
    found = find_device()
    host = found.ipv4 if found else "127.0.0.1"
    folder = tempfile.mkdtemp(prefix="securdma-test.")
    os.chmod(folder, 0o755)
    yield Certificates(folder, host, [name for name in (host, found and found.ipv6, "localhost", "127.0.0.1") if name])
    shutil.rmtree(folder)


@pytest.fixture
def server(certs, device, start):
    """A server of the test's own, with default options; it must end in order."""
    before = resources(device)
    server = start(Server, certs, device)
    yield server
    if server.process.poll() is None:
        server.stop()
    wait_for_resources(device, before)


@pytest.fixture
def serve(certs, device, start, tmp_path):
    """Starts a server with a configuration; when the test is over, it must end in order and leave nothing."""
    before, servers = resources(device), []

    def starter(text, *args):
        servers.append(start(Configured, certs, device, tmp_path / "securdma.conf", text, *args))
        return servers[-1]

    yield starter
    for server in servers:
        if server.process.poll() is None:
            server.stop()
    wait_for_resources(device, before)


@pytest.fixture
def pki(tmp_path, certs):
    return Pki(tmp_path, certs.host)


@pytest.fixture
def client_cert(certs, pki):
    """client_cert(name, alternative names, subject): a certificate from the server's CA; without a subject it has none."""
    def make(name, names="", subject="/"):
        pki.client(name, (certs.cert("ca"), certs.key("ca")), names, subject=subject)
        return pki(name)
    return make


@pytest.fixture
def probe(certs, device):
    """Runs a mode of the probe program: probe("mode", ...) -> the facts that it printed."""
    def run_probe(*args, timeout=120, program=PROBE):
        before = resources(device)
        result = run(program, certs.folder, certs.host, *args, timeout=timeout)
        if result.returncode != 0:
            skip_where_too_little_may_be_locked(result.stderr)
        assert result.returncode == 0, f"{args}: {result.returncode}\n{result.stdout}{result.stderr}"
        wait_for_resources(device, before)
        return json.loads(result.stdout)

    return run_probe
