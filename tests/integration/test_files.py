# SPDX-License-Identifier: Apache-2.0
"""securdma cp: trees to a server and back, what a client may do, and copies that are cut."""
import json
import os
import random
import signal

import pytest
from conftest import SECURDMA, STEP, Client, Configured, Process, Server, connect_json, run, serve_args, wait_until

EPOCHS = "--epoch-ms", "200", "--epoch-psns", "16384"


def cp_args(certs, port, *args, cert="client"):
    return [SECURDMA, "cp", "--ca", certs.cert("ca"), "--cert", certs.cert(cert), "--key", certs.key(cert), "--port", str(port), *map(str, args)]


def cp(certs, port, *args, expect=0, **more):
    result = run(*cp_args(certs, port, "--json", *args, **more))
    assert result.returncode == expect, result
    return dict(json.loads(result.stdout) if result.stdout else {}, stderr=result.stderr)


def remote(certs, path=""):
    return f"[{certs.host}]:{path}" if ":" in certs.host else f"{certs.host}:{path}"


def offering(folder, *more, rights="rw"):
    return ["--files-directory", str(folder), "--files-rights", rights, "--region-size", "1M", *more]


def make_tree(path):
    """Every kind of entry that a copy keeps, and names of any bytes."""
    (path / "sub" / "deep").mkdir(parents=True)
    (path / "sub" / "plain").write_text("text\n", encoding="ascii")
    (path / "sub" / "deep" / "large").write_bytes(random.Random(1).randbytes(3_000_001))
    (path / "empty").touch()
    with open(bytes(path) + b"/\xff \n*", "wb") as file:
        file.write(b"odd")
    with open(path / "sparse", "wb") as file:
        file.seek(30 << 20)
        file.write(b"end of the hole")
        file.truncate(50 << 20)
    os.chmod(path / "sub" / "plain", 0o640)
    os.utime(path / "sub" / "plain", ns=(1, 1_234_567_890_123_456_789))
    os.symlink("deep/large", path / "sub" / "link")
    os.mkdir(path / "none", 0o711)
    os.utime(path / "none", ns=(5, 5))


def describe(path):
    """All that a copy is to keep; of a sparse file also that it takes little room."""
    found = {}
    for folder, _, names in os.walk(bytes(path)):
        for name in [b".", *names]:
            full = os.path.join(folder, name)
            status = os.lstat(full)
            is_link = os.path.islink(full)
            content = os.readlink(full) if is_link else open(full, "rb").read() if os.path.isfile(full) else None
            kept = status.st_mode, status.st_mtime_ns
            found[os.path.relpath(full, bytes(path))] = content, kept, status.st_blocks * 512 < status.st_size / 2
    return found


@pytest.mark.parametrize("more", [(), ("--seal", "required", *EPOCHS)], ids=["plain", "sealed, with short epochs"])
def test_a_tree_goes_to_the_server_and_back(certs, device, start, tmp_path, more):
    (tmp_path / "files").mkdir()
    make_tree(tmp_path / "tree")
    server = start(Server, certs, device, *offering(tmp_path / "files", *more))
    answer = cp(certs, server.port, *more, "-r", tmp_path / "tree", remote(certs, "in/new"))
    assert describe(tmp_path / "files" / "in" / "new" / "tree") == describe(tmp_path / "tree")
    assert (answer["files"], answer["failed"], bool(answer["seal"])) == (5, 0, bool(more)), answer
    answer = cp(certs, server.port, *more, "-r", remote(certs, "in/new/tree"), tmp_path / "back")
    assert describe(tmp_path / "back" / "tree") == describe(tmp_path / "tree")
    assert answer["bytes"] < 4_000_000 < answer["bytes_kept"], answer
    assert cp(certs, server.port, *more, "-r", tmp_path / "tree", remote(certs, "in/new"))["unchanged"] == 5
    # A server with files is an echo server as well.
    assert connect_json(certs, server.port, *more, "-e", "send x")["code"] == 0
    server.stop()


def test_what_is_named_and_cannot_be_copied_is_a_failure(certs, device, start, tmp_path):
    (tmp_path / "files").mkdir()
    os.mkfifo(tmp_path / "fifo")
    server = start(Server, certs, device, *offering(tmp_path / "files"))
    answer = cp(certs, server.port, tmp_path / "fifo", "/proc/self/status", remote(certs), expect=9)
    assert "it is a FIFO" in answer["stderr"] and "it has content, but no size" in answer["stderr"], answer
    assert not os.listdir(tmp_path / "files")


def test_long_uploads_do_not_stall(certs, device, start, tmp_path):
    """Whenever the worker has moved as much as one turn takes, it must come again by itself."""
    (tmp_path / "files").mkdir()
    (tmp_path / "long").write_bytes(random.Random(2).randbytes(20_000_000))
    server = start(Server, certs, device, *offering(tmp_path / "files"))
    for _ in range(8):
        cp(certs, server.port, "--no-sync", "--timeout-ms", str(int(200 * STEP)), tmp_path / "long", remote(certs))
        os.unlink(tmp_path / "files" / "long")


def partial_size(folder):
    return max((entry.stat().st_size for entry in os.scandir(folder) if entry.name.startswith(".securdma-part-")), default=0)


@pytest.mark.parametrize("seed", range(4))
def test_a_copy_goes_on_after_either_end_was_killed(certs, device, start, tmp_path, seed):
    chance = random.Random(seed)
    size = 16_000_000
    files, source = tmp_path / "files", tmp_path / "large"
    files.mkdir()
    source.write_bytes(chance.randbytes(size))
    to_server, kill_server = seed % 2 == 0, seed >= 2
    target = files if to_server else tmp_path
    if not to_server:
        source.rename(files / "large")
    operands = (source, remote(certs)) if to_server else (remote(certs, "large"), tmp_path)
    options = offering(files, "--max-bytes-per-second", "4M", "--seal", "required")
    server = start(Server, certs, device, *options)
    client = start(Process, *cp_args(certs, server.port, "--seal", "required", "--max-bytes-per-second", "4M", *operands))
    cut = chance.randrange(1, size // 3)
    wait_until(lambda: partial_size(target) >= cut, "the copy does not begin")
    if kill_server:
        server.kill()
        assert client.wait() in (3, 7)
        server = start(Server, certs, device, *offering(files, "--seal", "required"))
    else:
        client.signal(signal.SIGKILL)
        client.process.wait(STEP)
        server.wait_status(connected=0)
        server.stop()
        server = start(Server, certs, device, *offering(files, "--seal", "required"))
    assert not (target / "large").exists()
    answer = cp(certs, server.port, "--seal", "required", *operands)
    assert answer["bytes_kept"] >= cut and answer["bytes"] + answer["bytes_kept"] == size, answer
    assert (files / "large").read_bytes() == (tmp_path / "large").read_bytes()
    assert partial_size(target) == 0


@pytest.mark.parametrize("kill_server", [False, True], ids=["client", "server"])
def test_files_that_have_their_names_are_whole_when_an_end_is_killed(certs, device, start, tmp_path, kill_server):
    chance = random.Random(kill_server)
    files, tree = tmp_path / "files", tmp_path / "tree"
    files.mkdir()
    for number in range(300):
        folder = tree / str(number // 50)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / str(number)).write_bytes(chance.randbytes(20000 + number))
    options = offering(files, "--max-bytes-per-second", "2M", "--seal", "required")
    server = start(Server, certs, device, *options)
    client = start(Process, *cp_args(certs, server.port, "--seal", "required", "-r", tree, remote(certs)))

    def done():
        return [path for path in (files / "tree").glob("*/*") if not path.name.startswith(".")]

    enough = chance.randrange(10, 60)
    wait_until(lambda: len(done()) >= enough, "no files come")
    if kill_server:
        server.kill()
        assert client.wait() in (3, 7)
    else:
        client.signal(signal.SIGKILL)
        client.process.wait(STEP)
        server.wait_status(connected=0)
        server.stop()
    assert len(done()) < 300
    for path in done():
        assert path.read_bytes() == (tree / path.relative_to(files / "tree")).read_bytes()
    before = len(done())
    server = start(Server, certs, device, *offering(files, "--seal", "required"))
    assert cp(certs, server.port, "--seal", "required", "-r", tree, remote(certs))["unchanged"] >= before
    assert describe(files / "tree") == describe(tree)


CONFIGURATION = """
[connection]
region-size = 1M
[files]
directory = {all}
rights = {rights}
[identity "client two"]
files-directory = {two}
files-rights = rw
files-quota = 1M
"""


def test_each_identity_has_its_folder_rights_and_quota(certs, device, start, tmp_path):
    everyone, two = tmp_path / "all", tmp_path / "two"
    everyone.mkdir()
    two.mkdir()
    (everyone / "given").write_text("given", encoding="ascii")
    (tmp_path / "mine").write_bytes(bytes(700_000))
    (tmp_path / "more").write_bytes(bytes(700_000))

    def text(rights):
        return CONFIGURATION.format(all=everyone, two=two, rights=rights)

    server = start(Configured, certs, device, tmp_path / "server.conf", text("r"))
    cp(certs, server.port, remote(certs, "given"), tmp_path / "got")
    answer = cp(certs, server.port, tmp_path / "mine", remote(certs), expect=1)
    assert "does not let you write" in answer["text"] and not (everyone / "mine").exists(), answer
    cp(certs, server.port, tmp_path / "mine", remote(certs), cert="client2")
    assert (two / "mine").exists()
    answer = cp(certs, server.port, tmp_path / "more", tmp_path / "got" / "given", remote(certs), cert="client2", expect=9)
    assert "more: the quota" in answer["stderr"] and (two / "given").exists() and not (two / "more").exists(), answer
    answer = cp(certs, server.port, remote(certs, "given"), tmp_path / "got2", expect=0)
    server.reload(text("none"))
    answer = cp(certs, server.port, remote(certs, "given"), tmp_path / "got3", expect=5)
    assert "neither read nor write" in answer["text"], answer
    server.reload(text("rw").replace(str(two), str(tmp_path / "missing")), "server.reload_failed")
    server.reload(text("rw"))
    cp(certs, server.port, tmp_path / "mine", remote(certs))
    assert {event["direction"] for event in server.events("client.copied")} == {"to", "from"}
    assert server.events("client.copy_failed")[0]["security"]
    server.stop()


def test_a_folder_that_comes_by_a_reload_waits_for_the_next_start(certs, device, start, tmp_path):
    for name in ("one", "one/below", "other"):
        (tmp_path / name).mkdir()
    (tmp_path / "x").touch()

    def text(folder):
        return f"[connection]\nregion-size = 1M\n[files]\ndirectory = {tmp_path}/{folder}\nrights = rw\n"

    server = start(Configured, certs, device, tmp_path / "server.conf", text("one"))
    for _ in range(2):
        server.reload(text("other"))
        assert server.events("log")[-1]["message"].endswith("other yet: [files] takes effect at the next start"), server.log()
    cp(certs, server.port, tmp_path / "x", remote(certs))
    assert (tmp_path / "one" / "x").exists() and not (tmp_path / "other" / "x").exists()
    server.reload(text("one/below"))
    cp(certs, server.port, tmp_path / "x", remote(certs))
    assert (tmp_path / "one" / "below" / "x").exists()
    server.stop()


def test_a_client_gets_nothing_beyond_its_folder(certs, device, start, tmp_path):
    files = tmp_path / "files"
    files.mkdir()
    (tmp_path / "secret").write_text("secret", encoding="ascii")
    os.symlink("../secret", files / "link")
    os.symlink("..", files / "up")
    (files / "good").write_text("good", encoding="ascii")
    server = start(Server, certs, device, *offering(files))
    answer = cp(certs, server.port, remote(certs, "link"), remote(certs, "up/secret"), remote(certs, "good"), tmp_path / "got", expect=9)
    assert "up/secret: cannot open it: a part of its path is not a folder, or is a link" in answer["stderr"], answer
    assert "link: the link leads out" in answer["stderr"], answer
    assert os.listdir(tmp_path / "got") == ["good"]
    answer = cp(certs, server.port, tmp_path / "secret", remote(certs, "up"), expect=1)
    assert "the folder cannot be used" in answer["text"], answer
    (tmp_path / "secret").write_text("new", encoding="ascii")
    cp(certs, server.port, tmp_path / "secret", remote(certs))
    os.replace(files / "secret", files / "link")
    assert (tmp_path / "secret").read_text(encoding="ascii") == "new"
    server.stop()


def test_what_cannot_be_copied_is_said_and_the_exit_code_tells(certs, device, start, tmp_path):
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "taken").mkdir()
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "taken").write_text("x", encoding="ascii")
    (tmp_path / "a" / "good").write_text("x", encoding="ascii")
    os.mkfifo(tmp_path / "a" / "fifo")
    server = start(Server, certs, device, *offering(tmp_path / "files"))
    answer = cp(certs, server.port, "-r", f"{tmp_path}/a/.", remote(certs), expect=9)
    assert (answer["failed"], answer["left_out"]) == (1, 1), answer
    assert {error["name"]: error["text"] for error in answer["errors"]} == {
        "taken": "a folder of this name is there", "fifo": "not copied: it is a FIFO"}
    assert (tmp_path / "files" / "good").exists()
    answer = cp(certs, server.port, tmp_path / "a", remote(certs), expect=9)
    assert "a: it is a folder; -r copies folders" in answer["stderr"]
    server.stop()


def stopped_copy(certs, device, start, tmp_path, *more):
    """A server with one worker and room for one copy, whose client has stopped in the middle."""
    (tmp_path / "files").mkdir()
    (tmp_path / "large").write_bytes(bytes(50_000_000))
    server = start(Server, certs, device, *offering(tmp_path / "files", "--workers", "1", "--seal", "required", "--max-bytes-per-second", "10M",
                                                    "--files-copies", "1", "--log-format", "json", *more))
    neighbour = start(Client, certs, server.port, "--seal", "required", cert="client2")
    client = start(Process, *cp_args(certs, server.port, "--seal", "required", tmp_path / "large", remote(certs)))
    wait_until(lambda: partial_size(tmp_path / "files") > 0, "the copy does not begin")
    client.signal(signal.SIGSTOP)
    return server, neighbour, client


def test_a_client_that_stops_holds_no_neighbour(certs, device, start, tmp_path):
    server, neighbour, client = stopped_copy(certs, device, start, tmp_path)
    neighbour.ask("send x", f"client {neighbour.id}: x")
    answer = cp(certs, server.port, "--seal", "required", "--busy-retry-ms", "0", tmp_path / "large", remote(certs), expect=5)
    assert "as many copies" in answer["text"], answer
    client.signal(signal.SIGKILL)
    neighbour.leave()
    server.wait_status(connected=0)
    server.stop()


def test_a_client_that_stops_holds_no_thread(certs, device, start, tmp_path):
    server, neighbour, client = stopped_copy(certs, device, start, tmp_path, "--timeout-ms", "1500")
    wait_until(lambda: server.events("client.copy_failed"), "the copy's thread does not end")
    neighbour.ask("send x", f"client {neighbour.id}: x")
    client.signal(signal.SIGKILL)
    neighbour.leave()
    server.wait_status(connected=0)
    server.stop()


@pytest.mark.parametrize("args, words", [
    (["a"], "give at least one FILE and a target"),
    (["a", "b"], "either the files or the target must be HOST:PATH"),
    (["h:a", "h:b"], "either the files or the target must be HOST:PATH"),
    (["h:a", "g:b", "."], "all paths of one copy must be of one server"),
    (["h:/etc/passwd", "."], "without '/' in front"),
    (["h:a/../b", "."], "no '.', '..' or empty part"),
    (["h:.securdma-part-0", "."], "no '.', '..'"),
    (["h:a", ".", "--progress", "loud"], "give one of auto, bar, plain, none"),
    (["h:a", "."], "give --ca or --pin"),
    (["h:" + "a" * 256, "."], "longer than 255 bytes"),
])
def test_bad_input_is_a_clear_error(args, words):
    result = run(SECURDMA, "cp", *args)
    assert result.returncode == 2 and words in result.stderr, result


def test_bad_settings_of_files_are_clear_errors(certs, device, tmp_path):
    for args, words in [(["--files-directory", "relative"], "give an absolute path"),
                        (["--files-directory", f"{tmp_path}/missing"], "cannot open the folder"),
                        (["--files-directory", str(tmp_path), "--region-size", "0"], "set region-size to 4096 or more"),
                        (["--files-directory", str(tmp_path), "--region-access", "r"], "region-access to rw or w"),
                        (["--files-rights", "x"], "one of rwd, rw, r, wd, w, none"), (["--files-copies", "0"], "from 1 to 256")]:
        result = run(*serve_args(certs, device, *args))
        assert result.returncode == 2 and words in result.stderr, result


def test_a_server_without_files_says_so(certs, device, start, tmp_path):
    (tmp_path / "x").touch()
    server = start(Server, certs, device)
    answer = cp(certs, server.port, tmp_path / "x", remote(certs), expect=5)
    assert "does not offer the service" in answer["text"], answer
    server.stop()


def test_progress_is_told_in_lines(certs, device, start, tmp_path):
    (tmp_path / "files").mkdir()
    (tmp_path / "large").write_bytes(bytes(5_000_000))
    server = start(Server, certs, device, *offering(tmp_path / "files", "--max-bytes-per-second", "3M", "--seal", "required"))
    result = run(*cp_args(certs, server.port, "--seal", "required", "--progress", "plain", tmp_path / "large", remote(certs)))
    assert result.returncode == 0 and "% " in result.stderr and " of 5.0 MB" in result.stderr and "left" in result.stderr, result
    assert result.stdout.startswith("1 file, 0 folders, 0 links: 5.0 MB in "), result
    result = run(*cp_args(certs, server.port, "--seal", "required", "--quiet", tmp_path / "large", remote(certs)))
    assert (result.returncode, result.stdout, result.stderr) == (0, "", ""), result
    server.stop()
