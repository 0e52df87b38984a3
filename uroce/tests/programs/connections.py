# SPDX-License-Identifier: Apache-2.0
"""What rdma_cm makes of addresses, options, groups, and of ends that do not wait for each other, by the system's librdmacm. Queue pairs are
numbers alone. Prints "all as they should be"."""
import contextlib
import ctypes
import errno
import os
import socket
import struct

from librdmacm import (ADDR_RESOLVED, CONNECT_REQUEST, CONNECT_RESPONSE, DISCONNECTED, ESTABLISHED, ID, MULTICAST_JOIN, PS_IB, PS_TCP, PS_UDP,
                       REJECTED, ROUTE_RESOLVED, TIMEWAIT_EXIT, Channel, cm, parameters)

AF_IB = 27
OPTION_ID, OPTION_IB = 0, 1
TOS, REUSEADDR, AFONLY, ACK_TIMEOUT, IB_PATH = 0, 1, 2, 3, 1
NO_ROOM, NOBODY, CONSUMER, VENDOR_OPTION = 3, 8, 28, 35
LOOPBACK = bytes(10) + b"\xff\xff\x7f\0\0\1"
ONE = bytes(15) + b"\1"
SENDS_ONLY = 1


def v4(port=0, host="127.0.0.1"):
    return ctypes.create_string_buffer(struct.pack("=H", socket.AF_INET) + struct.pack("!H4s8x", port, socket.inet_aton(host)), 16)


def v6(port=0, host="::1"):
    return ctypes.create_string_buffer(struct.pack("=H", socket.AF_INET6) + struct.pack("!HI16sI", port, 0, socket.inet_pton(socket.AF_INET6, host), 0), 28)


def by_gid(gid, service, mask=2**64 - 1):
    return ctypes.create_string_buffer(struct.pack("=H", AF_IB) + struct.pack("!HI16sQQ8x", 0xffff, 0, gid, service, mask), 48)


def port_of(one):
    return socket.ntohs(cm.rdma_get_src_port(one.pointer))


def option(one, level, name, value):
    return one.error("rdma_set_option", level, name, ctypes.create_string_buffer(value, len(value)), ctypes.c_size_t(len(value)))


def flag(one, name):
    assert option(one, OPTION_ID, name, struct.pack("=i", 1)) == 0


@contextlib.contextmanager
def channels(count):
    made = [Channel() for _ in range(count)]
    yield made
    for channel in made:
        channel.destroy()


def resolved(channel, destination, space=PS_TCP):
    one = ID(channel, space=space)
    one.call("rdma_resolve_addr", None, destination, 2000)
    channel.expect(ADDR_RESOLVED)
    return one


def routed(channel, destination, space=PS_TCP):
    one = resolved(channel, destination, space)
    one.call("rdma_resolve_route", 2000)
    channel.expect(ROUTE_RESOLVED)
    return one


def connect(channel, destination, private=b""):
    one = routed(channel, destination)
    one.call("rdma_connect", parameters(private))
    return one


def listen(channel, where, backlog=8, space=PS_TCP):
    one = ID(channel, space=space)
    one.call("rdma_bind_addr", where)
    one.call("rdma_listen", backlog)
    return one


def established(server, client, destination):
    """A connection: the listening end's ID, and the other's."""
    dialler = connect(client, destination)
    accepted = ID(server, server.expect(CONNECT_REQUEST)[1])
    accepted.call("rdma_accept", parameters())
    client.expect(CONNECT_RESPONSE)
    dialler.call("rdma_establish")
    server.expect(ESTABLISHED)
    return accepted, dialler


def destroy(*ids):
    for one in ids:
        one.destroy()


def a_port_of_all_addresses_is_that_of_each():
    with channels(1) as (channel,):
        wide, narrow = ID(channel), ID(channel)
        wide.call("rdma_bind_addr", v4(host="0.0.0.0"))
        assert narrow.error("rdma_bind_addr", v4(port_of(wide))) == errno.EADDRINUSE
        narrow.call("rdma_bind_addr", v4())
        late = ID(channel)
        assert late.error("rdma_bind_addr", v4(port_of(narrow), "0.0.0.0")) == errno.EADDRINUSE
        assert late.error("rdma_bind_addr", v6(port_of(narrow), "::")) == errno.EADDRINUSE
        late.call("rdma_bind_addr", v4(port_of(narrow), "127.0.0.2"))  # another address
        destroy(wide, narrow, late)


def listeners_of_one_family_share_a_port():
    with channels(3) as (four, six, client):
        first, second = ID(four), ID(six)
        assert option(first, OPTION_ID, AFONLY, bytes(1)) == errno.EINVAL  # which leaves all as it was
        first.call("rdma_bind_addr", v4(host="0.0.0.0"))
        port = port_of(first)
        assert second.error("rdma_bind_addr", v6(port, "::")) == errno.EADDRINUSE  # of both families
        flag(second, AFONLY)
        second.call("rdma_bind_addr", v6(port, "::"))
        first.call("rdma_listen", 8)
        second.call("rdma_listen", 8)
        assert option(second, OPTION_ID, AFONLY, struct.pack("=i", 1)) == errno.EINVAL  # it listens
        for destination, server in ((v4(port), four), (v6(port), six)):
            dialler = connect(client, destination)
            request = ID(server, server.expect(CONNECT_REQUEST)[1])
            destroy(request)
            assert client.expect(REJECTED)[3] == CONSUMER
            destroy(dialler)
        destroy(first, second)


def a_port_that_is_bound_may_become_one_familys():
    with channels(2) as (server, client):
        wide, four, late = ID(server), ID(server), ID(server)
        wide.call("rdma_bind_addr", v6(host="::"))
        port = port_of(wide)
        assert four.error("rdma_bind_addr", v4(port, "0.0.0.0")) == errno.EADDRINUSE
        flag(wide, AFONLY)
        four.call("rdma_bind_addr", v4(port, "0.0.0.0"))
        assert option(wide, OPTION_ID, AFONLY, struct.pack("=i", 0)) == 0  # which the kernel allows, though IPv4's port is another's
        four.call("rdma_listen", 8)
        wide.call("rdma_listen", 8)
        for where, listener in ((v4(port), four), (v6(port), wide)):
            dialler = connect(client, where)
            told = server.expect(CONNECT_REQUEST)
            assert told[2] == listener.pointer.value
            destroy(ID(server, told[1]))
            client.expect(REJECTED)
            destroy(dialler)
        destroy(four, wide)
        late.call("rdma_bind_addr", v4(port, "0.0.0.0"))
        assert option(late, OPTION_ID, AFONLY, struct.pack("=i", 0)) == 0  # all addresses
        late.call("rdma_listen", 8)
        dialler = connect(client, v6(port))
        destroy(ID(server, server.expect(CONNECT_REQUEST)[1]))
        client.expect(REJECTED)
        assert option(dialler, OPTION_ID, AFONLY, struct.pack("=i", 1)) == errno.EINVAL  # it has got further
        destroy(dialler, late)


def a_port_is_shared_but_not_listened_at():
    with channels(1) as (channel,):
        first, second = ID(channel), ID(channel)
        flag(first, REUSEADDR)
        flag(second, REUSEADDR)
        probe = ID(channel)
        probe.call("rdma_bind_addr", v4())
        port = port_of(probe)
        flag(probe, REUSEADDR)  # bound already
        assert option(probe, OPTION_ID, REUSEADDR, struct.pack("=i", 0)) == errno.EINVAL
        destroy(probe)
        first.call("rdma_bind_addr", v4(port))
        second.call("rdma_bind_addr", v4(port))
        first.call("rdma_listen", 8)
        assert option(first, OPTION_ID, REUSEADDR, struct.pack("=i", 1)) == errno.EINVAL
        assert second.error("rdma_listen", 8) == errno.EADDRINUSE
        destroy(first)
        second.call("rdma_listen", 8)
        destroy(second)


def options_are_checked():
    with channels(1) as (channel,):
        one, datagrams = resolved(channel, v4(9)), ID(channel, space=PS_UDP)
        assert option(one, OPTION_ID, TOS, b"\x68") == 0
        assert option(one, OPTION_ID, TOS, b"\x68\0") == errno.EINVAL
        assert option(one, OPTION_ID, ACK_TIMEOUT, b"\x0e") == 0
        assert option(datagrams, OPTION_ID, ACK_TIMEOUT, b"\x0e") == errno.EINVAL
        assert option(one, OPTION_ID, 77, b"\0") == errno.ENOSYS
        assert option(one, OPTION_IB, 77, b"\0") == errno.ENOSYS
        assert option(one, 7, 0, b"\0") == errno.ENOSYS
        destroy(one, datagrams)


def a_path_may_be_given_in_place_of_a_route():
    def data(gid, mtu=3, flags=0x17):
        record = bytearray(64)
        record[8:24], record[24:40] = gid, LOOPBACK
        record[47], record[48], record[54], record[56] = 9, 0x20, 2 << 6 | mtu, 2 << 6 | 15
        return struct.pack("=II", flags, 0) + record

    gmp, primary, alternate, outbound, inbound, reverse, bidirectional = (1 << i for i in range(7))
    only = gmp | primary | outbound | reverse  # IB_PATH_BIDIRECTIONAL is the latter two
    del alternate, inbound, bidirectional
    with channels(1) as (channel,):
        one = resolved(channel, v4(9))
        assert option(one, OPTION_IB, IB_PATH, data(LOOPBACK, flags=only)[:-1]) == errno.EINVAL
        assert option(one, OPTION_IB, IB_PATH, data(ONE, flags=only)) == errno.EINVAL  # elsewhere
        assert option(one, OPTION_IB, IB_PATH, data(LOOPBACK, flags=primary)) == errno.EINVAL
        assert option(one, OPTION_IB, IB_PATH, data(ONE, flags=primary) + data(LOOPBACK, flags=only)) == 0
        channel.expect(ROUTE_RESOLVED)
        one.call("rdma_connect", parameters())
        assert channel.expect(REJECTED)[3] == NOBODY
        destroy(one)


def programs_connect_by_gids():
    """Such a request has the program's private data alone, and so more of it."""
    data = bytes(range(92))
    for gid in (LOOPBACK, ONE):
        with channels(2) as (server, client):
            listener = listen(server, by_gid(bytes(16), PS_TCP << 16, 2**64 - 2**16), space=PS_IB)
            service = PS_TCP << 16 | port_of(listener)
            assert port_of(listener) != 0
            dialler = routed(client, by_gid(gid, service), PS_IB)
            dialler.call("rdma_connect", parameters(data))
            told = server.expect(CONNECT_REQUEST)
            assert told[4] == data, told[4]
            request = ID(server, told[1])
            request.call("rdma_reject", b"no", 2)
            told = client.expect(REJECTED)
            assert told[3] == CONSUMER and told[4][:2] == b"no"
            destroy(request, listener, dialler)
    with channels(1) as (channel,):
        one = ID(channel)
        assert one.error("rdma_bind_addr", by_gid(LOOPBACK, PS_UDP << 16)) == errno.EPROTONOSUPPORT  # of another port space
        assert one.error("rdma_bind_addr", by_gid(bytes(15) + b"\2", PS_TCP << 16)) == errno.ENODEV
        destroy(one)


def options_of_devices_cross():
    if not hasattr(cm, "rdma_set_local_ece"):
        return
    with channels(2) as (server, client):
        listener = listen(server, v4())
        dialler = routed(client, v4(port_of(listener)))
        sent, got = struct.pack("=III", 0xabcdef, 0x12345678, 0), ctypes.create_string_buffer(12)
        dialler.call("rdma_set_local_ece", sent)
        dialler.call("rdma_connect", parameters(b"hello"))
        told = server.expect(CONNECT_REQUEST)
        request = ID(server, told[1])
        request.call("rdma_get_remote_ece", got)
        assert struct.unpack("=II", got.raw[:8]) == (0xabcdef, 0x12345678) and told[4][:5] == b"hello"
        request.call("rdma_set_local_ece", struct.pack("=III", 0xabcdef, 0x77, 0))
        request.call("rdma_accept", parameters(b"welcome"))
        assert client.expect(CONNECT_RESPONSE)[4][:7] == b"welcome"
        dialler.call("rdma_get_remote_ece", got)
        assert struct.unpack("=II", got.raw[:8]) == (0xabcdef, 0x77)
        dialler.call("rdma_establish")
        server.expect(ESTABLISHED)
        other = connect(client, v4(port_of(listener)))
        refused = ID(server, server.expect(CONNECT_REQUEST)[1])
        refused.call("rdma_reject_ece", None, 0)
        assert client.expect(REJECTED)[3] == VENDOR_OPTION
        destroy(request, dialler, other, refused, listener)


def requests_that_are_fetched_make_room():
    with channels(2) as (server, client):
        listener = listen(server, v4(), backlog=1)
        where = v4(port_of(listener))
        first = connect(client, where)
        assert server.readable(20)
        second = connect(client, where)
        told = client.expect(REJECTED)
        assert told[1] == second.pointer.value and told[3] == NO_ROOM
        one = ID(server, server.expect(CONNECT_REQUEST)[1])  # not accepted yet
        third = connect(client, where)
        other = ID(server, server.expect(CONNECT_REQUEST)[1])
        destroy(one, other, first, second, third, listener)


def requests_end_with_their_listener():
    with channels(2) as (server, client):
        listener = listen(server, v4())
        dialler = connect(client, v4(port_of(listener)))
        assert server.readable(20)
        destroy(listener)
        assert not server.readable()
        assert client.expect(REJECTED)[3] == CONSUMER
        destroy(dialler)


def both_ends_may_disconnect_at_once():
    with channels(2) as (server, client):
        listener = listen(server, v4())
        accepted, dialler = established(server, client, v4(port_of(listener)))
        accepted.call("rdma_disconnect")
        dialler.call("rdma_disconnect")
        for channel in (server, client):
            channel.expect(DISCONNECTED)
            channel.expect(TIMEWAIT_EXIT)
        destroy(accepted, dialler, listener)


def groups_are_joined_and_left():
    group = f"239.{os.getpid() >> 16 & 255}.{os.getpid() >> 8 & 255}.{os.getpid() & 255}"
    with channels(1) as (channel,):
        connected, one, unbound = resolved(channel, v4(9)), ID(channel, space=PS_UDP), ID(channel, space=PS_UDP)
        assert connected.error("rdma_join_multicast", v4(host=group), None) == errno.EINVAL
        assert unbound.error("rdma_join_multicast", v4(host=group), None) == errno.EINVAL
        one.call("rdma_bind_addr", v4())
        assert one.error("rdma_join_multicast", v4(host="127.0.0.1"), None) == errno.EINVAL  # no group
        for address in (v4(host=group), v6(host="ff0e::5a:1")):
            one.call("rdma_join_multicast", address, None)
            assert channel.expect(MULTICAST_JOIN)[1] == one.pointer.value
            one.call("rdma_join_multicast", address, None)  # again, and nobody asks for the event
            assert channel.readable()
            one.call("rdma_leave_multicast", address)
            one.call("rdma_leave_multicast", address)
            assert not channel.readable()
            assert one.error("rdma_leave_multicast", address) == errno.EADDRNOTAVAIL
        # struct rdma_cm_join_mc_attr_ex: a mask (address and flags), flags, address.
        where = v4(host=group)
        one.call("rdma_join_multicast_ex", struct.pack("IIP", 3, SENDS_ONLY, ctypes.addressof(where)), None)
        channel.expect(MULTICAST_JOIN)
        with open("/proc/net/udp", encoding="ascii") as table:
            assert socket.inet_aton(group)[::-1].hex().upper() + ":12B7" not in table.read()
        destroy(connected, one, unbound)  # with the group


for case in (a_port_of_all_addresses_is_that_of_each, listeners_of_one_family_share_a_port,
             a_port_that_is_bound_may_become_one_familys, a_port_is_shared_but_not_listened_at,
             options_are_checked, a_path_may_be_given_in_place_of_a_route, programs_connect_by_gids, options_of_devices_cross,
             requests_that_are_fetched_make_room, requests_end_with_their_listener, both_ends_may_disconnect_at_once, groups_are_joined_and_left):
    print(case.__name__, flush=True)
    case()
print("all as they should be")
