#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Is the package for Python whole? Makes, reads and uses a certificate, and looks for every file of it.

usage: bindings.py FOLDER VERSION     FOLDER: where the package is, which is first in the search path
"""
import pathlib
import sys
import tempfile

import securdma

HERE = pathlib.Path(__file__).resolve().parents[2]


def main(folder, version):
    package = pathlib.Path(securdma.__file__).parent
    assert package == pathlib.Path(folder).resolve() / "securdma", package
    assert securdma.__version__ == version
    for source in (HERE / "python" / "securdma").glob("*.p*"):
        assert (package / source.name).read_bytes() == source.read_bytes(), f"{source.name} is not in the package, or another one"
    with tempfile.TemporaryDirectory() as work:
        cert, key = (pathlib.Path(work, name) for name in ("cert", "key"))
        securdma.make_certificate("self_signed", common_name="from Python", names=["localhost"], days=1, cert_file=cert, key_file=key)
        assert securdma.read_certificate(cert).common_name == "from Python"
        securdma.TlsClient(pin=securdma.read_certificate(cert).pin).close()
        securdma.TlsServer(cert_file=cert, key_file=key, insecure_anonymous_clients=True).close()
    # What the headers say is there, too.
    assert "credit" in securdma.Conn.send.__doc__ and "The peer went away" in securdma.Conn.send.__doc__
    print(f"{len(securdma.__all__)} names")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(*sys.argv[1:])
