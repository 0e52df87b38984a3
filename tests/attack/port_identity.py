#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Certificates, names and the host: what a peer, or another user of the machine, tries to pass for, or to reach. Each is a test of
tests/integration or tests/unit, which says what it tries and what refuses it; this runs them and lists them among the attacks. An attack
succeeds if its test fails."""
import os
import subprocess
import sys
import time

import lab as rig
from loopback import Loopback

FOLDER = os.path.join(rig.ROOT, "tests", "integration")
# What is tried, the attacker's position, the defence, and the test, after whose name there may be a part of its parameters.
TRIED = [
    ("the certificate of a revoked intermediate CA", "a peer", "the whole chain is looked up in the revocation lists",
     "test_certificates.py::test_leaf_of_a_revoked_intermediate_is_refused_by_both_ends"),
    ("a revocation list of the root that has expired", "a peer", "an expired list lets nobody through",
     "test_certificates.py::test_expired_list_of_the_root_lets_nobody_through"),
    ("a revocation list that is not whole: a delta, indirect, of some reasons, or with an unknown critical extension", "the source of the list",
     "refused, with the extension's name", "test_certificates.py::test_list_that_is_not_whole_is_refused_at_the_start"),
    ("a certificate of another CA of the root, where an intermediate CA is trusted", "a peer", "what is in the file is trusted, and no more",
     "test_certificates.py::test_intermediate_alone_is_trusted_and_no_other_ca_of_its_root"),
    ("a certificate without any name, to escape the limits per identity", "a client", "it goes by the pin of its key",
     "test_names.py::test_client_without_any_name_goes_by_its_key_and_is_counted"),
    ("no certificate, to escape the limits per identity", "a client", "all clients without one are one identity",
     "test_names.py::test_clients_without_a_certificate_are_one_identity"),
    ("another name, to escape a denial", "a client", "a denial looks at all names, and at the pin", "test_names.py::test_any_name_of_a_certificate_can_be_denied"),
    ("a server's key on a curve that TLS 1.3 cannot use, so that every client fails", "an operator's mistake", "refused at the start",
     "test_certificates.py::test_key_that_no_peer_could_use_is_refused_at_the_start"),
    ("a link-local GID of another network segment", "a client", "fe80::/10 counts on the device's own link alone",
     "test_segments.py::test_link_local_gid_counts_on_the_device_s_own_link_alone"),
    ("to lock the folder of the control socket, so that no server starts", "another local user", "a lock file of its own, 0600",
     "test_operation.py::test_nobody_else_can_lock_a_server_out"),
]
SANDBOX = ("to type into the terminal that the server was started from (TIOCSTI), and system calls that an intruder needs", "a server that was taken over",
           "the system-call filter, argument by argument")


def run(*command):
    result = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=300, check=False,
                            env=dict(os.environ, SECURDMA_TEST_UROCE="1", SECURDMA_BUILD=rig.BUILD))
    return result.returncode, (result.stdout + result.stderr).strip().splitlines()


def report(tried, position, defence, status, lines, began):
    LAB.report("identity", position, "its own credentials", "securdma", defence, tried, "failed", None if status is None else status != 0,
               seconds=time.monotonic() - began, note=lines[-1] if lines else None)


ARGUMENTS = rig.options(__doc__)
LAB = Loopback(ARGUMENTS)
for what, who, against, test in TRIED:
    start = time.monotonic()
    code, said = run(sys.executable, "-m", "pytest", "-q", "--tb=short", "-p", "no:cacheprovider", os.path.join(FOLDER, test))
    if code == 0 and " passed" not in said[-1]:
        code = None  # it needs rights that are not there
    report(what, who, against, code, said, start)
start = time.monotonic()
program = os.path.join(rig.BUILD, "tests", "unit", "test_sandbox")
code, said = run(program) if os.path.exists(program) else (None, ["built without libseccomp"])
report(*SANDBOX, code, said, start)
LAB.end()
