# SPDX-License-Identifier: Apache-2.0
"""The command uroce: what it makes of options, environment, signals and exit statuses. UROCE_BUILD names the build
folder. Most cases need no device: a small library stands in for liburoce.so where it only has to be found."""
import json
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

BUILD = Path(os.environ.get("UROCE_BUILD", Path(__file__).resolve().parents[2] / "build")).resolve()
WRAPPER = BUILD / "cli" / "uroce"
LIBRARY = BUILD / "src" / "liburoce.so"
PINGPONG = shutil.which("ibv_srq_pingpong")
DEVICES = shutil.which("ibv_devices")
WAIT = 60

if not WRAPPER.exists():
    pytest.skip(f"{WRAPPER} has not been built (UROCE_BUILD names the build folder)", allow_module_level=True)


def sanitized():
    return bool(LIBRARY.exists() and re.search(rb"lib(asan|tsan)\.so", LIBRARY.read_bytes()))


needs_device = pytest.mark.skipif(not LIBRARY.exists() or not DEVICES, reason="needs liburoce.so and ibv_devices")


@pytest.fixture(scope="session")
def stand_in(tmp_path_factory):
    """An empty library."""
    folder = tmp_path_factory.mktemp("library")
    library = folder / "liburoce.so"
    compiler = shutil.which("cc") or shutil.which("gcc")
    if not compiler:
        pytest.skip("needs a C compiler")
    subprocess.run([compiler, "-shared", "-x", "c", "/dev/null", "-o", library], check=True)
    return library


def environment(**more):
    kept = {name: value for name, value in os.environ.items() if not name.startswith("UROCE_")}
    kept.update({name: str(value) for name, value in more.items()})
    return kept


@pytest.fixture
def uroce(stand_in):
    """Runs the wrapper with the stand-in."""
    def run(*args, wrapper=WRAPPER, cwd=None, **more):
        env = environment(**{"UROCE_LIBRARY": stand_in, **more})
        return subprocess.run([wrapper, *args], env=env, cwd=cwd, capture_output=True, text=True, timeout=WAIT)
    return run


@pytest.fixture
def device(uroce):
    """Runs the wrapper with the real library."""
    def run(*args, **more):
        return uroce(*args, UROCE_LIBRARY=LIBRARY, **more)
    return run


def wait_until(condition):
    end = time.monotonic() + WAIT
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


def free_port():
    """Below the ports that the kernel gives to connections."""
    while True:
        port = random.randrange(20000, 32768)
        with socket.socket(socket.AF_INET6) as probe:
            try:
                probe.bind(("::", port))
            except OSError:
                continue
        return str(port)


# ---- usage -------------------------------------------------------------------------------------------------------------


def test_help_and_version_are_printed(uroce):
    for option in ("--help", "-h"):
        result = uroce(option)
        assert result.returncode == 0 and "usage: uroce" in result.stdout and not result.stderr
    result = uroce("--version")
    assert result.returncode == 0 and re.fullmatch(r"uroce \d+\.\d+\.\d+\n", result.stdout)


def test_help_names_every_option(uroce):
    text = uroce("--help").stdout
    for option in ("--addr", "--capture", "--fault", "--log", "--mount", "--stats", "--stats-json", "--help", "--version"):
        assert option in text


def test_no_command_is_wrong_usage(uroce):
    for args in ((), ("--stats",), ("--",)):
        result = uroce(*args)
        assert result.returncode == 2 and "usage: uroce" in result.stderr


def test_unknown_options_are_wrong_usage(uroce):
    result = uroce("--loss", "1%", "true")
    assert result.returncode == 2 and "--loss" in result.stderr


@pytest.mark.parametrize("option, value, word", [
    ("--fault", "los=1%", '"los=1%" is not a fault; allowed are loss, duplicate'),
    ("--fault", "loss=1%,delay=soon", '"delay=soon" is not a time'),
    ("--fault", "loss=200%", "not a chance"),
    ("--log", "loud", '"loud" is not a level; give error, warn, info or debug'),
    ("--addr", "10.0.0.300", '"10.0.0.300" is neither'),
    ("--addr", "10.0.0.1,,eth0", "a word of the list is empty"),
    ("--addr", "fe80::zz", "neither"),
    ("--addr", "an-interface-name-too-long", "neither"),
    ("--addr", "a b", "neither"),
    ("--capture", "", "name of a file"),
])
def test_wrong_values_are_refused_before_anything_runs(uroce, tmp_path, option, value, word):
    result = uroce(option, value, "touch", tmp_path / "ran")
    assert result.returncode == 2
    assert result.stderr.startswith(f"uroce: {option}: ") and word in result.stderr
    assert not (tmp_path / "ran").exists()


# ---- what the command gets ---------------------------------------------------------------------------------------------


def variables(result):
    assert result.returncode == 0, result.stderr
    return dict(line.split("=", 1) for line in result.stdout.splitlines() if "=" in line)


def test_options_become_environment(uroce, stand_in, tmp_path):
    got = variables(uroce("--addr", "10.0.0.1,fd00::1,fe80::1%eth0,eth0", "--capture", "a-%p.pcap", "--fault=loss=1%,seed=4",
                          "--log", "debug", "env", cwd=tmp_path))
    assert got["UROCE_ADDR"] == "10.0.0.1,fd00::1,fe80::1%eth0,eth0"
    assert got["UROCE_CAPTURE"] == str(tmp_path / "a-%p.pcap")
    assert got["UROCE_FAULT"] == "loss=1%,seed=4"
    assert got["UROCE_LOG"] == "debug"
    assert got["LD_PRELOAD"] == str(stand_in)
    assert "UROCE_COUNTERS_FD" not in got


def test_percent_signs_of_the_working_directory_are_not_replaced(uroce, tmp_path):
    folder = tmp_path / "100%p"
    folder.mkdir()
    got = variables(uroce("--capture", "%p.pcap", "env", cwd=folder))
    assert got["UROCE_CAPTURE"] == f"{tmp_path}/100%%p/%p.pcap"


def test_environment_passes_where_no_option_is_given(uroce):
    assert variables(uroce("env", UROCE_FAULT="loss=3%"))["UROCE_FAULT"] == "loss=3%"


def test_options_end_at_the_command(uroce):
    result = uroce("echo", "--log", "loud", "--", "-g", "0")
    assert (result.returncode, result.stdout) == (0, "--log loud -- -g 0\n")


def test_two_dashes_run_a_command_named_like_a_subcommand(uroce, tmp_path):
    program = tmp_path / "stats"
    program.write_text("#!/bin/sh\necho mine $1\n")
    program.chmod(0o755)
    result = uroce("--", "stats", "x", PATH=f"{tmp_path}:{os.environ['PATH']}")
    assert (result.returncode, result.stdout) == (0, "mine x\n")


@pytest.mark.parametrize("before, after", [
    ("libfoo.so", "{}:libfoo.so"),
    ("libfoo.so:libbar.so", "{}:libfoo.so:libbar.so"),
    ("libfoo.so  libbar.so", "{}:libfoo.so:libbar.so"),
    ("/x/libasan.so.8", "/x/libasan.so.8:{}"),
    ("libfoo.so:/x/libtsan.so.2 libubsan.so.1", "/x/libtsan.so.2:libubsan.so.1:{}:libfoo.so"),
    ("/x/notlibasan.so", "{}:/x/notlibasan.so"),
    ("{}", "{}"),
    ("libfoo.so:{}", "{}:libfoo.so"),
    (":", "{}"),
])
def test_preload_keeps_what_is_there_with_sanitizers_first(uroce, stand_in, before, after):
    # Linkers complain about the names that do not exist, and go on.
    got = variables(uroce("env", LD_PRELOAD=before.format(stand_in), ASAN_OPTIONS="verify_asan_link_order=0"))
    assert got["LD_PRELOAD"] == after.format(stand_in)


PRINTS = """#include <stdio.h>
#include <stdlib.h>
int main(void) { puts(getenv("LD_PRELOAD")); return 0; }
"""
LISTS = """#include <infiniband/verbs.h>
#include <stdio.h>
int main(void)
{
	int count = 0;
	struct ibv_device **list = ibv_get_device_list(&count);

	for (int i = 0; i < count; i++)
		puts(ibv_get_device_name(list[i]));
	ibv_free_device_list(list);
	return 0;
}
"""


def compiled(folder, name, source, *flags):
    (folder / f"{name}.c").write_text(source)
    subprocess.run(["gcc", folder / f"{name}.c", "-o", folder / name, *flags], check=True, timeout=60)
    return folder / name


def test_the_run_time_of_a_sanitizer_that_the_command_needs_comes_first(uroce, stand_in, tmp_path):
    """Here one that does nothing; the linker does not find it by its name, complains, and goes on."""
    (tmp_path / "empty.c").write_text("int nothing;\n")
    subprocess.run(["gcc", "-shared", "-fPIC", tmp_path / "empty.c", "-Wl,-soname,libtsan.so.99", "-o", tmp_path / "libtsan.so.99"], check=True, timeout=60)
    program = compiled(tmp_path, "needs", PRINTS, "-Wl,--no-as-needed", tmp_path / "libtsan.so.99", f"-Wl,-rpath,{tmp_path}")
    plain = compiled(tmp_path, "plain", PRINTS)
    (tmp_path / "script").write_text(f"#!/bin/sh\nexec {program}\n")
    (tmp_path / "script").chmod(0o755)
    path = f"{tmp_path}:{os.environ['PATH']}"
    for command, given, first in ((program, "", "libtsan.so.99:"), ("needs", "", "libtsan.so.99:"), (plain, "", ""), (tmp_path / "script", "", ""),
                                  (program, "libasan.so.77", "libasan.so.77:")):
        result = uroce(command, LD_PRELOAD=given, PATH=path)
        assert result.stdout.strip() == f"{first}{stand_in}", (command, result)


@needs_device
@pytest.mark.skipif(sanitized(), reason="the library itself has a sanitizer")
def test_a_program_with_address_sanitizer_has_the_device(device, tmp_path):
    result = device(compiled(tmp_path, "lists", LISTS, "-fsanitize=address", "-libverbs"))
    assert (result.returncode, result.stderr) == (0, "") and "uroce0" in result.stdout.split(), result


def test_library_before_libibverbs_stays_before_the_device(device, tmp_path):
    """One that has a drop-in, as the device itself: what wraps a program must see its calls first."""
    dropin, behind = tmp_path / "dropin", str(LIBRARY.parent / "dropin")
    dropin.mkdir()
    (tmp_path / "libwrap.so").touch()
    shutil.copy(LIBRARY.parent / "dropin" / "libibverbs-real.so.1", dropin / "libibverbs.so.1")
    got = variables(device("env", LD_PRELOAD=f"libfoo.so:{tmp_path}/libwrap.so"))
    assert got["LD_PRELOAD"] == f"{tmp_path}/libwrap.so:{LIBRARY}:libfoo.so"
    # A real library in the first folder is no drop-in: one goes before it.
    assert got["LD_LIBRARY_PATH"].split(":")[0] == behind
    # This one leads to the real library, which it finds in a folder behind.
    (dropin / "libibverbs.so.1").unlink()
    (dropin / "libibverbs.so.1").symlink_to(LIBRARY.parent / "dropin" / "libibverbs.so.1")
    (dropin / "liburoce.so").symlink_to(LIBRARY)
    (tmp_path / "libibverbs-real.so.1").symlink_to((LIBRARY.parent / "dropin" / "libibverbs-real.so.1").resolve())
    for first, second in ((f"{dropin}:{tmp_path}", f"{dropin}:{behind}:{tmp_path}"), (f"{dropin}:{behind}:/a", f"{dropin}:{behind}:/a")):
        assert variables(device("env", LD_LIBRARY_PATH=first))["LD_LIBRARY_PATH"] == second


# ---- the library -------------------------------------------------------------------------------------------------------


def test_the_library_is_found_beside_the_wrapper_in_a_build_tree(uroce, stand_in, tmp_path):
    (tmp_path / "cli").mkdir()
    (tmp_path / "src").mkdir()
    shutil.copy(WRAPPER, tmp_path / "cli" / "uroce")
    shutil.copy(stand_in, tmp_path / "src" / "liburoce.so")
    got = variables(uroce("env", wrapper=tmp_path / "cli" / "uroce", UROCE_LIBRARY=""))
    assert got["LD_PRELOAD"] == str(tmp_path / "src" / "liburoce.so")


def test_an_absent_library_is_told_with_the_places(uroce, tmp_path):
    (tmp_path / "bin").mkdir()
    wrapper = tmp_path / "bin" / "uroce"
    shutil.copy(WRAPPER, wrapper)
    result = uroce("true", wrapper=wrapper, UROCE_LIBRARY="")
    assert result.returncode == 125
    assert "../src/liburoce.so" in result.stderr and "UROCE_LIBRARY" in result.stderr and str(tmp_path / "bin") in result.stderr
    result = uroce("true", UROCE_LIBRARY="/nonexistent/x.so")
    assert result.returncode == 125 and "/nonexistent/x.so, which UROCE_LIBRARY names: No such file" in result.stderr


@pytest.fixture
def as_nobody(stand_in):
    """Runs a copy of the wrapper as a user without rights, as this user finds it: with the library that the test has put into
    src/ beside it. The folder is everyone's, all the way up."""
    folder = Path(tempfile.mkdtemp(prefix="uroce-cli."))
    for part in (folder, folder / "cli", folder / "src"):
        part.mkdir(exist_ok=True)
        part.chmod(0o755)
    shutil.copy(WRAPPER, folder / "cli" / "uroce")
    shutil.copy(stand_in, folder / "src" / "liburoce.so")
    (folder / "src" / "liburoce.so").chmod(0o644)

    def run(library=""):
        drop = {"user": 65534, "group": 65534, "extra_groups": []} if os.getuid() == 0 else {}
        return subprocess.run([folder / "cli" / "uroce", "printenv", "LD_PRELOAD"], env=environment(UROCE_LIBRARY=library), cwd="/",
                              capture_output=True, text=True, timeout=WAIT, **drop)
    run.folder = folder
    run.user = 65534 if os.getuid() == 0 else os.getuid()
    yield run
    for part in (folder, folder / "src"):
        part.chmod(0o755)
    shutil.rmtree(folder)


@pytest.mark.parametrize("named", [False, True])
def test_a_closed_folder_is_told_and_not_taken_for_an_absent_library(as_nobody, named):
    library = as_nobody.folder / "src" / "liburoce.so"
    given = library if named else ""
    assert as_nobody(given).stdout.strip() == str(library)
    (as_nobody.folder / "src").chmod(0)
    result = as_nobody(given)
    assert result.returncode == 125 and not result.stdout
    assert "permission denied" in result.stderr and f"ID {as_nobody.user} can't enter the folder " in result.stderr
    closed = re.search(r"enter the folder (\S+)\. ", result.stderr).group(1)
    assert os.path.realpath(closed) == str(as_nobody.folder / "src")
    assert "install uroce again" not in result.stderr


def test_a_library_that_may_not_be_read_is_told(as_nobody):
    library = as_nobody.folder / "src" / "liburoce.so"
    library.chmod(0)
    result = as_nobody()
    assert result.returncode == 125 and not result.stdout
    assert f"{library}: permission denied" in result.stderr and "can't read this file" in result.stderr


def test_a_library_that_preload_can_not_name_is_refused(uroce, stand_in, tmp_path):
    folder = tmp_path / "with space"
    folder.mkdir()
    shutil.copy(stand_in, folder / "liburoce.so")
    result = uroce("true", UROCE_LIBRARY=folder / "liburoce.so")
    assert result.returncode == 125 and "space" in result.stderr


def test_an_installed_wrapper_finds_the_installed_library(uroce, stand_in, tmp_path):
    if not shutil.which("meson") or not (BUILD / "meson-private").exists() or not LIBRARY.exists():
        pytest.skip("needs meson and a finished build")
    subprocess.run(["meson", "install", "-C", BUILD, "--no-rebuild", "--quiet"], check=True, capture_output=True,
                   env=environment(DESTDIR=tmp_path))
    wrapper, = tmp_path.rglob("bin/uroce")
    library, = tmp_path.rglob("uroce/liburoce.so")
    result = uroce("sh", "-c", "printenv LD_PRELOAD", wrapper=wrapper, UROCE_LIBRARY="")
    if sanitized():
        pytest.skip("a sanitized library needs its run-time library first")
    assert result.stdout.strip() == str(library.resolve())


# ---- the folder with a libibverbs --------------------------------------------------------------------------------------


needs_libibverbs = pytest.mark.skipif(not (LIBRARY.parent / "dropin" / "libibverbs-real.so.1").exists(),
                                      reason="needs liburoce.so, and a libibverbs where the compiler finds it")


@pytest.fixture
def elsewhere(tmp_path):
    """A libibverbs that LD_LIBRARY_PATH leads to, and a place for folders of links."""
    own, runtime = tmp_path / "own", tmp_path / "runtime"
    own.mkdir()
    runtime.mkdir()
    shutil.copy(LIBRARY.parent / "dropin" / "libibverbs-real.so.1", own / "libibverbs.so.1")
    return {"LD_LIBRARY_PATH": own, "XDG_RUNTIME_DIR": runtime}


def library_path(result):
    return variables(result).get("LD_LIBRARY_PATH")


@needs_libibverbs
def test_folder_beside_the_library_goes_first(device):
    built = str(LIBRARY.parent / "dropin")
    assert library_path(device("env", LD_LIBRARY_PATH="")) == built
    assert library_path(device("env", LD_LIBRARY_PATH="/a::/b")) == f"{built}:/a::/b"
    assert library_path(device("env", LD_LIBRARY_PATH=f"{built}:/a")) == f"{built}:/a"


def test_library_that_comes_without_a_folder_is_only_preloaded(uroce):
    result = uroce("env", LD_LIBRARY_PATH="/a")
    assert library_path(result) == "/a" and not result.stderr


@needs_libibverbs
def test_folder_of_links_is_made_once_for_another_libibverbs(device, elsewhere):
    first = library_path(device("env", **elsewhere))
    folder = Path(first.split(":")[0])
    assert folder.parent == elsewhere["XDG_RUNTIME_DIR"] and first == f"{folder}:{elsewhere['LD_LIBRARY_PATH']}"
    assert (folder / "libibverbs-real.so.1").resolve() == (elsewhere["LD_LIBRARY_PATH"] / "libibverbs.so.1").resolve()
    assert (folder / "liburoce.so").resolve() == LIBRARY and (folder / "libibverbs.so").samefile(folder / "libibverbs.so.1")
    assert library_path(device("env", **elsewhere)) == first
    assert list(folder.parent.iterdir()) == [folder]


@needs_libibverbs
@pytest.mark.parametrize("spoil", ["link", "mode", "file"])
def test_folder_of_links_that_is_not_as_made_is_left_alone(device, elsewhere, spoil):
    folder = Path(library_path(device("env", **elsewhere)).split(":")[0])
    if spoil == "link":
        (folder / "libibverbs-real.so.1").unlink()
        (folder / "libibverbs-real.so.1").symlink_to("/nonexistent")
    elif spoil == "mode":
        folder.chmod(0o777)
    else:
        folder.rename(f"{folder}.away")
        folder.write_text("a file")
    taken = Path(library_path(device("env", **elsewhere)).split(":")[0])
    assert taken.parent == Path("/tmp") and taken != folder
    shutil.rmtree(taken)
    assert not [path for path in folder.parent.iterdir() if path.name.startswith("uroce.")]


# ---- exit statuses and signals -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("stats", [(), ("--stats",)])
def test_exit_status_is_the_commands(uroce, tmp_path, stats):
    plain = tmp_path / "plain"
    plain.write_text("text")
    assert uroce(*stats, "true").returncode == 0
    assert uroce(*stats, "sh", "-c", "exit 77").returncode == 77
    # A folder of PATH that may not be searched would make this "permission denied", as with env(1).
    result = uroce(*stats, "no-such-command", PATH="/usr/bin:/bin")
    assert result.returncode == 127 and "uroce: no-such-command: No such file" in result.stderr
    result = uroce(*stats, plain)
    assert result.returncode == 126 and "Permission denied" in result.stderr


def test_a_signal_that_ends_the_command_shows(uroce):
    assert uroce("sh", "-c", "kill -TERM $$").returncode == -signal.SIGTERM
    assert uroce("--stats", "sh", "-c", "kill -TERM $$").returncode == 128 + signal.SIGTERM


# It waits for signals and has no handler: a handler could be called in the middle of a print, which refuses that, or only
# after a read that had not begun when the signal came.
CATCHER = """
import signal, sys
numbers = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1}
signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
print("ready", flush=True)
print("caught", signal.Signals(signal.sigtimedwait(numbers, 60).si_signo).name, flush=True)
count = 1
while sys.stdin.readline().strip() != "end":
    pass
while signal.sigtimedwait(numbers, 0):
    count += 1
sys.exit(count)
"""


@pytest.fixture
def catcher(stand_in):
    process = subprocess.Popen([WRAPPER, "--stats-json", sys.executable, "-c", CATCHER], env=environment(UROCE_LIBRARY=stand_in),
                               stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "ready\n"
    yield process
    process.kill()
    process.communicate()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1])
def test_signals_are_passed_on_and_counters_follow(catcher, number):
    catcher.send_signal(number)
    assert catcher.stdout.readline() == f"caught {number.name}\n"
    out, err = catcher.communicate("end\n", timeout=WAIT)
    assert (catcher.returncode, out) == (1, "")
    assert json.loads(err)["tx_packets"] == 0


# ---- counters ----------------------------------------------------------------------------------------------------------


def test_counters_are_shared_through_a_memfd(uroce):
    program = """
import mmap, os
fd = int(os.environ["UROCE_COUNTERS_FD"])
assert "uroce-counters" in os.readlink(f"/proc/self/fd/{fd}")
with mmap.mmap(fd, os.fstat(fd).st_size) as block:
    block[0:8] = (1234).to_bytes(8, "little")
"""
    result = uroce("--stats", sys.executable, "-c", program)
    assert result.returncode == 0
    assert re.search(r"^tx_packets +1234  packets sent$", result.stderr, re.M)
    assert "tx_bytes" not in result.stderr
    result = uroce("--stats-json", sys.executable, "-c", program)
    assert json.loads(result.stderr) | {"tx_bytes": 0, "tx_packets": 1234} == json.loads(result.stderr)


def test_no_traffic_is_said(uroce):
    result = uroce("--stats", "true")
    assert "uroce: counters of true:\nall counters are zero\n" == result.stderr


HOLDER = """
import os, sys
old = os.memfd_create("uroce-counters")
fd = os.memfd_create("uroce-counters")
os.truncate(fd, int(sys.argv[1]))
os.pwrite(fd, (77).to_bytes(8, "little"), 0)
print("ready", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def running():
    """Starts a Python program that says when it is ready."""
    processes = []

    def start(program, *args):
        process = subprocess.Popen([sys.executable, "-c", program, *map(str, args)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        processes.append(process)
        assert process.stdout.readline() == "ready\n"
        return process.pid
    yield start
    for process in processes:
        process.communicate()


@pytest.fixture
def block_size(uroce):
    return int(uroce("--stats", sys.executable, "-c", "import os; print(os.fstat(int(os.environ['UROCE_COUNTERS_FD'])).st_size)").stdout)


def test_counters_of_a_running_process_are_shown(uroce, running, block_size):
    pid = str(running(HOLDER, block_size))
    result = uroce("stats", pid)
    assert result.returncode == 0 and re.fullmatch(r"tx_packets +77  packets sent\n", result.stdout)
    for args in (("stats", pid, "--json"), ("stats", "--json", pid)):
        assert json.loads(uroce(*args).stdout)["tx_packets"] == 77


def test_a_process_without_counters_is_told(uroce, running):
    result = uroce("stats", str(running("import sys; print('ready', flush=True); sys.stdin.read()")))
    assert result.returncode == 1 and "does not run under uroce" in result.stderr
    result = uroce("stats", "4194305")
    assert result.returncode == 1 and "there is no process 4194305" in result.stderr
    if os.geteuid() != 0:
        result = uroce("stats", "1")
        assert result.returncode == 1 and "own user" in result.stderr


@pytest.mark.parametrize("more", [-8, 8])
def test_another_versions_counters_are_not_misread(uroce, running, block_size, more):
    pid = running(HOLDER, block_size + more)
    result = uroce("stats", str(pid))
    assert result.returncode == 1 and "another version" in result.stderr
    result = uroce("resources")
    assert result.returncode == 0 and "another version" in result.stderr and not re.search(rf"^ *{pid} ", result.stdout, re.M)


CUTTER = """
import os, sys, threading
fd, size = os.memfd_create("uroce-counters"), int(sys.argv[1])
threading.Thread(target=lambda: (sys.stdin.read(), os._exit(0)), daemon=True).start()
print("ready", flush=True)
while True:
    os.ftruncate(fd, size)
    os.ftruncate(fd, 0)
"""


def test_a_block_that_is_cut_short_meanwhile_does_not_end_its_reader(uroce, running, block_size):
    """Whoever looks at all processes, as root does, looks at memory of anybody's."""
    pid = str(running(CUTTER, block_size))
    for _ in range(200):
        assert uroce("resources").returncode == 0
        assert uroce("stats", pid).returncode in (0, 1)


@pytest.mark.parametrize("args", [(), ("x",), ("1", "2"), ("-1",), ("1", "--jason"), ("99999999999999",)])
def test_stats_wants_one_process(uroce, args):
    result = uroce("stats", *args)
    assert result.returncode == 2 and "sage: uroce stats PID [--json]" in result.stderr


# ---- objects -----------------------------------------------------------------------------------------------------------


OBJECTS = ("ctx", "pd", "cq", "qp", "mr", "mw", "srq", "ah", "channel", "cm_id")

# The child ends with its standard input, which is the parent's; the parent on SIGTERM.
FAMILY = """
import os, sys
size = int(sys.argv[1])
fd = os.memfd_create("uroce-counters")
os.truncate(fd, size)
os.pwrite(fd, (3).to_bytes(8, "little"), size - 10 * 8)
child = os.fork()
if child:
    print("ready", flush=True)
    print(child, flush=True)
sys.stdin.read()
"""


def resources(run):
    """The objects of each process; other processes of this host may be among them."""
    result = run("resources", "--json")
    assert result.returncode == 0, result.stderr
    processes = json.loads(result.stdout)["processes"]
    assert all(set(process) == {"pid", "command", "objects", "ports"} and tuple(process["objects"]) == OBJECTS for process in processes)
    assert len({process["pid"] for process in processes}) == len(processes)
    return {process["pid"]: process for process in processes}


@pytest.mark.parametrize("args", [("x",), ("--jason",), ("--json", "--json"), ("1",)])
def test_resources_wants_nothing_more(uroce, args):
    result = uroce("resources", *args)
    assert result.returncode == 2 and "usage: uroce resources [--json]" in result.stderr


def test_a_block_that_a_child_has_inherited_counts_once(uroce, block_size):
    parent = subprocess.Popen([sys.executable, "-c", FAMILY, str(block_size)], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                              text=True)
    try:
        assert parent.stdout.readline() == "ready\n"
        child = int(parent.stdout.readline())
        first, other = sorted((parent.pid, child))  # not the parent, where the numbers have just begun anew
        found = resources(uroce)
        assert found[first]["objects"] == dict.fromkeys(OBJECTS, 0) | {"ctx": 3} and other not in found
        parent.terminate()
        parent.wait()
        found = resources(uroce)
        assert found[child]["objects"]["ctx"] == 3 and parent.pid not in found
    finally:
        parent.kill()
        parent.communicate()
    wait_until(lambda: child not in resources(uroce))


# ---- with the device ---------------------------------------------------------------------------------------------------


def preload():
    """A sanitized library needs its run-time library in unsanitized programs."""
    if not sanitized():
        return {}
    name = re.search(rb"lib(asan|tsan)\.so[.0-9]*", LIBRARY.read_bytes())[0].decode()
    path = subprocess.run(["gcc", f"-print-file-name={name}"], capture_output=True, text=True, check=True).stdout.strip()
    return {"LD_PRELOAD": path, "ASAN_OPTIONS": "detect_leaks=0"}


@needs_device
def test_the_device_is_there(device):
    result = device(DEVICES, **preload())
    assert result.returncode == 0 and re.search(r"\buroce0\b", result.stdout), result.stderr


@needs_device
@pytest.mark.skipif(not PINGPONG, reason="needs ibv_srq_pingpong")
def test_a_ping_pong_is_counted_and_captured(stand_in, tmp_path):
    env = environment(UROCE_LIBRARY=LIBRARY, **preload())
    base = [WRAPPER, "--capture", tmp_path / "%p.pcap", "--stats-json", PINGPONG, "-d", "uroce0", "-g", "0", "-q", "1",
            "-n", "100", "-p", free_port()]
    server = subprocess.Popen(base, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        # Its one line of local address comes before it listens.
        end = time.monotonic() + WAIT
        while True:
            client = subprocess.run([*base, "localhost"], env=env, capture_output=True, text=True, timeout=WAIT)
            if client.returncode == 0 or server.poll() is not None or time.monotonic() > end:
                break
            time.sleep(0.1)
        out, err = server.communicate(timeout=WAIT)
    finally:
        server.kill()
        server.communicate()
    assert client.returncode == 0 and server.returncode == 0, client.stderr + err
    for text in (client.stderr, err):
        counters = json.loads(text.splitlines()[-1])
        assert counters["tx_packets"] >= 200 and counters["rx_packets"] >= 200
    files = [path for path in tmp_path.glob("*.pcap") if path.stat().st_size > 24]
    assert len(files) == 2
    if shutil.which("tshark"):
        shown = subprocess.run(["tshark", "-n", "-r", files[0], "-T", "fields", "-e", "infiniband.bth.opcode"], capture_output=True,
                               text=True, check=True, env=environment(HOME=tmp_path)).stdout.split()
        # SENDs of 4096 bytes come whole or in parts, as the MTU is; 214 asks the peer for its tag, and 215 tells how long an answer waited.
        assert len(shown) >= 400 and set(shown) <= {"0", "1", "2", "4", "17", "214", "215"}


@needs_device
@pytest.mark.skipif(not PINGPONG, reason="needs ibv_srq_pingpong")
def test_objects_of_a_running_program_are_shown_until_it_ends(uroce):
    # A server that nobody comes to. Without --stats the wrapper has become it.
    server = subprocess.Popen([WRAPPER, PINGPONG, "-d", "uroce0", "-g", "0", "-q", "1", "-e", "-p", free_port()],
                              env=environment(UROCE_LIBRARY=LIBRARY, **preload()), stdout=subprocess.DEVNULL)
    try:
        there = dict.fromkeys(("ctx", "pd", "cq", "qp", "mr", "srq", "channel"), 1) | dict.fromkeys(("mw", "ah", "cm_id"), 0)
        wait_until(lambda: resources(uroce).get(server.pid, {}).get("objects") == there or server.poll() is not None)
        assert server.poll() is None
        command = "ibv_srq_pingpong"[:15]  # all that the kernel keeps of it
        assert resources(uroce)[server.pid]["command"] == command
        lines = uroce("resources").stdout.splitlines()
        assert lines[0].split() == ["pid", "command", *OBJECTS]
        line, = (line for line in lines if line.split()[:1] == [str(server.pid)])
        assert line.split()[1:] == [command, "1", "1", "1", "1", "1", "0", "1", "0", "1", "0"]
        end = next(i for i, line in enumerate(lines) if line.split()[:1] == ["all"])
        rows = [line.split() for line in lines[1:end]]
        assert lines[end].split() == ["all", *(str(sum(int(row[-len(OBJECTS) + i]) for row in rows)) for i in range(len(OBJECTS)))]
    finally:
        server.kill()
        server.wait()
    assert server.pid not in resources(uroce)
