# SPDX-License-Identifier: Apache-2.0
"""The package for Python, and the examples in it; python_*.py have the details."""
import ast
import os
import pathlib
import re
import subprocess

import pytest

from conftest import EXAMPLES, PYTHON, ROOT, Process, Server, in_python, left_out_of, python, resources, run, wait_for_resources

HERE = pathlib.Path(ROOT, "tests", "integration")
# An interpreter that is not made for ThreadSanitizer.
pytestmark = [left_out_of("tsan"), pytest.mark.skipif(not os.path.exists(PYTHON), reason="cffi or the headers of Python are not installed")]


def behaviours():
    """The functions of the programs."""
    for program in sorted(set(HERE.glob("python_*.py")) - {HERE / "python_rig.py"}):
        for node in ast.parse(program.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.FunctionDef) and not node.name.startswith("_") and node.name != "none_is_missing":
                # AddressSanitizer looks at what lies in memory, and keeps all that was freed.
                marks = [] if program.name in ("python_data.py", "python_memory.py", "python_objects.py", "python_server.py") and node.name != "nothing_leaks" else [left_out_of("asan")]
                yield pytest.param(program.name, node.name, marks=marks, id=f"{program.stem}-{node.name}")


def probe(certs, device, program, name):
    before = resources(device)
    result = python(str(HERE / program), certs.folder, certs.host, name)
    assert result.returncode == 0 and result.stdout == "done\n", f"{result.returncode}\n{result.stdout}{result.stderr}"
    wait_for_resources(device, before)
    return result.stderr


@pytest.mark.parametrize("program, name", behaviours())
def test_program_in_python_finds_that(certs, device, program, name):
    probe(certs, device, program, name)


def declared():
    """Name and arguments of every function of the public headers."""
    text = "".join(header.read_text(encoding="utf-8") for header in pathlib.Path(ROOT, "include").glob("*.h"))
    return dict(re.findall(r"^SRDMA_(?:API|INLINE)\s[^;{}()]*?\b(srdma_\w+)\((.*?)\)\s*[;{]", re.sub(r"/\*.*?\*/", "", text, flags=re.S), flags=re.M | re.S))


@left_out_of("asan")
def test_signals_are_handled_in_every_call_that_waits(certs, device, monkeypatch, tmp_path):
    (tmp_path / "timed").write_text("\n".join(name for name, arguments in declared().items() if "timeout_ms" in arguments), encoding="ascii")
    monkeypatch.setenv("SECURDMA_TIMED", str(tmp_path / "timed"))
    probe(certs, device, "python_interrupt.py", "none_is_missing")


def test_every_function_is_bound_or_said_not_to_be():
    names = {name for name in declared() if not name.endswith("_sized")}
    package = "".join(path.read_text(encoding="utf-8") for path in pathlib.Path(ROOT, "python", "securdma").glob("*.py"))
    package += pathlib.Path(ROOT, "python", "helpers.h").read_text(encoding="utf-8")
    bound = {name for name in names if re.search(rf"\b{name}\b", package)}
    table = re.search(r"## What is not bound\n(.*?)\n## ", pathlib.Path(ROOT, "python", "README.md").read_text(encoding="utf-8"), re.S)[1]
    listed = re.findall(r"`(srdma_\w+|srdma_\*_init)`", table)
    unbound = {name for name in names for pattern in listed if re.fullmatch(pattern.replace("*", r"\w+"), name)}
    assert names - bound == unbound - bound, (names - bound) ^ (unbound - bound)
    assert not bound & {name for name in listed if "*" not in name}


@left_out_of("asan")
def test_control_messages_go_on_in_epochs_of_a_sealed_server(certs, device, monkeypatch):
    monkeypatch.setenv("SECURDMA_PROBE_SEAL", "1")
    monkeypatch.setenv("SECURDMA_PROBE_EPOCH_MS", "100")
    probe(certs, device, "python_data.py", "server_answers_control_messages")


# ---- examples --------------------------------------------------------------------------------------------------------------


def example(name):
    return os.path.join(ROOT, "examples", f"{name}.py")


@left_out_of("asan")
def test_example_client_in_python_talks_to_the_command(certs, device, start):
    server = start(Server, certs, device)
    result = python(example("client"), certs.host, str(server.port), cwd=certs.folder)
    assert (result.stdout, result.stderr, result.returncode) == ("echo: hello, region: world\n", "", 0)
    server.wait_status(connected=0, accepted=1, lost=0)


@left_out_of("asan")
def test_example_server_in_python_answers_clients_of_both_languages(certs, device, start):
    server = start(Process, *in_python(example("server"), "0"), cwd=certs.folder, stdin=subprocess.PIPE)
    port = server.wait_line(lambda line: line.startswith("listening on port ")).split()[-1]
    for command in ([os.path.join(EXAMPLES, "example-client")], in_python(example("client"))):
        result = run(*command, certs.host, port, cwd=certs.folder)
        assert (result.stdout, result.stderr, result.returncode) == ("echo: hello, region: world\n", "", 0)
    server.wait_line(lambda line: line == "client one has gone: in order")
    server.process.stdin.close()
    assert server.wait() == 0, server.log()
    assert "INFO:securdma:client 1: connected" in server.log() and "Traceback" not in server.log()


@left_out_of("asan")
def test_example_in_the_event_loop_of_asyncio(certs, device, start):
    server = start(Server, certs, device)
    result = python(example("asyncio_client"), certs.host, str(server.port), cwd=certs.folder)
    assert (result.stderr, result.returncode) == ("", 0)
    assert sorted(result.stdout.splitlines()) == sorted(f"echo: {word} of client {number}" for word in range(5) for number in range(3))
    server.wait_status(connected=0, accepted=3, lost=0)


@left_out_of("asan")
def test_first_program_of_the_readme(certs, device, start, tmp_path):
    text = pathlib.Path(ROOT, "python", "README.md").read_text(encoding="utf-8")
    program = tmp_path / "first.py"
    server = start(Server, certs, device)
    program.write_text(re.search(r"```python\n(.*?)```", text, re.S)[1].replace('"localhost"', f'"{certs.host}", {server.port}'), encoding="utf-8")
    result = python(str(program), cwd=certs.folder)
    assert (result.stdout, result.stderr, result.returncode) == ("b'hello'\nb'world'\n['read'] b'world'\n", "", 0)


@left_out_of("asan")
def test_examples_in_python_say_what_is_missing(certs, tmp_path):
    for name, args in (("client", [certs.host]), ("server", ["0"]), ("asyncio_client", [certs.host, "1"])):
        result = python(example(name), *args, cwd=tmp_path)
        assert result.returncode == 1 and re.match(rf"{name}: .*(ca|server|client)\.crt", result.stderr), result.stderr
