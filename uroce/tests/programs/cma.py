# SPDX-License-Identifier: Apache-2.0
"""The system's librdmacm, for programs in Python: event channels and IDs. Connections need a queue pair's number alone."""
import ctypes
import os
import select
import socket
import struct

LIMIT = 20 * float(os.environ.get("UROCE_TEST_SCALE", "1"))
PS_TCP = 0x106
(ADDR_RESOLVED, ADDR_ERROR, ROUTE_RESOLVED, ROUTE_ERROR, CONNECT_REQUEST, CONNECT_RESPONSE, CONNECT_ERROR, UNREACHABLE, REJECTED, ESTABLISHED,
 DISCONNECTED) = range(11)
TIMEWAIT_EXIT = 15

cm = ctypes.CDLL("librdmacm.so.1", use_errno=True)
libc = ctypes.CDLL(None, use_errno=True)  # with what is preloaded
cm.rdma_create_event_channel.restype = ctypes.c_void_p
cm.rdma_get_src_port.restype = ctypes.c_uint16


class Event(ctypes.Structure):
    _fields_ = [("id", ctypes.c_void_p), ("listen_id", ctypes.c_void_p), ("event", ctypes.c_int), ("status", ctypes.c_int)]


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
        """The kind of the next event, its ID and the listener, acknowledged."""
        event = self.fetch()
        told = event.contents.event, event.contents.id, event.contents.listen_id
        cm.rdma_ack_cm_event(event)
        return told

    def expect(self, kind):
        assert self.readable(LIMIT), f"no event {kind}"
        told = self.get()
        assert told[0] == kind, told
        return told

    def destroy(self):
        cm.rdma_destroy_event_channel(ctypes.c_void_p(self.pointer))


def parameters():
    """struct rdma_conn_param."""
    param = ctypes.create_string_buffer(64)
    struct.pack_into("=I", param, 16, 0x1234)
    return param


class ID:
    def __init__(self, channel, pointer=None):
        self.pointer = ctypes.c_void_p(pointer)
        if not pointer and cm.rdma_create_id(ctypes.c_void_p(channel.pointer), ctypes.byref(self.pointer), None, PS_TCP) != 0:
            raise OSError(ctypes.get_errno(), "rdma_create_id")

    def call(self, name, *arguments):
        result = getattr(cm, name)(self.pointer, *arguments)
        assert result == 0, f"{name}: {os.strerror(ctypes.get_errno())}"

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
    return ctypes.create_string_buffer(struct.pack("=H", socket.AF_INET) + struct.pack("!H4s8x", port, socket.inet_aton("127.0.0.1")), 16)
