#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""ReDMArk's A1: an end takes forged packets for its peer's."""
import lab as rig
from lab import (ACK, KNOWN, PSNS, READ_ONLY, READ_REQUEST, SEND_ONLY, SEND_ONLY_IMM, WRITE_ONLY, after, missing, noted, region_becomes,
                 seen_packet, to_host)

ARGUMENTS = rig.options(__doc__)
LAB = rig.Lab(ARGUMENTS)
SEAL = ("--seal", "required")
LONG = 1 << 20
QUIET = 2 if ARGUMENTS.rxe else 0.4  # seconds without a packet: there will be no more
READ_ANSWERS = range(0x0d, 0x11)
REFUSALS = (0x61, 0x62)  # NAKs: invalid request, remote access error
MESSAGE = "a message: does the server's program accept and echo it?"
PSN, RKEY, RING = "PSN, QPN: seen", "PSN, QPN, rkey, address: seen", "PSN, QPN; rkey and address of the ring: seen"


def tell(knowledge, victim, defence, tried, expected, succeeded, position="on-path, sees", **more):
    LAB.conclude("A1 injection", position, knowledge, victim, defence, tried, expected, succeeded, **more)


def plain_on_path(v6):
    """Sees one packet of the client, and so knows the next PSN."""
    server, client, _, _ = LAB.victims("--random-psn", v6=v6)
    sniffer = LAB.sniff()
    client.say("send 0 genuine one")
    server.must("message", text="genuine one")
    seen = seen_packet(sniffer, SEND_ONLY)
    sent = LAB.spoof("--op", "send", "--qpn", seen["qpn"], "--psn", after(seen["psn"]), "--text", "forged", v6=v6)
    hit = server.event("message", 3, text="forged") is not None
    client.say("send 0 genuine two")
    lost = server.event("message", 2, text="genuine two") is None
    tell(PSN, "plain verbs", "random PSN", f"a SEND over {'IPv6' if v6 else 'IPv4'}", "succeeded", hit, **sent)
    tell(PSN, "plain verbs", "random PSN", "the server takes the peer's next SEND for a duplicate of the forged one: acknowledged and dropped",
         "succeeded", lost, **sent)


def plain_write():
    server, client, _, _ = LAB.victims("--random-psn")
    sniffer = LAB.sniff()
    client.do("write 0 0 genuine", "done")
    seen = seen_packet(sniffer, WRITE_ONLY)
    sent = LAB.spoof("--op", "write", "--qpn", seen["qpn"], "--psn", after(seen["psn"]), "--rkey", seen["rkey"], "--va", seen["va"], "--text",
                     "FORGED!")
    tell(RKEY, "plain verbs", "random PSN", "an RDMA WRITE", "succeeded", region_becomes(server, "FORGED!"), **sent)


def plain_off_path(words, defence, expected):
    """NCCL, UCX, brpc and Mooncake start at PSN 0: the first few numbers are enough."""
    server, client, at, _ = LAB.victims(*words)
    for i in range(3):
        client.say(f"send 0 genuine {i}")
        server.must("message", text=f"genuine {i}")
    sent = LAB.spoof("--op", "send", "--qpn", at["qpn"], "--psn", "0+64", "--text", "forged")
    hit = server.event("message", 3, text="forged") is not None
    tell("QPN", "plain verbs", defence, "SENDs with the PSNs 0 to 63", expected, hit, "off-path, spoofs", **sent)


def off_path():
    _, _, client, seen = LAB.observed()
    sent = LAB.spoof("--op", "send-imm", "--qpn", seen["qpn"], "--psn", "0+64", "--imm", seen["imm"], "--text", "forged")
    good = client.ask("send still here")
    tell("QPN", "securdma", "random PSN from RAND_bytes, sent over TLS", "messages with the PSNs 0 to 63", "failed",
         good is None or not good.endswith("still here"), "off-path, spoofs", **sent)


def write():
    """Writes to the client's region on the server, reads it, and sees the answer."""
    _, sniffer, _, seen = LAB.observed(command="write 0 genuine", opcode=WRITE_ONLY)
    to = ["--qpn", seen["qpn"], "--rkey", seen["rkey"], "--va", seen["va"]]
    sent = LAB.spoof("--op", "write", "--psn", after(seen["psn"]), "--text", "FORGED!", *to)
    LAB.spoof("--op", "read", "--psn", after(seen["psn"], 2), "--length", 7, *to)
    hit = sniffer.next(lambda line: line.get("opcode") == READ_ONLY and to_host(line, "client") and line["text"] == "FORGED!", 3) is not None
    tell(RKEY, "securdma", "random PSN; not sealed", "an RDMA WRITE into the region, and a READ that shows it", "succeeded", hit, **sent)


def message():
    """A message in the client's name, and its echo."""
    _, sniffer, _, seen = LAB.observed()
    seen_packet(sniffer, SEND_ONLY_IMM, to="client")
    sent = LAB.spoof("--op", "send-imm", "--qpn", seen["qpn"], "--psn", after(seen["psn"]), "--imm", seen["imm"], "--text", "forged")
    hit = sniffer.next(lambda line: line.get("opcode") == SEND_ONLY_IMM and to_host(line, "client") and
                       b"forged".hex() in line["bytes"], 3) is not None
    tell(PSN, "securdma", "random PSN; not sealed", MESSAGE, "succeeded", hit, **sent)


def sealed_write():
    """The region has no rkey: sealed records carry what the client writes."""
    _, _, client, seen = LAB.observed(*SEAL, command="write 0 genuine")
    sent = LAB.spoof("--op", "write", "--qpn", seen["qpn"], "--psn", after(seen["psn"]), "--rkey", 0x100, "--va", 0, "--text", "FORGED!")
    region = client.ask("read 0 7", 10)
    tell("PSN, QPN: seen; there is no rkey to see", "securdma", "sealed", "an RDMA WRITE into the region", "failed", region == "FORGED!", **sent,
         note="the connection went on" if region == "genuine" else "the connection ended")


def sealed_message():
    server, _, client, seen = LAB.observed(*SEAL)
    # As long as a record of six bytes.
    sent = LAB.spoof("--op", "send-imm", "--qpn", seen["qpn"], "--psn", after(seen["psn"]), "--imm", seen["imm"], "--text",
                     "forged".ljust(seen["length"] - 1, "."))
    ended = client.ask("send still here", 10) is None or not client.alive()
    tell(PSN, "securdma", "sealed", MESSAGE, "failed", "did not authenticate" not in server.log(), **sent,
         note="detected; the connection ended" if ended else "detected")


def sealed_nonsense():
    """Messages that break a rule before the server can open them: an unknown kind, every possible credit, too short. The server must treat
    each as a forgery, and must not blame the peer."""
    wrong = []
    for what, imm, length in (("kind 9", 9 << 24, 40), ("credits", 0x1ffffff, 40), ("a control record", 3 << 24, 44), ("no record", 1 << 24, 8)):
        server, _, _, seen = LAB.observed(*SEAL)
        LAB.spoof("--op", "send-imm", "--qpn", seen["qpn"], "--psn", after(seen["psn"]), "--imm", imm, "--text", "f" * length)
        lost = server.logged("client.lost")
        if not lost or lost["cause"] != "seal" or not lost.get("security") or lost["messages_received"] != 1:
            wrong.append(f"{what}: {lost}")
        LAB.clear()
    tell(PSN, "securdma", "sealed", "messages that also break a rule: an unknown kind, too many credits, a control record, too short", "failed",
         bool(wrong), packets=4, note=noted(wrong, "client.lost, cause seal; each ended its connection"))


def request_after(packet, mtu):
    """The PSN of the request that follows this one."""
    return after(packet["psn"], -(-packet["dma_length"] // mtu) if packet["opcode"] == READ_REQUEST else 1)


def long_write():
    """The server fetches a long write from the client's ring by requests that hold the ring's rkey. Anyone on the path sees them, and the
    forger's next PSN and the tag with them."""
    server = LAB.listener("--seal")
    sniffer = LAB.sniff()
    client = LAB.guest(server, "--seal")
    mtu = client.seen[-1]["mtu"]
    client.do(f"write {LONG}", "wrote", error=0)
    packets = sniffer.rest(lambda line: to_host(line, "client"), QUIET)
    requests = [packet for packet in packets if packet["opcode"] in (READ_REQUEST, SEND_ONLY_IMM)]
    # The server has no tag before it is asked for one, which may be after its last request.
    fetch = dict([packet for packet in requests if packet["opcode"] == READ_REQUEST][-1], tag=packets[-1]["tag"])
    # The server may have repeated some: the furthest counts.
    ahead = max((request_after(packet, mtu) - requests[0]["psn"]) % PSNS for packet in requests)
    return server, sniffer, client, fetch, after(requests[0]["psn"], ahead)


def ring_read():
    """Reads the ring again, which still holds the last data as ciphertext."""
    server, sniffer, client, fetch, psn = long_write()
    sent = LAB.spoof("--op", "read", "--qpn", fetch["qpn"], "--psn", psn, "--tag", fetch["tag"], "--rkey", fetch["rkey"], "--va", fetch["va"], "--length", fetch["dma_length"],
                     to="client")
    answers = sniffer.rest(lambda line: to_host(line, "server") and line["opcode"] in READ_ANSWERS, QUIET)
    length = sum(packet["length"] for packet in answers)
    client.finish()
    ended = server.must("ended")
    wrong = missing(answered=length == fetch["dma_length"] and answers[0]["psn"] == psn, ciphertext=not any(map(shows, answers)),
                    region=ended["known"] == LONG)
    tell(RING, "securdma", "sealed", "an RDMA READ of the ring that a long write is fetched from: is any plaintext in the answer?", "failed",
         bool(wrong), **sent, note=noted(wrong, f"{length:,} bytes of ciphertext; the region holds what the client wrote"))


def ring_write():
    """Writes to the ring, which permits reads only. The queue pair fails, and both ends replace it."""
    server, sniffer, client, fetch, psn = long_write()
    sent = LAB.spoof("--op", "write", "--qpn", fetch["qpn"], "--psn", psn, "--tag", fetch["tag"], "--rkey", fetch["rkey"], "--va", fetch["va"], "--text", "FORGED!",
                     to="client")
    refused = sniffer.next(lambda line: to_host(line, "server") and line.get("opcode") == ACK and line["syndrome"] in REFUSALS, 3)
    found = client.do(f"read {LONG}", "read", 30)
    recovered = any(line.get("which") == "connection.recovering" and line["security"] for line in client.seen)
    client.finish()
    ended = server.must("ended")
    wrong = missing(refused=refused, event=recovered, reading=found["error"] == 0 and found["known"] == LONG, region=ended["known"] == LONG)
    tell(RING, "securdma", "sealed", "an RDMA WRITE into the ring that a long write is fetched from", "failed", bool(wrong), **sent,
         note=noted(wrong, "refused; both ends replaced the queue pair, and the region holds what the client wrote"))


def shows(packet):
    """Whether a packet contains a part of the known plaintext."""
    return any(KNOWN[i:i + 8].encode().hex() in packet["bytes"] for i in range(len(KNOWN) - 7))


def observer(*seal):
    """All packets while known messages are exchanged, and a region is written and read."""
    server = LAB.listener(*seal)
    sniffer = LAB.sniff()
    client = LAB.guest(server, *seal)
    client.do(f"send {KNOWN}", "echo")
    for command, event in ((f"write {LONG}", "wrote"), (f"read {LONG}", "read"), ("write 64", "wrote"), ("read 64", "read")):
        client.do(command, event, error=0)
    packets = sniffer.rest(timeout=QUIET)
    length, found = sum(packet["length"] for packet in packets), [packet for packet in packets if shows(packet)]
    if length < 2 * LONG:
        raise SystemExit(f"attack: saw {length} bytes only, not all packets")
    LAB.conclude("reading", "on-path, sees", "the packets", "securdma", "sealed" if seal else "none (not sealed)", "known messages, writes and reads, "
                 "short and of 1 MiB: is the plaintext in any packet?", "failed" if seal else "succeeded", bool(found),
                 note=f"in {len(found)} of {len(packets)} packets with {length:,} bytes")


plain_on_path(False)
plain_on_path(True)
plain_write()
plain_off_path((), "none: PSN 0", "succeeded")
plain_off_path(("--random-psn",), "random PSN", "failed")
off_path()
write()
message()
observer()
sealed_write()
sealed_message()
sealed_nonsense()
ring_read()
ring_write()
observer("--seal")
LAB.end()
