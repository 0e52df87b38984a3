# SPDX-License-Identifier: Apache-2.0
"""What the benchmarks measure: programs on uroce, on another device, or without any."""
import json
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import time

from rows import Failed, Missing

LIMIT = 120
TCP_SPACE = 0x106  # RDMA_PS_TCP
TOOLS = "/usr/bin:/usr/sbin:/bin:/sbin"
PACKAGES = {"ib_": "perftest", "iperf3": "iperf3", "ucx_perftest": "ucx-utils", "rstream": "rdmacm-utils", "cmtime": "rdmacm-utils"}


def need(program):
    if not shutil.which(program, path=TOOLS):
        package = next((package for start, package in PACKAGES.items() if program.startswith(start)), program)
        raise Missing(f"{package} is not installed")
    return program


def free_port():
    with socket.socket() as probe:
        probe.bind(("", 0))
        return probe.getsockname()[1]


def listening(port, pid):
    """In the network namespace of a process."""
    for table in ("tcp", "tcp6"):
        try:
            with open(f"/proc/{pid}/net/{table}", encoding="ascii") as file:
                if any(re.search(rf":{port:04X} \S+ 0A ", line) for line in file):
                    return True
        except OSError:
            pass
    return False


def listening_by_rdma_cm(port, pid):
    """On uroce in the network namespace of a process, or in the kernel."""
    with open(f"/proc/{pid}/net/unix", encoding="ascii", errors="replace") as table:
        if any(f"@uroce-service-{TCP_SPACE << 16 | port:016x}-" in line for line in table):
            return True
    kernel = subprocess.run(["rdma", "resource", "show", "cm_id"], capture_output=True, text=True, check=False, env={"PATH": TOOLS})
    return any(re.search(rf" state LISTEN .*:{port}(\s|$)", line) for line in kernel.stdout.splitlines())


def pair(server_command, client_command, port, ready=listening, ends=True):
    """Runs both; the client's output. They stay in one session, for the scheduler shares the processors out by session. `ends`: the
    server does so by itself."""
    environment = {**os.environ, "PATH": TOOLS}
    server = subprocess.Popen(server_command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment,
                              process_group=0)
    try:
        end = time.monotonic() + 30
        while not ready(port, server.pid):
            if server.poll() is not None or time.monotonic() > end:
                raise Failed(f"bench: does not listen: {' '.join(server_command)}")
            time.sleep(0.01)
        result = subprocess.run(client_command, capture_output=True, text=True, timeout=LIMIT, check=False, env=environment)
        if ends:
            server.wait(60)
    except subprocess.TimeoutExpired as error:
        raise Failed(f"bench: {' '.join(client_command)}: {error}") from None
    finally:
        if server.poll() is None:
            os.killpg(server.pid, signal.SIGKILL)
            server.wait()
    if result.returncode != 0:
        raise Failed(f"bench: {' '.join(client_command)} failed:\n{result.stdout}{result.stderr}")
    return result.stdout


def output(*command, limit=LIMIT):
    result = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=limit, check=False)
    if result.returncode != 0:
        raise Failed(f"bench: {' '.join(map(str, command))} failed:\n{result.stderr}")
    return result.stdout


def answer(*command, limit=LIMIT):
    """What a program of ours says, as JSON."""
    return json.loads(output(*command, limit=limit))


def perftest(wrapper, program, *options, device, gid, host):
    """The numbers of its result line."""
    port = free_port()
    command = [*wrapper, need(program), "-F", "-d", device, "-x", gid, "-p", str(port), *options]
    text = pair(command, [*command, host], port)
    for line in text.splitlines():
        if re.match(r"^\s*\d+\s+\d+\s+[\d.]+", line):
            return [float(word) for word in line.split()]
    raise Failed(f"bench: no result of {program}:\n{text}")


def iperf(seconds=2, size=None):
    """MB/s of one TCP stream over loopback."""
    port = free_port()
    client = [need("iperf3"), "-c", "127.0.0.1", "-p", str(port), "-t", str(seconds), "-J", *(["-l", str(size)] if size else [])]
    text = pair(["iperf3", "-s", "-1", "-p", str(port)], client, port)
    return json.loads(text)["end"]["sum_received"]["bits_per_second"] / 8e6


def rstream(wrapper, host, size, count):
    """MB/s (10^6) of a socket over RDMA, so many transfers there and as many back."""
    port = free_port()
    command = [*wrapper, need("rstream"), "-p", str(port), "-S", str(size), "-C", str(count), "-I", "1"]
    text = pair(command, [*command, "-s", host], port, listening_by_rdma_cm)
    for line in text.splitlines():
        if line.startswith("custom "):
            return float(line.split()[-2]) * 125
    raise Failed(f"bench: no result of rstream:\n{text}")


def cmtime(wrapper, host, connections):
    """Microseconds that each step takes for a connection."""
    port = free_port()
    command = [*wrapper, need("cmtime"), "-p", str(port)]
    text = pair(command, [*command, "-s", host, "-c", str(connections)], port, listening_by_rdma_cm, ends=False)
    steps = {name: float(us) for name, us in re.findall(r"^(\w[\w ]*?)\s*:.*\s([\d.]+)$", text, re.M)}
    if "connect" not in steps or "event:" in text:
        raise Failed(f"bench: no result of cmtime:\n{text}")
    return steps


def ucx(transports, test, size, iterations, wrapper=()):
    """The overall average of ucx_perftest: microseconds, and MB/s (10^6)."""
    port = free_port()
    command = [*wrapper, "env", f"UCX_TLS={transports}", "UCX_WARN_UNUSED_ENV_VARS=n", need("ucx_perftest"), "-p", str(port), "-t", test,
               "-s", str(size), "-n", str(iterations), "-f"]
    text = pair(command, [*command, "127.0.0.1"], port)
    fields = [line.split() for line in text.splitlines() if re.match(r"^\s*\d+(\s+[\d.]+){7}\s*$", line)]
    if not fields:
        raise Failed(f"bench: no result of ucx_perftest:\n{text}")
    return float(fields[-1][3]), float(fields[-1][5]) * 1.048576


class Bench:
    """A build of uroce and what is measured on it."""

    def __init__(self, build):
        self.build = pathlib.Path(build) if build else None
        self.inside = []  # a command that runs another one in a network namespace

    def uroce(self, *options):
        if not self.build:
            raise Missing("there is no build of the older commit (--older)")
        return [*self.inside, str(self.build / "cli" / "uroce"), *options]

    def perftest(self, program, *options, wire=False):
        return perftest(self.uroce(*(["--wire"] if wire else [])), program, *options, device="uroce0", gid="0", host="127.0.0.1")

    def bandwidth(self, program, size, iterations, *options, wire=False):
        """MB/s (10^6)."""
        return self.perftest(program, "-s", str(size), "-m", "4096", "-n", str(iterations), *options, wire=wire)[3] * 1.048576

    def latency(self, program="ib_send_lat", size=64, iterations=20000, wire=False):
        """Microseconds: half of the typical round trip."""
        return self.perftest(program, "-s", str(size), "-n", str(iterations), wire=wire)[4]

    def message_rate(self, iterations):
        """Million messages a second."""
        return self.perftest("ib_send_bw", "-s", "64", "-t", "128", "-r", "512", "-n", str(iterations), "-N")[4]

    def read_latency(self, period):
        """Microseconds: the median of READs of 8 bytes from a target that looks into its queue every so many microseconds."""
        return answer(*self.uroce("--", self.build / "bench" / "one_sided", period, 500))["median_us"]

    def threads(self, count, pollers=0):
        """Thousand verified messages a second of threads that make, use and destroy queue pairs, beside others that poll empty queues."""
        return answer(*self.uroce(self.build / "bench" / "many_threads", count, 1, pollers))["messages_s"] / 1000

    def cache_line(self):
        """Nanoseconds that a cache line takes from one processor to the other."""
        return float(output(self.build / "bench" / "cache_line"))

    def host_copy(self, size):
        """What one copy from another process's memory reaches: MB/s (10^6)."""
        return answer(self.build / "bench" / "host_copy", size)["copy_MB_s"]

    def udp_latency(self, size=64, iterations=20000):
        """Microseconds: half of the median round trip."""
        return float(output(self.build / "bench" / "udp_pingpong", size, iterations).split()[0])

    def udp_acked_latency(self):
        """The same of what ib_send_lat's packets have on the wire: 64 bytes with BTH and ICRC, and an acknowledgement behind them."""
        return float(output(self.build / "bench" / "udp_pingpong", 80, 20000, 20).split()[0])

    def rstream(self, size, count):
        return rstream(self.uroce(), "127.0.0.1", size, count)

    def cmtime(self, connections):
        return cmtime(self.uroce(), "127.0.0.1", connections)

    def queue_pairs(self, depth):
        return answer(*self.uroce(self.build / "bench" / "many_qps", "uroce0", 10000, depth), limit=300)

    def ucx(self, transports, *test):
        return ucx(transports, *test, wrapper=self.uroce() if "verbs" in transports else ())
