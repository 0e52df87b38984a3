# SPDX-License-Identifier: Apache-2.0
"""One connection of docs/PROTOCOL.md as its client or its server, with the TLS channel alone: no queue pair.

A queue pair is named in HELLO or WELCOME, and none exists. So nothing may be sent on it: neither end posts anything, and both
account for no sends. All frames work like that: the exchange, epochs, withdrawal of a region, and the disconnect."""
import dataclasses
import secrets

import frames
from channel import Channel, Ended

STAYS, FRESH = (frames.Renewal.PSNS,), (frames.Renewal.PROGRAM, frames.Renewal.TIME, frames.Renewal.ATTACK, frames.Renewal.FAILURE)


class Rejected(Exception):
    """The server answered REJECT; `frame` is it."""

    def __init__(self, frame):
        try:
            name = frames.Reason(frame.reason).name.lower()
        except ValueError:
            name = str(frame.reason)
        super().__init__(f"rejected ({name}, come again after {frame.retry_after_ms} ms): {printable(frame.text)}")
        self.frame, self.reason, self.text = frame, frame.reason, printable(frame.text)


def printable(text):
    return "".join(chr(byte) if 0x20 <= byte <= 0x7E else "?" for byte in text)


def random_psn():
    return secrets.randbelow(frames.PSN_MAX + 1)


def random_qpn():
    return 2 + secrets.randbelow(frames.QPN_MAX - 1)


class Session:
    """What both ends have in common after the exchange."""

    def __init__(self, channel):
        self.channel = channel
        self.send_frame, self.send_bytes, self.send_slowly = channel.send_frame, channel.send_bytes, channel.send_slowly
        self.receive_frame, self.receive_raw, self.wait_end = channel.receive_frame, channel.receive_raw, channel.wait_end
        self.own = self.other = None
        self.own_data, self.other_data = b"", None
        self.epoch = 0
        self.stayed = False
        self.qpn_of_other = None
        self.keys_of_other = ()
        """Of the last REGION_KEYS."""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.abort()

    def abort(self):
        self.channel.abort()

    @property
    def has_epochs(self):
        return bool(self.own.features & self.other.features & frames.EPOCHS)

    @property
    def agreed(self):
        """What both ends use."""
        return {"mtu": 128 << min(self.own.path_mtu, self.other.path_mtu),
                "message_size": min(self.own.message_size, self.other.message_size),
                "depth": min(self.own.depth, self.other.depth),
                "reads": min(self.own.rd_initiator, self.other.rd_responder)}

    def _send_own(self):
        self.send_frame(self.own)
        if self.own.features & frames.PRIVATE:
            self.send_frame(frames.PrivateData(self.own_data))

    def _take_private_data(self):
        if self.other.features & frames.PRIVATE:
            self.other_data = self.receive_frame(frames.PrivateData).data

    def _agree(self):
        self.own.check_against(self.other)
        self.qpn_of_other = self.other.qpn

    # ---- epochs ----

    def request_epoch(self, reason=frames.Renewal.PROGRAM, **changing):
        """Asks for an epoch, and goes through the change."""
        self.send_frame(frames.EpochRequest(self.epoch + 1, reason))
        self.renew(reason, **changing)

    def renew(self, reason=frames.Renewal.PROGRAM, broken=0, begun=False, before_ready=b""):
        """Goes through the change to the next epoch. `begun`: this end sends its EPOCH_BEGIN first, as one that was asked does, or
        whose queue pair has failed. `before_ready`: bytes that it sends before its EPOCH_READY. Returns the other end's EPOCH_PARAMETERS."""
        number = self.epoch + 1
        mine = frames.EpochBegin(number, reason, broken, 0)
        if begun:
            self.send_frame(mine)
        theirs = self.receive_frame(frames.EpochBegin)
        self._demand_number(theirs, number)
        frames.demand(theirs.reason in frames.Renewal.__members__.values(), f"EPOCH_BEGIN has the reason {theirs.reason}")
        frames.demand(theirs.broken in (0, 1) and theirs.sends == 0, f"{theirs}, and nothing was sent")
        if not begun:
            self.send_frame(mine)
        stays = reason in STAYS and theirs.reason in STAYS and not self.stayed
        self.own = self.own.with_fields(psn=random_psn(), qpn=self.own.qpn if stays else random_qpn())
        self.send_frame(frames.EpochParameters(number, broken, 0, 0, self.own.qpn, self.own.psn))
        parameters = self.receive_frame(frames.EpochParameters)
        self._demand_number(parameters, number)
        frames.demand(parameters.arrived == 0 and parameters.taken == 0, f"{parameters}, and nothing was sent")
        frames.demand(2 <= parameters.qpn <= frames.QPN_MAX and parameters.psn <= frames.PSN_MAX, f"{parameters}")
        if stays and not broken and not parameters.broken:
            frames.demand(parameters.qpn == self.qpn_of_other, "the queue pair did not stay")
        self.send_bytes(before_ready)
        self.send_frame(frames.EpochReady(number, 0))
        ready = self.receive_frame(frames.EpochReady, frames.RegionKeys)
        if isinstance(ready, frames.RegionKeys):
            self.keys_of_other = ready.keys
            ready = self.receive_frame(frames.EpochReady)
        self._demand_number(ready, number)
        self.qpn_of_other, self.epoch, self.stayed = parameters.qpn, number, stays
        return parameters

    def answer_request(self):
        """Waits for an EPOCH_REQUEST and goes through the change. Returns the reason of the request."""
        request = self.receive_frame(frames.EpochRequest)
        self._demand_number(request, self.epoch + 1)
        frames.demand(1 <= request.reason <= 5, f"{request}")
        self.renew(request.reason, begun=True)
        return request.reason

    @staticmethod
    def _demand_number(frame, number):
        frames.demand(frame.epoch == number, f"{frame}, and the next epoch is {number}")

    # ---- disconnect ----

    def disconnect(self, text=b""):
        """Ends the connection in order, as the requester. Returns the other end's DISCONNECT_ACK."""
        self.send_frame(frames.Disconnect(0, text))
        answer = self.receive_frame(frames.DisconnectAck)
        self.send_frame(frames.Finish())
        self.channel.close()
        return answer

    def answer_disconnect(self, text=b""):
        """Waits for DISCONNECT and answers it; returns it. Going through epochs until then."""
        request = self.receive_frame(frames.Disconnect)
        self.send_frame(frames.DisconnectAck(0, text))
        try:
            self.receive_frame(frames.Finish)
        except Ended:
            pass  # counts as FINISH
        self.channel.close()
        return request


class Client(Session):
    """The end that connects: Client(host, port, context) has the TLS channel and no more."""

    def __init__(self, host, port, context, name=None, timeout=30, **fields):
        super().__init__(Channel.connect(host, port, context, name, timeout))
        own_address = self.channel.tls.getsockname()[0]
        self.own = frames.Hello(gid=frames.gid_of(own_address), qpn=random_qpn(), psn=random_psn()).with_fields(**fields)

    def hello(self, **fields):
        self.own = self.own.with_fields(**fields)
        self._send_own()

    def welcome(self):
        """Waits for the server's answer. Raises Rejected if that is REJECT."""
        answer = self.receive_frame(frames.Welcome, frames.Reject)
        if isinstance(answer, frames.Reject):
            raise Rejected(answer)
        self.other = answer.check()
        offers = frames.PRIVATE | frames.CONTROL | frames.REGIONS | frames.REGION_KEYS
        frames.demand(not answer.features & offers & ~self.own.features, f"{answer}, and HELLO did not offer that")
        self._take_private_data()
        self._agree()
        return answer

    def ready(self, rkey=0):
        self.send_frame(frames.Ready(rkey if self.own.features & frames.LATE_RKEY else None))

    def establish(self, **fields):
        """The whole exchange."""
        self.hello(**fields)
        welcome = self.welcome()
        self.ready()
        return welcome


class Server(Session):
    """The end that a client has connected to."""

    def __init__(self, listener, context, timeout=30, client_id=1, **fields):
        super().__init__(Channel.accept(listener, context, timeout))
        own_address = self.channel.tls.getsockname()[0]
        self.own = frames.Welcome(gid=frames.gid_of(own_address), qpn=random_qpn(), psn=random_psn(),
                                  client_id=client_id).with_fields(**fields)

    def hello(self):
        """Waits for HELLO and checks it by itself."""
        self.other = self.receive_frame(frames.Hello).check()
        self._take_private_data()
        return self.other

    def reject(self, reason, text=b"", retry_after_ms=0, **header):
        """Answers REJECT, ends this side of the channel, and waits for the other end to end its own."""
        self.send_frame(frames.Reject(reason, retry_after_ms, text), **header)
        self.channel.close()

    def welcome(self, **fields):
        """Answers WELCOME; the link layer, and whether messages are sent or sealed, are the client's."""
        modes = frames.MESSAGES | frames.SEALING
        features = self.other.features & (modes | frames.PRIVATE) | self.own.features & ~modes
        self.own = self.own.with_fields(features=features).with_fields(**fields)
        self._send_own()

    def establish(self, **fields):
        """The whole exchange, a refusal included: a HELLO that breaks a rule is answered with REJECT, and raises Breach."""
        try:
            self.hello()
        except frames.Breach as breach:
            self.reject(breach.reason, str(breach).encode())
            raise
        self.welcome(**fields)
        ready = self.receive_frame(frames.Ready)
        late = bool(self.other.features & frames.LATE_RKEY)
        frames.demand((ready.rkey is not None) == late, f"{ready}, and HELLO said otherwise")
        self._agree()
        return ready


def fields_of(cls, words):
    """The fields that words like psn=0x1234 or gid=10.0.0.1 name, for a frame class."""
    known = {field.name for field in dataclasses.fields(cls)}
    fields = {}
    for word in words:
        name, found, value = word.partition("=")
        if not found or name not in known:
            raise ValueError(f"{word!r}: {cls.__name__} has the fields {', '.join(sorted(known))}; write FIELD=VALUE")
        if name == "gid":
            fields[name] = frames.gid_of(value)
        elif name == "text":
            fields[name] = value.encode()
        else:
            fields[name] = int(value, 0)
    return fields
