#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Can a program in Python use the library through cffi, with what its headers say? Parses all of them, and makes and reads a certificate.

usage: bindings.py LIBRARY HEADERS     LIBRARY: libsecurdma.so; HEADERS: the folder of the headers
Needs cffi (package python3-cffi).
"""
import pathlib
import re
import subprocess
import sys
import tempfile

import cffi

HEADERS = ("securdma.h", "securdma_cert.h", "securdma_link.h", "securdma_stream.h", "securdma_server.h")
# What the headers need from those of others, in their place. The sizes of the enumerations and of a GID are those of libibverbs.
STUB = """
struct ibv_context; struct ibv_device_attr; struct ibv_port_attr; struct ibv_qp; struct ibv_pd; struct ibv_cq; struct ibv_comp_channel;
struct sockaddr;
enum ibv_port_state { IBV_PORT_NOP }; enum ibv_qp_state { IBV_QPS_RESET };
union ibv_gid { uint8_t raw[16]; struct { uint64_t subnet_prefix; uint64_t interface_id; } global; };
"""


def declarations(folder):
    """What cffi's parser takes: no inclusion, no attribute, no function body."""
    text = STUB
    for name in HEADERS:
        text += re.sub(r"^#include.*$", "", (folder / name).read_text(encoding="utf-8"), flags=re.M)
    text = subprocess.run(["cc", "-E", "-P", "-U__GNUC__", "-x", "c", "-"], input=text, capture_output=True, text=True, check=True).stdout
    return re.sub(r"static inline [^{};]*\{[^{}]*\}", "", text)


def options(ffi, library, name):
    """A structure of options, as srdma_NAME_init makes it."""
    made = ffi.new(f"struct srdma_{name} *")
    getattr(library, f"srdma_{name}_init_sized")(made, ffi.sizeof(made[0]))
    assert made.size == ffi.sizeof(made[0])
    return made


def main(library_path, folder):
    ffi = cffi.FFI()
    ffi.cdef(declarations(pathlib.Path(folder)))
    library = ffi.dlopen(library_path)
    assert re.fullmatch(rb"\d+\.\d+\.\d+", ffi.string(library.srdma_version()))
    # Does cffi see the same structures as the compiler?
    assert options(ffi, library, "conn_options").setup_timeout_ms == 10000
    assert options(ffi, library, "qp_options").hop_limit == 64
    assert options(ffi, library, "link_options").pause_max_ms == 5000
    assert options(ffi, library, "server_limits").max_clients == 10
    assert ffi.string(options(ffi, library, "server_options").port) == b"4433"
    assert options(ffi, library, "identity").region_access == -1

    with tempfile.TemporaryDirectory() as work:
        cert, key = (ffi.new("char[]", f"{work}/{name}".encode()) for name in ("cert", "key"))
        name = ffi.new("char[]", b"from Python")
        request = options(ffi, library, "cert_request")
        request.kind, request.common_name, request.days = library.SRDMA_CERT_CA, name, 1
        request.cert_file, request.key_file = cert, key
        assert library.srdma_cert_make(request) == 0, ffi.string(library.srdma_error_text())
        info = ffi.new("struct srdma_cert_info *")
        assert library.srdma_cert_read_sized(cert, info, ffi.sizeof(info[0])) == 0
        assert ffi.string(info.common_name) == b"from Python" and info.is_ca
    # One that has no size was never initialised.
    assert library.srdma_cert_make(ffi.new("struct srdma_cert_request *")) < 0
    assert b"srdma_cert_request_init" in ffi.string(library.srdma_error_text())
    print(f"{sum(1 for f in dir(library) if callable(getattr(library, f)))} functions")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(*sys.argv[1:])
