# SPDX-License-Identifier: Apache-2.0
"""What a server may not do: the filter of system calls in all its threads, no new privileges, and another user than root."""
import os
import pwd
import shutil
import signal

import pytest

from conftest import SECURDMA, Server, connect, run

NOBODY = pwd.getpwnam("nobody")


def of_all_threads(pid, name):
    values = set()
    for task in os.listdir(f"/proc/{pid}/task"):
        with open(f"/proc/{pid}/task/{task}/status", encoding="ascii") as file:
            values |= {line.split(":", 1)[1].strip() for line in file if line.startswith(name + ":")}
    return values


def work(certs, served):
    assert connect(certs, served.port, "-e", "send x", "-e", "write 0 abc", "-e", "read 0 3").returncode == 0


def test_server_works_with_few_system_calls_and_no_new_privileges(certs, device, start):
    served = start(Server, certs, device, "--metrics", "0")
    work(certs, served)
    assert of_all_threads(served.pid, "Seccomp") == {"2"}
    assert of_all_threads(served.pid, "NoNewPrivs") == {"1"}
    served.signal(signal.SIGHUP)
    served.wait_log("reloaded")
    work(certs, served)
    # Threads that came later have the filter as well.
    assert of_all_threads(served.pid, "Seccomp") == {"2"}
    served.stop()


def test_filter_can_be_left_out(certs, device, start):
    served = start(Server, certs, device, "--no-sandbox")
    work(certs, served)
    assert of_all_threads(served.pid, "Seccomp") == {"0"}
    assert of_all_threads(served.pid, "NoNewPrivs") == {"1"}
    served.stop()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_root_becomes_the_user_for_good(certs, device, start, tmp_path):
    key = str(tmp_path / "server.key")
    shutil.copy(certs.key("server"), key)
    os.chmod(key, 0o600)
    served = start(Server, certs, device, "--user", "nobody", "--key", key)
    work(certs, served)
    pid = served.pid
    uid, gid = str(NOBODY.pw_uid), str(NOBODY.pw_gid)
    assert of_all_threads(pid, "Uid") == {"\t".join([uid] * 4)}
    assert of_all_threads(pid, "Gid") == {"\t".join([gid] * 4)}
    assert of_all_threads(pid, "Groups") == {gid}
    for kind in ("CapEff", "CapPrm", "CapInh", "CapAmb"):
        assert of_all_threads(pid, kind) == {"0000000000000000"}, kind
    # Root's key was read before; that it can't be read again is said at the start, and when it is tried.
    served.wait_log("a reload (SIGHUP) will fail")
    served.signal(signal.SIGHUP)
    served.wait_log("not reloaded")
    work(certs, served)
    served.stop()


@pytest.mark.parametrize("args, text", [
    (("--user", "no-such-user"), "there is no user no-such-user"),
    (("--user", "nobody", "--group", "no-such-group"), "there is no group no-such-group"),
    (("--group", "nogroup"), "group: --group needs --user"),
    (("--user", "root"), "is root"),
], ids=lambda value: value[-1] if isinstance(value, tuple) else "")
def test_user_that_cannot_be_is_refused(certs, args, text):
    result = run(SECURDMA, "serve", "--port", "0", "--cert", certs.cert("server"), "--key", certs.key("server"), "--client-ca",
                 certs.cert("ca"), *args)
    assert result.returncode == 2 and text in result.stderr
