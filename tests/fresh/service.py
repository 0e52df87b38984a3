# SPDX-License-Identifier: Apache-2.0
"""securdma.service under the systemd that runs this: started, reloaded, drained, stopped, on uroce. For tests/fresh/stages/service."""
import hashlib
import json
import os
import shutil
import signal
import socket
import ssl
import subprocess
import time

import under_systemd
from under_systemd import (DROP_INS, ETC, STEP, cert, check, drop_in, expect, expect_filtered, expect_no_second_start, expect_valid, mark, run,
                           systemctl, wait_until, write)

UNIT = "securdma.service"
HOST, PORT = "127.0.0.1", 4433


# ---- what all use ------------------------------------------------------------------------------------------------------


def show(name, unit=UNIT):
    return under_systemd.show(name, unit)


def journal(since):
    return under_systemd.journal(UNIT, since)


def messages(since):
    return [entry["MESSAGE"] for entry in journal(since)]


def configure(text=""):
    write(f"{ETC}/securdma.conf", f"[tls]\ncert = {ETC}/server.crt\nkey = {ETC}/server.key\nclient-ca = {ETC}/ca.crt\n{text}")


def client(*args, host=HOST, device=(), timeout=STEP):
    """One echo and a write and read on uroce, as root, which has nothing to do with the server's user."""
    target = f"[{host}]:{PORT}" if ":" in host else f"{host}:{PORT}"
    return run("uroce", *device, "securdma", "connect", "--ca", f"{ETC}/ca.crt", "--cert", f"{ETC}/client.crt", "--key", f"{ETC}/client.key", *args,
               "-e", "send hello", "-e", "write 0 there", "-e", "read 0 5", target, timeout=timeout)


def expect_served(host=HOST, **more):
    result = client(host=host, **more)
    expect(result.returncode == 0 and "hello" in result.stdout and "there" in result.stdout, lambda: f"not served: {result}")


class Held:
    """A client that stays."""

    def __init__(self, *args):
        self.process = subprocess.Popen(["uroce", "securdma", "connect", "--ca", f"{ETC}/ca.crt", "--cert", f"{ETC}/client.crt", "--key",
                                         f"{ETC}/client.key", *args, f"{HOST}:{PORT}"], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        stderr=subprocess.STDOUT, text=True)
        line = self.process.stdout.readline()
        expect("connected to" in line, f"a client is not connected: {line}")

    def end(self):
        """What it said, and its exit status."""
        text, _ = self.process.communicate(timeout=STEP)
        return text, self.process.returncode

    def kill(self):
        self.process.kill()
        self.process.communicate()


def served_certificate():
    """SHA-256 of the certificate that the server shows now."""
    context = ssl.create_default_context(cafile=f"{ETC}/ca.crt")
    context.load_cert_chain(f"{ETC}/client.crt", f"{ETC}/client.key")
    context.set_alpn_protocols(["securdma/1"])
    with socket.create_connection((HOST, PORT), STEP) as sock, context.wrap_socket(sock, server_hostname=HOST) as channel:
        return hashlib.sha256(channel.getpeercert(binary_form=True)).hexdigest()


def certificate_file():
    with open(f"{ETC}/server.crt", encoding="ascii") as file:
        return hashlib.sha256(ssl.PEM_cert_to_DER_cert(file.read())).hexdigest()


def control(command, *args):
    """A command without --control, as the operator types it."""
    return run("securdma", command, *args)


def start(*units):
    systemctl("reset-failed", "securdma.service", "securdma.socket")
    systemctl("start", *(units or ["securdma.service"]), check=True)


def stop():
    systemctl("stop", "securdma.socket", "securdma.service", check=True)
    systemctl("reset-failed", "securdma.service", "securdma.socket")


def is_active(unit="securdma.service"):
    return show("ActiveState", unit) == "active"


# ---- the checks --------------------------------------------------------------------------------------------------------

@check
def unit_is_valid_and_exposes_no_more_than_it_must():
    expect_valid(19, UNIT, "securdma.socket")


@check
def starts_and_serves_a_client():
    start()
    expect(show("StatusText") == f"listening on *:{PORT}, 0 of 10 clients", lambda: show("StatusText"))
    expect_served()


@check
def runs_as_its_own_user_with_nothing_more_than_that():
    start()
    expect_filtered(UNIT, "securdma", 0)


@check
def commands_find_the_control_socket_by_themselves():
    configure("[server]\ncontrol = /run/securdma/elsewhere\n")
    start()
    expect_served()
    status = control("status", "--json")
    expect(status.returncode == 0 and json.loads(status.stdout)["accepted"] >= 1, lambda: f"{status}")
    expect(control("top", "--once").returncode == 0, "securdma top")
    systemctl("reload", "securdma.service", check=True)
    # A server by hand has none unless told, so it does not meet the service's.
    by_hand = subprocess.Popen(["uroce", "securdma", "serve", "--port", "0", "--cert", f"{ETC}/server.crt", "--key", f"{ETC}/server.key",
                                "--client-ca", f"{ETC}/ca.crt"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    expect("listening on" in by_hand.stdout.readline(), "a second server by hand")
    by_hand.terminate()
    _, errors = by_hand.communicate(timeout=STEP)
    expect(by_hand.returncode == 0, errors)
    expect(control("status").returncode == 0, "the service's socket is still there")


@check
def reload_takes_a_rotated_certificate_and_clients_stay():
    start()
    held = Held()
    before = served_certificate()
    expect(before == certificate_file(), "the certificate of the file")
    cert("server", "--name", HOST, "--force")
    expect(certificate_file() != before, "a new certificate")
    mode = os.stat(f"{ETC}/server.key")
    expect(mode.st_mode & 0o777 == 0o640 and mode.st_uid == 0, f"the new key: {mode}")
    result = systemctl("reload", "securdma.service")
    expect(result.returncode == 0, lambda: f"systemctl reload: {result}")
    # At once: the reload was over when systemctl came back.
    expect(served_certificate() == certificate_file(), "the new certificate is not served")
    held.process.stdin.write("send still here\nquit\n")
    text, code = held.end()
    expect(code == 0 and "still here" in text, text)


@check
def reload_that_is_refused_says_so_and_keeps_the_old():
    start()
    before, since = served_certificate(), mark()
    os.chmod(f"{ETC}/server.key", 0o600)
    result = systemctl("reload", "securdma.service")
    expect(result.returncode != 0, "a key that the server cannot read")
    os.chmod(f"{ETC}/server.key", 0o640)
    configure("[server]\nmax-clients = many\n")
    expect(systemctl("reload", "securdma.service").returncode != 0, "a configuration that is not valid")
    expect("the last reload failed" in show("StatusText"), lambda: show("StatusText"))
    expect(is_active() and served_certificate() == before, "the old certificate is not served any more")
    lines = [line for line in journal(since) if "not reloaded" in line["MESSAGE"]]
    expect(len(lines) >= 2 and all(line["PRIORITY"] == "3" for line in lines), lines)
    configure("[server]\nmax-clients = 20\n")
    expect(control("reload").returncode == 0, "a good configuration")
    expect(show("StatusText").endswith("0 of 20 clients"), lambda: show("StatusText"))


@check
def journal_has_priorities_and_one_time_stamp():
    start()
    since = mark()
    held = Held()
    held.kill()
    wait_until(lambda: any("peer lost" in text for text in messages(since)), lambda: f"a client that was killed: {messages(since)}")
    for line in journal(since):
        expect(line["PRIORITY"] == ("4" if "peer lost" in line["MESSAGE"] else "6"), line)
        expect(time.strftime("%Y-") not in line["MESSAGE"], line)


@check
def stop_ends_clients_in_order():
    start()
    held, since = Held(), mark()
    systemctl("stop", "securdma.service", check=True)
    text, code = held.end()
    expect(code == 7 and "shutting down" in text, text)
    expect((show("ActiveState"), show("Result"), show("ExecMainStatus")) == ("inactive", "success", "0"), lambda: show("Result"))
    expect(any("stopped: disconnected 1 client, 0 of them" in text for text in messages(since)), lambda: messages(since))
    expect(client().returncode == 3, "nobody is there")
    expect(control("status").returncode == 3, "no server at the control socket")


@check
def stop_has_the_time_that_the_settings_give_it():
    """More than the unit's own limit, and than the watchdog's."""
    drop_in("securdma.service", "limits", "[Service]\nTimeoutStopSec=5\nWatchdogSec=10\n")
    configure("[server]\ndrain-timeout-ms = 20000\n")
    start()
    held = Held()
    held.process.send_signal(signal.SIGSTOP)
    began = time.monotonic()
    systemctl("stop", "securdma.service", check=True)
    took, state = time.monotonic() - began, (show("ActiveState"), show("Result"), show("ExecMainStatus"))
    held.kill()
    expect(state == ("inactive", "success", "8") and took >= 20, (state, took))


@check
def wrong_settings_fail_once_and_for_good():
    configure("[server]\nmax-clients = many\n")
    expect_no_second_start(UNIT, 7)
    configure()
    start()
    expect_served()


@check
def server_that_dies_comes_back():
    start()
    before = show("MainPID")
    systemctl("kill", "--signal=SIGKILL", "securdma.service", check=True)
    wait_until(lambda: is_active() and show("MainPID") not in ("0", before), "another server")
    expect_served()


@check
def server_that_hangs_is_replaced():
    drop_in("securdma.service", "limits", "[Service]\nWatchdogSec=10\n")
    start()
    before = show("MainPID")
    os.kill(int(before), signal.SIGSTOP)
    wait_until(lambda: is_active() and show("MainPID") not in ("0", before), "another server")
    expect_served()


@check
def socket_starts_the_server_and_stays_open_while_it_restarts():
    since = mark()
    start("securdma.socket")
    expect(not is_active(), "nobody has come yet")
    expect_served()
    expect(show("StatusText").startswith(f"listening on *:{PORT},"), lambda: show("StatusText"))
    expect(any(f"listening on *:{PORT} device uroce0/1" in text for text in messages(since)), lambda: messages(since))
    # Clients that come meanwhile wait in the socket's queue.
    restart = subprocess.Popen(["systemctl", "restart", "securdma.service"])
    for _ in range(5):
        expect_served()
    expect(restart.wait(STEP) == 0, "systemctl restart")


@check
def wrong_settings_behind_a_socket_come_to_an_end():
    """A client that waits in the socket makes systemd start the server again at once: a few times, and no more."""
    configure("[server]\nmax-clients = many\n")
    start("securdma.socket")
    with socket.create_connection((HOST, PORT), STEP):
        wait_until(lambda: show("ActiveState", "securdma.socket") == "failed", lambda: systemctl("status", "securdma.socket").stdout)
    expect(show("ActiveState") == "failed", lambda: show("ActiveState"))
    configure()
    start("securdma.socket")
    expect_served()


@check
def drain_without_a_socket_ends_the_service_and_it_stays_down():
    start()
    held = Held()
    drain = subprocess.Popen(["securdma", "drain", "--wait"])
    wait_until(lambda: show("StatusText") == "draining: 1 client left, rejecting new clients", lambda: show("StatusText"))
    late = client()
    expect(late.returncode == 5 and "draining" in late.stderr, lambda: f"{late}")
    held.process.stdin.write("send still here\nquit\n")
    text, code = held.end()
    expect(code == 0 and "still here" in text, text)
    expect(drain.wait(STEP) == 0, "drain --wait")
    wait_until(lambda: show("ActiveState") == "inactive", lambda: show("ActiveState"))
    time.sleep(7)
    expect((show("ActiveState"), show("Result"), show("NRestarts")) == ("inactive", "success", "0"), lambda: systemctl("status", "securdma").stdout)


@check
def drain_with_a_socket_stays_drained():
    start("securdma.socket", "securdma.service")
    held, before = Held(), show("MainPID")
    drain = run("securdma", "drain", "--wait", "--timeout-ms", "1000")
    expect(drain.returncode == 0 and "systemctl stop securdma.socket" in drain.stderr, lambda: f"{drain}")
    text, code = held.end()
    expect(code == 7 and "its deadline has passed" in text, text)
    wait_until(lambda: show("StatusText") == "drained: no client is left, rejecting new clients", lambda: show("StatusText"))
    for _ in range(2):
        late = client()
        expect(late.returncode == 5 and "draining" in late.stderr, lambda: f"{late}")
    expect(show("MainPID") == before, "no other server was started")
    systemctl("restart", "securdma.service", check=True)
    expect_served()
    expect(run("securdma", "drain", "--wait").returncode == 0, "drain --wait of a server without clients")
    systemctl("stop", "securdma.socket", "securdma.service", check=True)
    expect(client().returncode == 3, "nobody is there")
    expect((show("Result"), show("ActiveState", "securdma.socket")) == ("success", "inactive"), lambda: systemctl("status", "securdma.socket").stdout)


@check
def device_that_comes_late_is_served_on():
    """uroce has its device once the interface has the address: 20 s after the server was started."""
    address, other = "10.99.0.1", "10.99.0.2"
    original = open(f"{DROP_INS}/securdma.service.d/uroce.conf", encoding="ascii").read()
    drop_in("securdma.service", "uroce", original.replace("uroce securdma", f"uroce --addr {address} securdma"))
    # Both have the interface lo, and TCP the first address.
    configure("[connection]\ngid-networks = 10.99.0.0/24\n")
    cert("server", "--name", address, "--force")
    run("ip", "address", "add", f"{other}/32", "dev", "lo", check=True)
    for units in (["securdma.service"], ["securdma.socket"]):
        systemctl("reset-failed", "securdma.service", "securdma.socket")
        began = time.monotonic()
        expect(systemctl("start", *units).returncode == (0 if "socket" in units[0] else 1), units)
        # One that waits in the socket, which makes systemd start the server without a pause.
        waiting = socket.create_connection((HOST, PORT), STEP) if "socket" in units[0] else None
        texts = set()
        while time.monotonic() - began < 20:
            texts.add(show("StatusText"))
            expect(show("ActiveState") in ("activating", "failed", "inactive") and show("ActiveState", "securdma.socket") != "failed",
                   lambda: systemctl("status", "securdma.service", "securdma.socket").stdout)
            time.sleep(0.2)
        expect("waiting for an RDMA device" in texts, texts)
        run("ip", "address", "add", f"{address}/32", "dev", "lo", check=True)
        wait_until(is_active, lambda: systemctl("status", "securdma.service").stdout)
        print(f"# {units[0]}: {time.monotonic() - began:.0f} s after the start the server has its device")
        expect_served(address, device=("--addr", other))
        if waiting:
            waiting.close()
        stop()
        run("ip", "address", "delete", f"{address}/32", "dev", "lo", check=True)
    run("ip", "address", "delete", f"{other}/32", "dev", "lo", check=True)


# ---- all of them -------------------------------------------------------------------------------------------------------


def prepare():
    """What an administrator does once, as docs/OPERATION.md says."""
    run("ip", "link", "set", "lo", "up", check=True)
    run("systemd-sysusers", check=True)
    systemctl("daemon-reload", check=True)
    os.makedirs(ETC, exist_ok=True)
    cert("ca")
    cert("server", "--name", HOST)
    cert("client", "--cn", "fresh client")
    shutil.chown(f"{ETC}/server.key", "root", "securdma")
    os.chmod(f"{ETC}/server.key", 0o640)
    configure()
    os.makedirs(f"{DROP_INS}/securdma.service.d", exist_ok=True)
    clean()
    # Also keeps systemd from forgetting how they ended.
    systemctl("enable", "securdma.socket", "securdma.service", check=True)


def clean():
    """As a check expects it, whatever the one before has left."""
    configure()
    cert("server", "--name", HOST, "--force")
    limits = f"{DROP_INS}/securdma.service.d/limits.conf"
    if os.path.exists(limits):
        os.unlink(limits)
    shutil.copy("/usr/local/share/doc/securdma/uroce.conf", f"{DROP_INS}/securdma.service.d/uroce.conf")
    systemctl("daemon-reload", check=True)
    systemctl("stop", "securdma.socket", "securdma.service", check=True)
    systemctl("reset-failed", "securdma.service", "securdma.socket")


if __name__ == "__main__":
    under_systemd.main(prepare, clean, UNIT, "securdma.socket")
