# SPDX-License-Identifier: Apache-2.0
"""The files of a device, as programs look at them: with the shell's tools, with Python, and in C (Python's ctypes)."""
import os
import re
import shutil

import pytest

from rig import DEVICE, PYTHON, TOOLS, Program, run, succeed, wait_until

CLASS = "/sys/class/infiniband"
PORT = f"{CLASS}/{DEVICE}/ports/1"


def shell(script, environment=None):
    return succeed(["sh", "-c", script], environment)


def python(script, environment=None):
    return succeed([PYTHON, "-W", "ignore", "-c", script], environment)


@pytest.fixture(scope="module")
def node():
    """The name of the device's file in /dev/infiniband."""
    return shell(f"grep -l {DEVICE} /sys/class/infiniband_verbs/*/ibdev").split("/")[-2]


def test_files_say_what_verbs_say():
    info = succeed(["ibv_devinfo", "-v", "-d", DEVICE])
    value = dict(re.findall(r"^\s*(\w+):\s+(.*)$", info, re.M))
    said = dict(line.split(":", 1) for line in
                shell(f"cd {CLASS}/{DEVICE}; grep '' node_guid sys_image_guid fw_ver node_type ports/1/state ports/1/phys_state "
                      "ports/1/link_layer ports/1/lid ports/1/sm_lid ports/1/cap_mask ports/1/rate ports/1/pkeys/0").splitlines())
    assert said["node_guid"] == value["node_guid"] and said["sys_image_guid"] == value["sys_image_guid"]
    assert said["fw_ver"] == value["fw_ver"] and said["node_type"] == "1: CA"
    assert said["ports/1/state"] == "4: ACTIVE" and value["state"].startswith("PORT_ACTIVE (4)")
    assert said["ports/1/phys_state"] == "5: LinkUp" and value["phys_state"] == "LINK_UP (5)"
    assert said["ports/1/link_layer"] == value["link_layer"]
    assert int(said["ports/1/lid"], 16) == int(value["port_lid"]) and int(said["ports/1/sm_lid"], 16) == int(value["sm_lid"])
    assert int(said["ports/1/cap_mask"], 16) == int(value["port_cap_flags"], 16)
    assert said["ports/1/rate"].startswith("40 Gb/sec (4X") and value["active_width"] == "4X (2)"
    assert said["ports/1/pkeys/0"] == "0xffff"


@pytest.mark.parametrize("addresses", ["", "127.0.0.5,::1"])
def test_gids_are_those_of_the_device(addresses):
    environment = {"UROCE_ADDR": addresses}
    gids = re.findall(r"GID\[\s*(\d+)\]:\s*(\S+?),", succeed(["ibv_devinfo", "-v", "-d", DEVICE], environment))
    assert len(gids) == 2
    for index, gid in gids:
        text = shell(f"cat {PORT}/gids/{index} {PORT}/gid_attrs/types/{index} {PORT}/gid_attrs/ndevs/{index}", environment).split("\n")
        assert text[1:3] == ["RoCE v2", "lo"]
        shown = python(f"import ipaddress; print(ipaddress.ip_address({text[0]!r}) == ipaddress.ip_address({gid!r}))")
        assert shown == "True\n", (text, gid)
    assert shell(f"ls {PORT}/gids", environment).split() == ["0", "1"]


def test_uverbs_is_a_character_device_that_may_be_used(node):
    path = f"/dev/infiniband/{node}"
    assert re.search(rf"^crw-rw-rw- .*\b231, +{192 + int(node[6:])} .*\b{node}$", shell("ls -l /dev/infiniband"), re.M)
    shell(f"test -c {path} && test -r {path} && test -w {path} && test ! -L {path}")
    assert shell(f"stat -c '%F %t:%T' {path}") == f"character special file e7:{192 + int(node[6:]):x}\n"
    assert shell(f"readlink -f {path}; realpath /dev/../{path}; bash -c 'echo /dev/infiniband/uv*{node[6:]}'").split() == [path] * 3
    assert python(f"import os, stat; s = os.stat({path!r}); print(stat.S_ISCHR(s.st_mode), os.major(s.st_rdev), "
                  f"os.access({path!r}, os.R_OK | os.W_OK), stat.S_ISCHR(os.lstat({path!r}).st_mode))") == "True 231 True True\n"
    status, output = run(["cat", path])
    assert status != 0 and "No such device or address" in output


def test_verbs_class_leads_to_the_device(node):
    folder = f"/sys/class/infiniband_verbs/{node}"
    assert shell(f"cat {folder}/ibdev {folder}/dev /sys/class/infiniband_verbs/abi_version") == f"{DEVICE}\n231:{192 + int(node[6:])}\n6\n"
    assert f"DEVNAME=infiniband/{node}" in shell(f"cat {folder}/uevent")


def test_folders_are_walked_by_every_means():
    listing = shell(f"""ls {CLASS}; ls {CLASS}/ | cat; for f in {CLASS}/*/node_guid; do echo $f; done
        find {CLASS} -name node_guid; cd {CLASS}/{DEVICE}/ports && ls""").split()
    path = f"{CLASS}/{DEVICE}/node_guid"
    assert listing.count(DEVICE) == 2 and listing.count(path) == 2 and listing[-1] == "1", listing
    walked = python(f"""
import ctypes, glob, os, pathlib
path = {path!r}
assert {DEVICE!r} in os.listdir({CLASS!r}) and {DEVICE!r} in [e.name for e in os.scandir(b'{CLASS}'.decode())]
assert path in glob.glob('{CLASS}/*/node_guid') and pathlib.Path(path) in pathlib.Path({CLASS!r}).glob('*/node_*')
assert path in [os.path.join(folder, file) for folder, _, files in os.walk({CLASS!r}) for file in files]
assert os.path.realpath('{CLASS}/{DEVICE}/ports/../node_guid') == path
fd = os.open('{CLASS}/{DEVICE}', os.O_DIRECTORY)
assert os.read(os.open('node_guid', os.O_RDONLY, dir_fd=fd), 100) == open(path, 'rb').read()
libc = ctypes.CDLL(None)
room = ctypes.create_string_buffer(4096)
assert libc.realpath(path.replace('/sys', '//sys/.').encode(), room) and room.value.decode() == path
entries = ctypes.c_void_p()
assert libc.scandir(b'{CLASS}', ctypes.byref(entries), None, None) >= 3
class Glob(ctypes.Structure):
    _fields_ = [('count', ctypes.c_size_t), ('paths', ctypes.POINTER(ctypes.c_char_p)), ('more', ctypes.c_char * 256)]
found = Glob()
assert libc.glob(b'{CLASS}/*/node_guid', 0, None, ctypes.byref(found)) == 0
assert path.encode() in found.paths[:found.count]
print('walked')""")
    assert walked == "walked\n"


def test_infiniband_diags_find_the_device():
    """They read the files, and ask no libibverbs."""
    if not all(shutil.which(word, path=os.pathsep.join(TOOLS)) for word in ("ibstat", "ibstatus")):
        pytest.skip("infiniband-diags is not installed")
    assert f"CA '{DEVICE}'" in succeed(["ibstat"]) and f"Infiniband device '{DEVICE}' port 1" in succeed(["ibstatus"])


def test_nothing_else_changes():
    assert python(f"""
import os
assert not os.path.exists('{CLASS}/{DEVICE}0') and not os.path.exists('{CLASS}/other') and not os.path.exists('/dev/infinibands')
assert os.listdir('/sys/class/net') and os.stat('/dev/null').st_rdev == os.makedev(1, 3)
for path in ('{CLASS}/other', '{CLASS}/{DEVICE}/other', ''):
    try:
        open(path)
    except FileNotFoundError:
        continue
    assert False, path
with open(os.path.expandvars('/tmp/uroce-test-$X' + str(os.getpid())), 'x') as file:
    os.unlink(file.name)
    assert os.fstat(file.fileno()).st_mode & 0o777 == 0o666 & ~os.umask(0)
print('the same')""") == "the same\n"


def test_counters_move():
    """They are those of the process: a program that sends to itself, and looks meanwhile."""
    script = f"""
import time
from pyverbs.device import Context
from pyverbs.pd import PD
from pyverbs.mr import MR
from pyverbs.cq import CQ
from pyverbs.qp import QP, QPInitAttr, QPCap, QPAttr
from pyverbs.addr import AHAttr, GlobalRoute
from pyverbs.wr import SGE, SendWR, RecvWR
RC, MTU_1024, LOCAL_WRITE, SEND = 2, 3, 1, 2
def read(name):
    with open('{PORT}/' + name) as file:
        return int(file.read())
context = Context(name={DEVICE!r})
pd = PD(context)
cq = CQ(context, 100)
mr = MR(pd, 4096, LOCAL_WRITE)
ends = [QP(pd, QPInitAttr(qp_type=RC, scq=cq, rcq=cq, cap=QPCap(10, 10, 1, 1))) for _ in range(2)]
for end, other in (ends, ends[::-1]):
    attr = QPAttr(port_num=1)
    attr.dest_qp_num, attr.path_mtu, attr.timeout, attr.retry_cnt, attr.rnr_retry = other.qp_num, MTU_1024, 17, 7, 7
    attr.ah_attr = AHAttr(gr=GlobalRoute(dgid=context.query_gid(1, 0), sgid_index=0), is_global=1, port_num=1)
    end.to_rts(attr)
names = ['counters/port_xmit_packets', 'counters/port_rcv_packets', 'counters/port_xmit_data', 'hw_counters/sent_pkts']
before = [read(name) for name in names]
for _ in range(10):
    ends[1].post_recv(RecvWR(num_sge=1, sg=[SGE(mr.buf, 1000, mr.lkey)]))
    ends[0].post_send(SendWR(num_sge=1, sg=[SGE(mr.buf, 1000, mr.lkey)], opcode=SEND))
    done, end = 0, time.monotonic() + 30
    while done < 2:
        number, completions = cq.poll(2)
        assert all(completion.status == 0 for completion in completions) and time.monotonic() < end
        done += number
moved = [read(name) - was for name, was in zip(names, before)]
assert moved[0] >= 10 and moved[1] >= 10 and moved[2] >= 10 * 1000 / 4 and moved[3] >= 10, moved
print('moved')"""
    assert python(script) == "moved\n"


def test_nothing_is_left_of_the_files():
    """Not even of a program that is killed: the next removes it. A program's real folder tells where its files are."""
    where = f"import os; os.chdir({CLASS!r}); print(os.getcwd(), flush=True)"
    own = python(where).strip()
    assert own.endswith(CLASS) and not os.path.exists(own)
    program = Program([PYTHON, "-c", f"{where}; import time; time.sleep(60)"])
    wait_until(lambda: program.output.endswith("\n"), "the place of its files")
    killed = program.output.strip()
    assert os.path.exists(killed)
    program.close()
    shell(f"cat {PORT}/state")
    assert not os.path.exists(killed)


def test_child_sees_files_of_its_own():
    assert python(f"""
import os
first = open('{PORT}/state').read()
pid = os.fork()
if pid == 0:
    os._exit(0 if open('{PORT}/state').read() == first and os.listdir('{PORT}/gids') else 1)
assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
assert open('{PORT}/state').read() == first
print('both')""") == "both\n"
