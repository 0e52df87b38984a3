#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""ReDMArk's A1: packets that somebody else makes up are taken for the peer's."""
import lab as rig
from lab import (ACK, KNOWN, PSNS, READ_ONLY, READ_REQUEST, SEND_ONLY, SEND_ONLY_IMM, WRITE_ONLY, after, missing, noted, region_becomes,
                 seen_packet, to_host)

ARGUMENTS = rig.options(__doc__)
LAB = rig.Lab(ARGUMENTS)
NAME = "A1 injection"
GUESS = 0x100
LONG = 1 << 20
QUIET = 2 if ARGUMENTS.rxe else 0.4  # seconds without a packet: there will be no more
READ_ANSWERS = range(0x0d, 0x11)
REFUSALS = (0x61, 0x62)  # NAKs: invalid request, remote access error
WRITE_AND_READ = "an RDMA WRITE into the region, and a READ that shows it"
MESSAGE = "a message: does the server's program take and echo it?"


def plain_on_path(v6):
    """Sees one packet of the client, knows the next number."""
    server, client, _, _ = LAB.victims("--random-psn", v6=v6)
    sniffer = LAB.sniff()
    client.say("send 0 genuine one")
    server.must("message", text="genuine one")
    seen = seen_packet(sniffer, SEND_ONLY)
    sent = LAB.spoof("--op", "send", "--qpn", seen["qpn"], "--psn", after(seen["psn"]), "--text", "forged", v6=v6)
    hit = server.event("message", 3, text="forged") is not None
    LAB.report(NAME, "on-path, sees", "PSN, QPN: seen", "plain verbs", "random PSN", f"a SEND over {'IPv6' if v6 else 'IPv4'}", "succeeded",
               hit, **sent)
    client.say("send 0 genuine two")
    lost = server.event("message", 2, text="genuine two") is None
    LAB.report(NAME, "on-path, sees", "PSN, QPN: seen", "plain verbs", "random PSN",
               "the peer's next SEND is taken for a duplicate of the forged one, acknowledged and dropped", "succeeded", lost, **sent)
    LAB.clear()


def plain_write():
    server, client, _, _ = LAB.victims("--random-psn")
    sniffer = LAB.sniff()
    client.say("write 0 0 genuine")
    client.must("done")
    seen = seen_packet(sniffer, WRITE_ONLY)
    sent = LAB.spoof("--op", "write", "--qpn", seen["qpn"], "--psn", after(seen["psn"]), "--rkey", seen["rkey"], "--va", seen["va"], "--text",
                     "FORGED!")
    LAB.report(NAME, "on-path, sees", "PSN, QPN, rkey, address: seen", "plain verbs", "random PSN", "an RDMA WRITE", "succeeded",
               region_becomes(server, "FORGED!"), **sent)
    LAB.clear()


def off_path_plain():
    """NCCL, UCX, brpc and Mooncake start at PSN 0: the first few numbers are enough."""
    for words, defence, expected in (((), "none: PSN 0", "succeeded"), (("--random-psn",), "random PSN", "failed")):
        server, client, at, _ = LAB.victims(*words)
        for i in range(3):
            client.say(f"send 0 genuine {i}")
            server.must("message", text=f"genuine {i}")
        sent = LAB.spoof("--op", "send", "--qpn", at["qpn"], "--psn", "0+64", "--text", "forged")
        hit = server.event("message", 3, text="forged") is not None
        LAB.report(NAME, "off-path, spoofs", "QPN", "plain verbs", defence, "SENDs with the PSNs 0 to 63", expected, hit, **sent)
        LAB.clear()


def securdma_on_path(words, defence, expected):
    """Writes into the client's region on the server, reads it out, and sees the answer go by."""
    server = LAB.serve(*words)
    sniffer = LAB.sniff()
    client = LAB.connect(server, *words)
    client.ask("write 0 genuine")
    seen = seen_packet(sniffer, WRITE_ONLY)
    to = ["--qpn", seen["qpn"], "--rkey", seen["rkey"], "--va", seen["va"]]
    sent = LAB.spoof("--op", "write", "--psn", after(seen["psn"]), "--text", "FORGED!", *to)
    LAB.spoof("--op", "read", "--psn", after(seen["psn"], 2), "--length", 7, *to)
    hit = sniffer.next(lambda line: line.get("opcode") == READ_ONLY and to_host(line, "client") and line["text"] == "FORGED!", 3) is not None
    LAB.report(NAME, "on-path, sees", "PSN, QPN, rkey, address: seen", "securdma", defence, WRITE_AND_READ, expected, hit, **sent)
    LAB.clear()


def securdma_message(words, defence, expected):
    """A message in the client's name, whose echo goes by."""
    server = LAB.serve(*words)
    sniffer = LAB.sniff()
    client = LAB.connect(server, *words)
    client.ask("send genuine")
    seen = seen_packet(sniffer, SEND_ONLY_IMM)
    seen_packet(sniffer, SEND_ONLY_IMM, to="client")
    sent = LAB.spoof("--op", "send-imm", "--qpn", seen["qpn"], "--psn", after(seen["psn"]), "--imm", seen["imm"], "--text", "forged")
    hit = sniffer.next(lambda line: line.get("opcode") == SEND_ONLY_IMM and to_host(line, "client") and
                       b"forged".hex() in line["bytes"], 3) is not None
    LAB.report(NAME, "on-path, sees", "PSN, QPN: seen", "securdma", defence, MESSAGE, expected, hit, **sent)
    LAB.clear()


def sealed_write(words):
    """No key of the region is to be seen, nor is there any: what is written goes as sealed records."""
    server = LAB.serve(*words)
    sniffer = LAB.sniff()
    client = LAB.connect(server, *words)
    client.ask("write 0 genuine")
    seen = seen_packet(sniffer, SEND_ONLY_IMM)
    sent = LAB.spoof("--op", "write", "--qpn", seen["qpn"], "--psn", after(seen["psn"]), "--rkey", GUESS, "--va", 0, "--text", "FORGED!")
    region = client.ask("read 0 7", 10)
    LAB.report(NAME, "on-path, sees", "PSN, QPN: seen; there is no rkey to see", "securdma", "sealed", "an RDMA WRITE into the region", "failed",
               region == "FORGED!", **sent, note="the connection went on" if region == "genuine" else "the connection ended")
    LAB.clear()


def request_after(packet, mtu):
    """The PSN of the request that follows this one."""
    return after(packet["psn"], -(-packet["dma_length"] // mtu) if packet["opcode"] == READ_REQUEST else 1)


def long_write():
    """The server fetches a long write out of the client's ring: its requests, of which each has the ring's key. They are there for all to
    see, and the forger's next number with them."""
    server = LAB.listener("--seal")
    sniffer = LAB.sniff()
    client = LAB.guest(server, "--seal")
    mtu = client.seen[-1]["mtu"]
    client.say(f"write {LONG}")
    client.must("wrote", error=0)
    requests = []
    while (packet := sniffer.next(lambda line: to_host(line, "client") and line["opcode"] in (READ_REQUEST, SEND_ONLY_IMM), QUIET)) is not None:
        requests.append(packet)
    fetch = [packet for packet in requests if packet["opcode"] == READ_REQUEST][-1]
    # Some may have been sent again: the furthest counts.
    ahead = max((request_after(packet, mtu) - requests[0]["psn"]) % PSNS for packet in requests)
    return server, sniffer, client, fetch, after(requests[0]["psn"], ahead)


def staging_read():
    """Reads the ring again. What it held last is still there, and ciphertext."""
    server, sniffer, client, fetch, psn = long_write()
    sent = LAB.spoof("--op", "read", "--qpn", fetch["qpn"], "--psn", psn, "--rkey", fetch["rkey"], "--va", fetch["va"], "--length", fetch["dma_length"],
                     to="client")
    answers = []
    while (packet := sniffer.next(lambda line: to_host(line, "server") and line["opcode"] in READ_ANSWERS, QUIET)) is not None:
        answers.append(packet)
    length = sum(packet["length"] for packet in answers)
    client.finish()
    ended = server.must("ended")
    wrong = missing(answered=length == fetch["dma_length"] and answers[0]["psn"] == psn, ciphertext=not any(map(shows, answers)),
                    region=ended["known"] == LONG)
    LAB.report(NAME, "on-path, sees", "PSN, QPN; rkey and address of the ring: seen", "securdma", "sealed", "an RDMA READ of the ring that a long "
               "write is fetched from: is any plaintext in the answer?", "failed", bool(wrong), **sent,
               note=noted(wrong, f"{length:,} bytes of ciphertext; the region is as it was written"))
    LAB.clear()


def staging_write():
    """Writes into the ring: it may be read alone. The queue pair fails, and is replaced."""
    server, sniffer, client, fetch, psn = long_write()
    sent = LAB.spoof("--op", "write", "--qpn", fetch["qpn"], "--psn", psn, "--rkey", fetch["rkey"], "--va", fetch["va"], "--text", "FORGED!",
                     to="client")
    refused = sniffer.next(lambda line: to_host(line, "server") and line.get("opcode") == ACK and line["syndrome"] in REFUSALS, 3)
    client.say(f"read {LONG}")
    found = client.must("read", 30)
    recovered = any(line.get("which") == "connection.recovering" and line["security"] for line in client.seen)
    client.finish()
    ended = server.must("ended")
    wrong = missing(refused=refused, event=recovered, reading=found["error"] == 0 and found["known"] == LONG, region=ended["known"] == LONG)
    LAB.report(NAME, "on-path, sees", "PSN, QPN; rkey and address of the ring: seen", "securdma", "sealed", "an RDMA WRITE into the ring that a "
               "long write is fetched from", "failed", bool(wrong), **sent, note=noted(wrong, "refused; the queue pair was replaced, and the region is "
               "as it was written"))
    LAB.clear()


def shows(packet):
    """Whether a packet has a part of the known plaintext in it."""
    return any(KNOWN[i:i + 8].encode().hex() in packet["bytes"] for i in range(len(KNOWN) - 7))


def observer(seal):
    """All that goes by while known messages are exchanged, and a region is written and read."""
    words = ("--seal",) if seal else ()
    server = LAB.listener(*words)
    sniffer = LAB.sniff()
    client = LAB.guest(server, *words)
    client.say(f"send {KNOWN}")
    client.must("echo")
    for command, event in ((f"write {LONG}", "wrote"), (f"read {LONG}", "read"), ("write 64", "wrote"), ("read 64", "read")):
        client.say(command)
        client.must(event, error=0)
    packets = []
    while (packet := sniffer.next(timeout=QUIET)) is not None:
        packets.append(packet)
    length, found = sum(packet["length"] for packet in packets), [packet for packet in packets if shows(packet)]
    if length < 2 * LONG:
        raise SystemExit(f"attack: {length} bytes went by: not all was seen")
    LAB.report("reading", "on-path, sees", "the packets", "securdma", "sealed" if seal else "none (not sealed)", "known messages, writes and reads, short "
               "and of 1 MiB: is the plaintext in any packet?", "failed" if seal else "succeeded", bool(found),
               note=f"in {len(found)} of {len(packets)} packets with {length:,} bytes")
    LAB.clear()


def sealed_message(words):
    server = LAB.serve(*words)
    sniffer = LAB.sniff()
    client = LAB.connect(server, *words)
    client.ask("send genuine")
    seen = seen_packet(sniffer, SEND_ONLY_IMM)
    # As long as a record of six bytes.
    sent = LAB.spoof("--op", "send-imm", "--qpn", seen["qpn"], "--psn", after(seen["psn"]), "--imm", seen["imm"], "--text",
                     "forged".ljust(seen["length"] - 1, "."))
    ended = client.ask("send still here", 10) is None or not client.alive()
    LAB.report(NAME, "on-path, sees", "PSN, QPN: seen", "securdma", "sealed", MESSAGE, "failed", "did not authenticate" not in server.log(),
               **sent, note="detected; the connection ended" if ended else "detected")
    LAB.clear()


def sealed_nonsense(words):
    """What breaks a rule before it can be opened: of no known kind, with all credits that there can be, too short.
    It is a forgery as any other, and must not be put on the peer."""
    wrong = []
    for what, imm, length in (("kind 9", 9 << 24, 40), ("credits", 0x1ffffff, 40), ("a control record", 3 << 24, 44), ("no record", 1 << 24, 8)):
        server = LAB.serve(*words)
        sniffer = LAB.sniff()
        client = LAB.connect(server, *words)
        client.ask("send genuine")
        seen = seen_packet(sniffer, SEND_ONLY_IMM)
        LAB.spoof("--op", "send-imm", "--qpn", seen["qpn"], "--psn", after(seen["psn"]), "--imm", imm, "--text", "f" * length)
        lost = server.logged("client.lost")
        if not lost or lost["cause"] != "seal" or not lost.get("security") or lost["messages_received"] != 1:
            wrong.append(f"{what}: {lost}")
        LAB.clear()
    LAB.report(NAME, "on-path, sees", "PSN, QPN: seen", "securdma", "sealed", "messages that break a rule besides: of no known kind, with too many "
               "credits, a control record, too short", "failed", bool(wrong), packets=4, note=noted(wrong, "client.lost, cause seal; each ended its connection"))


def securdma_off_path():
    server = LAB.serve()
    sniffer = LAB.sniff()
    client = LAB.connect(server)
    client.ask("send genuine")
    seen = seen_packet(sniffer, SEND_ONLY_IMM)
    sent = LAB.spoof("--op", "send-imm", "--qpn", seen["qpn"], "--psn", "0+64", "--imm", seen["imm"], "--text", "forged")
    good = client.ask("send still here")
    LAB.report(NAME, "off-path, spoofs", "QPN", "securdma", "random PSN from RAND_bytes, told over TLS", "messages with the PSNs 0 to 63",
               "failed", good is None or not good.endswith("still here"), **sent)
    LAB.clear()


plain_on_path(False)
plain_on_path(True)
plain_write()
off_path_plain()
securdma_off_path()
securdma_on_path((), "random PSN; not sealed", "succeeded")
securdma_message((), "random PSN; not sealed", "succeeded")
observer(False)
if LAB.has("--seal"):
    sealed_write(("--seal", "required"))
    sealed_message(("--seal", "required"))
    sealed_nonsense(("--seal", "required"))
    staging_read()
    staging_write()
    observer(True)
else:
    for what in (WRITE_AND_READ, MESSAGE):
        LAB.report(NAME, "on-path, sees", "PSN, QPN, rkey, address: seen", "securdma", "sealed", what, "failed", None,
                   note="this build has no sealed channel")
LAB.end()
