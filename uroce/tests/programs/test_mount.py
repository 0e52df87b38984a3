# SPDX-License-Identifier: Apache-2.0
"""uroce --mount: what a program sees that makes system calls itself, and what remains as it is without."""
import os
import re
import signal
import subprocess
import tempfile

import pytest

from rig import DEVICE, LIMIT, PYTHON, SCALE, WRAPPER, Program, find, free_port, is_bound, unprivileged, wait_until

CLASS = "/sys/class/infiniband"
PORT = f"{CLASS}/{DEVICE}/ports/1"
# By system calls alone, as a program in Go does: no library's function has a say.
DIRECT = f"""
import ctypes, os, platform
libc = ctypes.CDLL(None, use_errno=True)
OPENAT = {{"x86_64": 257, "aarch64": 56, "riscv64": 56}}[platform.machine()]
def read(path):
    fd = libc.syscall(OPENAT, -100, path.encode(), os.O_RDONLY, 0)
    return os.read(fd, 4096).decode().strip() if fd >= 0 else os.strerror(ctypes.get_errno())
"""


def uroce(*arguments, wrap=unprivileged, **more):
    return subprocess.run(wrap([WRAPPER, *arguments]), capture_output=True, text=True, timeout=LIMIT * SCALE, cwd="/", check=False, **more)


def may_mount():
    """Whether an ordinary user may make user namespaces here: a container may forbid it."""
    command = unprivileged([find("unshare"), "-Urm", "true"])
    return subprocess.run(command, capture_output=True, timeout=LIMIT, check=False).returncode == 0


@pytest.fixture(scope="module", autouse=True)
def namespaces():
    if not may_mount():
        pytest.skip("user namespaces are not allowed here")


def mounted(*command):
    result = uroce("--mount", *command)
    assert result.returncode == 0 and not result.stderr, result
    return result.stdout


def test_program_that_makes_system_calls_sees_the_files():
    script = f"""{DIRECT}
for name in ('node_guid', 'ports/1/state', 'ports/1/gids/0', 'ports/1/gid_attrs/types/0', 'ports/1/counters/port_xmit_data'):
    print(read('{CLASS}/{DEVICE}/' + name))
print(read('/sys/class/infiniband_verbs/uverbs0/ibdev'), read('/sys/class/net/lo/address'))"""
    without = uroce(PYTHON, "-c", script).stdout
    assert DEVICE not in without and "00:00:00:00:00:00" in without, without
    text = mounted(PYTHON, "-c", script).splitlines()
    assert re.fullmatch(r"([0-9a-f]{4}:){3}[0-9a-f]{4}", text[0]), text
    assert text[1:4] == ["4: ACTIVE", "0000:0000:0000:0000:0000:ffff:7f00:0001", "RoCE v2"] and text[4].isdigit(), text
    assert text[5].endswith(" 00:00:00:00:00:00"), text


def test_verbs_and_files_are_the_same_device():
    """The library takes the name in /dev/infiniband that is mounted, and no second one."""
    assert mounted("sh", "-c", f"ls {CLASS} /dev/infiniband | grep -c uroce0; ls /dev/infiniband | wc -l").split() == \
        uroce("sh", "-c", f"ls {CLASS} /dev/infiniband | grep -c uroce0; ls /dev/infiniband | wc -l").stdout.split()
    assert mounted("ibv_devices").count(DEVICE) == 1
    again = mounted(WRAPPER, "--mount", "ibv_devinfo", "-d", DEVICE)
    assert "PORT_ACTIVE" in again


def test_the_rest_of_dev_and_sys_remains():
    script = ("ls /dev | grep -v infiniband; ls /sys/class | grep -v infiniband; stat -c '%F %t:%T %a' /dev/null /dev/zero; "
              "ls /dev/shm > /dev/null && head -c 3 /dev/zero | wc -c; stat -f -c %T /dev/pts; id -u; id -g")
    plain = subprocess.run(unprivileged(["sh", "-c", script]), capture_output=True, text=True, check=True).stdout
    assert mounted("sh", "-c", script) == plain


def test_node_may_be_named_and_opened():
    node = mounted("sh", "-c", f"grep -l {DEVICE} /sys/class/infiniband_verbs/*/ibdev").split("/")[-2]
    assert mounted(PYTHON, "-c", f"{DIRECT}\nprint(repr(read('/dev/infiniband/{node}')))") == "''\n"


def test_programs_connect_by_rdma_cm():
    port = free_port()
    server = Program([WRAPPER, "--mount", "ucmatose", "-b", "127.0.0.1", "-p", str(port)])
    try:
        wait_until(lambda: is_bound(port) or not server.running(), lambda: f"server listens\n{server.output}")
        assert "return status 0" in mounted("ucmatose", "-s", "127.0.0.1", "-p", str(port))
    finally:
        server.close()


def test_nothing_is_left_of_the_mounts():
    before = {name for name in os.listdir("/tmp") if name.startswith("uroce-mount.")}
    mounted("true")
    assert {name for name in os.listdir("/tmp") if name.startswith("uroce-mount.")} <= before
    with open("/proc/self/mounts", encoding="ascii") as file:
        assert not re.search(r"^uroce ", file.read(), re.M)


def test_capture_is_of_the_commands_processes_alone():
    with tempfile.TemporaryDirectory(prefix="uroce-mount-test.") as folder:
        os.chmod(folder, 0o777)
        assert uroce("--mount", "--capture", f"{folder}/%p.pcap", "ibv_devinfo").returncode == 0
        assert len(os.listdir(folder)) == 1


def test_exit_status_and_signals_are_the_commands():
    assert uroce("--mount", "sh", "-c", "exit 77").returncode == 77
    assert uroce("--mount", "no-such-command", env={"PATH": "/usr/bin:/bin"}).returncode == 127
    program = Program(unprivileged([WRAPPER, "--mount", "sh", "-c", "trap 'exit 5' TERM; echo ready; while :; do sleep 0.1; done"]),
                      on_uroce=False)
    try:
        wait_until(lambda: "ready" in program.output, "the command runs")
        program.process.send_signal(signal.SIGTERM)
        assert program.wait() == 5
    finally:
        program.close()


def test_counters_move():
    """A ping-pong between processes of the command, to which Python passes no descriptor of the counters."""
    port = free_port()
    script = f"""{DIRECT}
import subprocess, time
def count():
    return int(read('{PORT}/counters/port_rcv_packets'))
before = count()
server = subprocess.Popen(['ibv_rc_pingpong', '-g', '0', '-p', '{port}', '-n', '200'], stdout=subprocess.DEVNULL)
end = time.monotonic() + 30
while subprocess.call(['ibv_rc_pingpong', '-g', '0', '-p', '{port}', '-n', '200', 'localhost'], stdout=subprocess.DEVNULL,
                      stderr=subprocess.DEVNULL) != 0:
    assert time.monotonic() < end and server.poll() is None
    time.sleep(0.2)
server.wait()
while count() < before + 200:
    assert time.monotonic() < end, count()
    time.sleep(0.05)
print('moved')"""
    assert mounted(PYTHON, "-c", script) == "moved\n"


def test_without_namespaces_the_command_runs_all_the_same():
    """In a user namespace that may have no others, and without capabilities."""
    def wrap(command):
        inner = " ".join(["echo 0 > /proc/sys/user/max_user_namespaces && exec setpriv --bounding-set=-all --inh-caps=-all", *command])
        return unprivileged([find("unshare"), "-Ur", "sh", "-c", inner])
    result = uroce("--mount", "ibv_devices", wrap=wrap)
    assert result.returncode == 0 and DEVICE in result.stdout and "cannot mount the device's files: No space left" in result.stderr, result
