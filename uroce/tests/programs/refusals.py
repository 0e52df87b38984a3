# SPDX-License-Identifier: Apache-2.0
"""Commands to the character device of rdma_cm that are wrong: memory that is not there, answers without room, IDs of nobody and of another
channel, states that have no such command. Prints "all as they should be". usage: refusals.py [ADDRESS]

The statuses are those of Linux: with the address of an rdma_rxe device it passes there too."""
import ctypes
import errno
import itertools
import mmap
import os
import socket
import struct
import sys

from librdmacm import (ADDR_RESOLVED, CONNECT_REQUEST, CONNECT_RESPONSE, DISCONNECTED, ESTABLISHED, LIMIT, PS_TCP, PS_UDP, ROUTE_RESOLVED, Channel,
                       libc)

(CREATE_ID, DESTROY_ID, BIND_IP, RESOLVE_IP, RESOLVE_ROUTE, QUERY_ROUTE, CONNECT, LISTEN, ACCEPT, REJECT, DISCONNECT, INIT_QP_ATTR, GET_EVENT,
 GET_OPTION, SET_OPTION, NOTIFY, JOIN_IP_MCAST, LEAVE_MCAST, MIGRATE_ID, QUERY, BIND, RESOLVE_ADDR, JOIN_MCAST) = range(23)
QUERY_ADDR, QUERY_PATH, QUERY_GID = range(3)
OPTION_ID, REUSEADDR = 0, 1
RTR, COMM_EST, ALL = 2, 4, 512
HOST = sys.argv[1] if len(sys.argv) > 1 else "127.0.0.1"
NOWHERE = 8  # within the first page
QUEUE_PAIRS = itertools.count(0x1234)
channel, other = Channel(), Channel()
answer = ctypes.create_string_buffer(ALL)
HERE = ctypes.addressof(answer)
wrong = []


def write(to, number, body, room=ALL):
    os.write(to.fd, struct.pack("=IHH", number, len(body), room) + body)


def told(number, body, room=ALL, to=channel):
    try:
        write(to, number, body, room)
    except OSError as error:
        return errno.errorcode[error.errno]
    return "nothing"


def refuses(what, wanted, number, body, room=ALL, to=channel):
    got = told(number, body, room, to)
    if got != wanted:
        wrong.append(f"{what}: {got}, wanted {wanted}")


def create(to=channel, space=PS_TCP):
    write(to, CREATE_ID, create_body(space=space))
    return struct.unpack("=I", answer.raw[:4])[0]


def create_body(where=HERE, space=PS_TCP):
    return struct.pack("=QQHB5x", 0x77, where, space, 2 if space == PS_TCP else 4)


def of_id(handle, where=HERE, extra=0):
    """Commands that have a pointer, an ID, and a number."""
    return struct.pack("=QII", where, handle, extra)


def destroy(handle, to=channel):
    write(to, DESTROY_ID, of_id(handle))


def v4(port=0, host=HOST, size=28):
    return (struct.pack("=H", socket.AF_INET) + struct.pack("!H4s8x", port, socket.inet_aton(host))).ljust(size, b"\0")


def bind_ip(handle, address=None):
    return struct.pack("=Q28sI", 0, address or v4(), handle)


def bind(handle, size=16, reserved=0):
    return struct.pack("=IHH128s", handle, size, reserved, v4())


def resolve_ip(handle, address=None):
    return struct.pack("=28s28sII", bytes(28), address or v4(9), handle, 2000)


def resolve_addr(handle, size=16, reserved=0, source=0):
    return struct.pack("=IIHHI128s128s", handle, 2000, source, size, reserved, v4(), v4(9))


def parameters(handle, valid=1, length=0, number=CONNECT):
    """Of CONNECT, and of ACCEPT, which has the program's name before."""
    queue_pair = next(QUEUE_PAIRS)  # the kernel takes none twice
    param = struct.pack("=II256sBBBBBBBB", queue_pair, 0, bytes(256), length, 1, 1, 0, 7, 7, 0, valid)
    return (struct.pack("=Q", 0x88) if number == ACCEPT else b"") + param + struct.pack("=IIII", handle, 0, 0, 0)


def reject(handle, length=0, reason=0):
    return struct.pack("=IBB2x256s", handle, length, reason, bytes(256))


def option(handle, where, size, name=REUSEADDR):
    return struct.pack("=QIIII", where, handle, OPTION_ID, name, size)


def join(handle, where=HERE, size=16, flags=0):
    return struct.pack("=QQIHH128s", where, 0x99, handle, size, flags, v4(host="239.7.7.7"))


def join_ip(handle, where=HERE):
    return struct.pack("=QQ28sI", where, 0x99, v4(host="239.7.7.7"), handle)


def migrate(handle, fd, where=HERE):
    return struct.pack("=QII", where, handle, fd)


# Each command that names an ID, as it is right but for the ID.
NAMED = {
    "DESTROY_ID": (DESTROY_ID, of_id), "BIND_IP": (BIND_IP, bind_ip), "RESOLVE_IP": (RESOLVE_IP, resolve_ip),
    "RESOLVE_ROUTE": (RESOLVE_ROUTE, lambda handle: struct.pack("=II", handle, 2000)), "QUERY_ROUTE": (QUERY_ROUTE, of_id),
    "CONNECT": (CONNECT, parameters), "LISTEN": (LISTEN, lambda handle: struct.pack("=II", handle, 1)),
    "ACCEPT": (ACCEPT, lambda handle: parameters(handle, number=ACCEPT)), "REJECT": (REJECT, reject),
    "DISCONNECT": (DISCONNECT, lambda handle: struct.pack("=I", handle)),
    "INIT_QP_ATTR": (INIT_QP_ATTR, lambda handle: of_id(handle, extra=RTR)),
    "SET_OPTION": (SET_OPTION, lambda handle: option(handle, HERE, 4)),
    "NOTIFY": (NOTIFY, lambda handle: struct.pack("=II", handle, COMM_EST)), "JOIN_IP_MCAST": (JOIN_IP_MCAST, join_ip),
    "QUERY": (QUERY, lambda handle: of_id(handle, extra=QUERY_ADDR)), "BIND": (BIND, bind), "RESOLVE_ADDR": (RESOLVE_ADDR, resolve_addr),
    "JOIN_MCAST": (JOIN_MCAST, join)}


def ids_of_nobody_and_of_others():
    theirs, nobodys = create(other), 60000
    for name, (number, body) in NAMED.items():
        refuses(f"{name}, nobody's", "ENOENT", number, body(nobodys))
        refuses(f"{name}, another channel's", "EINVAL", number, body(theirs))
    refuses("LEAVE_MCAST, nobody's", "ENOENT", LEAVE_MCAST, of_id(nobodys))
    refuses("MIGRATE_ID, nobody's", "ENOENT", MIGRATE_ID, migrate(nobodys, other.fd))
    refuses("MIGRATE_ID, no descriptor", "ENOENT", MIGRATE_ID, migrate(theirs, 9999))
    with open("/dev/null", "rb") as file:
        refuses("MIGRATE_ID, another file", "EINVAL", MIGRATE_ID, migrate(theirs, file.fileno()))
    destroy(theirs, other)


def answers_that_find_no_room():
    one = create()
    for name, number, body, least in (
            ("CREATE_ID", CREATE_ID, create_body(), 4), ("DESTROY_ID", DESTROY_ID, of_id(one), 4), ("QUERY_ROUTE", QUERY_ROUTE, of_id(one), 200),
            ("INIT_QP_ATTR", INIT_QP_ATTR, of_id(one, extra=RTR), 144), ("GET_EVENT", GET_EVENT, struct.pack("=Q", HERE), 324),
            ("JOIN_IP_MCAST", JOIN_IP_MCAST, join_ip(one), 4), ("LEAVE_MCAST", LEAVE_MCAST, of_id(one), 4), ("JOIN_MCAST", JOIN_MCAST, join(one), 4),
            ("QUERY_ADDR", QUERY, of_id(one, extra=QUERY_ADDR), 272), ("QUERY_GID", QUERY, of_id(one, extra=QUERY_GID), 272),
            ("QUERY_PATH", QUERY, of_id(one, extra=QUERY_PATH), 8)):
        refuses(f"{name}, no room", "ENOSPC", number, body, least - 1)
    refuses("QUERY of something else", "ENOSYS", QUERY, of_id(one, extra=9))
    destroy(one)


def memory_that_is_not_there():
    writable = mmap.mmap(-1, mmap.PAGESIZE)
    readable = ctypes.c_char.from_buffer(writable)
    page = ctypes.addressof(readable)
    libc.mprotect(ctypes.c_void_p(page), ctypes.c_size_t(mmap.PAGESIZE), 1)
    one = create()
    for where in (NOWHERE, page, 2**64 - 8):
        refuses("CREATE_ID", "EFAULT", CREATE_ID, create_body(where))
        refuses("QUERY_ROUTE", "EFAULT", QUERY_ROUTE, of_id(one, where))
        for what in (QUERY_ADDR, QUERY_GID, QUERY_PATH):
            refuses(f"QUERY {what}", "EFAULT", QUERY, of_id(one, where, what))
        gone = create()
        refuses("DESTROY_ID", "EFAULT", DESTROY_ID, of_id(gone, where))
        refuses("DESTROY_ID, all the same", "ENOENT", DESTROY_ID, of_id(gone))
        refuses("MIGRATE_ID", "EFAULT", MIGRATE_ID, migrate(one, channel.fd, where))
    refuses("SET_OPTION", "EFAULT", SET_OPTION, option(one, NOWHERE, 4))
    refuses("SET_OPTION, nothing", "EINVAL", SET_OPTION, option(one, NOWHERE, 0))
    refuses("SET_OPTION, too much", "EINVAL", SET_OPTION, option(one, NOWHERE, 2**32 - 1))
    write(channel, RESOLVE_IP, resolve_ip(one))
    assert channel.readable(LIMIT)
    refuses("GET_EVENT", "EFAULT", GET_EVENT, struct.pack("=Q", NOWHERE))
    assert channel.readable(), "the event has gone"
    write(channel, GET_EVENT, struct.pack("=Q", HERE))
    assert struct.unpack_from("=QII", answer.raw) == (0x77, one, ADDR_RESOLVED) and not channel.readable()
    refuses("INIT_QP_ATTR", "EFAULT", INIT_QP_ATTR, of_id(one, NOWHERE, 1))
    datagrams = create(space=PS_UDP)
    write(channel, BIND_IP, bind_ip(datagrams))
    refuses("JOIN_MCAST", "EFAULT", JOIN_MCAST, join(datagrams, NOWHERE))
    refuses("JOIN_IP_MCAST", "EFAULT", JOIN_IP_MCAST, join_ip(datagrams, NOWHERE))
    assert not channel.readable(), "an event of a group that was not joined"
    destroy(datagrams)
    destroy(one)
    got = libc.write(channel.fd, ctypes.c_void_p(NOWHERE), ctypes.c_size_t(64))
    if got != -1 or ctypes.get_errno() != errno.EFAULT:
        wrong.append(f"a command that is not there: {got}, {ctypes.get_errno()}")


def commands_of_wrong_sizes():
    one = create()
    whole = struct.pack("=IHH", CREATE_ID, len(create_body()), ALL) + create_body()
    for length in (1, 7, 8, len(whole) - 1):
        try:
            os.write(channel.fd, whole[:length])
            wrong.append(f"{length} bytes are taken")
        except OSError as error:
            if error.errno != errno.EINVAL:
                wrong.append(f"{length} bytes: {error}")
    refuses("longer ones", "nothing", QUERY, of_id(one, extra=QUERY_ADDR) + bytes(4000))
    refuses("no address", "EINVAL", BIND, bind(one, 0))
    refuses("too long an address", "EINVAL", BIND, bind(one, 28))
    refuses("a reserved field", "EINVAL", BIND, bind(one, reserved=1))
    refuses("no destination", "EINVAL", RESOLVE_ADDR, resolve_addr(one, 0))
    refuses("too long a destination", "EINVAL", RESOLVE_ADDR, resolve_addr(one, 17))
    refuses("too short a source", "EINVAL", RESOLVE_ADDR, resolve_addr(one, source=15))
    refuses("a reserved field", "EINVAL", RESOLVE_ADDR, resolve_addr(one, reserved=1))
    refuses("no family", "EINVAL", BIND_IP, bind_ip(one, bytes(28)))
    refuses("another family", "EINVAL", BIND_IP, bind_ip(one, struct.pack("=H26x", socket.AF_UNIX)))
    refuses("no family", "EINVAL", RESOLVE_IP, resolve_ip(one, bytes(28)))
    refuses("another port space", "EINVAL", CREATE_ID, create_body(space=0x55))
    destroy(one)


def commands(state, one, names, wanted="EINVAL"):
    for name in sorted(names):
        number, body = NAMED[name]
        refuses(f"{name}, {state}", wanted, number, body(one))


CONNECTS = {"RESOLVE_ROUTE", "CONNECT", "ACCEPT", "REJECT", "NOTIFY"}
BINDS = {"BIND", "BIND_IP", "LISTEN", "RESOLVE_ADDR", "RESOLVE_IP"}
JOINS = {"JOIN_MCAST", "JOIN_IP_MCAST"}
ENDS = {"INIT_QP_ATTR", "DISCONNECT"}


def states_without_such_a_command():
    one = create()
    commands("unbound", one, CONNECTS | JOINS | ENDS)
    write(channel, BIND, bind(one))
    commands("bound", one, {"INIT_QP_ATTR"}, "nothing")
    commands("bound", one, CONNECTS | JOINS | {"BIND", "BIND_IP", "DISCONNECT"})
    write(channel, LISTEN, struct.pack("=II", one, 1))
    commands("listening", one, CONNECTS | JOINS | BINDS | {"INIT_QP_ATTR"})
    commands("listening", one, {"DISCONNECT"}, "nothing")
    destroy(one)
    one = create()
    refuses("CONNECT without parameters", "EINVAL", CONNECT, parameters(one, valid=0))
    refuses("REJECT with a reason of the device", "EINVAL", REJECT, reject(one, reason=8))
    destroy(one)


def expect(kind, of=channel):
    """The ID of the next event."""
    assert of.readable(LIMIT), f"no event {kind}"
    write(of, GET_EVENT, struct.pack("=Q", HERE))
    _, handle, got = struct.unpack_from("=QII", answer.raw)
    assert got == kind, (got, kind)
    return handle


def dial(to):
    one = create()
    write(channel, RESOLVE_IP, resolve_ip(one, v4(to)))
    expect(ADDR_RESOLVED)
    commands("resolved", one, BINDS | JOINS | {"CONNECT", "ACCEPT", "REJECT", "DISCONNECT"})
    write(channel, RESOLVE_ROUTE, struct.pack("=II", one, 2000))
    expect(ROUTE_RESOLVED)
    commands("routed", one, BINDS | JOINS | {"RESOLVE_ROUTE", "ACCEPT", "REJECT", "DISCONNECT"})
    refuses("too much private data", "EINVAL", CONNECT, parameters(one, length=255))
    write(channel, CONNECT, parameters(one))
    commands("asking", one, BINDS | JOINS | {"RESOLVE_ROUTE", "CONNECT", "NOTIFY"})
    return one


def states_of_a_connection():
    listener = create(other)
    write(other, BIND, bind(listener))
    write(other, LISTEN, struct.pack("=II", listener, 8))
    write(other, QUERY, of_id(listener, extra=QUERY_ADDR))
    port = struct.unpack_from("!H", answer.raw, 18)[0]
    first = dial(port)
    asked = expect(CONNECT_REQUEST, other)
    for name in sorted(BINDS | JOINS | {"RESOLVE_ROUTE", "CONNECT", "NOTIFY"}):
        number, body = NAMED[name]
        refuses(f"{name}, asked", "EINVAL", number, body(asked), to=other)
    write(other, ACCEPT, parameters(asked, number=ACCEPT))
    assert expect(CONNECT_RESPONSE) == first
    commands("answered", first, BINDS | JOINS | {"RESOLVE_ROUTE", "CONNECT"})
    write(channel, ACCEPT, parameters(first, valid=0, number=ACCEPT))
    assert expect(ESTABLISHED, other) == asked
    commands("established", first, BINDS | JOINS | {"RESOLVE_ROUTE", "CONNECT"})
    write(channel, DISCONNECT, struct.pack("=I", first))
    assert expect(DISCONNECTED, other) == asked
    commands("disconnecting", first, BINDS | JOINS | {"RESOLVE_ROUTE", "CONNECT"})
    write(other, DISCONNECT, struct.pack("=I", asked))
    assert expect(DISCONNECTED) == first
    destroy(first)
    second = dial(port)
    refused = expect(CONNECT_REQUEST, other)
    write(other, REJECT, reject(refused))
    for name in ("ACCEPT", "REJECT", "CONNECT"):
        number, body = NAMED[name]
        refuses(f"{name}, refused", "EINVAL", number, body(refused), to=other)
    refuses("DISCONNECT, refused", "nothing", DISCONNECT, struct.pack("=I", refused), to=other)
    destroy(second)
    for one in (asked, refused, listener):
        destroy(one, other)


for case in (ids_of_nobody_and_of_others, answers_that_find_no_room, memory_that_is_not_there, commands_of_wrong_sizes,
             states_without_such_a_command, states_of_a_connection):
    print(case.__name__, flush=True)
    case()
channel.destroy()
other.destroy()
assert not wrong, "\n".join(["", *wrong])
print("all as they should be")
