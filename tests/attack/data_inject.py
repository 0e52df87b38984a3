#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""ReDMArk's A1: packets that somebody else makes up are taken for the peer's."""
import lab as rig
from lab import READ_ONLY, SEND_ONLY, SEND_ONLY_IMM, WRITE_ONLY, after, region_becomes, seen_packet, to_host

ARGUMENTS = rig.options(__doc__)
LAB = rig.Lab(ARGUMENTS)
NAME = "A1 injection"
GUESS = 0x100
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
if LAB.has("--seal"):
    sealed_write(("--seal", "required"))
    sealed_message(("--seal", "required"))
else:
    for what in (WRITE_AND_READ, MESSAGE):
        LAB.report(NAME, "on-path, sees", "PSN, QPN, rkey, address: seen", "securdma", "sealed", what, "failed", None,
                   note="this build has no sealed channel")
LAB.end()
