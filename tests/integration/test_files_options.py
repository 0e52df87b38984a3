# SPDX-License-Identifier: Apache-2.0
"""securdma cp as users of cp, scp and rsync expect it: what it says and counts, what it keeps, and its options."""
import json
import os
import resource
import signal
import time

import pytest
from conftest import SECURDMA, Configured, Process, Server, left_out_of, run, wait_until
from test_files import cp, cp_args, offering, partial_size, remote


@pytest.fixture
def rig(certs, device, start, tmp_path):
    """A server's folder, a tree, and a function that copies."""
    class Rig:
        files, tree, path = tmp_path / "files", tmp_path / "tree", tmp_path

        def serve(self, *more, rights="rwd"):
            self.server = start(Server, certs, device, *offering(self.files, *more, rights=rights))
            return self.server

        def write(self, **contents):
            for name, content in contents.items():
                path = tmp_path / name.replace("__", "/")
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(content, encoding="ascii")

        def to(self, *args, expect=0, **more):
            return cp(certs, self.server.port, *args, remote(certs), expect=expect, **more)

        def back(self, name, *args, expect=0, target="back"):
            return cp(certs, self.server.port, *args, remote(certs, name), tmp_path / target, expect=expect)

        def background(self, *args):
            return start(Process, *cp_args(certs, self.server.port, *args))

        def remote(self, path=""):
            return remote(certs, path)

        def text(self, *args):
            return run(*cp_args(certs, self.server.port, *args))

    made = Rig()
    made.files.mkdir()
    return made


def names(path):
    return sorted(str(found.relative_to(path)) for found in path.rglob("*"))


# ---- what is said and counted -----------------------------------------------------------------------------------------


def test_what_failed_is_not_counted_as_done_and_a_folder_fails_with_one_message(rig):
    rig.write(tree__d__x="x", tree__d__e__y="y", tree__good="g", files__tree__d="a file")
    os.symlink("x", rig.tree / "d" / "l")
    os.symlink("/etc", rig.tree / "away")
    rig.serve()
    answer = rig.to("-r", rig.tree, expect=9)
    assert (answer["files"], answer["folders"], answer["links"], answer["failed"], answer["left_out"]) == (1, 1, 0, 5, 1), answer
    assert sorted(error["name"] for error in answer["errors"]) == ["tree/away", "tree/d"], answer
    assert answer["stderr"].count("not a folder") == 1
    # The same from the server.
    (rig.path / "back").mkdir()
    (rig.path / "back" / "tree").write_text("a file", encoding="ascii")
    answer = rig.back("tree", "-r", expect=9)
    assert (answer["files"], answer["folders"], len(answer["errors"])) == (0, 0, 1), answer


def test_partial_files_of_a_source_are_told(rig):
    rig.write(tree__x="x")
    (rig.tree / ".securdma-part-00").touch()
    rig.serve()
    answer = rig.to("-r", rig.tree)
    assert answer["left_out"] == 1 and "the partial file of another copy" in answer["stderr"], answer
    assert names(rig.files) == ["tree", "tree/x"]


@pytest.mark.parametrize("args", [["--jason", "--json"], ["--json", "a"], ["--json", "/no/such/file", "h:"], ["a", "h:", "--json"]])
def test_json_also_tells_of_an_error_of_usage(args):
    result = run(SECURDMA, "cp", *args)
    answer = json.loads(result.stdout)
    assert answer["ok"] is False and answer["exit"] == result.returncode != 0 and answer["text"], answer
    assert answer["text"].splitlines()[0] in result.stderr


@pytest.mark.parametrize("number, code", [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_a_copy_with_a_word(rig, number, code):
    (rig.path / "large").write_bytes(bytes(50_000_000))
    rig.serve()
    client = rig.background("--json", "--limit-rate", "1M", rig.path / "large", rig.remote())
    wait_until(lambda: partial_size(rig.files) > 0, "the copy does not begin")
    client.signal(number)
    assert client.wait() == code
    answer = json.loads(client.lines[0])
    assert (answer["ok"], answer["exit"]) == (False, code) and "interrupted" in answer["text"], answer
    rig.server.wait_status(connected=0)


def test_a_signal_ends_the_wait_for_a_busy_server(rig):
    (rig.path / "large").write_bytes(bytes(50_000_000))
    rig.serve("--files-copies", "1")
    first = rig.background("--limit-rate", "1M", rig.path / "large", rig.remote())
    wait_until(lambda: partial_size(rig.files) > 0, "the copy does not begin")
    second = rig.background("--busy-retry-ms", "3600000", "--log-level", "info", rig.path / "large", rig.remote("other"))
    second.wait_log("is busy; trying again")
    second.signal(signal.SIGINT)
    assert second.wait() == 130
    first.signal(signal.SIGINT)
    assert first.wait() == 130


def test_copies_beyond_the_limit_wait_for_their_turn(rig):
    for number in range(6):
        (rig.path / str(number)).write_bytes(bytes(300_000))
    rig.serve("--files-copies", "1")
    clients = [rig.background("--json", "--busy-retry-ms", "60000", rig.path / str(number), rig.remote()) for number in range(6)]
    assert [client.wait() for client in clients] == [0] * 6
    assert names(rig.files) == list("012345")


# ---- what is kept -----------------------------------------------------------------------------------------------------


def test_modes_times_of_links_and_set_gid_are_what_users_expect(rig):
    rig.write(tree__x="x", tree__sub__y="y")
    os.chmod(rig.tree / "x", 0o640)
    os.symlink("x", rig.tree / "link")
    os.utime(rig.tree / "link", (5, 5), follow_symlinks=False)
    rig.files.chmod(0o2775)
    rig.serve()
    cp_to = rig.remote("new/deep")
    assert rig.text("-r", rig.tree, cp_to).returncode == 0
    target = rig.files / "new" / "deep"
    # Folders that the command line names are made as mkdir makes them; those of the tree have the source's modes.
    mask = os.umask(0)
    os.umask(mask)
    assert target.stat().st_mode & 0o7777 == 0o2777 & ~mask
    assert (target / "tree" / "sub").stat().st_mode & 0o7777 == 0o2000 | (rig.tree / "sub").stat().st_mode & 0o777
    assert (target / "tree" / "link").lstat().st_mtime == 5
    # A file that is the same otherwise still gets a new mode.
    os.chmod(rig.tree / "x", 0o600)
    assert "3 unchanged" not in rig.text("-r", rig.tree, cp_to).stdout
    assert (target / "tree" / "x").stat().st_mode & 0o777 == 0o600


# ---- options ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("to_server", [True, False], ids=["to the server", "from it"])
def test_checksum_compares_contents(rig, to_server):
    rig.write(tree__same="1234", tree__changed="1234", tree__touched="1234", tree__empty="", files__tree__same="1234",
              files__tree__changed="4321", files__tree__touched="1234", files__tree__empty="")
    source, target = (rig.tree, rig.files / "tree") if to_server else (rig.files / "tree", rig.tree)
    for folder in (source, target):
        for name in ("same", "changed"):
            os.utime(folder / name, (1000, 1000))
    os.utime(target / "touched", (7, 7))
    rig.serve()

    def copy(*args):
        return rig.to("-r", *args, rig.tree) if to_server else rig.back("tree", "-r", *args, target=".")

    copy()
    assert (target / "changed").read_text() != (source / "changed").read_text()
    os.utime(target / "touched", (7, 7))
    answer = copy("--checksum")
    assert (target / "changed").read_text() == (source / "changed").read_text()
    assert (answer["files"], answer["unchanged"], answer["bytes"]) == (4, 3, 4), answer
    assert (target / "touched").stat().st_mtime_ns == (source / "touched").stat().st_mtime_ns
    assert copy("--checksum")["unchanged"] == 4


@pytest.mark.parametrize("to_server", [True, False], ids=["to the server", "from it"])
def test_delete_makes_the_target_as_the_source(rig, to_server):
    source, target = (rig.tree, rig.files) if to_server else (rig.files, rig.tree)
    outside = rig.path / "outside"
    rig.write(outside__precious="p")
    for name in ("kept", "sub/kept"):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).touch()
    for name in ("gone", "sub/gone", "gone-too/deep/x", "sub/kept.log"):
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        (target / name).touch()
    os.symlink(outside, target / "sub" / "link")
    rig.serve()

    def copy(*args):
        args = "-r", "--delete", "--exclude", "*.log", *args
        return rig.to(*args, f"{rig.tree}/.") if to_server else rig.back("", *args, target="tree")

    before = names(target)
    answer = copy("--dry-run")
    assert names(target) == before and answer["dry_run"] is True, answer
    would = {(change["action"], change["name"]) for change in answer["changes"]}
    answer = copy()
    assert names(target) == ["kept", "sub", "sub/kept", "sub/kept.log"]
    assert (outside / "precious").exists()
    assert answer["deleted"] == 6 and would == {
        ("copy", "kept"), ("copy", "sub/kept"), ("delete", "gone"), ("delete", "sub/gone"), ("delete", "sub/link"),
        ("delete", "gone-too"), ("delete", "gone-too/deep"), ("delete", "gone-too/deep/x")}, answer


@left_out_of("asan")
def test_delete_needs_its_right_and_all_of_the_source(rig):
    rig.write(tree__x="x", files__tree__old="o")
    rig.serve(rights="rw")
    answer = rig.to("-r", "--delete", rig.tree, expect=1)
    assert "your rights lack the letter d" in answer["text"] and names(rig.files) == ["tree", "tree/old"], answer
    rig.server.stop()
    rig.serve()
    # What the source cannot tell might be what would be deleted.
    deep = rig.tree / "deep"
    for _ in range(201):
        deep.mkdir()
        deep = deep / "d"
    answer = rig.to("-r", "--delete", rig.tree, expect=9)
    assert "not everything was deleted" in answer["stderr"] and (rig.files / "tree" / "old").exists(), answer
    answer = rig.to("-r", "--delete", "--exclude", "deep/", rig.tree)
    assert answer["deleted"] >= 1 and not (rig.files / "tree" / "old").exists(), answer


@pytest.mark.parametrize("args, words", [
    (["--delete", "a", "h:"], "--delete needs -r"), (["-r", "--delete", "h:a/x", "h:b/x", "."], "go to the same name"),
    (["-r", "--delete", "h:", "h:x", "."], "stands for what is in it"), (["--exclude", "", "h:x", "."], "give a pattern"),
    (["--limit-rate", "1", "h:x", "."], "from 65536"), (["--limit-rate", "x", "h:x", "."], "not valid"),
])
def test_bad_options_are_clear_errors(args, words, tmp_path):
    (tmp_path / "a").touch()
    result = run(SECURDMA, "cp", *args, cwd=tmp_path)
    assert result.returncode == 2 and words in result.stderr, result


@pytest.mark.parametrize("to_server", [True, False], ids=["to the server", "from it"])
def test_exclude_leaves_out_what_matches(rig, to_server):
    source = rig.tree if to_server else rig.files / "tree"
    for name in ("a.o", "a.c", "sub/b.o", "sub/c.c", "build/x", "sub/build/x", "sub/tmp"):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).touch()
    rig.serve()
    args = "-r", "--exclude", "*.o", "--exclude", "/tree/build", "--exclude=tmp/"
    answer = rig.to(*args, rig.tree) if to_server else rig.back("tree", *args)
    assert names(rig.files if to_server else rig.path / "back") == [
        "tree", "tree/a.c", "tree/sub", "tree/sub/build", "tree/sub/build/x", "tree/sub/c.c", "tree/sub/tmp"]
    assert answer["left_out"] == 0, answer


def test_a_dry_run_changes_nothing(rig):
    rig.write(tree__new="123456", tree__same="s", tree__sub__deep="d", files__tree__same="s")
    os.utime(rig.tree / "same", (9, 9))
    os.utime(rig.files / "tree" / "same", (9, 9))
    os.symlink("new", rig.tree / "link")
    rig.serve()
    before = names(rig.files)
    result = rig.text("-r", "--dry-run", rig.tree, rig.remote())
    assert sorted(result.stdout.splitlines()[:-1]) == [
        "would copy tree/link", "would copy tree/new", "would copy tree/sub", "would copy tree/sub/deep"], result
    assert "nothing was changed; 1 unchanged" in result.stdout, result
    answer = rig.to("-r", "--dry-run", "--checksum", rig.tree)
    assert (answer["files"], answer["unchanged"], answer["bytes"], len(answer["changes"])) == (3, 1, 7, 4), answer
    assert names(rig.files) == before
    # To and from folders that are not there yet.
    assert rig.text("-r", "--dry-run", rig.tree, rig.remote("no/such")).stdout.count("would copy") == 6
    assert rig.back("tree", "-r", "--dry-run")["files"] == 1
    assert names(rig.files) == before and not (rig.path / "back").exists()


@left_out_of("asan")
@pytest.mark.parametrize("to_server", [True, False], ids=["to the server", "from it"])
def test_a_limit_of_the_rate_holds(rig, to_server):
    (rig.files / "large").write_bytes(bytes(900_000))
    (rig.path / "mine").write_bytes(bytes(900_000))
    rig.serve()
    args = "--limit-rate", "1M"
    answer = rig.to(*args, rig.path / "mine") if to_server else rig.back("large", *args)
    assert answer["seconds"] > 900_000 / 2 ** 20 - 0.2, answer


@left_out_of("asan")
def test_partial_files_that_were_given_up_go(rig):
    rig.write(tree__x="x")
    (rig.files / "tree").mkdir()
    old = [rig.files / ".securdma-part-old", rig.files / "tree" / ".securdma-part-old"]
    young = rig.files / "tree" / ".securdma-part-young"
    for path in (*old, young):
        path.write_bytes(bytes(1000))
    for path in old:
        os.utime(path, (time.time() - 8 * 86400,) * 2)
    rig.serve("--files-partial-days", "0")
    rig.to("-r", rig.tree)
    assert all(path.exists() for path in old)
    rig.server.stop()
    rig.serve()
    rig.to("-r", rig.tree)
    assert not any(path.exists() for path in old) and young.exists()


def forbid_large_files():
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (256 << 20, 256 << 20))


def test_a_file_whose_first_write_fails_leaves_no_partial_file(rig, certs):
    with open(rig.files / "far", "wb") as file:
        file.seek(300 << 20)
        file.write(b"behind the hole")
    server = rig.serve()
    result = run(*cp_args(certs, server.port, rig.remote("far"), rig.path / "back"), preexec_fn=forbid_large_files)
    assert result.returncode == 9 and "far: File too large" in result.stderr, result
    assert not names(rig.path / "back")


def test_replacing_small_files_makes_no_room_in_the_quota(rig, certs, device, start):
    rig.write(**{f"tree__{number}": "new" for number in range(300)}, files__tree__0="an old one")
    for number in range(300):
        (rig.files / "tree" / str(number)).write_text("an old one", encoding="ascii")
    large = rig.path / "large"
    large.write_bytes(bytes(1_500_000))
    # The old files take 300 * (4096 + 4096).
    text = f"[files]\ndirectory = {rig.files}\nrights = rw\nquota = 3600K\n[connection]\nregion-size = 1M\n"
    rig.server = start(Configured, certs, device, rig.path / "conf", text)
    answer = rig.to("-r", rig.tree, large, expect=9)
    assert "large: the quota of the folder is used up" in answer["stderr"] and answer["files"] == 300, answer
