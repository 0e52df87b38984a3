# SPDX-License-Identifier: Apache-2.0
"""`securdma agent` over the time that certificates last: CAs that are replaced, certificates that expire and are renewed, and a wall clock that jumps."""
import errno
import os
import shutil
import signal
import struct
import time

import pytest

from agent_client import Refused
from conftest import BUILD, SECURDMA, run, sanitizer_library, wait_until
from test_agent import A, B, NAMES, PATIENT, Hosts, agent, program, refused  # noqa: F401

WALL_CLOCK = os.path.join(BUILD, "tests", "integration", "wall_clock.so")
YEAR = 365 * 86400


@pytest.fixture
def hosts(tmp_path):
    """Certificates that a test may replace."""
    return Hosts(tmp_path)


class Clock:
    """The wall clock of the agents that begin with `prefix`, in seconds before or after the true one."""

    def __init__(self, path):
        self.path = path
        self.set(0)
        preload = " ".join(filter(None, (sanitizer_library(), WALL_CLOCK)))
        self.prefix = ["/usr/bin/env", f"LD_PRELOAD={preload}", f"WALL_CLOCK={path}"]

    def set(self, seconds):
        with open(self.path, "r+b" if os.path.exists(self.path) else "wb") as file:
            file.write(struct.pack("=q", seconds))


@pytest.fixture
def clock(tmp_path):
    return Clock(tmp_path / "clock")


class Ends:
    """A program at each of two agents, which connect as often as a test asks."""

    def __init__(self, program, a, b):  # noqa: F811
        self.agents, self.programs, self.qpn = (a, b), (program(a), program(b)), 0x100

    def connect(self):
        """A queue pair of each with the other's."""
        self.qpn += 1
        psns = [one.register(self.qpn) for one in self.programs]
        assert [one.connect(self.qpn, own, peer, self.qpn).psn for one, own, peer in zip(self.programs, (A, B), (B, A))] == psns[::-1]

    def is_refused(self, words):
        """Whether the first end's question is refused as the one of a peer that cannot be verified."""
        self.qpn += 1
        for one in self.programs:
            one.register(self.qpn)
        with refused(errno.EACCES, words):
            self.programs[0].connect(self.qpn, A, B, self.qpn)

    def reload(self, *which):
        for one in [self.agents[i] for i in which] or self.agents:
            assert run(SECURDMA, "reload", "--agent", "--control", one.control).returncode == 0, one.log()

    def connect_soon(self):
        """A host that could not be verified is not asked again for a moment."""
        def connected():
            try:
                self.connect()
                return True
            except Refused as refusal:
                assert "expired" in refusal.why or "not yet valid" in refusal.why, refusal
                return False
        wait_until(connected, "a connection")

    def sessions_ended(self):
        return [event for one in self.agents for event in one.events("agent.session_closed", "agent.session_failed")]


def append(path, other):
    with open(path, "ab") as out, open(other, "rb") as file:
        shutil.copyfileobj(file, out)


def test_ca_is_replaced_step_by_step_while_programs_connect(hosts, agent, program):  # noqa: F811
    """Both hosts trust the new one as well, then show certificates of it one after the other, then trust it alone."""
    ends = Ends(program, *(agent(name, *PATIENT) for name in "ab"))
    ends.connect()
    run(SECURDMA, "cert", "ca", "--cn", "the next CA", "--out", hosts.path / "next")
    for name in "a", "b":
        shutil.copy(hosts.cert(name), hosts.path / f"{name}.old.crt")
        shutil.copy(hosts.key(name), hosts.path / f"{name}.old.key")
    append(hosts.cert("ca"), hosts.cert("next"))
    ends.reload()
    ends.connect()
    for name in "a", "b":
        made = run(SECURDMA, "cert", "peer", "--ca", hosts.cert("next"), "--ca-key", hosts.key("next"), "--out", hosts.path / name, "--force",
                   "--name", NAMES[name], "--cn", f"{name}.example")
        assert made.returncode == 0, made.stderr
        ends.reload()
        ends.connect()
    shutil.copy(hosts.cert("next"), hosts.cert("ca"))
    ends.reload()
    ends.connect()
    # A host that was forgotten is refused from then on.
    shutil.copy(hosts.path / "b.old.crt", hosts.cert("b"))
    shutil.copy(hosts.path / "b.old.key", hosts.key("b"))
    ends.agents[1].process.kill()
    ends.agents[1].process.wait()
    again = agent("b")
    ends.programs = (ends.programs[0], program(again))
    ends.agents = (ends.agents[0], again)
    ends.is_refused("no CA in the CA file (--ca, --client-ca) has issued it")


def test_jump_of_the_wall_clock_ends_nothing_and_prolongs_no_deadline(agent, program, clock):  # noqa: F811
    """Not the session, which goes on as long as it would have, nor what waits; nor does it let a silent peer be."""
    a, b = (agent(name, "--keepalive-ms", "1000", "--connect-timeout-ms", "4000", prefix=clock.prefix) for name in "ab")
    ends = Ends(program, a, b)
    ends.connect()
    since = [one.status()["peers"][0]["since"] for one in (a, b)]
    for jump in (20 * YEAR, -20 * YEAR):
        clock.set(jump)
        ends.connect()
        time.sleep(1.2)  # longer than a keepalive
        ends.connect()
    assert not ends.sessions_ended() and [one.status()["peers"][0]["since"] for one in (a, b)] == since
    # Nor does it change how long the question to a peer that is stopped waits, nor when that peer counts as gone.
    ends.programs[0].register(0x99)
    b.signal(signal.SIGSTOP)
    try:
        began, asked = time.monotonic(), ends.programs[0].ask(0x99, A, B, 0x99)
        clock.set(0)
        with refused(errno.EACCES, "did not answer within 4000 ms"):
            ends.programs[0].answer(asked)
        assert time.monotonic() - began > 3.9
        wait_until(lambda: any("silent" in event["message"] for event in a.events("agent.session_closed")), a.log)
    finally:
        b.signal(signal.SIGCONT)


def test_certificate_that_expires_is_refused_with_the_next_session_until_it_is_renewed(hosts, agent, program, clock):  # noqa: F811
    def renew(name):
        made = run(*clock.prefix, SECURDMA, "cert", "peer", "--ca", hosts.cert("ca"), "--ca-key", hosts.key("ca"), "--out", hosts.path / name, "--force",
                   "--name", NAMES[name], "--cn", f"{name}.example")
        assert made.returncode == 0, made.stderr

    ends = Ends(program, *(agent(name, *PATIENT, prefix=clock.prefix) for name in "ab"))
    ends.connect()
    clock.set(2 * YEAR)
    # What was verified in its time goes on until its session is made anew.
    ends.connect()
    # An agent whose own certificate has expired says so, and keeps its settings.
    refused_reload = run(SECURDMA, "reload", "--agent", "--control", ends.agents[0].control)
    assert refused_reload.returncode == 1 and "expired on" in refused_reload.stderr, refused_reload
    ends.connect()
    renew("a")
    ends.reload(0)
    ends.is_refused("expired")
    renew("b")
    ends.reload(1)
    ends.connect_soon()
