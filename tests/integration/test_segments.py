# SPDX-License-Identifier: Apache-2.0
"""Link-local addresses: the same one is another host on each link, and a client may not point the server at a host of another."""
import ctypes
import os
import subprocess

import pytest

import protocol
from conftest import ON_UROCE, STEP, Server, left_out_of

pytestmark = [left_out_of("asan", "tsan", "vm")]

LINKS = ("left", "right")
CLONE_NEWNET = 0x40000000


class Segments:
    """A server's namespace with two links, and a client's at the end of each; both clients have the same address."""

    def __init__(self):
        self.prefix, self.libc = f"sdms{os.getpid()}-", ctypes.CDLL(None, use_errno=True)
        self.spaces = []
        try:
            for space in ("server", *LINKS):
                subprocess.run(["ip", "netns", "add", self.prefix + space], check=True)
                self.spaces.append(self.prefix + space)
                self.ip(space, "link", "set", "lo", "up")
            for number, link in enumerate(LINKS):
                self.ip("server", "link", "add", link, "type", "veth", "peer", "name", "eth", "netns", self.prefix + link)
                for space, name, host in (("server", link, f"{number + 1}:1"), (link, "eth", "2")):
                    self.ip(space, "link", "set", name, "addrgenmode", "none")
                    self.ip(space, "link", "set", name, "up")
                    self.ip(space, "addr", "add", f"fe80::{host}/64", "dev", name, "nodad")
        except BaseException:
            self.close()
            raise

    def ip(self, space, *words):
        subprocess.run(["ip", "-n", self.prefix + space, *words], check=True)

    def enter(self, space):
        with open(f"/run/netns/{self.prefix}{space}", "rb") as file:
            assert self.libc.setns(file.fileno(), CLONE_NEWNET) == 0

    def options(self, space, **environment):
        return {"preexec_fn": lambda: self.enter(space), "env": dict(os.environ, **environment)}

    def close(self):
        for space in self.spaces:
            subprocess.run(["ip", "netns", "del", space], check=False)


@pytest.fixture
def segments(start):
    if os.geteuid() != 0 or not ON_UROCE:
        pytest.skip("network namespaces need root, and uroce as the device")
    return start(Segments)


def answer_on(segments, certs, server, link, number):
    """What the server says to a client on this link that names its own address as GID."""
    here = os.open("/proc/self/ns/net", os.O_RDONLY)
    try:
        segments.enter(link)
        with protocol.open_tls(certs, server.port, STEP, host=f"fe80::{number + 1}:1%eth", context=unchecked(certs)) as channel:
            channel.sendall(protocol.hello(gid=protocol.gid("fe80::2")))
            return protocol.read_frame(channel)
    finally:
        with os.fdopen(here, "rb") as file:
            assert segments.libc.setns(file.fileno(), CLONE_NEWNET) == 0


def unchecked(certs):
    context = protocol.client_context(certs)
    context.check_hostname = False  # the server's certificate is not for link-local addresses
    return context


def test_link_local_gid_counts_on_the_device_s_own_link_alone(segments, certs, device, start):
    server = start(Server, certs, device, "--max-clients", "4", **segments.options("server", UROCE_ADDR="left"))
    kind, _, body = answer_on(segments, certs, server, "left", 0)
    assert kind == protocol.WELCOME, body
    kind, _, body = answer_on(segments, certs, server, "right", 1)
    assert kind == protocol.REJECT and body["reason"] == protocol.REASONS["address"] and "link-local" in body["text"], body
