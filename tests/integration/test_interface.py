# SPDX-License-Identifier: Apache-2.0
"""A program and a library of different versions, and the examples as a user runs them."""
import os
import pathlib
import re
import shlex
import subprocess

import pytest

from conftest import BUILD, EXAMPLES, ON_UROCE, ROOT, SCALE, SECURDMA, UROCE_LIBRARY, Process, Server, free_port, left_out_of, run, wait_until

SOURCES = pathlib.Path(ROOT, "src")
FLAGS = ["-std=gnu11", "-O0", "-g0", "-w", "-D_GNU_SOURCE"]


# ---- programs and libraries whose structures differ ----------------------------------------------------------------------


def compile_with(*arguments):
    verbs = subprocess.run(["pkg-config", "--cflags", "libibverbs"], capture_output=True, text=True, check=True).stdout
    done = subprocess.run([*shlex.split(os.environ.get("CC", "cc")), *FLAGS, *map(str, arguments), *shlex.split(verbs)],
                          capture_output=True, text=True, timeout=300 * SCALE)
    assert done.returncode == 0, done.stderr


def grow(headers, folder):
    """Copies the headers, with four more fields at the end of each structure that begins with its size. Returns how many there are."""
    folder.mkdir()
    count = 0
    for header in headers.glob("*.h"):
        text, n = re.subn(r"^(struct \w+ \{\n\tsize_t size;.*?\n)(\};)", r"\1\tuint64_t grown[4];\n\2", header.read_text(encoding="utf-8"),
                          flags=re.M | re.S)
        count += n
        (folder / header.name).write_text(text, encoding="utf-8")
    return count


# It compiles the library itself, without sanitizers; and the machine with the kernel's device has no compiler.
@left_out_of("asan", "tsan", "vm")
@pytest.mark.limit(600)
def test_program_and_library_of_other_sizes_work_together(device, tmp_path):
    headers = {"today": pathlib.Path(ROOT, "include"), "grown": tmp_path / "include"}
    assert grow(headers["today"], headers["grown"]) >= 25
    libraries = {"today": os.path.join(BUILD, "src"), "grown": tmp_path / "lib"}
    libraries["grown"].mkdir()
    folders = {source.parent for source in SOURCES.rglob("*.h")}
    compile_with("-shared", "-fPIC", "-fvisibility=hidden", '-DSRDMA_VERSION="9.9.9"', f"-I{headers['grown']}", *(f"-I{f}" for f in folders),
                 f"-Wl,--version-script={SOURCES}/libsecurdma.map", "-Wl,-soname,libsecurdma.so.0", "-Wl,-z,nodelete", *SOURCES.rglob("*.c"),
                 "-o", libraries["grown"] / "libsecurdma.so.0", "-libverbs", "-lssl", "-lcrypto", "-lpthread")
    for program in headers:
        compile_with(f"-I{headers[program]}", *(["-DGROWN"] if program == "grown" else []), pathlib.Path(ROOT, "tests/integration/grown.c"), "-o",
                     tmp_path / program, f"{BUILD}/src/libsecurdma.so", f"-Wl,-rpath-link,{BUILD}/src")
    address, said = device.ipv4, set()
    for program in headers:
        for library, folder in libraries.items():
            which = "same" if program == library else "older" if library == "today" else "newer"
            work = tmp_path / f"{program}-{library}"
            work.mkdir()
            env = dict(os.environ, LD_LIBRARY_PATH=str(folder), **({"LD_PRELOAD": UROCE_LIBRARY} if ON_UROCE else {}))
            result = run(tmp_path / program, work, address, which, env=env)
            assert result.returncode == 0, f"{program} program, {library} library: {result.stdout}{result.stderr}"
            said.add(result.stdout)
    # Two libraries, and two sizes.
    assert len(said) == 4, said


# ---- examples --------------------------------------------------------------------------------------------------------------


@pytest.fixture
def start():
    processes = []

    def begin(kind, *args, **more):
        processes.append(kind(*args, **more))
        return processes[-1]

    yield begin
    for process in processes:
        process.close()


def example(name):
    return os.path.join(EXAMPLES, f"example-{name}")


CLIENTS = [name for name in ("client", "client-cxx") if os.path.exists(example(name))]


def run_until_it_connects(server, *args, cwd):
    """The other end says nothing when it listens."""
    def attempt():
        assert server.process.poll() is None, server.log()
        result = run(*args, cwd=cwd)
        refused = "refused" in result.stderr
        return None if refused else result

    return wait_until(attempt, lambda: f"a connection\n{server.log()}")


@pytest.mark.parametrize("client", CLIENTS)
def test_example_client_talks_to_the_command(client, certs, device, start):
    server = start(Server, certs, device)
    result = run(example(client), certs.host, server.port, cwd=certs.folder)
    assert (result.stdout, result.stderr, result.returncode) == ("echo: hello, region: world\n", "", 0)
    server.wait_status(connected=0, accepted=1, lost=0)


@pytest.mark.parametrize("client", CLIENTS)
def test_example_server_answers_the_example_client(client, certs, device, start):
    port = str(free_port(certs.host))
    server = start(Process, example("server"), port, cwd=certs.folder, stdin=subprocess.PIPE)
    result = run_until_it_connects(server, example(client), certs.host, port, cwd=certs.folder)
    assert (result.stdout, result.stderr, result.returncode) == ("echo: hello, region: world\n", "", 0)
    server.process.stdin.close()
    assert server.wait() == 0, server.log()


def test_example_raw_writes_with_a_work_request_of_its_own(certs, device, start):
    port = str(free_port(certs.host))
    accepting = start(Process, example("raw"), port, cwd=certs.folder)
    result = run_until_it_connects(accepting, example("raw"), certs.host, port, cwd=certs.folder)
    assert (result.stdout, result.stderr, result.returncode) == ("", "", 0)
    assert accepting.wait() == 0, accepting.log()
    assert [line for line in accepting.lines if line is not None] == ["the peer wrote: written by a work request of my own"]


def test_example_offers_a_file_to_its_clients(certs, device, start, tmp_path):
    port, text = str(free_port(certs.host)), "".join(f"line {i}\n" for i in range(30000))
    (tmp_path / "file").write_text(text, encoding="ascii")
    serving = start(Process, example("memory"), port, tmp_path / "file", cwd=certs.folder)
    first = run_until_it_connects(serving, example("memory"), "get", certs.host, port, cwd=certs.folder)
    for result in (first, run(example("memory"), "get", certs.host, port, cwd=certs.folder)):
        assert (result.stdout == text, result.stderr, result.returncode) == (True, "", 0)
    serving.process.terminate()
    assert serving.wait() == 0, serving.log()


@pytest.mark.skipif(not os.path.exists(example("event")), reason="libevent is not installed")
@pytest.mark.parametrize("seal", ["off", "required"])
def test_example_in_an_event_loop(certs, device, start, seal):
    server = start(Server, certs, device, "--seal", seal)
    result = run(example("event"), certs.host, server.port, cwd=certs.folder)
    if seal == "off":
        assert (result.stdout, result.stderr, result.returncode) == ("".join(f"echo: {i}\n" for i in range(5)), "", 0)
        server.wait_status(connected=0, accepted=1, lost=0)
    else:
        assert result.returncode == 1 and "sealed" in result.stderr, result


@pytest.mark.skipif(not os.path.exists(example("hello")), reason="there is no compiler for C++")
def test_example_in_cxx(certs, device, start):
    server = start(Server, certs, device)
    result = run(example("hello"), certs.host, server.port, cwd=certs.folder)
    assert (result.stdout, result.stderr, result.returncode) == ("echo: hello\n", "", 0)
    server.wait_status(connected=0, accepted=1, lost=0)


def test_example_with_many_connections_in_one_loop(certs, device, start):
    server = start(Server, certs, device, "--max-clients", "40")
    result = run(example("epoll"), certs.host, server.port, 10, cwd=certs.folder)
    assert (result.stdout, result.stderr, result.returncode) == ("60 messages echoed\n", "", 0)
    server.wait_status(connected=0, accepted=20, lost=0)


def test_example_reads_the_table_of_a_server(certs, device, start):
    port = str(free_port(certs.host))
    server = start(Process, example("kv"), port, cwd=certs.folder, stdin=subprocess.PIPE)
    for args, said in ((("set", "colour", "blue"), "blue"), (("get", "colour"), "blue"), (("get", "size"), "not set"),
                       (("set", "colour", "green"), "green"), (("get", "colour"), "green")):
        result = run_until_it_connects(server, example("kv"), certs.host, port, *args, cwd=certs.folder)
        assert (result.stdout, result.stderr, result.returncode) == (f"{said}\n", "", 0), args
    server.process.stdin.close()
    assert server.wait() == 0, server.log()


def test_example_ranks_of_a_ring_leave_at_once(certs, device, start, tmp_path):
    """Each is a server of one rank and a client of another, with one certificate."""
    for args in (["ca"], ["peer", "--name", certs.host]):
        assert run(SECURDMA, "cert", *args, cwd=tmp_path).returncode == 0
    ports = [str(free_port(certs.host)) for _ in range(4)]
    ranks = [start(Process, example("ring"), number, certs.host, *ports, cwd=tmp_path) for number in range(4)]
    for number, rank in enumerate(ranks):
        assert rank.wait() == 0, rank.log()
        assert rank.log() == ""
        assert rank.lines == ["0123" if number == 0 else "0123"[:number + 1], None]


def test_examples_say_what_is_missing(certs, device, tmp_path):
    """In a folder without certificates."""
    for name, args in (("server", ["0"]), ("raw", ["0"]), ("memory", ["0", __file__]), ("client", [certs.host]), ("link", [f"{certs.host}:1"]),
                       ("event", [certs.host, "1"]), ("epoll", [certs.host, "1", "1"]), ("hello", [certs.host, "1"]),
                       ("kv", ["0"]), ("kv", [certs.host, "1", "get", "x"]), ("ring", ["0", certs.host, "1"])):
        if not os.path.exists(example(name)):
            continue
        result = run(example(name), *args, cwd=tmp_path)
        assert result.returncode == 1 and result.stdout == "", name
        assert re.match(rf"{name}: .*(ca|server|client)\.crt", result.stderr), result.stderr
