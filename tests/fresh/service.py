# SPDX-License-Identifier: Apache-2.0
"""securdma.service and securdma-agent.service under the systemd that runs this: started, reloaded, drained, stopped, on uroce. For
tests/fresh/stages/service.

Runs as root in a system of its own, on which `make install` was done: it makes units, certificates and addresses. A check prints a line
that begins with "ok" or "not ok"; the last line counts them.
"""
import hashlib
import json
import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import time
import traceback

ETC = "/etc/securdma"
DROP_INS = "/etc/systemd/system"
HOST, PORT = "127.0.0.1", 4433
STEP = 90  # seconds for anything that should take one or two
passed, failed = 0, 0


# ---- what all use ------------------------------------------------------------------------------------------------------


def run(*args, timeout=STEP, check=False, **more):
    result = subprocess.run([str(arg) for arg in args], capture_output=True, text=True, timeout=timeout, stdin=subprocess.DEVNULL, **more)
    if check and result.returncode != 0:
        raise AssertionError(f"{' '.join(map(str, args))}: exit status {result.returncode}\n{result.stdout}{result.stderr}")
    return result


def systemctl(*args, **more):
    return run("systemctl", *args, **more)


def show(name, unit="securdma.service"):
    return systemctl("show", "--property", name, "--value", unit, check=True).stdout.strip()


def expect(condition, what):
    assert condition, what() if callable(what) else what


def wait_until(condition, what, timeout=STEP):
    deadline = time.monotonic() + timeout
    while not (value := condition()):
        expect(time.monotonic() < deadline, lambda: f"not within {timeout} s: {what() if callable(what) else what}")
        time.sleep(0.1)
    return value


def entries(*args):
    run("journalctl", "--sync")
    return [json.loads(line) for line in run("journalctl", "--no-pager", "--quiet", "--output", "json", *args, check=True).stdout.splitlines()]


def mark():
    """Where the journal ends now."""
    return int(entries("--lines", "1")[0]["__REALTIME_TIMESTAMP"])


def journal(since):
    """The lines of the server and of what the unit starts, since a mark; not what systemd says of the unit."""
    return [entry for entry in entries("_SYSTEMD_UNIT=securdma.service") if int(entry["__REALTIME_TIMESTAMP"]) > since]


def messages(since):
    return [entry["MESSAGE"] for entry in journal(since)]


def write(path, text):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w", encoding="ascii") as file:
        file.write(text)


def configure(text=""):
    write(f"{ETC}/securdma.conf", f"[tls]\ncert = {ETC}/server.crt\nkey = {ETC}/server.key\nclient-ca = {ETC}/ca.crt\n{text}")


def drop_in(unit, name, text):
    write(f"{DROP_INS}/{unit}.d/{name}.conf", text)
    systemctl("daemon-reload", check=True)


def cert(*args):
    run("securdma", "cert", *args, check=True, cwd=ETC)


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

CHECKS = []


def check(function):
    CHECKS.append(function)
    return function


@check
def units_are_valid_and_expose_no_more_than_they_must():
    services = ("securdma.service", "securdma-agent.service")
    verified = run("systemd-analyze", "--man=no", "verify", *services, "securdma.socket")
    expect(verified.returncode == 0 and not verified.stderr.strip(), lambda: f"systemd-analyze verify: {verified}")
    for unit in services:
        security = run("systemd-analyze", "security", "--no-pager", "--offline=yes", "--threshold=19", f"/usr/local/lib/systemd/system/{unit}")
        print("#", security.stdout.strip().splitlines()[-1])
        expect(security.returncode == 0, lambda: f"systemd-analyze security: {security}")


@check
def starts_and_serves_a_client():
    start()
    expect(show("StatusText") == f"listening on *:{PORT}, 0 of 10 clients", lambda: show("StatusText"))
    expect_served()


@check
def runs_as_its_own_user_with_nothing_more_than_that():
    start()
    with open(f"/proc/{show('MainPID')}/status", encoding="ascii") as file:
        status = dict(line.rstrip("\n").split(":\t", 1) for line in file if ":\t" in line)
    user = run("id", "-u", "securdma", check=True).stdout.strip()
    expect(set(status["Uid"].split()) == {user} and user != "0", lambda: status["Uid"])
    # Two filters: systemd's and the server's own.
    expect((status["NoNewPrivs"], status["Seccomp"], int(status["CapEff"], 16)) == ("1", "2", 0), status)


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
    expect(systemctl("start", "securdma.service").returncode != 0, "a start with settings that are not valid")
    time.sleep(7)  # longer than RestartSec
    state = show("ActiveState"), show("NRestarts"), show("ExecMainStatus")
    expect(state == ("failed", "0", "2"), state)
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


# ---- the agent ---------------------------------------------------------------------------------------------------------


def pingpong(user):
    """Both ends of an unchanged program, as that user; what `securdma wrap` reports of each."""
    command = ["runuser", "-u", user, "--", "uroce", "securdma", "wrap", "--report", "--", "ibv_rc_pingpong", "-g", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as server:
        try:
            # Until it listens.
            client = wait_until(lambda: (end := run(*command, HOST)).returncode == 0 and end, lambda: f"{run(*command, HOST)}")
            text, _ = server.communicate(timeout=STEP)
        finally:
            server.kill()
    return client.stdout + client.stderr, text


@check
def agent_vouches_for_programs_whose_processes_it_may_not_see():
    """ProtectProc=invisible hides from it the processes of all users but its own."""
    cert("peer", "--name", HOST, "--out", "host", "--force")
    shutil.chown(f"{ETC}/host.key", "root", "securdma")
    os.chmod(f"{ETC}/host.key", 0o640)
    write(f"{ETC}/agent.conf", f"[tls]\ncert = {ETC}/host.crt\nkey = {ETC}/host.key\nca = {ETC}/ca.crt\n")
    unit = "securdma-agent.service"
    try:
        systemctl("start", unit, check=True)
        for user in ("root", "nobody"):
            for text in pingpong(user):
                expect("queue pairs connected: 1, of which 1 with PSNs from the agents" in text, text)
        expect("connected 4, refused 0" in (text := run("securdma", "status", "--agent", check=True).stdout), text)
        before = show("MainPID", unit)
        systemctl("reload", unit, check=True)
        expect(show("MainPID", unit) == before, "a reload keeps the process")
        write(f"{ETC}/agent.conf", "[tls]\n")
        expect(systemctl("reload", unit).returncode != 0 and show("ActiveState", unit) == "active", lambda: systemctl("status", unit).stdout)
        pingpong("nobody")
    finally:
        systemctl("stop", unit)
    expect(show("Result", unit) == "success", lambda: systemctl("status", unit).stdout)


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


def main():
    global passed, failed
    prepare()
    wanted = sys.argv[1:]
    for function in CHECKS:
        if wanted and function.__name__ not in wanted:
            continue
        began = time.monotonic()
        try:
            clean()
            function()
            passed += 1
            print(f"ok - {function.__name__.replace('_', ' ')} ({time.monotonic() - began:.0f} s)", flush=True)
        except Exception:
            failed += 1
            print(f"not ok - {function.__name__.replace('_', ' ')}")
            print("".join(f"# {line}\n" for line in traceback.format_exc().splitlines()))
            tail = run("journalctl", "--no-pager", "--lines", "40", "--unit", "securdma.service", "--unit", "securdma.socket",
                       "--unit", "securdma-agent.service").stdout
            print("".join(f"#   {line}\n" for line in tail.splitlines()), flush=True)
    print(f"{passed} checks passed, {failed} failed", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except Exception:
        traceback.print_exc(file=sys.stdout)
        sys.exit(1)
