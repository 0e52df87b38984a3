# SPDX-License-Identifier: Apache-2.0
"""Programs that find libibverbs in other ways than by being linked with it, and what else finds it under the wrapper."""
import glob
import os
import shutil

import pytest

from rig import BUILD, LIBRARY, PRELOAD_FIRST, PYTHON, Pair, run, succeed

LOOKUP = os.path.join(BUILD, "tests", "programs", "lookup")
DROPIN = os.path.join(os.path.dirname(LIBRARY), "dropin")

pytestmark = pytest.mark.skipif(bool(PRELOAD_FIRST), reason="by LD_PRELOAD alone there is no folder to look libibverbs up in")


@pytest.mark.parametrize("how", ["dlvsym", "dlsym", "unnumbered", "plugin", "deepbind"])
def test_program_that_looks_libibverbs_up(how):
    for text in Pair([LOOKUP, "--how", how], port_option="--port").finish():
        assert "all messages were right" in text


def loaded(code, environment=None):
    """The paths of the libraries of that kind in a Python process that has run this."""
    script = f"import ctypes\n{code}\nprint('\\n'.join(line.split()[-1] for line in open('/proc/self/maps') if 'libibverbs' in line))"
    return set(succeed([PYTHON, "-c", script], environment).split())


def real_path():
    """Where the library is that programs get without uroce."""
    for folder in glob.glob("/usr/lib/*-linux-*") + ["/usr/lib64", "/usr/lib"]:
        path = os.path.join(folder, "libibverbs.so.1")
        if os.path.exists(path):
            return os.path.realpath(path)
    pytest.skip("libibverbs.so.1 is in no usual folder")


def test_drivers_and_rdmacm_find_what_only_the_real_library_has():
    """They are linked with libibverbs.so.1 and use symbols that it has for them alone."""
    folder = os.path.dirname(real_path())
    drivers = [path for path in glob.glob(f"{folder}/libibverbs/*.so") + glob.glob(f"{folder}/libmlx5.so.1") +
               glob.glob(f"{folder}/librdmacm.so.1")]
    assert drivers
    now = "".join(f"ctypes.CDLL({path!r}, mode=2)\n" for path in drivers)  # RTLD_NOW: every symbol
    assert real_path() in loaded(now)
    assert real_path() in loaded(f"ctypes.CDLL('libibverbs.so.1').verbs_set_ops\n{now}")


def test_library_that_the_programs_own_path_leads_to_stays_behind_the_device(tmp_path):
    """LD_LIBRARY_PATH was set for a libibverbs of the program's own."""
    own = tmp_path / "libibverbs.so.1"
    shutil.copy(real_path(), own)
    tmp_path.chmod(0o755)
    for folder in tmp_path.parents:
        if str(folder).startswith("/tmp/"):
            folder.chmod(0o755)
    place = tmp_path / "links"
    place.mkdir()
    place.chmod(0o777)
    code = ("library = ctypes.CDLL('libibverbs.so.1'); count = ctypes.c_int()\n"
            "assert library.ibv_get_device_list(ctypes.byref(count)) and count.value >= 1, count")
    assert str(own) in loaded(code, {"LD_LIBRARY_PATH": str(tmp_path), "XDG_RUNTIME_DIR": str(place)})


def test_program_without_libibverbs_loads_none():
    assert not loaded("")


def test_wrapper_within_the_wrapper_changes_nothing():
    from rig import WRAPPER
    once = succeed(["printenv", "LD_LIBRARY_PATH"], {"LD_LIBRARY_PATH": ""})
    assert succeed([WRAPPER, "printenv", "LD_LIBRARY_PATH"], {"LD_LIBRARY_PATH": ""}) == once
    status, output = run(["printenv", "LD_LIBRARY_PATH"], {"LD_LIBRARY_PATH": "/nonexistent:/also"})
    assert status == 0 and output.strip() == f"{once.strip()}:/nonexistent:/also"
