# SPDX-License-Identifier: Apache-2.0
"""A process that has used the device forks; parent and child then send to each other, each on a device opened by
itself, and the parent's queue pair from before the fork still works. Prints "ok"."""
import enum
import os
import sys
import time
import types

from pyverbs.addr import GID, AHAttr, GlobalRoute
from pyverbs.cq import CQ
from pyverbs.device import Context
from pyverbs.mr import MR
from pyverbs.pd import PD
from pyverbs.qp import QP, QPAttr, QPCap, QPInitAttr
from pyverbs.wr import SGE, RecvWR, SendWR

try:
    import pyverbs.enums as e
except ImportError:  # newer ones have each name in its enumeration only
    import pyverbs.libibverbs_enums as kinds
    e = types.SimpleNamespace(**{item.name: item for kind in vars(kinds).values() if isinstance(kind, enum.EnumMeta) for item in kind})

LIMIT = 30 * float(os.environ.get("UROCE_TEST_SCALE", "1"))
SIZE = 10000


class End:
    def __init__(self):
        self.context = Context(name="uroce0")
        self.pd = PD(self.context)
        self.cq = CQ(self.context, 16)
        self.mr = MR(self.pd, 2 * SIZE, e.IBV_ACCESS_LOCAL_WRITE)
        capability = QPCap(max_send_wr=4, max_recv_wr=4, max_send_sge=1, max_recv_sge=1)
        self.qp = QP(self.pd, QPInitAttr(qp_type=e.IBV_QPT_RC, scq=self.cq, rcq=self.cq, cap=capability))
        self.gid = self.context.query_gid(1, 0).gid

    def connect(self, gid, qpn):
        route = GlobalRoute(dgid=GID(gid), sgid_index=0)
        attr = QPAttr(port_num=1)
        attr.ah_attr = AHAttr(gr=route, is_global=1, port_num=1)
        attr.dest_qp_num = qpn
        attr.path_mtu = e.IBV_MTU_1024
        attr.max_rd_atomic = attr.max_dest_rd_atomic = 1
        attr.min_rnr_timer = 12
        attr.rq_psn = attr.sq_psn = 77
        attr.timeout, attr.retry_cnt, attr.rnr_retry = 17, 7, 7
        attr.qp_access_flags = e.IBV_ACCESS_LOCAL_WRITE
        self.qp.to_rts(attr)

    def receive(self):
        self.qp.post_recv(RecvWR(num_sge=1, sg=[SGE(self.mr.buf + SIZE, SIZE, self.mr.lkey)]))

    def send(self, byte):
        self.mr.write(byte * SIZE, SIZE, 0)
        self.qp.post_send(SendWR(num_sge=1, sg=[SGE(self.mr.buf, SIZE, self.mr.lkey)]))

    def complete(self, count):
        end = time.monotonic() + LIMIT
        while count:
            assert time.monotonic() < end, f"pid {os.getpid()}: {count} completions missing"
            number, completions = self.cq.poll(count)
            for completion in completions[:number]:
                assert completion.status == e.IBV_WC_SUCCESS, completion
            count -= number

    def got(self, byte):
        assert self.mr.read(SIZE, SIZE) == byte.encode() * SIZE


def exchange(end, out, into, mine, theirs):
    """Tells the other its address over pipes, connects, sends `mine` and receives `theirs`."""
    with os.fdopen(out, "w") as out, os.fdopen(into) as into:
        print(end.gid, end.qp.qp_num, file=out, flush=True)
        gid, qpn = into.readline().split()
        end.connect(gid, int(qpn))
        end.receive()
        print("ready", file=out, flush=True)
        assert into.readline() == "ready\n"
        end.send(mine)
        end.complete(2)
        end.got(theirs)


def self_test(end, other, byte):
    other.receive()
    end.send(byte)
    end.complete(1)
    other.complete(1)
    other.got(byte)


def main():
    before, loop = End(), End()
    before.connect(loop.gid, loop.qp.qp_num)
    loop.connect(before.gid, before.qp.qp_num)
    self_test(before, loop, "a")
    down, up = os.pipe(), os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            exchange(End(), up[1], down[0], "c", "p")
            status = 0
        except BaseException as error:  # the parent must see it as a status
            print(f"child: {error!r}", file=sys.stderr, flush=True)
            status = 1
        os._exit(status)
    os.close(up[1])
    exchange(End(), down[1], up[0], "p", "c")
    assert os.waitpid(pid, 0)[1] == 0, "the child failed"
    self_test(before, loop, "b")
    self_test(loop, before, "c")
    print("ok")


main()
