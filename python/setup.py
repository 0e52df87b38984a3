# SPDX-License-Identifier: Apache-2.0
"""Builds the package against an installed libsecurdma, which pkg-config finds."""
import pathlib
import re
import shlex
import subprocess
import sys

from setuptools import Extension, setup
from setuptools.command.build_py import build_py

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))
from generate import Binding  # noqa: E402


def pkg_config(*options):
    done = subprocess.run(["pkg-config", *options, "securdma"], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        sys.exit(f"setup.py: pkg-config does not find securdma: install libsecurdma-dev\n{done.stderr}")
    return shlex.split(done.stdout)


def headers():
    # pkg-config does not name a folder where the compiler looks by itself.
    folders = [pathlib.Path(word[2:]) for word in pkg_config("--cflags-only-I")] + [pathlib.Path(*pkg_config("--variable=includedir")), pathlib.Path("/usr/include")]
    return next((folder for folder in folders if (folder / "securdma.h").exists()), folders[0])


binding = Binding(headers())
version = {part: value for header in binding.paths for part, value in re.findall(r"#define SRDMA_VERSION_(\w+) (\d+)", header.read_text(encoding="utf-8"))}
source = HERE / "build" / "_binding.c"
source.parent.mkdir(exist_ok=True)
binding.builder().emit_c_code(str(source))


class BuildWithTypes(build_py):
    def run(self):
        super().run()
        types = pathlib.Path(self.build_lib, "securdma", "_types.py")
        types.parent.mkdir(parents=True, exist_ok=True)
        types.write_text(binding.types(), encoding="utf-8")


setup(
    version="{MAJOR}.{MINOR}.{PATCH}".format(**version),
    cmdclass={"build_py": BuildWithTypes},
    # cffi's code keeps to the limited interface of Python's: one module for all later versions.
    ext_modules=[Extension("securdma._binding", [str(source.relative_to(HERE))], py_limited_api=True,
                           extra_compile_args=pkg_config("--cflags"), extra_link_args=pkg_config("--libs"))],
    options={"bdist_wheel": {"py_limited_api": "cp311"}},
)
