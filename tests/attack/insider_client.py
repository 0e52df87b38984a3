#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""A client with a valid certificate and code of its own breaks the rules: on the queue pair (insider.c), over TLS, at the port. An attack
succeeds if it reads or changes what is not its own, if the server does not serve another client, or if the server does not recover: its
objects on the device are counted before and after.
"""
import contextlib
import json
import os
import socket
import ssl
import subprocess
import threading
import time

import lab as rig
from loopback import ADDRESS, Loopback, free_port, wait_for
import protocol  # noqa: E402

NAME = "insider"
INSIDER = os.path.join(rig.BUILD, "tests", "attack", "insider")
UROCE = os.path.join(rig.BUILD, "uroce", "cli", "uroce")
MESSAGES, EPOCHS, SEALED, REGIONS = 1, 2, 4, 128
KIND_MESSAGE, KIND_CREDIT, KIND_CONTROL = 1 << 24, 2 << 24, 3 << 24
ENDS = ("client.lost", "client.ended", "client.disconnected", "client.not_connected")


def report(tried, defence, succeeded, knowledge="a valid certificate", note=None, packets=None, began=None):
    LAB.report(NAME, "a client", knowledge, "securdma", defence, tried, "failed", succeeded, packets=packets, note=note,
               seconds=None if began is None else time.monotonic() - began)


def tls(port, timeout=5):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(f"{LAB.certificates()}/ca.crt")
    context.load_cert_chain(f"{LAB.folder}/rogue.crt", f"{LAB.folder}/rogue.key")
    context.set_alpn_protocols([protocol.ALPN])
    return context.wrap_socket(socket.create_connection((ADDRESS, port), timeout), server_hostname=ADDRESS)


class Insider:
    """Connected, with a queue pair of its own."""

    def __init__(self, server, *words, features=MESSAGES, **fields):
        self.server = server
        self.program = LAB.start(INSIDER, ADDRESS, *words)
        made = self.program.must("made")
        self.channel = tls(server.port)
        self.channel.sendall(protocol.hello(gid=protocol.gid(ADDRESS), qpn=made["qpn"], psn=made["psn"], features=features, **fields))
        kind, _, self.welcome = protocol.read_frame(self.channel)
        if kind != protocol.WELCOME:
            raise SystemExit(f"attack: {self.welcome} instead of WELCOME")
        self.id, self.rkey = self.welcome["client_id"], self.welcome["region_rkey"]
        self.program.say(f"connect {self.welcome['qpn']} {self.welcome['psn']} {self.welcome['gid'].hex()}")
        self.program.must("connected")
        self.channel.sendall(protocol.frame(protocol.READY))

    def do(self, command, seconds=20):
        """The event that ends a command that posts something ("text" does not: say that); None: nothing came of it."""
        self.program.say(command)
        return self.program.next(lambda line: line["event"] in ("done", "broken"), seconds)

    def end(self, seconds=20):
        """The server's event about the end of this connection."""
        wait_for(lambda: self._ended() is not None, seconds)
        return self._ended()

    def _ended(self):
        return next((event for event in self.server.records(client_id=self.id) if event.get("event") in ENDS), None)

    def leave(self):
        self.program.stop()
        with contextlib.suppress(OSError):
            self.channel.close()
        if self.end() is None:
            raise SystemExit(f"attack: client {self.id} has not ended at the server")


class Honest:
    """Another client, connected all the time, with something in its region."""

    def __init__(self, server, *words):
        command = [word for word in LAB.connect_words(server, "--show-psn", *words) if word != "--json"]
        self.program = LAB.start(*command, events=False)
        if self.program.next(lambda line: line.startswith("set-up")) is None:
            raise SystemExit(f"attack: no connection: {self.program.log()}")
        rig.ask(self.program, "write 0 genuine", 5)

    def served(self):
        echo = rig.ask(self.program, "send still here", 5)
        return echo is not None and echo.endswith(": still here") and rig.ask(self.program, "read 0 7", 5) == "genuine"


def objects(server):
    text = subprocess.run([UROCE, "resources", "--json"], env=LAB.environment(), capture_output=True, text=True, check=True).stdout
    return next(process["objects"] for process in json.loads(text)["processes"] if process["pid"] == server.pid)


class Aftermath:
    """Whether the server is well after an attack: for `with`."""

    def __init__(self, server, honest):
        self.server, self.honest, self.before = server, honest, objects(server)
        self.wrong = []

    def __enter__(self):
        return self

    def __exit__(self, *error):
        if error[0]:
            return
        if not self.server.alive():
            self.wrong.append("the server died")
            return
        if not self.honest.served():
            self.wrong.append("another client was not served")
        if not LAB.newcomer_is_served(self.server):
            self.wrong.append("a newcomer was not served")
        if not wait_for(lambda: objects(self.server) == self.before):
            self.wrong.append(f"objects on the device: {objects(self.server)}, before {self.before}")

    def report(self, tried, defence, *notes, succeeded=False, **more):
        """The attack succeeded if anything is wrong."""
        report(tried, defence, succeeded or bool(self.wrong), note="; ".join([*notes, *self.wrong]) or None, **more)


# ---- memory ----


def refused(insider, command):
    """Whether the device refused it and the server ended this connection, for that reason."""
    answer, end = insider.do(command), insider.end()
    insider.leave()
    return answer is not None and answer["event"] == "broken" and end is not None and end["event"] != "client.disconnected", answer


def own_region(server, honest):
    """What is past its own region, and rights that it does not have."""
    writable, readable = LAB.serve("--region-access", "w"), LAB.serve("--region-access", "r")
    tries = [(server, "write 0 8", command) for command in ("write {size} 1", "read {size} 1", "write {last} 8", "read {last} 8", "read {high} 8", "add 0")]
    tries += [(writable, "write 0 8", "read 0 8"), (readable, "read 0 8", "write 0 8")]
    with Aftermath(server, honest) as after:
        statuses = set()
        for target, allowed, forbidden in tries:
            insider = Insider(target)
            size = insider.welcome["region_size"]
            # The key goes before the address.
            allowed, forbidden = (words.replace(" ", f" {insider.rkey} ", 1).format(size=size, last=size - 4, high=(1 << 64) - 4) for words in (allowed, forbidden))
            first = insider.do(allowed)
            good, answer = refused(insider, forbidden)
            statuses.add(answer["status"] if good else "nothing")
            if not good or first is None or first["event"] != "done":
                after.wrong.append(forbidden)
    writable.stop()
    readable.stop()
    after.report("writes and reads beyond its own region, an atomic, a read of a write-only region, a write to a read-only one; without the library, "
                 "on its own queue pair", "the device checks bounds and rights; that connection alone ends",
                 f"the device: {', '.join(sorted(statuses))}", packets=len(tries))


def foreign_keys(server, honest):
    """Keys that are not its own, and one that was its own before."""
    with Aftermath(server, honest) as after:
        other = Insider(server)
        other.program.say("text secret")
        if other.do(f"write {other.rkey} 0 6")["event"] != "done":
            raise SystemExit("attack: a client can't write to its own region")
        insider = Insider(server)
        if not refused(insider, f"read {other.rkey} 0 6")[0]:
            after.wrong.append("a key of another client, now")
        other.leave()
        insider = Insider(server)
        if not refused(insider, f"read {other.rkey} 0 6")[0]:
            after.wrong.append("a key of a client that has left")
        guesses = 4 if SHORT else 40
        for number in range(guesses):
            insider = Insider(server)
            if not refused(insider, f"read {(insider.rkey ^ (1 << number % 32)) & 0xffffffff} 0 6")[0]:
                after.wrong.append(f"a guessed key, bit {number % 32}")
    after.report(f"reads with the rkey of another client; of one that has left; with {guesses} guesses near its own",
                 "a protection domain for each client; windows, where the device has them", knowledge="a valid certificate; the other's rkey")


class NamedRegion(Insider):
    """Of examples/memory, which offers each client a file as a region with a name."""

    def __init__(self, server):
        super().__init__(server, features=MESSAGES | REGIONS)
        kind, _, offer = protocol.read_frame(self.channel)
        if kind != protocol.frames.Type.REGION_OFFER:
            raise SystemExit(f"attack: frame {kind} instead of REGION_OFFER")
        self.rkey = protocol.frames.RegionOffer.decode(offer).rkey

    def reads(self, rkey):
        """What it read with this key; None: nothing, and its queue pair has failed."""
        answer = self.do(f"read {rkey} 0 6")
        if answer is None:
            raise SystemExit("attack: the device did not answer")
        return bytes.fromhex(answer["bytes"]) if answer["event"] == "done" else None

    def leave(self):
        """The server closes when it has let go of everything."""
        self.program.stop()
        with contextlib.suppress(OSError):
            self.channel.shutdown(socket.SHUT_WR)
            while self.channel.recv(4096):
                pass
        self.channel.close()


def named_keys(server, honest):
    """Keys of regions with names that are not its own."""
    folder, port = LAB.certificates(), free_port()
    with open(f"{folder}/file", "wb") as file:
        file.write(b"secret" * 1000)
    memory = LAB.start("env", "-C", folder, os.path.join(rig.BUILD, "examples", "example-memory"), str(port), "file")
    memory.port = port
    wait_for(lambda: is_open(port))
    with Aftermath(server, honest) as after:
        other = NamedRegion(memory)
        if other.reads(other.rkey) != b"secret":
            raise SystemExit("attack: a client can't read its own region")
        insider = NamedRegion(memory)
        if insider.reads(other.rkey) is not None:
            after.wrong.append("a key of another client, now")
        insider.leave()
        other.leave()
        insider = NamedRegion(memory)
        if insider.reads(other.rkey) is not None:
            after.wrong.append("a key of a client that has left")
        insider.leave()
        guesses = 4 if SHORT else 40
        for number in range(guesses):
            insider = NamedRegion(memory)
            if insider.reads((insider.rkey ^ (1 << number % 32)) & 0xffffffff) is not None:
                after.wrong.append(f"a guessed key, bit {number % 32}")
            insider.leave()
        last = NamedRegion(memory)
        if last.reads(last.rkey) != b"secret":
            after.wrong.append("the server has nothing left for its clients")
        last.leave()
    memory.stop()
    after.report(f"reads with the rkey of a region with a name that another client has; that one had who has left; with {guesses} guesses near its own",
                 "a protection domain for each client; windows, where the device has them", knowledge="a valid certificate; the other's rkey")


def is_open(port):
    with contextlib.suppress(OSError), socket.create_connection((ADDRESS, port), 5):
        return True
    return False


def left_behind(server, honest):
    """Regions, and the server's memory, after somebody has left."""
    with Aftermath(server, honest) as after:
        first = Insider(server)
        size = first.welcome["region_size"]
        first.program.say("text the secret of the first")
        for offset in (0, 4096, size - 64):
            first.do(f"write {first.rkey} {offset} 25")
        first.leave()
        found = False
        for _ in range(3 if SHORT else 20):
            second = Insider(server)
            for offset in (0, 4096, size - 64):
                answer = second.do(f"read {second.rkey} {offset} 64")
                if answer is None or answer["event"] != "done":
                    raise SystemExit(f"attack: a client can't read its own region: {answer}")
                found = found or bytes.fromhex(answer["bytes"]).strip(b"\0") != b""
            second.leave()
    after.report("reads the region that it gets after another client has left: does it hold that client's data?",
                 "regions are fresh zeroed pages, wiped when released", succeeded=found, knowledge="a valid certificate; what the other client had written")


# ---- messages ----


def messages(server, honest):
    """Messages that break the rules. Each has to end the connection with its own reason."""
    with Aftermath(server, honest) as after:
        for what, command, reason, security in (
                ("without immediate data", "send 1 8 -", "without immediate data", True),
                ("of an unknown kind", f"send 1 8 {9 << 24:x}", "unknown kind 9", True),
                ("a control record, unsealed", f"send 1 28 {KIND_CONTROL:x}", "unknown kind 3", True),
                ("more credits than it owes", f"send 1 8 {KIND_MESSAGE | 1:x}", "more than it was owed", True),
                ("all credits there can be", f"send 1 0 {KIND_CREDIT | 0xffffff:x}", "more than it was owed", True),
                ("longer than agreed", f"send 1 200 {KIND_MESSAGE:x}", "local length error", False)):
            insider = Insider(server, message_size=64)
            insider.do(command)
            end = insider.end()
            if end is None or reason not in end["error"] or bool(end.get("security")) != security:
                after.wrong.append(f"{what}: {end}")
            insider.leave()
    after.report("messages without immediate data, of unknown kinds, with credits that it does not owe, longer than agreed",
                 "the server checks each, the device the length; that connection alone ends, with a security event unless for the length", packets=6)


def too_many(server, honest):
    """While the server is stopped, so that it can take none of them from its queue."""
    with Aftermath(server, honest) as after:
        insider = Insider(server, depth=1)
        go_on = LAB.freeze(server)
        insider.program.say(f"send 60 8 {KIND_MESSAGE:x}")
        time.sleep(0.3)
        go_on()
        end = insider.end()
        echoed = sum(line.get("event") == "message" for line in insider.program.seen)
        insider.leave()
        if end is None or "more messages than it had credits" not in end["error"] or not end.get("security"):
            after.wrong.append(f"the end: {end}")
    after.report("60 messages at once with one credit", "the receiver counts credits, too; that connection alone ends, with a security event",
                 f"{echoed} answers", packets=60)
    with Aftermath(server, honest) as after:
        insider = Insider(server, message_size=64)
        answer = insider.do(f"send 1 {1 << 20} {KIND_MESSAGE:x}")
        end = insider.end()
        insider.leave()
        if not answer or answer["event"] != "broken" or not end or end["event"] == "client.disconnected":
            after.wrong.append(f"{answer}, {end}")
    after.report("a message of 1 MiB where 64 bytes were agreed: beyond the receive's memory", "the device: a receive has a length",
                 answer["status"] if answer else "nothing", packets=1)


def deaf(server, honest):
    """It asks and takes no answer: no receives; and a queue pair that is gone while the channel stays."""
    for what, words, features in (("posts no receives, and sends a message: the echo finds none", ["--deaf"], MESSAGES),
                                  ("sends a message and destroys its queue pair before the echo, but keeps the channel", [], MESSAGES),
                                  ("the same, says that it has epochs, and takes no part in the one that is to recover it", [], MESSAGES | EPOCHS)):
        began = time.monotonic()
        with Aftermath(server, honest) as after:
            insider = Insider(server, *words, features=features)
            go_on = LAB.freeze(server)
            insider.program.say(f"send 1 8 {KIND_MESSAGE:x}")
            time.sleep(0.1)
            if not words:
                insider.program.say("vanish")
                time.sleep(0.1)
            go_on()
            served = honest.served()
            end = insider.end()
            seconds = time.monotonic() - began
            insider.leave()
            if end is None or not served:
                after.wrong.append(f"after 20 s the server had it still: {end}" if served else "the other client was not served meanwhile")
        after.report(what, "retries of the device, deadlines; the others' worker does not wait",
                     f"the server ended it after {seconds:.1f} s: {end and end['error']}")


def unsealed(server, honest):
    """On a connection that is sealed: bytes that are not, or nobody's."""
    sealed = LAB.serve("--seal", "required")
    other = Honest(sealed, "--seal", "required")
    with Aftermath(server, honest) as after:
        for length in (0, 8, 24, 1000):
            insider = Insider(sealed, features=MESSAGES | SEALED)
            insider.program.say("text an order to pay")
            insider.do(f"send 1 {length} {KIND_MESSAGE:x}")
            end = insider.end()
            if end is None or end["cause"] != "seal" or not end.get("security") or end["messages_received"] != 0:
                after.wrong.append(f"{length} bytes: {end}")
            insider.leave()
        insider = Insider(sealed, features=MESSAGES | SEALED)
        if insider.rkey or insider.welcome["region_address"] or not refused(insider, "write 0 0 8")[0]:
            after.wrong.append("a region to write to")
        if insider.rkey == 0:
            insider = Insider(sealed, features=MESSAGES | SEALED)
            if not refused(insider, "read 1 0 8")[0]:
                after.wrong.append("a region to read")
        if other.program.alive() and rig.ask(other.program, "send x", 5) is None:
            after.wrong.append("another client of that server was not served")
    sealed.stop()
    after.report("messages that are not sealed, of 0 to 1,000 bytes; a write and a read without a key; to a server that seals",
                 "the server takes nothing that does not authenticate; the device does not know the region", packets=6)


# ---- floods ----


def descriptors(server):
    return len(os.listdir(f"/proc/{server.pid}/fd"))


def flood(honest, server, work):
    """Does `work` and says how long the worst echo of another client took meanwhile, and whether newcomers were let in."""
    before = descriptors(server)
    with Aftermath(server, honest) as after:
        handle = work()
        began = time.monotonic()
        if not honest.served():
            after.wrong.append("another client was not served meanwhile")
        echo = time.monotonic() - began
        began = time.monotonic()
        if not LAB.newcomer_is_served(server):
            after.wrong.append("a newcomer was not served meanwhile")
        connected = time.monotonic() - began
        for one in handle:
            with contextlib.suppress(OSError):
                one.close()
    if not wait_for(lambda: descriptors(server) <= before + 1, 15):
        after.wrong.append(f"{descriptors(server)} descriptors, {before} before")
    return after, f"meanwhile an echo took {1000 * echo:.0f} ms, a newcomer {1000 * connected:.0f} ms"


def slow_hello(server, honest):
    """TLS, then HELLO byte by byte, slower than the deadline allows."""
    def work():
        channels = [tls(server.port) for _ in range(8)]
        for channel in channels:
            channel.sendall(protocol.hello(gid=protocol.gid(ADDRESS))[:20])
        return channels

    began = time.monotonic()
    after, note = flood(honest, server, work)
    channel, hello = tls(server.port, 10), protocol.hello(gid=protocol.gid(ADDRESS))
    with contextlib.suppress(OSError), channel:
        for number, _ in enumerate(hello):
            channel.sendall(hello[number:number + 1])
            time.sleep(0.1)
    if time.monotonic() - began > 20:
        after.wrong.append("there was no deadline")
    after.report("HELLO in pieces: eight clients that stop in the middle, one that sends a byte each 100 ms",
                 "one deadline for the whole set-up (2 s here)", f"cut off after {number} of 84 bytes", note, began=began)
    if number >= 80:
        raise SystemExit("attack: the server accepted a HELLO that took 8 s; the deadline is 2 s")


class Joined:
    """Threads that are waited for where others close a socket."""

    def __init__(self, threads):
        self.threads = threads

    def close(self):
        for thread in self.threads:
            thread.join()


def handshakes(server, honest):
    count = 60 if SHORT else 1000

    def shake(times):
        for _ in range(times):
            tls(server.port).close()

    def work():
        threads = [threading.Thread(target=shake, args=(count // 4,)) for _ in range(4)]
        for thread in threads:
            thread.start()
        time.sleep(0.05)
        return [Joined(threads)]

    began = time.monotonic()
    after, note = flood(honest, server, work)
    after.report(f"{count} TLS handshakes, four at once, and nothing else", "set-up is the set-up threads', not the workers'; max-setups-per-second",
                 note, began=began)


def epochs(server, honest):
    """With the library itself, as often as it goes: its own epochs, its own queue pair's failures."""
    folder = LAB.certificates()

    def guest(*words):
        program = LAB.start(rig.GUEST, folder, "rogue", ADDRESS, str(server.port), *words)
        program.must("connected")
        return program

    quiet = guest()
    quiet.say("ping 1000")
    alone = quiet.must("pinged")
    with Aftermath(server, honest) as after:
        rogue = guest()
        rogue.say("renew 1500")
        quiet.say("ping 1000")
        busy = quiet.must("pinged")
        renewed = rogue.must("renewed")
        rogue.stop()
    after.report("asks for new PSNs and queue pairs as fast as they come, for 1.5 s", "one at a time, 5 ms apart",
                 f"{renewed['epochs']} epochs; the echoes of another client: p99 {busy['p99_us']} us, {alone['p99_us']} us alone",
                 succeeded=renewed["epochs"] > 400)
    with Aftermath(server, honest) as after:
        rogue = guest()
        rogue.say("kill 100")
        quiet.say("ping 1000")
        busy = quiet.must("pinged")
        broken = rogue.event("broken")
        if broken is None:
            after.wrong.append("it was never ended")
        rogue.stop()
    survived = sum(line.get("event") == "killed" for line in rogue.seen)
    after.report("kills its own queue pair again and again, so that the server makes new ones", "recoveries (8 a minute)",
                 f"{survived} times; the echoes of another client: p99 {busy['p99_us']} us, {alone['p99_us']} us alone", succeeded=survived > 8)
    quiet.stop()


ARGUMENTS = rig.options(__doc__, {"--only": {"default": ""}})
LAB = Loopback(ARGUMENTS)
SHORT = ARGUMENTS.short
LAB.certificates()
LAB.certificate("client", "rogue", "--cn", "rogue")
SERVER = LAB.serve("--setup-timeout-ms", "2000")
HONEST = Honest(SERVER)
for attack in (own_region, foreign_keys, named_keys, left_behind, messages, too_many, deaf, unsealed, slow_hello, handshakes, epochs):
    if not ARGUMENTS.only or attack.__name__ == ARGUMENTS.only:
        attack(SERVER, HONEST)
LAB.end()
