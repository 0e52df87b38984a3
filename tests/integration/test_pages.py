# SPDX-License-Identifier: Apache-2.0
"""The manual pages of section 3: their examples are what a reader would copy, so they come out of the pages."""
import os
import pathlib
import re
import shlex
import shutil
import subprocess

import pytest

from conftest import BUILD, ROOT, SCALE, left_out_of

PAGES = pathlib.Path(BUILD, "docs", "man")


def examples():
    """Name and code of each example in a page."""
    for page in sorted(PAGES.glob("srdma_*.3")):
        text = page.read_text(encoding="utf-8")
        shown = re.search(r"^\.Sh EXAMPLES\n.*?^\.Bd -literal\n(.*?)^\.Ed$", text, re.M | re.S)
        if shown:
            yield page.stem, re.sub(r"^\\&", "", shown[1], flags=re.M).replace(r"\e", "\\")


def compile_with(compiler, *arguments):
    verbs = shlex.split(subprocess.run(["pkg-config", "--cflags", "libibverbs"], capture_output=True, text=True, check=True).stdout)
    flags = ["-fsyntax-only", "-Wall", "-Wextra", "-Werror", f"-I{ROOT}/include", *verbs]
    done = subprocess.run([*compiler, *flags, *arguments], capture_output=True, text=True, timeout=120 * SCALE)
    assert done.returncode == 0, done.stderr


@left_out_of("asan", "tsan", "vm")
def test_examples_in_pages_are_c(tmp_path):
    for name, code in examples():
        (tmp_path / f"{name}.c").write_text(code, encoding="utf-8")
    files = sorted(tmp_path.glob("*.c"))
    assert len(files) >= 30
    compile_with(shlex.split(os.environ.get("CC", "cc")), *files)


@left_out_of("asan", "tsan", "vm")
@pytest.mark.skipif(shutil.which("c++") is None, reason="there is no compiler for C++")
def test_examples_in_pages_are_cxx(tmp_path):
    """Each in a namespace of its own; what they include comes first."""
    included, bodies = set(), []
    for name, code in examples():
        included |= set(re.findall(r"^#include .*$", code, re.M))
        bodies.append(f"namespace page_{name} {{\n{re.sub(r'^#include .*$', '', code, flags=re.M)}\n}}")
    (tmp_path / "all.cc").write_text("\n".join([*sorted(included), *bodies]), encoding="utf-8")
    compile_with(["c++"], tmp_path / "all.cc")


def test_each_example_is_in_a_page():
    files = {path.stem for path in pathlib.Path(ROOT, "docs", "man", "examples").glob("*.c")}
    assert files == {name for name, _ in examples()}
