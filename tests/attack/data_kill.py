#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""ReDMArk's A2: one packet ends a connection. It needs the PSN and the QPN, but no rkey: a bad one does it."""
import time

import lab as rig
from lab import ACK, SEND_ONLY, SEND_ONLY_IMM, after, arrived, missing, noted, seen_packet

ARGUMENTS = rig.options(__doc__)
LAB = rig.Lab(ARGUMENTS)
NAME = "A2 kill the queue pair"
BAD_WRITE = ["--op", "write", "--rkey", "0xbadbad", "--va", "0", "--text", "x"]


def plain_on_path():
    server, client, _, _ = LAB.victims("--random-psn")
    sniffer = LAB.sniff()
    client.say("send 0 genuine")
    seen = seen_packet(sniffer, SEND_ONLY)
    sent = LAB.spoof(*BAD_WRITE, "--qpn", seen["qpn"], "--psn", after(seen["psn"]))
    broken = server.event("broken", 3) is not None
    LAB.report(NAME, "on-path, sees", "PSN, QPN: seen", "plain verbs", "random PSN", "an RDMA WRITE with a bad rkey", "succeeded", broken, **sent)
    LAB.clear()


def plain_off_path():
    for words, defence, expected in (((), "none: PSN 0", "succeeded"), (("--random-psn",), "random PSN", "failed")):
        server, client, at, _ = LAB.victims(*words)
        client.say("send 0 genuine")
        server.must("message")
        sent = LAB.spoof(*BAD_WRITE, "--qpn", at["qpn"], "--psn", "0+64")
        broken = server.event("broken", 2) is not None
        LAB.report(NAME, "off-path, spoofs", "QPN", "plain verbs", defence, "bad RDMA WRITEs with the PSNs 0 to 63", expected, broken, **sent)
        LAB.clear()


def plain_nak():
    """A refusal in the server's name, of the requests that wait for an answer: the server is stopped, so that some do."""
    if LAB.rxe:
        return  # the kernel's device answers though its program is stopped
    server, client, _, at = LAB.victims("--random-psn")
    sniffer = LAB.sniff()
    client.say("send 0 genuine")
    client.must("done")
    seen_packet(sniffer, ACK, to="client")
    stop = LAB.freeze(server)
    client.say("send 0 unanswered")
    seen_packet(sniffer, SEND_ONLY, text="unanswered")
    answer = seen_packet(sniffer, SEND_ONLY, text="unanswered")  # its repetition: nobody answers
    sent = LAB.spoof("--op", "nak", "--qpn", at["qpn"], "--psn", answer["psn"], "--msn", 2, to="client")
    broken = client.event("broken", 1, status="remote access error")
    LAB.report(NAME, "on-path, sees", "PSN, QPN: seen", "plain verbs", "random PSN", "a NAK in the server's name, while it is slow to answer",
               "succeeded", broken is not None, **sent)
    stop()
    LAB.clear()


def off_path_nak():
    """The same without having seen a number of it: who starts at PSN 0 has its answers there, too."""
    if LAB.rxe:
        return
    for words, defence, expected in (((), "none: PSN 0", "succeeded"), (("--random-psn",), "random PSN", "failed")):
        server, client, _, at = LAB.victims(*words)
        client.say("send 0 genuine")
        client.must("done")
        stop = LAB.freeze(server)
        client.say("send 0 unanswered")
        time.sleep(0.05)  # the kernel has it, and nobody answers
        sent = LAB.spoof("--op", "nak", "--qpn", at["qpn"], "--psn", "0+64", "--msn", 2, to="client")
        broken = client.event("broken", 0.5, status="remote access error") is not None
        LAB.report(NAME, "off-path, spoofs", "QPN", "plain verbs", defence, "NAKs with the PSNs 0 to 63, while the server is slow to answer", expected,
                   broken, **sent)
        stop()
        LAB.clear()


def securdma_nak(words, defence, expected):
    """A NAK in the server's name to a securdma client. The message that it refuses may have arrived: it must come once all the same."""
    if LAB.rxe:
        return
    server = LAB.listener(*words)
    sniffer = LAB.sniff()
    client = LAB.guest(server, *words)
    client.say("send genuine")
    client.must("echo")
    to_client = seen_packet(sniffer, SEND_ONLY_IMM, to="client")
    stop = LAB.freeze(server)
    client.say("send unanswered")
    first = seen_packet(sniffer, SEND_ONLY_IMM)
    answer = seen_packet(sniffer, SEND_ONLY_IMM, psn=first["psn"])  # its repetition: nobody answers
    sent = LAB.spoof("--op", "nak", "--qpn", to_client["qpn"], "--psn", answer["psn"], "--msn", 2, to="client")
    hit = client.next(lambda line: line["event"] == "broken" or line.get("which") == "connection.recovering", 3)
    if hit is None:
        raise SystemExit("attack: the NAK did not match")
    stop()
    if expected == "succeeded":
        wrong, note = [], "the connection ended"
    else:
        client.event("echo", 5)
        client.say("send after")
        echo = client.event("echo", 5)
        texts, ended = arrived(server)
        wrong = missing(goes_on=echo is not None and ended is None, each_once=texts == ["genuine", "unanswered", "after"], event=hit.get("security"))
        note = noted(wrong, "a security event; each message came once")
    LAB.report(NAME, "on-path, sees", "PSN, QPN: seen", "securdma", defence, "a NAK in the server's name, while it is slow to answer", expected,
               hit["event"] == "broken" or bool(wrong), **sent, note=note)
    LAB.clear()


def stream(seal, echoes, kills, every_ms, recoveries):
    """Kills again and again, while numbered messages go there and back."""
    words = ("--recoveries", recoveries)
    server = LAB.serve(*words, *(("--seal", "required") if seal else ()))
    client = LAB.guest(server, *words, *(("--seal",) if seal else ()))
    killer = LAB.run("switch", rig.FORGE, "kill", "p-client", "p-server", "--every-ms", every_ms, "--count", kills)
    killer.next(lambda line: line.get("killing"))
    client.say(f"count {echoes}")
    counted = client.event("counted", 240)
    shot = killer.finish()
    client.finish()
    lost = server.logged("client.lost")
    if shot["kills"] != kills:
        raise SystemExit(f"attack: {shot['kills']} kills of {kills}: {counted}, {server.log()[-500:]}, {client.log()[-500:]}")
    wrong = missing(goes_on=counted, in_turn=counted and counted["wrong"] == 0, nothing_doubled=counted and counted["left"] == 0,
                    recovered=counted and counted["recoveries"] == kills, server_has_all=lost and lost["messages_received"] == echoes)
    if wrong:
        print("#", counted, shot, client.log()[-400:], flush=True)
    what = f"{echoes:,} numbered messages and their echoes, {kills} kills among them: is one lost, doubled, or out of its turn?"
    times = "" if not counted else (f"the connection stood still for {counted['pause_p50_us'] / 1000:.1f} ms (median; 99 %: {counted['pause_p99_us'] / 1000:.1f}, at most "
                                    f"{counted['pause_max_us'] / 1000:.1f}), the program waited {counted['wait_p50_us'] / 1000:.1f} ms (99 %: "
                                    f"{counted['wait_p99_us'] / 1000:.1f}, at most {counted['wait_max_us'] / 1000:.1f})")
    LAB.report(NAME, "on-path, sees", "PSN, QPN: seen", "securdma, sealed" if seal else "securdma", f"recoveries = {recoveries}", what, "failed", bool(wrong),
               packets=shot["packets"], note=noted(wrong, times))
    LAB.clear()


def once_too_often():
    """The ninth in a minute."""
    server = LAB.serve()
    client = LAB.guest(server)
    killer = LAB.run("switch", rig.FORGE, "kill", "p-client", "p-server", "--every-ms", 20)
    killer.next(lambda line: line.get("killing"))
    client.say("count 10000000")
    ended = client.event("broken", 30)
    shot = killer.finish()
    lost = server.logged("client.lost")
    LAB.report(NAME, "on-path, sees", "PSN, QPN: seen", "securdma", "recoveries = 8 (default)", "RDMA WRITEs with a bad rkey, one after the other, "
               "into a stream of messages", "succeeded", ended is not None and lost is not None and shot["kills"] == 8, packets=shot["packets"],
               note=f"the connection outlived {shot['kills']} of them: {lost and lost['error']}")
    LAB.clear()


def securdma(words, defence, expected):
    server = LAB.serve(*words)
    sniffer = LAB.sniff()
    client = LAB.connect(server, *words)
    client.ask("send genuine")
    seen = seen_packet(sniffer, SEND_ONLY_IMM)
    sent = LAB.spoof(*BAD_WRITE, "--qpn", seen["qpn"], "--psn", after(seen["psn"]))
    began = time.monotonic()
    answer = client.ask("send still here", 10)
    took = (time.monotonic() - began) * 1000
    survived = answer is not None and answer.endswith("still here")
    LAB.report(NAME, "on-path, sees", "PSN, QPN: seen", "securdma", defence, "an RDMA WRITE with a bad rkey", expected, not survived, **sent,
               note=f"the next echo came after {took:.0f} ms" if survived else None)
    LAB.clear()


plain_on_path()
plain_off_path()
plain_nak()
off_path_nak()
if LAB.has("--recoveries"):
    securdma(("--epoch-psns", "0", "--recoveries", "0"), "random PSN; no recoveries", "succeeded")
    securdma((), "queue pair renewed over TLS, with new PSNs", "failed")
    securdma_nak(("--no-epochs",), "random PSN; no recoveries", "succeeded")
    securdma_nak((), "queue pair renewed over TLS, with new PSNs", "failed")
    once_too_often()
    for sealed in (False, True) if LAB.has("--seal") else (False,):
        stream(sealed, 2000 if LAB.rxe else 10000, 5, 50, 8)
        if not LAB.short:
            stream(sealed, 100000, 200, 10, 1000)
else:
    securdma((), "random PSN; no recoveries", "succeeded")
    LAB.report(NAME, "on-path, sees", "PSN, QPN: seen", "securdma", "queue pair renewed over TLS, with new PSNs",
               "an RDMA WRITE with a bad rkey", "failed", None, note="this build has no recoveries")
LAB.end()
