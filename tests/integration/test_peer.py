# SPDX-License-Identifier: Apache-2.0
"""The library against a second implementation (tests/peer), which was written from docs/PROTOCOL.md and knows no code of ours: both ends
behave as the page says, in order and out of it. The peer has no queue pair, so nothing is sent on one."""
import contextlib
import json
import os
import random
import re
import signal
import socket
import threading

import pytest
from conftest import PROBE, ROOT, SCALE, SECURDMA, STEP, Process, Server, connect, connect_json, free_port, left_out_of, resources, run, server_with_neighbour, wait_for_resources, wait_until
from protocol import channel, frames, session

Reason, Renewal, Type = frames.Reason, frames.Renewal, frames.Type
PEER = os.path.join(ROOT, "tests", "peer", "peer.py")
SILENCE_MS = str(int(3000 * SCALE))
pytestmark = left_out_of("vm")
REGION = {"region_size": 4096, "region_access": 6, "region_rkey": 3}


@pytest.fixture(scope="module")
def shared(certs, device):
    """A server for all tests, and a client that must not notice them. At the end nothing may be left of any other client."""
    with server_with_neighbour(certs, device, "--log-format", "json", "--max-clients", "100") as server:
        yield server


@pytest.fixture
def client(shared, certs, start):
    """client(...): a peer with a TLS channel to the shared server, or to another one."""
    context = channel.context("client", certs.cert("client"), certs.key("client"), certs.cert("ca"))

    class Closed(session.Client):
        def close(self):
            self.abort()

    def connected(server=shared, **fields):
        return start(Closed, certs.host, server.port, context, timeout=STEP, **fields)

    return connected


@pytest.fixture
def established(client):
    """A peer after the exchange."""
    def establish(server=None, **fields):
        peer = client(server, **fields) if server else client(**fields)
        peer.establish()
        return peer

    return establish


def end_of(server, peer):
    return server.end_of(peer.other.client_id)


def breaks_off(server, peer):
    """The server closes the channel without a frame, because a rule was broken. Returns what its log says."""
    how = skip_to_end(peer)
    assert how == "close_notify", how
    end = end_of(server, peer)
    assert end["event"] == "client.lost" and end["cause"] == "protocol", end
    return end["error"]


def skip_to_end(peer):
    """Whatever the server sent before it saw the fault is of no interest."""
    while True:
        try:
            peer.receive_frame()
        except channel.Ended as ended:
            return ended.how


# ---- the exchange --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fields", [
    {}, {"features": frames.MESSAGES}, {"features": frames.MESSAGES | frames.SLOW_AES}, {"path_mtu": 1}, {"lid": 0xFFFF}, REGION,
    {"rd_initiator": 0, "rd_responder": 0}, {"message_size": 64, "depth": 1}, {"message_size": 1 << 20, "depth": 4096},
    {"qpn": 2}, {"qpn": 0xFFFFFF}, {"psn": 0}, {"psn": 0xFFFFFF},
    {"region_address": frames.U64 - 1, "region_size": 1}, {"features": frames.MESSAGES | frames.LATE_RKEY, "region_size": 64},
], ids=str)
def test_peer_is_served(shared, client, fields):
    peer = client(**fields)
    welcome = peer.establish()
    assert peer.agreed["message_size"] == min(peer.own.message_size, 4096) and peer.agreed["depth"] == min(peer.own.depth, 16)
    assert welcome.link_layer == frames.ETHERNET and welcome.gid == peer.own.gid
    assert welcome.features == peer.own.features & frames.MESSAGES | frames.EPOCHS and welcome.client_id > 1
    assert (welcome.message_size, welcome.depth) == (peer.agreed["message_size"], peer.agreed["depth"])
    assert (welcome.region_size, welcome.region_access) == (65536, 6) and welcome.region_rkey
    answer = peer.disconnect(b"bye")
    assert (answer.messages, answer.text) == (0, b"")
    end = end_of(shared, peer)
    assert end["event"] == "client.disconnected" and end["reason"] == "bye", end


def test_server_draws_its_psn_and_queue_pair_anew_for_each_connection(client):
    welcomes = [client().establish() for _ in range(8)]
    assert len({welcome.psn for welcome in welcomes}) > 6
    assert len({welcome.qpn for welcome in welcomes}) == len({welcome.client_id for welcome in welcomes}) == 8


def test_frames_may_come_in_any_pieces(client):
    """All in one record; and each byte in a record of its own."""
    peer = client()
    peer.send_bytes(peer.own.encode() + frames.Ready().encode() + frames.Disconnect().encode())
    peer.welcome()
    peer.receive_frame(frames.DisconnectAck)
    peer.send_slowly(frames.Finish())
    assert peer.wait_end() == "close_notify"
    peer = client()
    peer.send_slowly(peer.own)
    peer.welcome()
    peer.send_slowly(frames.Ready())
    peer.send_slowly(frames.EpochRequest())
    peer.renew()
    assert peer.epoch == 1
    peer.disconnect()


# ---- HELLO that is refused ---------------------------------------------------------------------------------------------------


def refusal(peer):
    """The REJECT that the server answers, after which it closes the channel."""
    answer = peer.receive_frame(frames.Reject)
    assert peer.wait_end() == "close_notify"
    assert answer.text and answer.reserved == 0
    return answer


VALUES = {
    "link_layer": (0, 1, 2, 2, 2, 3, 255), "path_mtu": (0, 1, 5, 6, 255), "lid": (0, 1, 0xBFFF, 0xC000, 0xFFFF),
    "gid": (bytes(16), frames.gid_of("192.0.2.1"), frames.gid_of("0.0.0.1"), frames.gid_of("239.1.1.1"), frames.gid_of("ff00::"), b"\xff" * 16),
    "qpn": (0, 1, 2, 0xFFFFFF, 1 << 24, 0xFFFFFFFF), "psn": (0, 0xFFFFFF, 1 << 24, 0xFFFFFFFF), "features": (*range(36), 64 | 3, 96 | 3, 128 | 3, 256 | 1, 256 | 3, 256 | 128 | 1, 256 | 128 | 3, 512 | 1, 1 << 31 | 1),
    "message_size": (0, 63, 64, 1 << 20, (1 << 20) + 1, 0xFFFFFFFF), "depth": (0, 1, 4096, 4097, 0xFFFF), "rd_initiator": (0, 255),
    "rd_responder": (0, 1, 255), "region_address": (0, 1, 4096, frames.U64 - 1, frames.U64), "region_size": (0, 1, 4096, frames.U64),
    "region_rkey": (0, 1, 0xFFFFFFFF), "region_access": (0, 2, 4, 6, 1, 8, 1 << 31), "client_id": (0, 1, frames.U64), "reserved": (0, 1, frames.U64),
}


def permitted_answers(hello, own_gid):
    """The reasons of which the server's REJECT must have one by the page; None: it must be WELCOME."""
    server = frames.Welcome(features=frames.MESSAGES | frames.EPOCHS)
    foreign = [("GID", Reason.ADDRESS)] if hello.gid != own_gid else []
    first = next((faults for faults in (hello.faults(), hello.faults_against(server), foreign) if faults), None)
    return first and {reason for _, reason in first}


def test_both_implementations_agree_on_what_a_good_hello_is(client):
    """Each field at its limits and beyond, and several at once: what the page refuses the server refuses, for that reason, and nothing else."""
    choose = random.Random(20261128)
    some = [choose.sample(sorted(VALUES), choose.choice((2, 2, 3, 4))) for _ in range(260)]
    tries = [{name: value} for name, values in VALUES.items() for value in values] + [{name: choose.choice(VALUES[name]) for name in names} for names in some]
    served = 0
    for fields in tries:
        peer = client()
        own, hello = peer.own.gid, peer.own.with_fields(**fields)
        peer.hello(**fields)
        answer = peer.receive_frame(frames.Welcome, frames.Reject)
        permitted = permitted_answers(hello, own)
        assert isinstance(answer, frames.Welcome) == (permitted is None), (fields, answer, hello.faults())
        assert permitted is None or answer.reason in permitted, (fields, answer, hello.faults())
        assert permitted is None or (answer.text and (answer.retry_after_ms, answer.reserved) == (0, 0)), (fields, answer)
        served += permitted is None
        if isinstance(answer, frames.Welcome) and answer.features & frames.PRIVATE:
            peer.receive_frame(frames.PrivateData)
        peer.channel.end()
        assert peer.wait_end() == "close_notify"
        peer.abort()  # a server waits for that after a REJECT, and has few places
    assert 50 < served < len(tries) - 50


def test_first_frame_is_refused_by_its_header(client):
    """The limit goes before the version, the version before the type and the layout."""
    hello, malformed = frames.Hello().encode()[4:], "body of {} bytes"
    for reason, said, sent in (
            *((Reason.MALFORMED, malformed.format(length), frames.frame(Type.HELLO, length=length)) for length in (513, 0xFFFF)),
            (Reason.MALFORMED, malformed.format(513), frames.frame(Type.HELLO, version=2, length=513)),
            *((Reason.VERSION, f"protocol version {version}", frames.frame(Type.HELLO, body, version=version))
              for version, body in ((2, hello), (0, hello), (255, b"new"))),
            (Reason.VERSION, "protocol version 2", frames.frame(Type.READY, version=2)),
            *((Reason.MALFORMED, malformed.format(len(body)), frames.frame(Type.HELLO, body)) for body in (b"", hello[:-1], hello + b"\0")),
            (Reason.MALFORMED, "", b"GET / HTTP/1.1\r\n\r\n"),
            *((Reason.MALFORMED, f"type {int(kind)}", frames.frame(kind)) for kind in (0, *list(Type)[1:], 16, 255))):
        peer = client()
        peer.send_bytes(sent)
        version, kind, body = peer.receive_raw()
        assert (version, kind) == (frames.VERSION, Type.REJECT), sent
        answer = frames.Reject.decode(body)
        assert answer.reason == reason and said in answer.text.decode(), (sent, body)
        assert peer.wait_end() == "close_notify"


@pytest.mark.parametrize("end", ["close_notify", "TCP alone"])
@pytest.mark.parametrize("length", [0, 3, 4, 50, 83])
def test_part_of_a_hello_is_not_answered(client, end, length):
    peer = client()
    peer.send_bytes(peer.own.encode()[:length])
    (peer.channel.end if end == "close_notify" else peer.channel.cut)()
    with pytest.raises(channel.Ended) as ended:
        peer.receive_raw()
    assert end != "close_notify" or ended.value.how == end


PRIVATE = {"features": frames.MESSAGES | frames.PRIVATE}


@pytest.mark.parametrize("data", [b"", b"x", bytes(512)], ids=len)
def test_private_data_is_answered(client, data):
    peer = client(**PRIVATE)
    peer.own_data = data
    assert peer.establish().features & frames.PRIVATE
    assert peer.other_data == b""
    peer.disconnect()


@pytest.mark.parametrize("said, sent", [
    ("type 4", frames.Ready().encode()), ("type 1", frames.Hello().encode()), ("version 2", frames.PrivateData().encode(version=2)),
    ("body of 513 bytes", frames.frame(Type.PRIVATE_DATA, length=513)), ("type 14", frames.ControlMessage(b"x").encode()),
], ids=lambda value: value.hex()[:8] if isinstance(value, bytes) else value)
def test_other_frame_instead_of_private_data_is_refused(client, said, sent):
    peer = client(**PRIVATE)
    peer.send_bytes(peer.own.encode() + sent)
    answer = refusal(peer)
    assert answer.reason == Reason.MALFORMED and said in answer.text.decode(), answer


def test_full_server_says_when_to_come_again(client, certs, device, start):
    server = start(Server, certs, device, "--max-clients", "1")
    first, second = client(server), client(server)
    first.establish()
    second.hello()
    answer = refusal(second)
    assert (answer.reason, answer.retry_after_ms) == (Reason.FULL, 1000), answer
    first.disconnect()
    client(server).establish()  # the place is free as soon as the channel is closed


# ---- frames in the wrong phase -----------------------------------------------------------------------------------------------


LATE = {"features": frames.MESSAGES | frames.LATE_RKEY, "region_size": 4096, "region_access": 6}


@pytest.mark.parametrize("fields, sent", [
    *(({}, frames.frame(kind)) for kind in (0, *list(Type), 16, 255) if kind != Type.READY),
    ({}, frames.Disconnect().encode()), ({}, frames.EpochRequest().encode()), ({}, frames.Ready().encode(version=2)),
    ({}, frames.frame(Type.READY, length=513)), ({}, frames.Ready(7).encode()), ({}, frames.frame(Type.READY, b"r")),
    (LATE, frames.Ready().encode()), (LATE, frames.frame(Type.READY, bytes(3))), (LATE, frames.frame(Type.READY, bytes(5))),
], ids=lambda value: value.hex() if isinstance(value, bytes) else "")
def test_other_frame_instead_of_ready_ends_the_set_up(shared, client, fields, sent):
    peer, start = client(**fields), len(shared.log())
    peer.hello()
    peer.welcome()
    peer.send_bytes(sent)
    assert peer.wait_end() == "close_notify"
    assert re.search("READY|body of 513 bytes", shared.wait_log("client.not_connected", start))


def test_second_hello_ends_the_set_up(client):
    peer = client()
    peer.send_bytes(2 * peer.own.encode())
    peer.welcome()
    assert peer.wait_end() == "close_notify"


@pytest.mark.parametrize("said, sent", [
    *(("unexpected", frames.frame(kind)) for kind in (0, Type.HELLO, Type.WELCOME, Type.REJECT, Type.READY, Type.FINISH, Type.PRIVATE_DATA, 255)),
    *(("did not agree on control", frames.frame(kind)) for kind in (Type.CONTROL_MESSAGE, Type.CONTROL_TAKEN)),
    *(("did not agree on regions", frame.encode()) for frame in (frames.RegionOffer(), frames.RegionWithdraw(), frames.RegionReleased(), frames.RegionKeys())),
    ("unexpected", frames.DisconnectAck().encode()), ("version 2", frames.Disconnect().encode(version=2)),
    ("513 bytes", frames.frame(Type.DISCONNECT, length=513)), ("65535 bytes", frames.frame(99, length=0xFFFF)),
    ("malformed", frames.frame(Type.DISCONNECT, bytes(8))), ("malformed", frames.frame(Type.DISCONNECT, bytes(8) + b"\5abcd")),
    ("malformed DISCONNECT_ACK", frames.frame(Type.DISCONNECT_ACK, b"short")), ("malformed", frames.frame(Type.DISCONNECT, b"short")),
    ("malformed", frames.frame(Type.DISCONNECT, bytes(8) + b"\3abcd")), ("malformed", frames.Disconnect(0, bytes(128)).encode()),
    ("does not offer", frames.Withdraw().encode()), ("malformed", frames.frame(Type.WITHDRAW, b"w")),
    ("unexpected", 2 * frames.Disconnect(1).encode()), ("unexpected", frames.Disconnect(1).encode() + frames.Finish().encode()),
    ("unexpected", frames.Disconnect().encode() + frames.DisconnectAck().encode()),
], ids=lambda value: value.hex()[:40] if isinstance(value, bytes) else value)
def test_frame_that_is_not_due_ends_the_connection(shared, established, said, sent):
    peer = established()
    peer.send_bytes(sent)
    assert said in breaks_off(shared, peer)


@pytest.mark.parametrize("end", ["close_notify", "TCP alone", "within a frame"])
def test_end_of_the_channel_is_a_loss(shared, established, end):
    peer = established()
    if end == "within a frame":
        peer.send_bytes(frames.Disconnect().encode()[:-1])
    (peer.channel.cut if end == "TCP alone" else peer.channel.end)()
    skip_to_end(peer)
    found = end_of(shared, peer)
    assert (found["event"], found["cause"]) == ("client.lost", "lost"), found


def test_region_is_withdrawn_once(shared, established):
    peer = established(**REGION)
    peer.send_frame(frames.Withdraw())
    peer.request_epoch()
    peer.send_frame(frames.Withdraw())
    assert "does not offer" in breaks_off(shared, peer)


# ---- epochs --------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("reason", list(Renewal), ids=lambda reason: reason.name)
def test_epoch_is_begun_for_a_peer_that_asks(shared, established, reason):
    """A queue pair that stays does so once; for any other reason than used-up PSNs there is a fresh one each time."""
    peer = established(**REGION)
    qpns, psns = [peer.other.qpn], [peer.other.psn]
    for number in range(1, 7):
        peer.request_epoch(reason)
        assert peer.epoch == number
        qpns.append(peer.qpn_of_other)
    stays = [before == after for before, after in zip(qpns, qpns[1:])]
    assert stays == ([True, False] * 3 if reason == Renewal.PSNS else [False] * 6)
    peer.disconnect()
    assert end_of(shared, peer)["event"] == "client.disconnected"


def test_peer_answers_an_epoch_that_the_server_asks_for(established, certs, device, start):
    server = start(Server, certs, device, "--epoch-ms", "100")
    peer = established(server)
    assert [peer.answer_request() for _ in range(2)] == 2 * [Renewal.TIME]
    assert peer.epoch == 2
    # And one that both have asked for, in either order: whoever is told second ignores it.
    request = peer.receive_frame(frames.EpochRequest)
    peer.send_frame(frames.EpochRequest(request.epoch, Renewal.PROGRAM))
    peer.renew(Renewal.PROGRAM, begun=True)
    assert peer.epoch == 3
    peer.abort()


def test_failed_queue_pair_is_replaced_so_often_and_no_more(shared, established):
    """A peer that says so begins at once; the ninth time within a minute is one too many."""
    peer = established()
    for number in range(1, 9):
        parameters = peer.renew(Renewal.FAILURE, broken=1, begun=True)
        assert parameters.broken == 1 and peer.epoch == number
    peer.send_frame(frames.EpochBegin(9, Renewal.FAILURE, 1))
    assert skip_to_end(peer) == "close_notify"
    assert "more than 8 times in a minute" in end_of(shared, peer)["error"]


def ask(peer):
    """Asks for epoch 1, and is told that it begins."""
    peer.send_frame(frames.EpochRequest())
    return peer.receive_frame(frames.EpochBegin)


def begin(peer):
    ask(peer)
    peer.send_frame(frames.EpochBegin())


def tell(peer):
    begin(peer)
    peer.send_frame(frames.EpochParameters())
    return peer.receive_frame(frames.EpochParameters)


@pytest.mark.parametrize("prepare, sent, said", [
    (None, frames.EpochRequest(0), "REQUEST twice"), (None, frames.EpochRequest(2), "another number"),
    (None, frames.EpochRequest(0xFFFFFFFF), "another number"), (None, frames.EpochRequest(1, 0), "reason"),
    (None, frames.EpochRequest(1, 6), "reason"), (ask, frames.EpochRequest(1), "REQUEST twice"),
    (None, frames.EpochBegin(), "this end has not requested"), (None, frames.EpochBegin(2, 5, 1), "another number"),
    (None, frames.EpochBegin(1, 0, 1), "reason"), (None, frames.EpochBegin(1, 6, 1), "reason"), (None, frames.EpochBegin(1, 5, 2), "flags"),
    (begin, frames.EpochBegin(), "BEGIN twice"), (None, frames.EpochParameters(), "PARAMETERS"), (ask, frames.EpochParameters(), "PARAMETERS"),
    (begin, frames.EpochParameters(0), "another number"), (begin, frames.EpochParameters(broken=2), "flags"),
    (begin, frames.EpochParameters(arrived=1), "account"), (begin, frames.EpochParameters(taken=1), "account"),
    (begin, frames.EpochParameters(qpn=1), "QPN"), (begin, frames.EpochParameters(qpn=1 << 24), "QPN"),
    (begin, frames.EpochParameters(psn=1 << 24), "PSN"), (None, frames.EpochReady(), "READY"), (ask, frames.EpochReady(), "READY"),
    (begin, frames.EpochReady(), "READY"), (tell, frames.EpochParameters(), "not due"), (tell, frames.EpochReady(2), "another number"),
    (tell, frames.EpochReady(1, 7), "no region"),
], ids=lambda value: value if isinstance(value, str) else getattr(value, "__name__", ""))
def test_epoch_frame_that_breaks_a_rule_ends_the_connection(shared, established, prepare, sent, said):
    peer = established()
    if prepare:
        prepare(peer)
    peer.send_frame(sent)
    assert said in breaks_off(shared, peer)


@pytest.mark.parametrize("reason", Renewal, ids=str)
def test_queue_pair_stays_when_both_ends_have_used_up_their_psns_and_only_then(established, reason):
    """Requests can cross: the server begins because its PSNs are used up, and the client for another reason. Packets hold the QPN of their
    target alone, so the server must not keep its queue pair while the client draws from all PSNs."""
    peer = established()
    peer.send_frame(frames.EpochRequest(1, Renewal.PSNS))
    assert peer.receive_frame(frames.EpochBegin) == frames.EpochBegin(1, Renewal.PSNS)
    peer.send_frame(frames.EpochBegin(1, reason))
    assert (peer.receive_frame(frames.EpochParameters).qpn == peer.other.qpn) == (reason == Renewal.PSNS)


@pytest.mark.parametrize("kind", [Type.EPOCH_REQUEST, Type.EPOCH_BEGIN, Type.EPOCH_PARAMETERS, Type.EPOCH_READY], ids=lambda kind: kind.name)
def test_epoch_frames_have_one_length_and_need_the_feature(shared, established, kind):
    body = frames.CLASSES[kind]().body()
    for length in (0, len(body) - 1, len(body) + 1):
        peer = established()
        peer.send_frame(int(kind), (body + b"x")[:length])
        assert "malformed" in breaks_off(shared, peer)
    peer = established(features=frames.MESSAGES)
    peer.send_frame(int(kind), body)
    assert "no epochs were agreed on" in breaks_off(shared, peer)


@pytest.mark.parametrize("rkey, said", [(0, None), (7, None), (7, "no region")])
def test_rkey_of_an_epoch_is_that_of_a_region_that_is_offered(shared, established, rkey, said):
    peer = established(**REGION)
    if said:
        peer.send_frame(frames.Withdraw())
    tell(peer)
    peer.send_frame(frames.EpochReady(1, rkey))
    if said:
        assert said in breaks_off(shared, peer)
    else:
        peer.receive_frame(frames.EpochReady)
        peer.disconnect()


# ---- disconnect ---------------------------------------------------------------------------------------------------------------


def test_reason_of_a_disconnect_is_told_and_steers_no_terminal(shared, established):
    peer = established()
    peer.disconnect(b"a\x1b[31m\n\xffb")
    assert end_of(shared, peer)["reason"] == "a?[31m??b"
    peer = established()
    peer.disconnect(b"x" * 127)
    assert end_of(shared, peer)["reason"] == "x" * 127


def test_end_of_the_channel_after_the_answer_counts_as_finish(shared, established):
    peer = established()
    peer.send_frame(frames.Disconnect())
    peer.receive_frame(frames.DisconnectAck)
    peer.channel.end()
    assert peer.wait_end() == "close_notify"
    assert end_of(shared, peer)["event"] == "client.disconnected"


def test_disconnect_waits_for_the_end_of_a_change(established):
    peer = established()
    begin(peer)
    peer.send_frame(frames.Disconnect())
    peer.send_frame(frames.EpochParameters())
    peer.receive_frame(frames.EpochParameters)
    peer.send_frame(frames.EpochReady())
    peer.receive_frame(frames.EpochReady)
    peer.receive_frame(frames.DisconnectAck)
    peer.send_frame(frames.Finish())
    assert peer.wait_end() == "close_notify"


def test_begin_that_crosses_a_disconnect_is_ignored(established, certs, device, start):
    """The server asks for an epoch, and has answered the disconnect when the client, which had not received the request yet, begins."""
    server = start(Server, certs, device, "--epoch-ms", "100")
    peer = established(server)
    assert peer.receive_frame() == frames.EpochRequest(1, Renewal.TIME)
    peer.send_frame(frames.Disconnect())
    peer.receive_frame(frames.DisconnectAck)
    peer.send_frame(frames.EpochBegin(1, Renewal.TIME))
    with pytest.raises(TimeoutError):
        peer.receive_frame(timeout=0.3)
    peer.send_frame(frames.Finish())
    assert peer.wait_end() == "close_notify"
    server.wait_status(connected=0, lost=0)
    assert server.stop()["lost"] == 0


def test_begin_of_the_server_that_crosses_both_disconnects_delays_nothing(established, certs, device, start, tmp_path):
    """The server disconnects, and begins an epoch on request; the client, which disconnects as well, has answered already."""
    server = start(Server, certs, device, "--control", tmp_path / "control")
    peer = established(server)
    server.wait_status(connected=1)
    assert run(SECURDMA, "kick", "--control", tmp_path / "control", peer.other.client_id).returncode == 0
    peer.receive_frame(frames.Disconnect)
    peer.send_frame(frames.EpochRequest(1, Renewal.PSNS))
    peer.receive_frame(frames.EpochBegin)
    peer.send_frame(frames.Disconnect())
    peer.send_frame(frames.DisconnectAck())
    peer.receive_frame(frames.DisconnectAck)
    peer.receive_frame(frames.Finish)
    peer.send_frame(frames.Finish())
    assert peer.wait_end() == "close_notify"
    server.wait_status(connected=0, lost=0)


def test_server_that_stops_disconnects_in_order(established, client, certs, device, start):
    """Clients that are connected, and one that it has sent WELCOME to. It tells nothing more to one that says HELLO only now."""
    server = start(Server, certs, device, "--drain-timeout-ms", str(int(30000 * SCALE)))
    peer, welcomed, late = established(server), client(server), client(server)
    welcomed.hello()
    welcomed.welcome()
    server.wait_status(connected=2, pending=2)  # the handshake of `late` is over there, too
    server.signal(signal.SIGTERM)
    asked = peer.receive_frame(frames.Disconnect)
    assert (asked.messages, asked.text) == (0, b"the server is shutting down")
    # Neither hears of it before it is its turn.
    for silent in (welcomed, late):
        with pytest.raises(TimeoutError):
            silent.receive_frame(timeout=0.3)
    late.hello()
    answer = refusal(late)
    assert (answer.reason, answer.text) == (Reason.DRAINING, asked.text)
    # Both may ask at once: each answers the other.
    peer.send_frame(frames.Disconnect())
    peer.send_frame(frames.DisconnectAck())
    peer.receive_frame(frames.DisconnectAck)
    peer.receive_frame(frames.Finish)
    peer.channel.close()
    welcomed.ready()
    assert welcomed.answer_disconnect().text == asked.text
    assert server.wait() == 0, server.log()
    assert json.loads(next(line for line in server.lines if line and '"stopped"' in line))["lost"] == 0


# ---- silence ------------------------------------------------------------------------------------------------------------------


def test_silence_is_ended_at_the_deadline_without_a_frame(established, certs, device, start):
    """All at once, since each takes the whole deadline."""
    server = start(Server, certs, device, "--drain-timeout-ms", SILENCE_MS, "--log-format", "json")
    # EPOCH_BEGIN, EPOCH_PARAMETERS or EPOCH_READY does not come; or a send that was announced does not.
    in_change = [established(server) for _ in range(4)]
    for peer, prepare in zip(in_change, (ask, begin, tell, ask)):
        prepare(peer)
    in_change[3].send_frame(frames.EpochBegin(sends=1))
    # A message that was counted does not come, so there is no DISCONNECT_ACK; or FINISH does not.
    in_disconnect = [established(server), established(server)]
    in_disconnect[0].send_frame(frames.Disconnect(1))
    in_disconnect[1].send_frame(frames.Disconnect(0))
    in_disconnect[1].receive_frame(frames.DisconnectAck)
    for peer in in_change + in_disconnect:
        assert skip_to_end(peer) == "close_notify"
    for peers, said in ((in_change, "renew the queue pair"), (in_disconnect, "answer the disconnect")):
        for peer in peers:
            end = end_of(server, peer)
            assert end["cause"] == "timeout" and said in end["error"], end


# ---- the other way round ----------------------------------------------------------------------------------------------------------


class Host:
    """A server that does with one client what the test wants, in a thread; close() gives what came of it."""

    def __init__(self, certs, behave):
        self.context = channel.context("server", certs.cert("server"), certs.key("server"), certs.cert("ca"))
        self.listener = socket.create_server((certs.host, 0))
        self.port = self.listener.getsockname()[1]
        self.behave, self.result, self.error = behave, None, None
        self.thread = threading.Thread(target=self._serve, daemon=True)
        self.thread.start()

    def _serve(self):
        try:
            with session.Server(self.listener, self.context, STEP) as peer:
                self.result = self.behave(peer)
        except Exception as error:
            self.error = error

    def outcome(self):
        self.thread.join(2 * STEP)
        assert not self.thread.is_alive()
        if self.error:
            raise self.error
        return self.result

    def close(self):
        self.listener.close()


@pytest.fixture
def host(certs, start):
    return lambda behave: start(Host, certs, behave)


def test_client_is_served_by_the_peer(host, certs, device, tmp_path):
    before = resources(device)

    def behave(peer):
        peer.establish()
        for reason in Renewal:
            peer.request_epoch(reason)
        (tmp_path / "leave").touch()
        return peer.other, peer.answer_disconnect()

    server = host(behave)
    answer = connect_json(certs, server.port, "-e", "stat", "--hold-file", tmp_path / "leave", "--message-size", "8192", "--depth", "4")
    hello, request = server.outcome()
    assert request.messages == 0 and answer["code"] == 0, answer
    assert (hello.gid, hello.link_layer) == (frames.gid_of(certs.host), frames.ETHERNET)
    assert (hello.message_size, hello.depth, hello.features) == (8192, 4, frames.MESSAGES | frames.EPOCHS)
    assert hello.region_size == hello.region_access == 0
    wait_for_resources(device, before)


def test_client_asks_the_peer_for_epochs_and_is_told_to_leave(host, certs):
    def behave(peer):
        peer.establish()
        reasons = [peer.answer_request() for _ in range(3)]
        peer.disconnect(b"enough")
        return reasons

    server = host(behave)
    result = connect(certs, server.port, "--epoch-ms", "100", "--hold-ms", "60000", "-e", "stat")
    assert server.outcome() == 3 * [Renewal.TIME]
    assert result.returncode == 7 and "the peer disconnected: enough" in result.stderr, result


@pytest.mark.parametrize("reason", [*Reason, 4711], ids=str)
def test_client_takes_a_refusal(host, certs, reason):
    def behave(peer):
        peer.hello()
        peer.reject(reason, b"not \x1b today", 1234)

    server = host(behave)
    answer = connect_json(certs, server.port, "-e", "stat", "--busy-retry-ms", "0")
    server.outcome()
    assert answer["code"] == 5, answer
    assert answer["reject"] == {"reason": reason, "retry_after_ms": 1234, "text": "not ? today"}


@pytest.mark.parametrize("version", [0, 2, 255])
def test_client_reads_a_refusal_of_any_version(host, certs, version):
    def behave(peer):
        peer.hello()
        peer.reject(Reason.VERSION, b"too old", version=version)

    server = host(behave)
    answer = connect_json(certs, server.port, "-e", "stat")
    server.outcome()
    assert answer["code"] == 5 and answer["reject"]["reason"] == Reason.VERSION, answer


def welcome(gid=frames.gid_of("127.0.0.1"), **fields):
    return frames.Welcome(gid=gid).with_fields(**fields).encode()


LOST = "closed the connection instead of answering"


@pytest.mark.parametrize("code, said, sent", [
    (4, "", b"\xde\xad\xbe\xef" * 40), (4, "frame type 4", frames.Ready().encode()), (4, "frame type 5", frames.Disconnect().encode()),
    (4, "frame type 1", frames.Hello().encode()), (4, "version 2", frames.Welcome().encode(version=2)),
    (4, "body of 513 bytes", frames.frame(Type.WELCOME, length=513)), (4, "WELCOME with a body of 79 bytes", frames.frame(Type.WELCOME, bytes(79))),
    (7, LOST, welcome()[:40]), (7, LOST, b""), (4, "PSN", welcome(psn=1 << 24)), (4, "QPN", welcome(qpn=0)), (4, "QPN", welcome(qpn=1)),
    (4, "QPN", welcome(qpn=1 << 24)), (4, "GID is zero", welcome(gid=bytes(16))), (4, "path MTU", welcome(path_mtu=6)),
    (4, "feature bits", welcome(features=513)), (4, "did not offer", welcome(features=129)), (4, "did not offer", welcome(features=128 | 256 | 3)), (4, "did not offer", welcome(features=33)), (4, "did not offer", welcome(features=65)), (4, "", welcome(features=17)), (4, "sealed connection", welcome(features=5)),
    (4, "and the client one with messages", welcome(features=0, message_size=0, depth=0)), (4, "message size", welcome(message_size=1)),
    (4, "reserved", welcome(reserved=1)), (4, "reserved", welcome(reserved=1 << 63)),
    (4, "malformed REJECT", frames.frame(Type.REJECT, bytes(8))), (4, "malformed REJECT", frames.frame(Type.REJECT, bytes(8) + b"\1")),
    (4, "malformed REJECT", frames.frame(Type.REJECT, bytes(8) + b"\1ab")), (5, "(unknown): later", frames.Reject(4711, text=b"later").encode()),
    (5, "a?[31m?b", frames.Reject(Reason.REFUSED, text=b"a\x1b[31m\nb").encode()),
], ids=lambda value: value.hex()[:60] if isinstance(value, bytes) else "")
def test_client_closes_without_a_frame_on_a_bad_answer(host, certs, device, code, said, sent):
    def behave(peer):
        peer.hello()
        peer.send_bytes(sent)
        if code != 4:
            peer.channel.end()
        return peer.wait_end()

    before = resources(device)
    server = host(behave)
    result = connect(certs, server.port, "-e", "stat")
    assert result.returncode == code and said in result.stderr, result
    assert server.outcome() == "close_notify"
    wait_for_resources(device, before)


# ---- control messages ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("said, sent", [
    ("while 16 others were not taken", 17 * frames.ControlMessage(b"x" * 512).encode()), ("reports 2 control messages", frames.ControlTaken(2).encode()),
    ("reports 0 control messages", frames.ControlTaken(0).encode()), ("reports 1 control message ", 2 * frames.ControlTaken(1).encode()),
    ("malformed CONTROL_TAKEN", frames.frame(Type.CONTROL_TAKEN, bytes(7))), ("malformed CONTROL_TAKEN", frames.frame(Type.CONTROL_TAKEN, bytes(9))),
    ("after it had disconnected", frames.Disconnect().encode() + frames.ControlMessage(b"x").encode()),
    ("without disconnecting", frames.ControlTaken(1).encode() + 16 * frames.ControlMessage().encode()),
], ids=lambda value: "" if isinstance(value, bytes) else value)
def test_breach_of_the_rules_of_control_messages_ends_the_connection(certs, device, start, said, sent):
    port = free_port(certs.host)
    accepting = start(Process, PROBE, certs.folder, certs.host, "control-accept", port)
    context = channel.context("client", certs.cert("client"), certs.key("client"), certs.cert("ca"))
    peer = wait_until(lambda: try_to_reach(certs.host, port, context), accepting.log)
    with peer:
        welcome = peer.establish(features=frames.MESSAGES | frames.CONTROL)
        assert welcome.features & frames.CONTROL
        assert peer.receive_frame(frames.ControlMessage).data == b"hello"
        peer.send_bytes(sent)
        peer.channel.end()
        assert accepting.wait() == 0, accepting.log()
    assert said in accepting.lines[-2], accepting.lines


# ---- regions with names -------------------------------------------------------------------------------------------------------------


def offers(count, **fields):
    return b"".join(frames.RegionOffer(i + 1, **fields).encode() for i in range(count))


@pytest.mark.parametrize("said, sent", [
    ("more than 64 regions", offers(65)), ("a region twice", 2 * offers(1)),
    ("a region twice", offers(1, name=b"x") + frames.RegionOffer(2, name=b"x").encode()),
    ("the id 0", frames.RegionOffer(0).encode()), ("access bits", frames.RegionOffer(access=0).encode()),
    ("access bits", frames.RegionOffer(access=1).encode()), ("access bits", frames.RegionOffer(access=0x8002).encode()),
    ("no bytes", frames.RegionOffer(length=0).encode()), ("beyond the address space", frames.RegionOffer(address=1, length=frames.U64).encode()),
    ("a name that no region", frames.RegionOffer(name=b"a\0b").encode()), ("a name that no region", frames.RegionOffer(name=b"\xff").encode()),
    ("malformed REGION_OFFER", frames.RegionOffer(name=bytes(64)).encode()), ("malformed REGION_OFFER", frames.frame(Type.REGION_OFFER, bytes(24))),
    ("malformed", frames.frame(Type.REGION_WITHDRAW, bytes(3))), ("malformed", frames.frame(Type.REGION_RELEASED, bytes(1))),
    ("does not offer", frames.RegionWithdraw(1).encode()), ("does not offer", offers(1) + 2 * frames.RegionWithdraw(1).encode()),
    ("was not withdrawn", frames.RegionReleased(1).encode()), ("was not withdrawn", frames.RegionReleased(9).encode()),
    ("after it had disconnected", frames.Disconnect().encode() + offers(1)),
    ("without disconnecting", offers(64)),
    ("without disconnecting", offers(64) + b"".join(frames.RegionWithdraw(i + 1).encode() for i in range(64))),
], ids=lambda value: "" if isinstance(value, bytes) else value)
def test_breach_of_the_rules_of_regions_ends_the_connection(certs, device, start, said, sent):
    port = free_port(certs.host)
    accepting = start(Process, PROBE, certs.folder, certs.host, "memory-accept", port)
    context = channel.context("client", certs.cert("client"), certs.key("client"), certs.cert("ca"))
    peer = wait_until(lambda: try_to_reach(certs.host, port, context), accepting.log)
    with peer:
        welcome = peer.establish(features=frames.MESSAGES | frames.REGIONS)
        assert welcome.features & frames.REGIONS
        offered = peer.receive_frame(frames.RegionOffer)
        assert (offered.id, offered.access, offered.length, offered.name) == (1, frames.REMOTE_READ, 4096, b"offered")
        peer.send_bytes(sent)
        peer.channel.end()
        assert accepting.wait() == 0, accepting.log()
    assert said in accepting.lines[-2], accepting.lines


BOTH_KEYS = frames.MESSAGES | frames.EPOCHS | frames.REGIONS | frames.REGION_KEYS


@pytest.fixture
def offering(certs, start):
    """offering(features): a peer of a probe that offers a region, with that offer, and how to learn what ended the connection."""
    def offer(features):
        port = free_port(certs.host)
        accepting = start(Process, PROBE, certs.folder, certs.host, "memory-accept", port)
        context = channel.context("client", certs.cert("client"), certs.key("client"), certs.cert("ca"))
        peer = wait_until(lambda: try_to_reach(certs.host, port, context), accepting.log)

        def error():
            peer.channel.end()
            assert accepting.wait() == 0, accepting.log()
            return accepting.lines[-2]

        welcome = peer.establish(features=features)
        assert welcome.features & (frames.REGIONS | frames.REGION_KEYS) == features & (frames.REGIONS | frames.REGION_KEYS)
        return peer, peer.receive_frame(frames.RegionOffer), error

    return offer


def keys(*ids, rkey=7):
    return frames.RegionKeys(tuple((id, rkey) for id in ids)).encode()


@pytest.mark.parametrize("said, before, within, after", [
    ("without disconnecting", offers(3), keys(1, 2, 3), b""), ("without disconnecting", offers(64), keys(*range(1, 65)), b""),
    ("without disconnecting", offers(2), keys(2), frames.RegionWithdraw(2).encode()),
    ("region 3, which it does not offer", offers(2), keys(1, 3), b""), ("region 1, which it does not offer", b"", keys(1), b""),
    ("region 1, which it does not offer", offers(1) + frames.RegionWithdraw(1).encode(), keys(1), b""),
    ("twice in a renewal", offers(1), 2 * keys(1), b""), ("outside of a renewal", offers(1), b"", keys(1)),
    ("outside of a renewal", offers(1), keys(1), keys(1)), ("outside of a renewal", offers(1) + keys(1), b"", b""),
    ("outside of a renewal", offers(1) + frames.EpochRequest().encode() + keys(1), b"", b""),
    ("ids do not grow (1 after 2)", offers(2), keys(2, 1), b""), ("ids do not grow (1 after 1)", offers(2), keys(1, 1), b""),
    ("ids do not grow (0 after 0)", offers(2), keys(0), b""), ("malformed REGION_KEYS of 390 bytes", offers(64), keys(*range(1, 66)), b""),
    ("malformed REGION_KEYS of 0 bytes", b"", keys(), b""), ("malformed REGION_KEYS of 7 bytes", b"", frames.frame(Type.REGION_KEYS, bytes(7)), b""),
], ids=lambda value: "" if isinstance(value, bytes) else value)
def test_new_rkeys_come_in_a_renewal_and_for_regions_that_are_offered(offering, said, before, within, after):
    peer, _, error = offering(BOTH_KEYS)
    peer.send_bytes(before)
    if before.endswith(frames.RegionWithdraw(1).encode()):
        peer.receive_frame(frames.RegionReleased)
    try:
        peer.request_epoch(before_ready=within)
        peer.send_bytes(after)
    except (channel.Ended, ConnectionError):
        assert said != "without disconnecting"
    assert said in error()


def test_end_tells_the_new_rkeys_of_its_regions_before_it_is_ready(offering, device):
    """Where regions have windows, an rkey lasts for one epoch."""
    peer, offered, error = offering(BOTH_KEYS)
    rkeys = [offered.rkey]
    for _ in range(3):
        peer.request_epoch()
        rkeys += [rkey for id, rkey in peer.keys_of_other if id == offered.id]
    assert len(rkeys) == len(set(rkeys)) and len(rkeys) in (1, 4)
    assert len(rkeys) == 4 or device.name != "uroce0"
    assert "without disconnecting" in error()


def test_older_peer_is_told_no_new_rkeys_and_may_tell_none(offering):
    """One without the feature: its regions' rkeys, and those of this end, stay."""
    peer, _, error = offering(BOTH_KEYS & ~frames.REGION_KEYS)
    for _ in range(2):
        peer.request_epoch()
    assert peer.keys_of_other == ()
    peer.send_bytes(offers(1))
    with contextlib.suppress(channel.Ended, ConnectionError):
        peer.request_epoch(before_ready=keys(1))
    assert "did not agree on it" in error()


def test_client_connects_again_without_what_an_older_server_does_not_know(certs, start):
    """The server knows regions with names, and answers the unknown bit as PROTOCOL.md says."""
    context = channel.context("server", certs.cert("server"), certs.key("server"), certs.cert("ca"))
    with socket.create_server((certs.host, 0)) as listener:
        connecting = start(Process, PROBE, certs.folder, certs.host, "memory-connect", listener.getsockname()[1])
        with session.Server(listener, context, STEP) as peer:
            assert peer.hello().features == BOTH_KEYS
            peer.reject(Reason.FEATURE, b"unknown feature bits 0x100")
        with session.Server(listener, context, STEP, features=BOTH_KEYS & ~frames.REGION_KEYS) as peer:
            peer.establish()
            assert peer.other.features == BOTH_KEYS & ~frames.REGION_KEYS
            assert peer.receive_frame(frames.RegionOffer).name == b"offered"
            peer.answer_disconnect()
        assert connecting.wait() == 0, connecting.log()
        # One that refuses that, too, is not asked again.
        connecting = start(Process, PROBE, certs.folder, certs.host, "memory-connect", listener.getsockname()[1])
        for features in (BOTH_KEYS, BOTH_KEYS & ~frames.REGION_KEYS):
            with session.Server(listener, context, STEP) as peer:
                assert peer.hello().features == features
                peer.reject(Reason.FEATURE, b"no")
        assert connecting.wait() != 0 and "rejected" in connecting.log()


def try_to_reach(host, port, context):
    try:
        return session.Client(host, port, context, timeout=STEP)
    except ConnectionRefusedError:
        return None


# ---- the command line ---------------------------------------------------------------------------------------------------------------


def peer_command(*args, expect=0, input=None):
    result = run("/usr/bin/python3", PEER, *args, input=input)
    assert result.returncode == expect, result
    return result.stdout


def test_peer_is_a_command(shared, certs):
    """As docs/PROTOCOL.md shows its examples."""
    with open(os.path.join(ROOT, "docs", "PROTOCOL.md"), encoding="utf-8") as page:
        shown = page.read().partition("```\n00 50 01 01")[2].partition("```")[0]
    shown = "00500101" + "".join(re.findall(r"^((?:[0-9a-f]{2} )+) ", shown, re.MULTILINE)).replace(" ", "")
    assert peer_command("frame", "hello", "gid=10.77.0.1", "psn=0x2807d5", "features=1", "rd_responder=8", "region_size=65536",
                        "region_rkey=0xabc", "region_access=6").strip() == shown
    assert "text=b'full'" in peer_command("decode", input="000d010300030000000003e80466756c6c")
    own = ["connect", "--ca", certs.cert("ca"), "--cert", certs.cert("client"), "--key", certs.key("client"), f"{certs.host}:{shared.port}"]
    assert "epoch 2\n" in peer_command(*own, "establish:depth=4", "epoch=1", "epoch", "disconnect:bye")
    assert "reason=2" in peer_command(*own, "hello:psn=0x1000000", "wait")
    peer_command("frame", "hello", "banana=1", expect=1)
