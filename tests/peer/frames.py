# SPDX-License-Identifier: Apache-2.0
"""The frames of docs/PROTOCOL.md: how each is written, and how each is read.

This code follows the document alone and shares nothing with src/. A frame object writes whatever it holds, so that a test can
put any value into any field; the values are checked when a frame is read."""
import dataclasses
import enum
import ipaddress
import struct

VERSION = 1
BODY_MAX = 512
HEADER = struct.Struct(">HBB")

MESSAGES, EPOCHS, SEALING, SLOW_AES, LATE_RKEY, PRIVATE, CONTROL, REGIONS, REGION_KEYS = 1, 2, 4, 8, 16, 32, 64, 128, 256
INFINIBAND, ETHERNET = 1, 2
REMOTE_WRITE, REMOTE_READ, REMOTE_ATOMIC = 2, 4, 8
U64 = (1 << 64) - 1
PSN_MAX = QPN_MAX = 0xFFFFFF


class Type(enum.IntEnum):
    HELLO = 1
    WELCOME = 2
    REJECT = 3
    READY = 4
    DISCONNECT = 5
    DISCONNECT_ACK = 6
    FINISH = 7
    EPOCH_REQUEST = 8
    EPOCH_BEGIN = 9
    EPOCH_PARAMETERS = 10
    EPOCH_READY = 11
    WITHDRAW = 12
    PRIVATE_DATA = 13
    CONTROL_MESSAGE = 14
    CONTROL_TAKEN = 15
    REGION_OFFER = 16
    REGION_WITHDRAW = 17
    REGION_RELEASED = 18
    REGION_KEYS = 19


class Reason(enum.IntEnum):
    """Why a server sends REJECT."""

    VERSION = 1
    MALFORMED = 2
    FULL = 3
    ADDRESS = 4
    FEATURE = 5
    RESOURCES = 6
    DRAINING = 7
    REFUSED = 8
    BUSY = 9


class Renewal(enum.IntEnum):
    """Why an end wants a new epoch."""

    PSNS = 1
    PROGRAM = 2
    TIME = 3
    ATTACK = 4
    FAILURE = 5


class Breach(Exception):
    """The other end broke a rule of the document. `reason` is that of the REJECT that a server answers a HELLO with."""

    def __init__(self, text, reason=Reason.MALFORMED):
        super().__init__(text)
        self.reason = reason


def demand(condition, text, reason=Reason.MALFORMED):
    if not condition:
        raise Breach(text, reason)


def frame(kind, body=b"", version=VERSION, length=None):
    """The bytes of a frame; `length`: what its header says instead of the truth."""
    return HEADER.pack(len(body) if length is None else length, version, kind) + body


class Layout:
    """A frame whose body is one fixed structure: the fields of the dataclass, in their order."""

    def body(self):
        return self.layout.pack(*dataclasses.astuple(self))

    def encode(self, **header):
        return frame(self.type, self.body(), **header)

    @classmethod
    def decode(cls, body):
        demand(len(body) == cls.layout.size, f"{cls.type.name} has a body of {len(body)} bytes, not {cls.layout.size}")
        return cls(*cls.layout.unpack(body))

    def with_fields(self, **fields):
        return dataclasses.replace(self, **fields)


def gid_of(address):
    """The GID of an IP address on Ethernet."""
    address = ipaddress.ip_address(address)
    return bytes(10) + b"\xff\xff" + address.packed if address.version == 4 else address.packed


def is_host(gid):
    """Whether a GID on Ethernet can be one host's address."""
    if gid[:12] == bytes(10) + b"\xff\xff":
        return 0 < gid[12] < 224
    return any(gid) and gid[0] != 0xFF


@dataclasses.dataclass
class Hello(Layout):
    """What an end says of itself; WELCOME has the same layout."""

    type = Type.HELLO
    layout = struct.Struct(">BBH16s4I H2B 2Q2I2Q")

    link_layer: int = ETHERNET
    path_mtu: int = 3
    lid: int = 0
    gid: bytes = gid_of("127.0.0.1")
    qpn: int = 0x11
    psn: int = 0
    features: int = MESSAGES | EPOCHS
    message_size: int = 4096
    depth: int = 16
    rd_initiator: int = 16
    rd_responder: int = 16
    region_address: int = 0
    region_size: int = 0
    region_rkey: int = 0
    region_access: int = 0
    client_id: int = 0
    reserved: int = 0

    def _path_faults(self):
        yield self.link_layer not in (INFINIBAND, ETHERNET), "link layer"
        yield not 1 <= self.path_mtu <= 5, "path MTU"
        yield self.link_layer == INFINIBAND and not 1 <= self.lid <= 0xBFFF, "LID"
        yield self.link_layer == ETHERNET and not is_host(self.gid), "GID"
        yield not 2 <= self.qpn <= QPN_MAX, "QPN"
        yield self.psn > PSN_MAX, "PSN"

    def _message_faults(self):
        if self.features & MESSAGES:
            yield not 64 <= self.message_size <= 1 << 20, "message size"
            yield not 1 <= self.depth <= 4096, "depth"
        else:
            yield bool(self.features & (EPOCHS | SEALING)), "epochs or sealing without messages"
            yield self.message_size != 0, "message size without messages"
            yield self.depth != 0, "depth without messages"

    def _region_faults(self):
        yield self.region_address + self.region_size > U64, "region beyond the address space"
        yield self.region_access & ~(REMOTE_WRITE | REMOTE_READ) != 0, "region access"
        yield not self.region_size and bool(self.region_address or self.region_rkey or self.region_access), "fields of no region"
        yield bool(self.features & (SEALING | LATE_RKEY)) and self.region_rkey != 0, "region rkey"
        yield bool(self.region_access & REMOTE_READ) and not self.rd_responder, "a region to read, and no reads"

    def faults(self):
        """The rules for one HELLO or WELCOME that this one breaks, as (what, reason of the REJECT)."""
        known = MESSAGES | EPOCHS | SEALING | SLOW_AES | LATE_RKEY | PRIVATE | CONTROL | REGIONS | REGION_KEYS
        late = bool(self.features & LATE_RKEY)
        found = [what for rules in (self._path_faults(), self._message_faults(), self._region_faults()) for wrong, what in rules if wrong]
        if late and (self.type == Type.WELCOME or not self.region_size or self.features & SEALING):
            found.append("an rkey to come, and no region that has one")
        if self.features & REGION_KEYS and ~self.features & (REGIONS | EPOCHS):
            found.append("new rkeys without regions with names, or without epochs")
        if self.type == Type.HELLO and self.client_id:
            found.append("client id")
        if self.reserved:
            found.append("reserved")
        unknown = [("unknown features", Reason.FEATURE)] if self.features & ~known else []
        return [(what, Reason.MALFORMED) for what in found] + unknown

    def faults_against(self, other):
        """The rules for both ends together that are broken."""
        rules = (self.link_layer != other.link_layer, "link layers"), ((self.features ^ other.features) & (MESSAGES | SEALING), "modes")
        return [(what, Reason.FEATURE) for wrong, what in rules if wrong]

    def check(self):
        for what, reason in self.faults():
            raise Breach(f"{self.type.name}: {what}", reason)
        return self

    def check_against(self, other):
        for what, reason in self.faults_against(other):
            raise Breach(f"{self.type.name}: {what} of the ends differ", reason)


@dataclasses.dataclass
class Welcome(Hello):
    type = Type.WELCOME
    client_id: int = 1


@dataclasses.dataclass
class Reject:
    type = Type.REJECT
    layout = struct.Struct(">HHIB")

    reason: int
    retry_after_ms: int = 0
    text: bytes = b""
    reserved: int = 0

    def encode(self, **header):
        return frame(self.type, self.layout.pack(self.reason, self.reserved, self.retry_after_ms, len(self.text)) + self.text, **header)

    @classmethod
    def decode(cls, body):
        text = _text(cls, body)
        reason, reserved, retry_after_ms, _ = cls.layout.unpack_from(body)
        return cls(reason, retry_after_ms, text, reserved)


@dataclasses.dataclass
class Disconnect:
    type = Type.DISCONNECT
    layout = struct.Struct(">QB")
    text_max = 127

    messages: int = 0
    text: bytes = b""

    def encode(self, **header):
        return frame(self.type, self.layout.pack(self.messages, len(self.text)) + self.text, **header)

    @classmethod
    def decode(cls, body):
        text = _text(cls, body)
        demand(len(text) <= cls.text_max, f"{cls.type.name} has a text of {len(text)} bytes")
        return cls(cls.layout.unpack_from(body)[0], text)


@dataclasses.dataclass
class DisconnectAck(Disconnect):
    type = Type.DISCONNECT_ACK


def _text(cls, body):
    """The text at the end of a body, whose length is the last field before it."""
    size = cls.layout.size
    demand(len(body) >= size and len(body) == size + body[size - 1], f"{cls.type.name} has a body of {len(body)} bytes")
    return body[size:]


@dataclasses.dataclass
class Ready:
    """`rkey`: that of the client's region, if its HELLO had LATE_RKEY; else None."""

    type = Type.READY
    rkey: int = None

    def encode(self, **header):
        return frame(self.type, b"" if self.rkey is None else struct.pack(">I", self.rkey), **header)

    @classmethod
    def decode(cls, body):
        demand(len(body) in (0, 4), f"READY has a body of {len(body)} bytes")
        return cls(struct.unpack(">I", body)[0] if body else None)


@dataclasses.dataclass
class Finish(Layout):
    type = Type.FINISH
    layout = struct.Struct("")


@dataclasses.dataclass
class Withdraw(Layout):
    type = Type.WITHDRAW
    layout = struct.Struct("")


@dataclasses.dataclass
class PrivateData:
    type = Type.PRIVATE_DATA

    data: bytes = b""

    def encode(self, **header):
        return frame(self.type, self.data, **header)

    @classmethod
    def decode(cls, body):
        return cls(body)


@dataclasses.dataclass
class ControlMessage(PrivateData):
    type = Type.CONTROL_MESSAGE


@dataclasses.dataclass
class ControlTaken(Layout):
    type = Type.CONTROL_TAKEN
    layout = struct.Struct(">Q")

    count: int = 1


@dataclasses.dataclass
class RegionOffer:
    type = Type.REGION_OFFER
    layout = struct.Struct(">HHIQQB")

    id: int = 1
    access: int = REMOTE_READ
    rkey: int = 0xABC
    address: int = 0
    length: int = 4096
    name: bytes = b""

    def encode(self, **header):
        fixed = self.layout.pack(self.id, self.access, self.rkey, self.address, self.length, len(self.name))
        return frame(self.type, fixed + self.name, **header)

    @classmethod
    def decode(cls, body):
        name = _text(cls, body)
        offer = cls(*cls.layout.unpack_from(body)[:5], name)
        demand(offer.id and offer.length and offer.address + offer.length <= U64, "REGION_OFFER: id, or bounds")
        demand(offer.access and not offer.access & ~(REMOTE_WRITE | REMOTE_READ | REMOTE_ATOMIC), "REGION_OFFER: access")
        demand(len(name) < 64 and all(0x20 <= byte <= 0x7E for byte in name), "REGION_OFFER: name")
        return offer


@dataclasses.dataclass
class RegionWithdraw(Layout):
    type = Type.REGION_WITHDRAW
    layout = struct.Struct(">H")

    id: int = 1


@dataclasses.dataclass
class RegionReleased(RegionWithdraw):
    type = Type.REGION_RELEASED


@dataclasses.dataclass
class RegionKeys:
    type = Type.REGION_KEYS
    layout = struct.Struct(">HI")

    keys: tuple = ()
    """Pairs of an id and its new rkey."""

    def encode(self, **header):
        return frame(self.type, b"".join(self.layout.pack(*pair) for pair in self.keys), **header)

    @classmethod
    def decode(cls, body):
        demand(len(body) and len(body) % cls.layout.size == 0 and len(body) <= 64 * cls.layout.size, "REGION_KEYS: length")
        keys = tuple(cls.layout.iter_unpack(body))
        demand(all(first < second for (first, _), (second, _) in zip(((0, 0), *keys), keys)), "REGION_KEYS: ids")
        return cls(keys)


@dataclasses.dataclass
class EpochRequest(Layout):
    type = Type.EPOCH_REQUEST
    layout = struct.Struct(">IB")

    epoch: int = 1
    reason: int = Renewal.PROGRAM


@dataclasses.dataclass
class EpochBegin(Layout):
    type = Type.EPOCH_BEGIN
    layout = struct.Struct(">IBBQ")

    epoch: int = 1
    reason: int = Renewal.PROGRAM
    broken: int = 0
    sends: int = 0


@dataclasses.dataclass
class EpochParameters(Layout):
    type = Type.EPOCH_PARAMETERS
    layout = struct.Struct(">IBQQII")

    epoch: int = 1
    broken: int = 0
    arrived: int = 0
    taken: int = 0
    qpn: int = 0x12
    psn: int = 0


@dataclasses.dataclass
class EpochReady(Layout):
    type = Type.EPOCH_READY
    layout = struct.Struct(">II")

    epoch: int = 1
    rkey: int = 0


CLASSES = {cls.type: cls for cls in (Hello, Welcome, Reject, Ready, Disconnect, DisconnectAck, Finish, EpochRequest, EpochBegin,
                                     EpochParameters, EpochReady, Withdraw, PrivateData, ControlMessage, ControlTaken, RegionOffer, RegionWithdraw, RegionReleased, RegionKeys)}


def decode(kind, body):
    """The frame object of a type and a body."""
    demand(kind in CLASSES, f"unknown frame type {kind}")
    return CLASSES[kind].decode(body)
