#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Somebody between the two ends changes data on its way. The ICRC has no key: whoever changes a packet puts it right."""
import lab as rig
from lab import missing, noted, to_host

ARGUMENTS = rig.options(__doc__)
LAB = rig.Lab(ARGUMENTS)
NAME = "change in flight"
POSITION = "on-path, relays"
SEALED = ("--seal", "required")
LONG = 1 << 20
PACKET = 4096
FLIPPED = 512  # bytes: the packets of a long write or read, and nothing else


def over(between):
    """Ends the tampering, of which there has to have been some."""
    counts = between.over()
    if not counts["changed"]:
        raise SystemExit("attack: nothing was changed")
    return counts


def plain(words, defence, expected, v6=False):
    between = LAB.between("--find", "100", "--put", "999", *words)
    server, client, _, _ = LAB.victims("--random-psn", v6=v6)
    client.say("send 0 pay 100")
    arrived = server.event("message", 2)
    counts = over(between)
    LAB.report(NAME, POSITION, "everything", "plain verbs", defence, f"\"pay 100\" to \"pay 999\", over {'IPv6' if v6 else 'IPv4'}", expected,
               arrived is not None and arrived["text"] == "pay 999", packets=counts["changed"])
    LAB.clear()


def securdma_message():
    """Changes a message, and its echo back, so that only the server's program is deceived."""
    between = LAB.between("--find", "100", "--put", "999")
    server = LAB.serve()
    sniffer = LAB.sniff("p-server")
    client = LAB.connect(server)
    answer = client.ask("send pay 100")
    counts = over(between)
    # What the server's program took for the message is in its echo.
    echo = sniffer.next(lambda line: to_host(line, "client") and b"pay 999".hex() in line["bytes"], 2)
    LAB.report(NAME, POSITION, "everything", "securdma", "not sealed", "a message; the client does not notice", "succeeded",
               answer is not None and answer.endswith("pay 100") and echo is not None, packets=counts["changed"])
    LAB.clear()


def securdma_region():
    """Changes what is written into the region."""
    between = LAB.between("--find", "100", "--put", "999")
    server = LAB.serve()
    client = LAB.connect(server)
    client.ask("write 0 pay 100")
    counts = over(between)
    answer = client.ask("read 0 7")
    LAB.report(NAME, POSITION, "everything", "securdma", "not sealed", "an RDMA WRITE", "succeeded", answer == "pay 999",
               packets=counts["changed"])
    LAB.clear()


def sealed_message():
    """To the server. Its program must get nothing, and the operator must learn of it."""
    between = LAB.between("--flip", 7, "--way", "forth")
    server = LAB.serve(*SEALED)
    client = LAB.connect(server, *SEALED)
    answer = client.ask("send pay 100")
    lost = server.logged("client.lost")
    wrong = missing(cause=lost and lost["cause"] == "seal", security=lost and lost.get("security"),
                    told_once="connection.forged" not in server.log(), nothing_taken=lost and lost["messages_received"] == 0,
                    end=client.status() == rig.EXIT_LOST, no_echo=answer is None)
    counts = over(between)
    LAB.report(NAME, POSITION, "everything", "securdma", "sealed", "a message: one bit of it", "failed", bool(wrong),
               packets=counts["changed"], note=noted(wrong, "client.lost, cause seal"))
    LAB.clear()


def sealed_echo():
    """To the client, which has its own event and its own exit status for it."""
    between = LAB.between("--flip", 7, "--way", "back")
    server = LAB.serve(*SEALED)
    client = LAB.connect(server, *SEALED)
    answer = client.ask("send pay 100")
    forged = client.logged("connection.forged")
    wrong = missing(event=forged, security=forged and forged.get("security"), status=client.status() == rig.EXIT_SEAL, no_echo=answer is None,
                    once=client.log().count("connection.forged") == 1)
    counts = over(between)
    LAB.report(NAME, POSITION, "everything", "securdma", "sealed", "a message to the client: one bit of it", "failed", bool(wrong),
               packets=counts["changed"], note=noted(wrong, "connection.forged, exit status 4"))
    LAB.clear()


def write(size, seal, what, *words):
    """Into the server's region, which the server shows at the end: nothing there may be what nobody has written."""
    between = LAB.between("--flip", FLIPPED if size > FLIPPED else 7, "--way", "forth", *words)
    server = LAB.listener(*seal)
    guest = LAB.guest(server, *seal)
    guest.say(f"write {size}")
    wrote = guest.must("wrote")
    if not seal:
        guest.finish()
    ended = server.must("ended")
    event = server.event("log", 3, which="client.lost") if seal else None
    wrong = missing(nothing_else=ended["other"] == 0, detected=ended["error"] == rig.ESEAL, security=event and event["security"],
                    writer_told=wrote["error"] != 0, some_before=not words or ended["known"] > 0, none_before=bool(words) or ended["known"] == 0)
    counts = over(between)
    LAB.report(NAME, POSITION, "everything", "securdma", "sealed" if seal else "not sealed", what, "failed" if seal else "succeeded",
               bool(wrong) if seal else wrote["error"] == 0 and ended["other"] > 0, packets=counts["changed"],
               note=noted(wrong, f"in the region: {ended['known']} bytes that were written, {ended['other']} others") if seal else
               f"{ended['other']} wrong bytes in the region")
    LAB.clear()


def read(size, seal, what):
    """Into the client's buffer."""
    between = LAB.between("--flip", FLIPPED if size > FLIPPED else 7, "--way", "back")
    server = LAB.listener(*seal)
    guest = LAB.guest(server, *seal)
    if not seal:
        guest.say(f"write {size}")
        guest.must("wrote", error=0)
    guest.say(f"read {size}")
    event = guest.event("log", 3, which="connection.forged") if seal else None
    found = guest.must("read")
    wrong = missing(nothing=found["zero"] == found["known"] + found["zero"] + found["other"], detected=found["error"] == rig.ESEAL,
                    security=event and event["security"])
    counts = over(between)
    LAB.report(NAME, POSITION, "everything", "securdma", "sealed" if seal else "not sealed", what, "failed" if seal else "succeeded",
               bool(wrong) if seal else found["error"] == 0 and found["other"] > 0, packets=counts["changed"],
               note=noted(wrong, "nothing of it reached the buffer") if seal else f"{found['other']} wrong bytes in the buffer")
    LAB.clear()


plain((), "ICRC: has no key", "succeeded")
if not LAB.rxe:
    plain((), "ICRC: has no key", "succeeded", v6=True)
plain(("--stale",), "ICRC, not put right", "failed")
securdma_message()
securdma_region()
write(LONG, (), "a long write: one bit of each packet")
read(LONG, (), "a long read: one bit of each packet")
if LAB.has("--seal"):
    sealed_message()
    sealed_echo()
    write(7, ("--seal",), "a short write: one bit of it")
    write(LONG, ("--seal",), "a long write: one bit of each packet")
    write(LONG, ("--seal",), "a long write: one bit of each packet after the first half", "--skip", LONG // PACKET // 2)
    read(7, ("--seal",), "a short read: one bit of it")
    read(LONG, ("--seal",), "a long read: one bit of each packet")
else:
    LAB.report(NAME, POSITION, "everything", "securdma", "sealed", "messages, writes and reads", "failed", None,
               note="this build has no sealed channel")
LAB.end()
