# SPDX-License-Identifier: Apache-2.0
"""Commands to the character device of rdma_cm as a librdmacm newer than the installed one writes them, and those that no kernel has.
Prints "all as they should be"."""
import ctypes
import errno
import os
import struct

from librdmacm import Channel, PS_TCP

CREATE_ID, DESTROY_ID, BIND_IP, GET_EVENT, GET_OPTION = 0, 1, 2, 12, 13
RESOLVE_IB_SERVICE, WRITE_CM_EVENT, NONE_YET = 23, 24, 250
USER, ADDRINFO_RESOLVED = 18, 16


def write(channel, number, body, room=0):
    os.write(channel.fd, struct.pack("=IHH", number, len(body), room) + body)


def refused(channel, number, body):
    try:
        write(channel, number, body)
    except OSError as error:
        return errno.errorcode[error.errno]
    return "nothing"


def create(channel, name):
    answer = ctypes.create_string_buffer(4)
    write(channel, CREATE_ID, struct.pack("=QQHB5x", name, ctypes.addressof(answer), PS_TCP, 0), 4)
    return struct.unpack("=I", answer.raw)[0]


def event(channel):
    """The program's name of the ID, kind, status, and what was given with it."""
    answer = ctypes.create_string_buffer(400)
    write(channel, GET_EVENT, struct.pack("=Q", ctypes.addressof(answer)), 400)
    name, _, kind, status, argument = struct.unpack_from("=QIIIQ", answer.raw)
    return name, kind, status, argument


def service(handle):
    return struct.pack("=I4xQ64sII", handle, 1, b"", 1, 0)


def tell(handle, kind, status, argument):
    return struct.pack("=IIIIQ", handle, 0, kind, status, argument)


channel = Channel()
one = create(channel, 0xabcdef)
write(channel, WRITE_CM_EVENT, tell(one, USER, 7, 0x123456789abcdef))
assert channel.readable() and event(channel) == (0xabcdef, USER, 7, 0x123456789abcdef)
assert not channel.readable()
assert refused(channel, WRITE_CM_EVENT, tell(one, ADDRINFO_RESOLVED, 0, 0)) == "EINVAL", "an event that is the device's"
assert refused(channel, WRITE_CM_EVENT, tell(one + 1, USER, 0, 0)) == "ENOENT"
# Services are of InfiniBand.
assert refused(channel, RESOLVE_IB_SERVICE, service(one)) == "EINVAL", "it is bound to no device"
write(channel, BIND_IP, struct.pack("=QH2x4s20xI4x", 0, 2, bytes([127, 0, 0, 1]), one))
assert refused(channel, RESOLVE_IB_SERVICE, service(one)) == errno.errorcode[errno.EOPNOTSUPP]
assert refused(channel, GET_OPTION, bytes(64)) == "ENOSYS"
assert refused(channel, NONE_YET, bytes(64)) == "EINVAL"
answer = ctypes.create_string_buffer(4)
write(channel, DESTROY_ID, struct.pack("=QI4x", ctypes.addressof(answer), one), 4)
assert struct.unpack("=I", answer.raw) == (1,), "events reported"
channel.destroy()
print("all as they should be")
