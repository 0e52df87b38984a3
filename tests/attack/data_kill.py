#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""ReDMArk's A2: one packet ends a connection. It needs the PSN and the QPN, but no rkey: a wrong rkey is enough."""
import time

import lab as rig
from lab import ACK, SEND_ONLY, SEND_ONLY_IMM, after, arrived, missing, noted, seen_packet

LAB = rig.Lab(rig.options(__doc__))
BAD_WRITE = ["--op", "write", "--rkey", "0xbadbad", "--va", "0", "--text", "x"]
WRITE, NAK = "an RDMA WRITE with a bad rkey", "a NAK in the server's name, while the server is slow to answer"
FROM_0, RANDOM = ((), "none: PSN 0", "succeeded"), (("--random-psn",), "random PSN", "failed")
NO_RECOVERIES, RENEWED = "random PSN; no recoveries", "both ends renew the queue pair over TLS, with new PSNs"


def tell(victim, defence, tried, expected, succeeded, **more):
    LAB.conclude("A2 kill the queue pair", "on-path, sees", "PSN, QPN: seen", victim, defence, tried, expected, succeeded, **more)


def plain():
    server, client, _, _ = LAB.victims("--random-psn")
    sniffer = LAB.sniff()
    client.say("send 0 genuine")
    seen = seen_packet(sniffer, SEND_ONLY)
    sent = LAB.spoof(*BAD_WRITE, "--qpn", seen["qpn"], "--psn", after(seen["psn"]))
    tell("plain verbs", "random PSN", WRITE, "succeeded", server.event("broken", 3) is not None, **sent)


def plain_nak():
    """A NAK of a request that waits for its answer, because the server is stopped."""
    server, client, _, at = LAB.victims("--random-psn")
    sniffer = LAB.sniff()
    client.do("send 0 genuine", "done")
    seen_packet(sniffer, ACK, to="client")
    go_on = LAB.freeze(server)
    client.say("send 0 unanswered")
    seen_packet(sniffer, SEND_ONLY, text="unanswered")
    answer = seen_packet(sniffer, SEND_ONLY, text="unanswered")  # its repetition: nothing has answered
    sent = LAB.spoof("--op", "nak", "--qpn", at["qpn"], "--psn", answer["psn"], "--msn", 2, to="client")
    broken = client.event("broken", 1, status="remote access error")
    go_on()
    tell("plain verbs", "random PSN", NAK, "succeeded", broken is not None, **sent)


def off_path_nak(words, defence, expected):
    """Without having seen a PSN: a client that starts at PSN 0 expects its answers there."""
    server, client, _, at = LAB.talking_victims(*words)
    go_on = LAB.freeze(server)
    client.say("send 0 unanswered")
    time.sleep(0.05)  # the kernel has it, and nothing answers
    sent = LAB.spoof("--op", "nak", "--qpn", at["qpn"], "--psn", "0+64", "--msn", 2, to="client")
    broken = client.event("broken", 0.5, status="remote access error") is not None
    go_on()
    LAB.conclude("A2 kill the queue pair", "off-path, spoofs", "QPN", "plain verbs", defence,
                 "NAKs with the PSNs 0 to 63, while the server is slow to answer", expected, broken, **sent)


def securdma_nak(words, defence, expected):
    """A securdma client gets the NAK. The message may have arrived at the server, whose program must get it once nevertheless."""
    server, sniffer, client, _ = LAB.observed_guest(*words, text="genuine")
    to_client = seen_packet(sniffer, SEND_ONLY_IMM, to="client")
    go_on = LAB.freeze(server)
    client.say("send unanswered")
    first = seen_packet(sniffer, SEND_ONLY_IMM)
    answer = seen_packet(sniffer, SEND_ONLY_IMM, psn=first["psn"])  # its repetition: nothing has answered
    sent = LAB.spoof("--op", "nak", "--qpn", to_client["qpn"], "--psn", answer["psn"], "--msn", 2, to="client")
    hit = client.next(lambda line: line["event"] == "broken" or line.get("which") == "connection.recovering", 3)
    if hit is None:
        raise SystemExit("attack: the NAK did not match")
    go_on()
    if expected == "succeeded":
        wrong, note = [], "the connection ended"
    else:
        client.event("echo", 5)
        client.say("send after")
        echo = client.event("echo", 5)
        texts, ended = arrived(server)
        wrong = missing(goes_on=echo is not None and ended is None, each_once=texts == ["genuine", "unanswered", "after"], event=hit.get("security"))
        note = noted(wrong, "a security event; each message came once")
    tell("securdma", defence, NAK, expected, hit["event"] == "broken" or bool(wrong), **sent, note=note)


def start_killer(*words):
    killer = LAB.run("switch", rig.FORGE, "kill", "p-client", "p-server", *words)
    killer.next(lambda line: line.get("killing"))
    return killer


def kill_often(seal, echoes, kills, every_ms, recoveries):
    """Kills again and again, while numbered messages go there and back."""
    words = ("--recoveries", recoveries)
    server = LAB.serve(*words, *(("--seal", "required") if seal else ()))
    client = LAB.guest(server, *words, *(("--seal",) if seal else ()))
    killer = start_killer("--every-ms", every_ms, "--count", kills)
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
    what = f"{echoes:,} numbered messages and their echoes, {kills} kills meanwhile: is one lost, doubled, or out of order?"
    times = "" if not counted else (f"the connection stood still for {counted['pause_p50_us'] / 1000:.1f} ms (median; 99 %: {counted['pause_p99_us'] / 1000:.1f}, at most "
                                    f"{counted['pause_max_us'] / 1000:.1f}), the program waited {counted['wait_p50_us'] / 1000:.1f} ms (99 %: "
                                    f"{counted['wait_p99_us'] / 1000:.1f}, at most {counted['wait_max_us'] / 1000:.1f})")
    tell("securdma, sealed" if seal else "securdma", f"recoveries = {recoveries}", what, "failed", bool(wrong), packets=shot["packets"],
         note=noted(wrong, times))


def once_too_often():
    """The ninth in a minute."""
    server = LAB.serve()
    client = LAB.guest(server)
    killer = start_killer("--every-ms", 20)
    client.say("count 10000000")
    ended = client.event("broken", 30)
    shot = killer.finish()
    lost = server.logged("client.lost")
    tell("securdma", "recoveries = 8 (default)", "RDMA WRITEs with a bad rkey, one after the other, among many messages", "succeeded",
         ended is not None and lost is not None and shot["kills"] == 8, packets=shot["packets"],
         note=f"the connection survived {shot['kills']} of them: {lost and lost['error']}")


def securdma(words, defence, expected):
    _, _, client, seen = LAB.observed(*words)
    sent = LAB.spoof(*BAD_WRITE, "--qpn", seen["qpn"], "--psn", after(seen["psn"]))
    began = time.monotonic()
    answer = client.ask("send still here", 10)
    took = (time.monotonic() - began) * 1000
    survived = answer is not None and answer.endswith("still here")
    tell("securdma", defence, WRITE, expected, not survived, **sent, note=f"the next echo came after {took:.0f} ms" if survived else None)


plain()
securdma(("--epoch-psns", "0", "--recoveries", "0"), NO_RECOVERIES, "succeeded")
securdma((), RENEWED, "failed")
if not LAB.rxe:  # the kernel's device answers although its program is stopped
    plain_nak()
    off_path_nak(*FROM_0)
    off_path_nak(*RANDOM)
    securdma_nak(("--no-epochs",), NO_RECOVERIES, "succeeded")
    securdma_nak((), RENEWED, "failed")
once_too_often()
for sealed in (False, True):
    kill_often(sealed, 2000 if LAB.rxe else 10000, 5, 50, 8)
    if not LAB.short:
        kill_often(sealed, 100000, 200, 10, 1000)
LAB.end()
