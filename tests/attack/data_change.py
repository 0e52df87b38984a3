#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""An attacker between the two ends changes data in flight. The ICRC has no key: anyone who changes a packet can correct its ICRC."""
import lab as rig
from lab import missing, noted, to_host

LAB = rig.Lab(rig.options(__doc__))
SEALED = ("--seal", "required")
ALONE, THREADS = ("--seal",), ("--seal", "--seal-threads", "2")
LONG = 1 << 20
PACKET = 4096
CHUNK = 262144 // PACKET + 1  # packets of a sealed chunk: the last one has the tag
MESSAGE = 32768 // PACKET + 1  # and of a guest's long message
FLIPPED = 512  # bytes: the packets of a long write or read, and nothing else


def tell(between, victim, defence, tried, expected, succeeded, note=None):
    LAB.conclude("change in flight", "on-path, relays", "everything", victim, defence, tried, expected, succeeded, packets=over(between), note=note)


def over(between):
    """Ends the relay, which must have changed something. Returns how many packets."""
    if between.alive():
        between.changed = between.over()["changed"]
    if not between.changed:
        raise SystemExit("attack: nothing was changed")
    return between.changed


def plain(words, defence, expected, v6=False):
    between = LAB.between("--find", "100", "--put", "999", *words)
    server, client, _, _ = LAB.victims("--random-psn", v6=v6)
    client.say("send 0 pay 100")
    arrived = server.event("message", 2)
    tell(between, "plain verbs", defence, f"\"pay 100\" to \"pay 999\", over {'IPv6' if v6 else 'IPv4'}", expected,
         arrived is not None and arrived["text"] == "pay 999")


def message():
    """Changes a message, and its echo back, so that only the server's program is deceived."""
    between = LAB.between("--find", "100", "--put", "999")
    server = LAB.serve()
    sniffer = LAB.sniff("p-server")
    client = LAB.connect(server)
    answer = client.ask("send pay 100")
    # The echo shows which message the server's program received.
    echo = sniffer.next(lambda line: to_host(line, "client") and b"pay 999".hex() in line["bytes"], 2)
    tell(between, "securdma", "not sealed", "a message; the client does not notice", "succeeded",
         answer is not None and answer.endswith("pay 100") and echo is not None)


def region():
    between = LAB.between("--find", "100", "--put", "999")
    client = LAB.connect(LAB.serve())
    client.ask("write 0 pay 100")
    over(between)
    tell(between, "securdma", "not sealed", "an RDMA WRITE", "succeeded", client.ask("read 0 7") == "pay 999")


def sealed_message():
    """The server's program must get nothing, and the operator must learn of it."""
    between = LAB.between("--flip", 7, "--way", "forth")
    server = LAB.serve(*SEALED)
    client = LAB.connect(server, *SEALED)
    answer = client.ask("send pay 100")
    lost = server.logged("client.lost")
    wrong = missing(cause=lost and lost["cause"] == "seal", security=lost and lost.get("security"),
                    told_once="connection.forged" not in server.log(), nothing_taken=lost and lost["messages_received"] == 0,
                    end=client.status() == rig.EXIT_LOST, no_echo=answer is None)
    tell(between, "securdma", "sealed", "a message: one bit of it", "failed", bool(wrong), noted(wrong, "client.lost, cause seal"))


def sealed_echo():
    """The client has an event and an exit status of its own for it."""
    between = LAB.between("--flip", 7, "--way", "back")
    server = LAB.serve(*SEALED)
    client = LAB.connect(server, *SEALED)
    answer = client.ask("send pay 100")
    forged = client.logged("connection.forged")
    wrong = missing(event=forged, security=forged and forged.get("security"), status=client.status() == rig.EXIT_SEAL, no_echo=answer is None,
                    once=client.log().count("connection.forged") == 1)
    tell(between, "securdma", "sealed", "a message to the client: one bit of it", "failed", bool(wrong),
         noted(wrong, "connection.forged, exit status 4"))


def named(seal):
    return "sealed, with seal threads" if seal == THREADS else "sealed"


def shared(seal, told):
    """Whether the records went the way of the other threads, when there are any; which thread gets a record is a matter of chance."""
    return seal != THREADS or sum(told["seal_bytes"]) > 0


def tampered(way, size, seal, *words):
    """A relay that flips a bit of each data packet, a server that shows its region at the end, and a client."""
    flip = () if "--replay" in words else ("--flip", FLIPPED if size > FLIPPED else 7)
    between = LAB.between(*flip, "--way", way, *words)
    server = LAB.listener(*seal)
    return between, server, LAB.guest(server, *seal)


def write():
    between, server, guest = tampered("forth", LONG, ())
    wrote = guest.do(f"write {LONG}", "wrote")
    guest.finish()
    ended = server.must("ended")
    tell(between, "securdma", "not sealed", "a long write: one bit of each packet", "succeeded", wrote["error"] == 0 and ended["other"] > 0,
         f"{ended['other']} wrong bytes in the region")


def sealed_write(size, tried, *words, seal=ALONE):
    """Every byte in the server's region must be one that the client wrote. `words`: leave some packets as they are."""
    between, server, guest = tampered("forth", size, seal, *words)
    wrote = guest.do(f"write {size}", "wrote")
    ended = server.must("ended")
    event = server.event("log", 3, which="client.lost")
    wrong = missing(nothing_else=ended["other"] == 0, detected=ended["error"] == rig.ESEAL, security=event and event["security"],
                    writer_told=wrote["error"] != 0, some_before=not words or ended["known"] > 0, none_before=bool(words) or ended["known"] == 0,
                    shared=shared(seal, ended) and shared(seal, wrote))
    tell(between, "securdma", named(seal), tried, "failed", bool(wrong),
         noted(wrong, f"in the region: {ended['known']} bytes of the client, {ended['other']} others"))


def read():
    between, _, guest = tampered("back", LONG, ())
    guest.do(f"write {LONG}", "wrote", error=0)
    found = guest.do(f"read {LONG}", "read")
    tell(between, "securdma", "not sealed", "a long read: one bit of each packet", "succeeded", found["error"] == 0 and found["other"] > 0,
         f"{found['other']} wrong bytes in the buffer")


def sealed_read(size, tried, *words, seal=ALONE):
    """Of what the server's region has, which is nothing, or what the client wrote there first. `words`: leave some packets as they are."""
    between, _, guest = tampered("back", size, seal, *words)
    if words:
        guest.do(f"write {size}", "wrote", error=0)
    guest.say(f"read {size}")
    event = guest.event("log", 3, which="connection.forged")
    found = guest.must("read")
    wrong = missing(nothing_else=found["other"] == 0, detected=found["error"] == rig.ESEAL, security=event and event["security"],
                    some_before=bool(words) == (found["known"] > 0), shared=shared(seal, found))
    tell(between, "securdma", named(seal), tried, "failed", bool(wrong), noted(wrong, f"in the buffer: {found['known']} bytes of the region"))


def sealed_messages(tried, *words):
    """Long ones, several under way: the server's program gets those before the first that is forged, whole and in order."""
    between, server, guest = tampered("forth", LONG, THREADS, *words)
    guest.say("many 16")
    ended = server.must("ended")
    event = server.event("log", 3, which="client.lost")
    taken = [line for line in server.seen if line.get("event") == "message"]
    texts = [f"number {i:03}" for i in range(len(taken))]
    wrong = missing(in_order=[line["text"] for line in taken] == texts, some_before=taken, whole=all(line["other"] == 0 for line in taken),
                    not_all=len(taken) < 16, detected=ended["error"] == rig.ESEAL, security=event and event["security"], shared=shared(THREADS, ended))
    tell(between, "securdma", named(THREADS), tried, "failed", bool(wrong), noted(wrong, f"the program has taken the {len(taken)} before it"))


plain((), "ICRC: has no key", "succeeded")
if not LAB.rxe:
    plain((), "ICRC: has no key", "succeeded", v6=True)
plain(("--stale",), "ICRC, not corrected", "failed")
message()
region()
write()
read()
sealed_message()
sealed_echo()
sealed_write(7, "a short write: one bit of it")
sealed_write(LONG, "a long write: one bit of each packet")
sealed_write(LONG, "a long write: one bit of each packet after the first half", "--skip", LONG // PACKET // 2)
sealed_read(7, "a short read: one bit of it")
sealed_read(LONG, "a long read: one bit of each packet")
sealed_write(LONG, "a long write: one bit of each packet", seal=THREADS)
sealed_write(LONG, "a long write: one bit of each packet after the first half", "--skip", LONG // PACKET // 2, seal=THREADS)
sealed_write(LONG, "a long write: each part replaced by the one before", "--replay", CHUNK, seal=THREADS)
sealed_read(LONG, "a long read: one bit of each packet", seal=THREADS)
sealed_read(LONG, "a long read: each part replaced by the one before", "--replay", CHUNK, seal=THREADS)
sealed_messages("long messages: one bit of each packet after the first three", "--skip", 3 * (MESSAGE - 1))
sealed_messages("long messages: each after the first four replaced by the one before", "--replay", MESSAGE, "--skip", 3 * MESSAGE)
LAB.end()
