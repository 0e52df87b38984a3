# SPDX-License-Identifier: Apache-2.0
"""What the checks of units share, under the systemd that runs them. They run as root in a system of its own, on which `make install` was done, and make
units, certificates and addresses."""
import json
import os
import subprocess
import sys
import time
import traceback

ETC = "/etc/securdma"
DROP_INS = "/etc/systemd/system"
STEP = 90  # seconds for anything that should take one or two
CHECKS = []


def run(*args, timeout=STEP, check=False, **more):
    result = subprocess.run([str(arg) for arg in args], capture_output=True, text=True, timeout=timeout, stdin=subprocess.DEVNULL, **more)
    if check and result.returncode != 0:
        raise AssertionError(f"{' '.join(map(str, args))}: exit status {result.returncode}\n{result.stdout}{result.stderr}")
    return result


def systemctl(*args, **more):
    return run("systemctl", *args, **more)


def show(name, unit):
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


def write(path, text):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w", encoding="ascii") as file:
        file.write(text)


def drop_in(unit, name, text):
    write(f"{DROP_INS}/{unit}.d/{name}.conf", text)
    systemctl("daemon-reload", check=True)


def cert(*args):
    run("securdma", "cert", *args, check=True, cwd=ETC)


def journal(unit, since):
    """The lines of the unit's program and of what the unit starts, since a mark; not what systemd says of the unit."""
    return [entry for entry in entries(f"_SYSTEMD_UNIT={unit}") if int(entry["__REALTIME_TIMESTAMP"]) > since]


def expect_valid(threshold, *units):
    """And the first one exposes no more than that, of 100."""
    verified = run("systemd-analyze", "--man=no", "verify", *units)
    expect(verified.returncode == 0 and not verified.stderr.strip(), lambda: f"systemd-analyze verify: {verified}")
    security = run("systemd-analyze", "security", "--no-pager", "--offline=yes", f"--threshold={threshold}", f"/usr/local/lib/systemd/system/{units[0]}")
    print("#", security.stdout.strip().splitlines()[-1])
    expect(security.returncode == 0, lambda: f"systemd-analyze security: {security}")


def status_of(pid):
    """The fields of /proc/PID/status."""
    with open(f"/proc/{pid}/status", encoding="ascii") as file:
        return dict(line.rstrip("\n").split(":\t", 1) for line in file if ":\t" in line)


def expect_filtered(unit, user, capabilities):
    """Its process is that user's, has these capabilities alone, and can get no more."""
    status = status_of(show("MainPID", unit))
    number = run("id", "-u", user, check=True).stdout.strip()
    expect(set(status["Uid"].split()) == {number} and number != "0", lambda: status["Uid"])
    # Two filters: systemd's and the program's own.
    expect((status["NoNewPrivs"], status["Seccomp"], int(status["CapEff"], 16)) == ("1", "2", capabilities), status)


def expect_no_second_start(unit, seconds):
    """It fails at the start, with the exit status of wrong settings, and is not started again: RestartSec is less than `seconds`."""
    expect(systemctl("start", unit).returncode != 0, "a start with settings that are not valid")
    time.sleep(seconds)
    state = show("ActiveState", unit), show("NRestarts", unit), show("ExecMainStatus", unit)
    expect(state == ("failed", "0", "2"), state)


def check(function):
    """A check prints a line that begins with "ok" or "not ok"."""
    CHECKS.append(function)
    return function


def _run_checks(prepare, clean, units, wanted):
    passed, failed = 0, 0
    prepare()
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
            tail = run("journalctl", "--no-pager", "--lines", "40", *(word for unit in units for word in ("--unit", unit))).stdout
            print("".join(f"#   {line}\n" for line in tail.splitlines()), flush=True)
    print(f"{passed} checks passed, {failed} failed", flush=True)
    return 1 if failed else 0


def main(prepare, clean, *units):
    """Runs all checks, or those that the command names. `prepare` is called once, `clean` before each. The last line counts them."""
    try:
        sys.exit(_run_checks(prepare, clean, units, sys.argv[1:]))
    except Exception:
        traceback.print_exc(file=sys.stdout)
        sys.exit(1)
