# SPDX-License-Identifier: Apache-2.0
"""Bad input of every call: the probe's table against what the headers say. And what a client reads when its settings do not fit the server's."""
import errno
import pathlib
import re
import sys

import protocol
from conftest import ROOT, STEP, Server

sys.path.insert(0, str(pathlib.Path(ROOT, "docs", "man")))
import header_pages  # noqa: E402

# Their errors do not come from their arguments: memory that ran out, the generator, the device.
NOT_OF_ARGUMENTS = {"srdma_device_list", "srdma_device_list_free", "srdma_psn_generate", "srdma_conn_query_qp", "srdma_server_each", "srdma_server_get_metrics"}
# probe_contract.c and others try what needs a state of its own: an accept under way, a peer without a certificate, a stream that ends.
TRIED_ELSEWHERE = {"srdma_accept_step", "srdma_conn_peer_cert", "srdma_link_disconnect", "srdma_stream_abort"}


def documented():
    """The errors of each call, those of the calls that it refers to included."""
    include = pathlib.Path(ROOT, "include")
    paths = [include / "securdma.h", *sorted(path for path in include.glob("securdma_*.h"))]
    header = header_pages.Header(paths)
    said, refers = {}, {}
    for page in header.pages:
        for comment, functions in page.groups:
            names = {name for listed, _ in comment.errors for name in listed.split(", ")}
            told = " ".join([comment.errors_text, *(text for _, text in comment.errors)])
            for function in functions:
                if not function.is_callback and (names or comment.errors_text):
                    name = function.name.removesuffix("_sized")
                    said[name] = names | set(re.findall(r"(?<!\w)-E[A-Z0-9]+", comment.errors_text))
                    refers[name] = {other for other in re.findall(r"(srdma_\w+)\(\)", told) if re.search(rf"(those of|of) [^.]*{other}", told)}
    for _ in range(4):
        for name, others in refers.items():
            for other in others:
                said[name] |= said.get(other, set())
    return said


def name_of(number):
    own = {int(value): name for name, value in re.findall(r"(SRDMA_E\w+) = (-\d+)", pathlib.Path(ROOT, "include", "securdma.h").read_text(encoding="utf-8"))}
    return own.get(number) or ("-EOPNOTSUPP" if number == -errno.EOPNOTSUPP else "-" + errno.errorcode[-number])


def test_bad_input_has_the_error_that_the_manual_says(probe):
    rows, said = probe("bad-calls")["rows"], documented()
    tried = {call for call, _ in rows}
    assert tried <= set(said), tried - set(said)
    missing = set(said) - tried - NOT_OF_ARGUMENTS - TRIED_ELSEWHERE
    assert not missing, missing
    unsaid = {(call, name_of(error)) for call, error in rows if error < 0 and name_of(error) not in said[call]}
    # What ended the connection is returned by each call that says so in words.
    unsaid -= {(call, error) for call, error in unsaid if error == "SRDMA_ELOST"}
    assert not unsaid, unsaid


def test_client_reads_which_settings_do_not_fit(probe):
    said = probe("unfit")
    assert said["plain client"] == "the server requires a sealed connection, and the client has sealing off; give both the same setting (seal)"
    assert said["sealed client"] == "the client requires a sealed connection, and the server has sealing off; give both the same setting (seal)"
    assert said["raw client"] == "the client makes a raw connection, and the server one with messages; set raw at both or neither"
    assert said["no token"] == "send a token as private data; this client sent 0 bytes"
    assert said["wrong token"] == "send a token as private data; this client sent 11 bytes"
    for what, option, words in (("regions", "named_regions", "regions with names"), ("notices", "named_regions", "regions with names, which bring notices"),
                                ("control", "control_messages", "control messages")):
        assert said[f"{what}, client alone"] == f"the two ends did not agree on {words}: the peer has not set {option}; both must"
        assert said[f"{what}, nobody"] == f"the two ends did not agree on {words}: this end has not set {option}; both must"
        if what != "control":
            assert said[f"{what}, server alone"] == said[f"{what}, nobody"]
    assert "make a stream of both ends before either sends a message" in said["stream"]


def test_newer_client_reads_what_the_server_lacks(certs, device, start):
    server = start(Server, certs, device)
    with protocol.open_tls(certs, server.port, STEP) as tls:
        tls.sendall(protocol.hello(gid=protocol.gid(certs.host), features=1 | 1 << 30))
        kind, _, body = protocol.read_frame(tls)
    assert kind == protocol.REJECT
    assert body["text"] == "one end asks for the feature bits 0x40000000 that the other, which is older, does not know; turn them off, or upgrade it"
