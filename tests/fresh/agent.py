# SPDX-License-Identifier: Apache-2.0
"""securdma-agent.service under the systemd that runs this, with all its restrictions: programs of root and of another user are wrapped, on uroce; it is
reloaded, killed, hangs, is stopped. Another host is a network namespace with an agent of its own. For tests/fresh/stages/service."""
import contextlib
import json
import os
import shutil
import signal
import subprocess

import under_systemd
from under_systemd import (DROP_INS, ETC, STEP, cert, check, drop_in, expect, expect_filtered, expect_no_second_start, expect_valid, mark, run,
                           systemctl, wait_until, write)

UNIT = "securdma-agent.service"
NEAR, FAR, USERS = "10.98.0.1", "10.98.0.2", "10.98.0.3"  # an address on uroce is one user's
NAMESPACE, FAR_SOCKET = "far", "/run/far/agent.sock"
PORT = 18515  # of the programs
CAP_NET_ADMIN = 1 << 12
ROOT, USER = (), ("setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups", "--")
HERE, THERE = (), ("ip", "netns", "exec", NAMESPACE)


# ---- what all use ------------------------------------------------------------------------------------------------------


def show(name):
    return under_systemd.show(name, UNIT)


def messages(since):
    return [entry["MESSAGE"] for entry in under_systemd.journal(UNIT, since)]


def configure(text=""):
    write(f"{ETC}/agent.conf", f"[tls]\ncert = {ETC}/host.crt\nkey = {ETC}/host.key\nca = {ETC}/ca.crt\n[agent]\n{text}")


def status():
    """As the operator asks for it."""
    return json.loads(run("securdma", "status", "--agent", "--json", check=True).stdout)


def start():
    systemctl("reset-failed", UNIT)
    systemctl("start", UNIT, check=True)


def is_active():
    return show("ActiveState") == "active"


def wait_for_another(pid):
    """The service, in the place of that process."""
    wait_until(lambda: is_active() and show("MainPID") not in ("0", pid), lambda: systemctl("status", UNIT).stdout)


class Program:
    """ibv_rc_pingpong, wrapped; without `peer`, the end that waits."""
    all = []

    def __init__(self, peer=None, user=ROOT, where=HERE, rounds=100):
        self.address = FAR if where is THERE else USERS if user is USER else NEAR
        agent = [] if where is HERE else ["--agent", FAR_SOCKET]
        self.all.append(self)
        self.process = subprocess.Popen([*where, *user, "uroce", "--addr", self.address, "securdma", "wrap", "--report=json", *agent, "--",
                                         "ibv_rc_pingpong", "-g", "0", "-n", str(rounds), "-p", str(PORT), *([peer] if peer else [])],
                                        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True)
        if not peer:
            wait_until(lambda: self.process.poll() is not None or f":{PORT} " in run(*where, "ss", "-Hltn").stdout, "the program's port")

    def end(self):
        """What it said, its report, and its exit status."""
        text, _ = self.process.communicate(timeout=STEP)
        report = next((json.loads(line) for line in text.splitlines() if line.startswith('{"command"')), None)
        return text, report, self.process.returncode

    def kill(self):
        """With what it has started, unless it has ended."""
        if self.process.stdout.closed:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.communicate()


def expect_connected(*programs):
    """They end well, with the agents' PSNs."""
    for program in programs:
        text, report, code = program.end()
        expect(code == 0 and report["queue_pairs"]["with_agents_psns"] == 1, text)


def meet(user=ROOT, other=ROOT, where=HERE, **more):
    """Two programs connect; the one that waits is elsewhere if `where` says so."""
    server = Program(user=other, where=where)
    expect_connected(Program(server.address, user=user, **more), server)


def expect_refused(why, where=HERE, **more):
    server = Program(where=where)
    text, _, code = Program(server.address, **more).end()
    server.kill()
    expect(code != 0 and "refused to" in text and why in text, text)


@contextlib.contextmanager
def far_agent():
    """The other host's, started by hand."""
    os.makedirs(os.path.dirname(FAR_SOCKET), exist_ok=True)
    process = subprocess.Popen([*THERE, "securdma", "agent", "--cert", f"{ETC}/far.crt", "--key", f"{ETC}/far.key", "--ca", f"{ETC}/ca.crt",
                                "--socket", FAR_SOCKET], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        line = process.stdout.readline()
        expect(line.startswith("listening on"), line)
        yield
    finally:
        process.terminate()
        process.communicate(timeout=STEP)


# ---- the checks --------------------------------------------------------------------------------------------------------


@check
def unit_is_valid_and_exposes_no_more_than_it_must():
    expect_valid(22, UNIT)


@check
def runs_as_its_own_user_and_sees_no_process_of_others():
    start()
    expect(show("StatusText").endswith(": 0 programs, 0 queue pairs, 0 sessions"), lambda: show("StatusText"))
    expect_filtered(UNIT, "securdma", CAP_NET_ADMIN)
    with open(f"/proc/{show('MainPID')}/mountinfo", encoding="ascii") as file:
        proc = [line for line in file if " /proc " in line]
    expect("hidepid=invisible" in proc[-1] or "hidepid=2" in proc[-1], proc)


@check
def serves_programs_of_root_and_of_another_user():
    start()
    for user, other in ((ROOT, ROOT), (USER, USER), (ROOT, USER), (USER, ROOT)):
        meet(user, other)


@check
def connects_with_another_host():
    start()
    with far_agent():
        meet(where=THERE)
        meet(user=USER, where=THERE)
        expect(status()["peers"][0]["peer"] == "far.example", status)


@check
def looks_for_encryption_on_the_path():
    configure("require-encryption = yes\n")
    start()
    with far_agent():
        expect_refused("nothing is seen that encrypts the path", where=THERE)


@check
def reload_takes_a_rotated_certificate():
    start()
    with far_agent():
        meet(where=THERE)
        cert("peer", "--cn", "renewed.example", "--name", NEAR, "--name", USERS, "--out", "host", "--force")
        expect(os.stat(f"{ETC}/host.key").st_mode & 0o777 == 0o640, "the new key's mode")
        systemctl("reload", UNIT, check=True)
        server = Program(where=THERE)
        expect_connected(Program(FAR))
        text, report, code = server.end()
        expect(code == 0 and [peer["name"] for peer in report["peers"]] == ["renewed.example"], text)


@check
def reload_that_is_refused_says_so_and_keeps_the_old():
    start()
    since = mark()
    os.chmod(f"{ETC}/host.key", 0o600)
    expect(systemctl("reload", UNIT).returncode != 0, "a key that the agent cannot read")
    os.chmod(f"{ETC}/host.key", 0o640)
    configure("mode = perhaps\n")
    expect(systemctl("reload", UNIT).returncode != 0, "a configuration that is not valid")
    wait_until(lambda: "the last reload failed" in show("StatusText"), lambda: show("StatusText"))
    expect(sum("not reloaded" in text for text in messages(since)) == 2, lambda: messages(since))
    meet()
    configure()
    systemctl("reload", UNIT, check=True)
    wait_until(lambda: "failed" not in show("StatusText"), lambda: show("StatusText"))


def registered():
    found = status()
    return found["programs"], found["queue_pairs"]


@check
def agent_that_is_killed_comes_back_and_programs_go_on():
    start()
    with far_agent():
        server = Program(where=THERE, rounds=100000000)
        client = Program(FAR, user=USER, rounds=100000000)
        wait_until(lambda: registered() == (1, 1) and status()["sessions"] == 1, status)
        before = show("MainPID")
        systemctl("kill", "--signal=SIGKILL", UNIT, check=True)
        wait_for_another(before)
        wait_until(lambda: registered() == (1, 1), status)
        expect(client.process.poll() is None and server.process.poll() is None, "programs that were connected have ended")
        client.kill()
        server.kill()
        meet(where=THERE)


@check
def agent_that_hangs_is_replaced():
    drop_in(UNIT, "limits", "[Service]\nWatchdogSec=10\n")
    start()
    before = show("MainPID")
    os.kill(int(before), signal.SIGSTOP)
    wait_for_another(before)
    meet()


@check
def wrong_settings_fail_once_and_for_good():
    configure("mode = perhaps\n")
    expect_no_second_start(UNIT, 3)
    configure()
    start()
    meet()


@check
def stop_leaves_the_folder_to_the_server():
    start()
    write("/run/securdma/servers-own", "")
    systemctl("stop", UNIT, check=True)
    expect((show("Result"), show("ExecMainStatus")) == ("success", "0"), lambda: show("Result"))
    expect(os.listdir("/run/securdma") == ["servers-own"], lambda: os.listdir("/run/securdma"))
    expect_refused("no agent at /run/securdma/agent.sock")
    os.unlink("/run/securdma/servers-own")


# ---- all of them -------------------------------------------------------------------------------------------------------


def make_far_host():
    run("ip", "link", "set", "lo", "up", check=True)
    run("ip", "netns", "add", NAMESPACE, check=True)
    run("ip", "link", "add", "near", "type", "veth", "peer", "name", "far", "netns", NAMESPACE, check=True)
    for where, device, address in ((HERE, "near", NEAR), (HERE, "near", USERS), (THERE, "far", FAR)):
        run(*where, "ip", "address", "add", f"{address}/24", "dev", device, check=True)
        run(*where, "ip", "link", "set", device, "up", check=True)
    run(*THERE, "ip", "link", "set", "lo", "up", check=True)


def prepare():
    """What an administrator does once, as docs/OPERATION.md says."""
    run("systemd-sysusers", check=True)
    systemctl("daemon-reload", check=True)
    os.makedirs(ETC, exist_ok=True)
    cert("ca", "--force")
    cert("peer", "--cn", "far.example", "--name", FAR, "--out", "far", "--force")
    cert("peer", "--cn", "near.example", "--name", NEAR, "--name", USERS, "--out", "host", "--force")
    shutil.chown(f"{ETC}/host.key", "root", "securdma")
    os.chmod(f"{ETC}/host.key", 0o640)
    configure()
    make_far_host()
    systemctl("enable", UNIT, check=True)


def clean():
    """As a check expects it, whatever the one before has left."""
    while Program.all:
        Program.all.pop().kill()
    configure()
    limits = f"{DROP_INS}/{UNIT}.d/limits.conf"
    if os.path.exists(limits):
        os.unlink(limits)
    systemctl("daemon-reload", check=True)
    systemctl("stop", UNIT, check=True)
    systemctl("reset-failed", UNIT)


if __name__ == "__main__":
    under_systemd.main(prepare, clean, UNIT)
