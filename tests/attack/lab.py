# SPDX-License-Identifier: Apache-2.0
"""A network to attack in: three hosts on a switch, each a network namespace. Needs no root where users may create namespaces.

    server 10.66.0.1 ---+
    client 10.66.0.2 ---+--- switch (a bridge; an attacker on the path sniffs there, or replaces the bridge by a relay)
    rogue  10.66.0.3 ---+

With --rxe (as root, in the machine of tests/rxe-vm) the server is on the kernel's rdma_rxe, in the namespace of this program, and the
client on uroce; else both are on uroce. An attack is a program. It prints a line of JSON for each attempt (report()), and ends with
status 1 when one of them did not go as expected.
"""
import argparse
import atexit
import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
BUILD = os.path.realpath(os.environ.get("SECURDMA_BUILD", os.path.join(ROOT, "build")))
SECURDMA = os.path.join(BUILD, "cli", "securdma")
FORGE = os.path.join(BUILD, "tests", "attack", "forge")
VICTIM = os.path.join(BUILD, "tests", "attack", "victim")
GUEST = os.path.join(BUILD, "tests", "attack", "guest")
UROCE_LIBRARY = os.path.join(BUILD, "uroce", "src", "liburoce.so")
ADDRESS = {"server": "10.66.0.1", "client": "10.66.0.2", "rogue": "10.66.0.3"}
ADDRESS6 = {"server": "fd66::1", "client": "fd66::2", "rogue": "fd66::3"}
SEND_ONLY, SEND_ONLY_IMM, WRITE_ONLY, READ_REQUEST, READ_ONLY, ACK = 0x04, 0x05, 0x0a, 0x0c, 0x10, 0x11
PSNS = 1 << 24
ESEAL = -10011  # SRDMA_ESEAL
EXIT_SEAL, EXIT_LOST = 4, 7  # of `securdma connect`
KNOWN = "known plaintext"  # in what a guest sends, writes and reads: guest.h


def options(text, more=None):
    parser = argparse.ArgumentParser(description=text)
    parser.add_argument("--short", action="store_true", help="seconds instead of minutes")
    parser.add_argument("--rxe", action="store_true", help="the server is on rdma_rxe")
    for name, keywords in (more or {}).items():
        parser.add_argument(name, **keywords)
    return parser.parse_args()


class Program:
    """A program on one of the hosts. Its lines of JSON, one by one."""

    def __init__(self, command, environment=None, events=True):
        self.errors = tempfile.TemporaryFile()
        self.process = subprocess.Popen([str(word) for word in command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.errors,
                                        text=True, bufsize=1, env=dict(os.environ, **(environment or {})))
        self.pid, self.command, self.seen = self.process.pid, command, []
        self.lines = queue.Queue()
        self.reader = threading.Thread(target=self._read, args=(events,), daemon=True)
        self.reader.start()

    def _read(self, events):
        for line in self.process.stdout:
            if not events:
                self.lines.put(line.rstrip("\n"))
            elif line.startswith("{"):
                with contextlib.suppress(ValueError):
                    self.lines.put(json.loads(line))
        self.lines.put(None)

    def log(self):
        return os.pread(self.errors.fileno(), 1 << 20, 0).decode(errors="replace")

    def next(self, wanted=lambda line: True, timeout=20.0):
        """The next line that is wanted; None: there is none in time, or the program has ended."""
        end = time.monotonic() + timeout
        while True:
            try:
                line = self.lines.get(timeout=max(0, end - time.monotonic()))
            except queue.Empty:
                return None
            if line is None:
                self.lines.put(None)
                return None
            self.seen.append(line)
            if wanted(line):
                return line

    def event(self, name, timeout=20.0, **fields):
        return self.next(lambda line: line.get("event") == name and all(line.get(key) == value for key, value in fields.items()), timeout)

    def must(self, name, timeout=20.0, **fields):
        line = self.event(name, timeout, **fields)
        if line is None:
            raise SystemExit(f"attack: no {name!r} from {self.command}; it said {self.seen[-5:]}\n{self.log()}")
        return line

    def do(self, command, name, timeout=20.0, **fields):
        """Gives it a command, and returns the event that must answer it."""
        self.say(command)
        return self.must(name, timeout, **fields)

    def rest(self, wanted=lambda line: True, timeout=0.5):
        """All lines that are wanted, until none has come for so long."""
        return list(iter(lambda: self.next(wanted, timeout), None))

    def records(self, **fields):
        """The events in its log, which has to be JSON, that have these fields."""
        for line in self.log().splitlines():
            with contextlib.suppress(ValueError):
                event = json.loads(line)
                if all(event.get(key) == value for key, value in fields.items()):
                    yield event

    def logged(self, name, timeout=3.0, **fields):
        """The first such event of this name; None: there is none in time."""
        end = time.monotonic() + timeout
        while (found := next(self.records(event=name, **fields), None)) is None and time.monotonic() < end:
            time.sleep(0.02)
        return found

    def status(self, timeout=5.0):
        """With which it ended; None: it has not."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            return self.process.wait(timeout)
        return None

    def say(self, line):
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def alive(self):
        return self.process.poll() is None

    def finish(self, timeout=20):
        """Ends its input and waits; the last line."""
        self.process.stdin.close()
        self.process.wait(timeout)
        self.reader.join(timeout)
        line = None
        while not self.lines.empty():
            line = self.lines.get() or line
        return line

    def stop(self):
        if self.alive():
            self.process.kill()
        self.process.wait()
        self.reader.join(5)


class Lab:
    def __init__(self, arguments, cut=True):
        self.cut = cut
        self.rxe, self.short = arguments.rxe, arguments.short
        self.hub = None
        if self.rxe and os.path.exists("/sys/class/net/e0"):
            self._remove()
        self.programs, self.failed, self.results = [], 0, []
        self.port = 18000
        self._enter()
        self.hosts = {name: self._namespace() for name in ("server", "client", "rogue", "switch")}
        atexit.register(self.close)
        self._cable()
        self.server_device = "rxe0" if self.rxe else "uroce0"

    # ---- the network ----

    def _enter(self):
        """Into namespaces of our own: what is made there goes with this process."""
        if self.rxe or os.environ.get("ATTACK_INSIDE") == "1":
            return
        user = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
        os.environ["ATTACK_INSIDE"] = "1"
        os.execvp("unshare", ["unshare", *user, "--net", sys.executable, *sys.argv])

    def _namespace(self):
        if self.rxe and not hasattr(self, "first"):
            self.first = True
            return None  # the server's: rdma_rxe lives in the first namespace only
        process = subprocess.Popen(["unshare", "--net", "sleep", "infinity"])
        self.programs.append(process)
        own = os.readlink("/proc/self/ns/net")
        while True:
            with contextlib.suppress(OSError):
                if os.readlink(f"/proc/{process.pid}/ns/net") != own and os.readlink(f"/proc/{process.pid}/exe").endswith("sleep"):
                    return process.pid
            time.sleep(0.005)

    def on(self, host):
        pid = self.hosts[host]
        return ["nsenter", "-t", str(pid), "-n"] if pid else []

    def ip(self, host, *lines):
        subprocess.run([*self.on(host), "ip", "-batch", "-"], input="\n".join(lines) + "\n", text=True, check=True)

    def _cable(self):
        if not self.rxe:
            self.ip("switch", "link add br0 type bridge forward_delay 0 mcast_snooping 0", "link set br0 up", "link set br0 mtu 5000")
        for host in ADDRESS:
            self.ip("switch", f"link add p-{host} mtu 5000 type veth peer name e0 mtu 5000 netns {self.hosts[host] or os.getpid()}",
                    f"link set p-{host} up")
            self.ip(host, f"addr add {ADDRESS[host]}/24 dev e0", f"addr add {ADDRESS6[host]}/64 dev e0 nodad", "link set e0 up",
                    "link set lo up")
            # The relay that stands for a bridge takes no large datagrams.
            if self.cut and (host != "rogue" or self.rxe):
                subprocess.run([*self.on(host), FORGE, "cut", "e0"], check=True)
        # What is sniffed has to look as on a cable.
        if self.cut:
            subprocess.run([*self.on("switch"), FORGE, "cut", "p-client"], check=True)
        self.bridge(*ADDRESS)
        if self.rxe:
            with open("/proc/sys/net/core/rmem_max", "w", encoding="ascii") as file:
                file.write(str(8 << 20))
            subprocess.run(["rdma", "link", "add", "rxe0", "type", "rxe", "netdev", "e0"], check=True)

    def unbridge(self, *hosts):
        """Takes hosts off the switch: whoever is between them has to relay."""
        if self.hub:
            self.hub.stop()
            self.hub = None
        else:
            self.ip("switch", *(f"link set p-{host} nomaster" for host in hosts))

    def bridge(self, *hosts):
        """The kernel of tests/rxe-vm knows no bridges: there a program stands for one."""
        if self.rxe:
            self.hub = Program([*self.on("switch"), FORGE, "relay", *(f"p-{host}" for host in ADDRESS)])
            self.hub.next(lambda line: line.get("relaying"))
        else:
            self.ip("switch", *(f"link set p-{host} master br0" for host in hosts))

    # ---- programs ----

    def run(self, host, *command, environment=None, events=True):
        program = Program([*self.on(host), *command], environment, events)
        self.programs.append(program)
        return program

    def on_device(self, host, *command, environment=None, events=True):
        """On the host's RDMA device."""
        more = dict(environment or {})
        if not (self.rxe and host == "server"):
            more |= {"LD_PRELOAD": UROCE_LIBRARY, "UROCE_ADDR": f"{ADDRESS[host]},{ADDRESS6[host]}"}
            return self.run(host, "env", *(f"{name}={value}" for name, value in more.items()), *command, events=events)
        return self.run(host, *command, environment=more, events=events)

    def forge(self, host, *words, timeout=300, given=None):
        """A command of forge that ends by itself: its last line."""
        result = subprocess.run([*self.on(host), FORGE, *(str(word) for word in words)], input=given, capture_output=True, text=True,
                                timeout=timeout)
        if result.returncode != 0:
            raise SystemExit(f"attack: forge {words}: {result.stderr}")
        return json.loads(result.stdout.splitlines()[-1])

    def spoof(self, *words, to="server", v6=False, host="rogue", timeout=600):
        """Forged packets, from the rogue host, in the name of the other end."""
        table = ADDRESS6 if v6 else ADDRESS
        sender = "client" if to == "server" else "server"
        return self.forge(host, "send", "--from", table[sender], "--to", table[to], *words, timeout=timeout)

    def play(self, packets, *words, host="rogue", to="server"):
        """Sends captured packets again; `words`: with other numbers."""
        text = "".join(json.dumps(packet) + "\n" for packet in packets)
        return self.forge(host, "play", "--to", ADDRESS[to], *words, given=text)

    def sniff(self, interface="p-client", host="switch", seconds=None):
        program = self.run(host, FORGE, "sniff", interface, *(["--limit-ms", int(seconds * 1000)] if seconds else []))
        if program.next(lambda line: line.get("sniffing")) is None:
            raise SystemExit(f"attack: sniffing: {program.log()}")
        return program

    @staticmethod
    def _state(pid, task):
        with open(f"/proc/{pid}/task/{task}/stat", encoding="ascii", errors="replace") as file:
            return file.read().rpartition(")")[2].split()[0]

    def freeze(self, program):
        """Stops a program as a busy host would be; returns what lets it go on."""
        os.kill(program.pid, signal.SIGSTOP)
        while not all(self._state(program.pid, task) == "T" for task in os.listdir(f"/proc/{program.pid}/task")):
            time.sleep(0.001)
        return lambda: os.kill(program.pid, signal.SIGCONT)

    def next_port(self):
        self.port += 1
        return self.port

    def victim_server(self, *words, address=ADDRESS["server"]):
        """A server that is a plain verbs program."""
        server = self.on_device("server", VICTIM, "serve", self.next_port(), "--device", self.server_device, "--address", address, *words)
        server.port = self.port
        server.must("listening")
        return server

    def victim_client(self, server, *words, host="client", address=None):
        return self.on_device(host, VICTIM, "connect", ADDRESS["server"], server.port, "--device", "uroce0", "--address",
                              address or ADDRESS[host], *words)

    def victims(self, *words, v6=False):
        """Two ends of a plain verbs program. (server, client), and what each said when it was connected."""
        table = ADDRESS6 if v6 else ADDRESS
        server = self.victim_server(*words, address=table["server"])
        client = self.victim_client(server, *words, address=table["client"])
        return server, client, server.must("connected"), client.must("connected")

    def talking_victims(self, *words):
        """victims(), after one message from the client."""
        server, client, at_server, at_client = self.victims(*words)
        client.do("send 0 genuine", "done")
        server.must("message")
        return server, client, at_server, at_client

    # ---- securdma ----

    def certificates(self):
        """A CA, a server and two clients."""
        if hasattr(self, "folder"):
            return self.folder
        self.folder = tempfile.mkdtemp(prefix="attack.")
        os.chmod(self.folder, 0o755)
        atexit.register(lambda: subprocess.run(["rm", "-rf", self.folder], check=False))
        ca = ["--ca", f"{self.folder}/ca.crt", "--ca-key", f"{self.folder}/ca.key"]
        for words in (["ca", "--out", f"{self.folder}/ca", "--cn", "attack CA"],
                      ["server", "--out", f"{self.folder}/server", "--name", ADDRESS["server"], "--name", ADDRESS6["server"], *ca],
                      ["client", "--out", f"{self.folder}/honest", "--cn", "honest", *ca],
                      ["client", "--out", f"{self.folder}/greedy", "--cn", "greedy", *ca]):
            subprocess.run([SECURDMA, "cert", *words], check=True, stdout=subprocess.DEVNULL)
        return self.folder

    def serve(self, *words):
        folder = self.certificates()
        server = self.on_device("server", SECURDMA, "serve", "--json", "--log-format", "json", "--port", "0", "--device", self.server_device, "--cert",
                                f"{folder}/server.crt", "--key", f"{folder}/server.key", "--client-ca", f"{folder}/ca.crt", *words)
        listening = server.next(lambda line: line.get("event") == "listening")
        if listening is None:
            raise SystemExit(f"attack: the server does not listen: {server.log()}")
        server.port = listening["port"]
        return server

    def connect_words(self, server, *words, name="honest", v6=False):
        folder = self.certificates()
        host = f"[{ADDRESS6['server']}]" if v6 else ADDRESS["server"]
        return [SECURDMA, "connect", "--log-format", "json", "--device", "uroce0", "--ca", f"{folder}/ca.crt", "--cert", f"{folder}/{name}.crt", "--key", f"{folder}/{name}.key", *words,
                f"{host}:{server.port}"]

    def connect(self, server, *words, name="honest", host="client", v6=False):
        """A client that obeys commands: program.ask("send hello")."""
        client = self.on_device(host, *self.connect_words(server, "--show-psn", *words, name=name, v6=v6), events=False)
        if client.next(lambda line: line.startswith("set-up")) is None:
            raise SystemExit(f"attack: no connection: {client.seen} {client.log()}")
        client.ask = lambda command, timeout=5.0: ask(client, command, timeout)
        return client

    def guest(self, server, *words, name="honest", host="client"):
        """A client that loads and measures; see guest.c."""
        program = self.on_device(host, GUEST, self.certificates(), name, ADDRESS["server"], server.port, *words,
                                 environment={"GUEST_DEVICE": "uroce0"})
        program.must("connected")
        return program

    def listener(self, *words):
        """A server that shows each message, and at the end what is in the region; see guest_host.c."""
        server = self.on_device("server", GUEST, self.certificates(), "server", "listen", 0, *words,
                                environment={"GUEST_DEVICE": self.server_device})
        server.port = server.must("listening")["port"]
        return server

    def observed(self, *words, command="send genuine", opcode=SEND_ONLY_IMM):
        """A server, a sniffer, a client, and the packet that the client's command caused."""
        server = self.serve(*words)
        sniffer = self.sniff()
        client = self.connect(server, *words)
        client.ask(command)
        return server, sniffer, client, seen_packet(sniffer, opcode)

    def observed_guest(self, *words, text="pay 100"):
        """The same with a listener() and a guest(), and the packet of its message."""
        server = self.listener(*words)
        sniffer = self.sniff()
        client = self.guest(server, *words)
        client.do(f"send {text}", "echo")
        return server, sniffer, client, seen_packet(sniffer, SEND_ONLY_IMM)

    def between(self, *words):
        """A program relays all frames of client and server, until over()."""
        self.unbridge("client", "server")
        relay = self.run("switch", FORGE, "relay", "p-client", "p-server", *words)
        if relay.next(lambda line: line.get("relaying")) is None:
            raise SystemExit(f"attack: no relay: {relay.log()}")

        def over():
            counts = relay.finish()
            self.bridge("client", "server")
            return counts

        relay.over = over
        return relay

    # ---- results ----

    def report(self, attack, position, knowledge, victim, defence, tried, expected, succeeded, packets=None, seconds=None, note=None):
        """A line for one attempt. `succeeded`: None when the attempt is not possible here."""
        outcome = "not run" if succeeded is None else "succeeded" if succeeded else "failed"
        device = "rdma_rxe" if self.rxe else "uroce"
        line = {"attack": attack, "position": position, "knowledge": knowledge, "victim": f"{victim} on {device}", "defence": defence,
                "tried": tried, "packets": packets, "seconds": None if seconds is None else round(seconds, 3),
                "outcome": outcome, "expected": expected}
        if note:
            line["note"] = note
        self.failed += outcome not in (expected, "not run")
        print(json.dumps(line), flush=True)

    def conclude(self, *what, **more):
        """Reports an attempt, and ends its programs."""
        self.report(*what, **more)
        self.clear()

    def close(self):
        if self.hub:
            self.hub.stop()
        self.hub = None
        for program in reversed(self.programs):
            if isinstance(program, Program):
                program.stop()
            else:
                program.kill()
                program.wait()
        if self.rxe and self.programs:
            self._remove()
        self.programs = []

    def _remove(self):
        """What lies in the first namespace; the others go with their last process."""
        for command in (["rdma", "link", "delete", "rxe0"], ["ip", "link", "delete", "e0"]):
            subprocess.run(command, check=False, stderr=subprocess.DEVNULL)

    def clear(self):
        """Ends all programs, but keeps the network."""
        for program in reversed([one for one in self.programs if isinstance(one, Program)]):
            program.stop()
            self.programs.remove(program)

    def end(self):
        self.close()
        sys.exit(1 if self.failed else 0)


def region_becomes(server, text, timeout=3):
    """What is at the start of a victim's region: a packet that was sent may not have been taken in yet."""
    end = time.monotonic() + timeout
    while True:
        region = server.do("region 0", "region")["text"]
        if region.startswith(text) or time.monotonic() > end:
            return region.startswith(text)
        time.sleep(0.02)


def arrived(listener, wait=0.5):
    """All messages that a listener() has shown, and what its client ended with (None: it has not), once nothing more comes."""
    listener.rest(timeout=wait)
    ends = [line["error"] for line in listener.seen if line.get("event") == "ended"]
    return [line["text"] for line in listener.seen if line.get("event") == "message"], ends[-1] if ends else None


def missing(**claims):
    """The names of the claims that do not hold."""
    return [name for name, holds in claims.items() if not holds]


def noted(wrong, text):
    return f"does not hold: {', '.join(wrong)}" if wrong else text


def ask(client, command, timeout):
    """One command's answer; None: none, or the connection is gone."""
    try:
        client.say(command)
    except OSError:
        return None
    return client.next(timeout=timeout)


def uroce_counters(program):
    """Of a process on uroce."""
    text = subprocess.run([f"{BUILD}/uroce/cli/uroce", "stats", str(program.pid), "--json"], capture_output=True, text=True, check=True).stdout
    return json.loads(text)


def after(psn, count=1):
    return (psn + count) % PSNS


def to_host(packet, host):
    return packet.get("to") in (ADDRESS[host], ADDRESS6[host])


def seen_packet(sniffer, opcode, to="server", timeout=10, **fields):
    """The next packet of a kind that went by."""
    packet = sniffer.next(lambda line: line.get("opcode") == opcode and to_host(line, to) and
                          all(line.get(key) == value for key, value in fields.items()), timeout)
    if packet is None:
        raise SystemExit("attack: nothing to see on the path")
    return packet
