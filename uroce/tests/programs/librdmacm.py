# SPDX-License-Identifier: Apache-2.0
"""The system's librdmacm, for programs that use it as rdmacm-utils do not: event channels and IDs. Connections need a queue pair's number
alone."""
import ctypes
import os
import select
import socket
import struct

LIMIT = 20 * float(os.environ.get("UROCE_TEST_SCALE", "1"))
HOST = os.environ.get("CM_HOST", "127.0.0.1")
PS_TCP, PS_UDP, PS_IB = 0x106, 0x111, 0x13f
(ADDR_RESOLVED, ADDR_ERROR, ROUTE_RESOLVED, ROUTE_ERROR, CONNECT_REQUEST, CONNECT_RESPONSE, CONNECT_ERROR, UNREACHABLE, REJECTED, ESTABLISHED,
 DISCONNECTED, DEVICE_REMOVAL, MULTICAST_JOIN, MULTICAST_ERROR, ADDR_CHANGE, TIMEWAIT_EXIT) = range(16)

cm = ctypes.CDLL("librdmacm.so.1", use_errno=True)
libc = ctypes.CDLL(None, use_errno=True)  # with what is preloaded
cm.rdma_create_event_channel.restype = ctypes.c_void_p
cm.rdma_event_str.restype = ctypes.c_char_p
cm.rdma_get_src_port.restype = ctypes.c_uint16


class Event(ctypes.Structure):
    _fields_ = [("id", ctypes.c_void_p), ("listen_id", ctypes.c_void_p), ("event", ctypes.c_int), ("status", ctypes.c_int),
                ("private_data", ctypes.c_void_p), ("private_data_len", ctypes.c_uint8)]


class Channel:
    def __init__(self):
        self.pointer = cm.rdma_create_event_channel()
        if not self.pointer:
            raise OSError(ctypes.get_errno(), "rdma_create_event_channel")
        self.fd = ctypes.c_int.from_address(self.pointer).value

    def readable(self, seconds=0.0):
        poll = select.poll()
        poll.register(self.fd, select.POLLIN)
        return bool(poll.poll(seconds * 1000))

    def fetch(self):
        """The next event, which the caller acknowledges."""
        event = ctypes.POINTER(Event)()
        if cm.rdma_get_cm_event(ctypes.c_void_p(self.pointer), ctypes.byref(event)) != 0:
            raise OSError(ctypes.get_errno(), "rdma_get_cm_event")
        return event

    def get(self):
        """The kind of the next event, its ID, the listener, status and private data, acknowledged."""
        event = self.fetch()
        it = event.contents
        data = ctypes.string_at(it.private_data, it.private_data_len) if it.private_data and it.event not in (MULTICAST_JOIN, MULTICAST_ERROR) else b""
        told = it.event, it.id, it.listen_id, it.status, data
        cm.rdma_ack_cm_event(event)
        return told

    def expect(self, kind):
        assert self.readable(LIMIT), f"no event {kind}"
        told = self.get()
        assert told[0] == kind, told
        return told

    def destroy(self):
        cm.rdma_destroy_event_channel(ctypes.c_void_p(self.pointer))


def parameters(private=b""):
    """A connection's, for the queue pair 0x1234."""
    data = ctypes.create_string_buffer(private, len(private) or 1)
    param = ctypes.create_string_buffer(64)
    struct.pack_into("PBBBBBBBxI", param, 0, ctypes.addressof(data), len(private), 1, 1, 0, 7, 7, 0, 0x1234)
    param.data = data  # as long as the parameters
    return param


class ID:
    def __init__(self, channel, pointer=None, space=PS_TCP):
        self.pointer = ctypes.c_void_p(pointer)
        if not pointer and cm.rdma_create_id(ctypes.c_void_p(channel.pointer), ctypes.byref(self.pointer), None, space) != 0:
            raise OSError(ctypes.get_errno(), "rdma_create_id")

    def call(self, name, *arguments):
        assert self.error(name, *arguments) == 0, f"{name}: {os.strerror(ctypes.get_errno())}"

    def error(self, name, *arguments):
        """0 or an errno."""
        return ctypes.get_errno() if getattr(cm, name)(self.pointer, *arguments) != 0 else 0

    def resolve(self, port=9):
        self.call("rdma_resolve_addr", None, address(port), 2000)

    def listen(self, port=0, backlog=8):
        self.call("rdma_bind_addr", address(port))
        self.call("rdma_listen", backlog)
        return socket.ntohs(cm.rdma_get_src_port(self.pointer))

    def dial(self, channel, port):
        """Up to the request, alone on its channel."""
        self.resolve(port)
        channel.expect(ADDR_RESOLVED)
        self.call("rdma_resolve_route", 2000)
        channel.expect(ROUTE_RESOLVED)
        self.call("rdma_connect", parameters())

    def destroy(self):
        self.call("rdma_destroy_id")


def address(port):
    return ctypes.create_string_buffer(struct.pack("=H", socket.AF_INET) + struct.pack("!H4s8x", port, socket.inet_aton(HOST)), 16)
