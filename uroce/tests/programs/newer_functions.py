# SPDX-License-Identifier: Apache-2.0
"""Calls the functions that libibverbs got after rdma-core 44 with objects of uroce0, whatever libibverbs and headers are
installed. Run under uroce; the first wrong answer ends it."""
import ctypes
import errno
import os

LIBRARY = ctypes.CDLL(None, use_errno=True)
ADDR, IOVA, FD, FD_OFFSET, BUF = 1 << 1, 1 << 0, 1 << 2, 1 << 3, 1 << 5


def call(name, *arguments, returns=ctypes.c_void_p):
    function = getattr(LIBRARY, name)
    function.restype = returns
    ctypes.set_errno(0)
    return function(*arguments)


def check(what, got, wanted):
    assert got == wanted, f"{what}: {got!r}, not {wanted!r}"


def refused(name, *arguments, returns=ctypes.c_int):
    failure = {ctypes.c_int: errno.EOPNOTSUPP, ctypes.c_void_p: None}[returns]
    check(name, call(name, *arguments, returns=returns), failure)
    check(f"errno of {name}", ctypes.get_errno(), errno.EOPNOTSUPP)


class MrAttr(ctypes.Structure):
    _fields_ = [("length", ctypes.c_size_t), ("access", ctypes.c_int), ("comp_mask", ctypes.c_uint64),
                ("iova", ctypes.c_uint64), ("addr", ctypes.c_void_p), ("fd", ctypes.c_int), ("fd_offset", ctypes.c_uint64),
                ("dmah", ctypes.c_void_p), ("buf", ctypes.c_void_p)]


class Handle(ctypes.Structure):
    """The beginning of an object: its context."""
    _fields_ = [("context", ctypes.c_void_p), ("handle", ctypes.c_uint64)]


def register(pd, **fields):
    return call("ibv_reg_mr_ex", pd, ctypes.byref(MrAttr(length=4096, access=1, **fields)))


def check_buffers(pd):
    buf = ctypes.c_void_p()
    addr = call("ibv_alloc_buf", pd, ctypes.c_size_t(8192), ctypes.byref(buf))
    assert addr and addr % os.sysconf("SC_PAGESIZE") == 0, addr
    mr = call("ibv_reg_buf_mr", pd, buf, ctypes.c_void_p(addr + 4096), ctypes.c_size_t(4096), 1)
    assert mr
    check("ibv_dereg_mr", call("ibv_dereg_mr", ctypes.c_void_p(mr), returns=ctypes.c_int), 0)
    check("beyond the buffer", call("ibv_reg_buf_mr", pd, buf, ctypes.c_void_p(addr + 4096), ctypes.c_size_t(4097), 1), None)
    check("errno", ctypes.get_errno(), errno.EINVAL)
    check("ibv_export_buf_dmabuf_fd", call("ibv_export_buf_dmabuf_fd", buf, returns=ctypes.c_int), -1)
    check("errno", ctypes.get_errno(), errno.ENODATA)
    mr = register(pd, comp_mask=ADDR | BUF, addr=addr, buf=buf)
    assert mr
    check("ibv_dereg_mr", call("ibv_dereg_mr", ctypes.c_void_p(mr), returns=ctypes.c_int), 0)
    call("ibv_free_buf", buf, returns=None)


def check_registration(pd):
    memory = ctypes.create_string_buffer(4096)
    mr = register(pd, comp_mask=ADDR | IOVA, addr=ctypes.addressof(memory), iova=0x10000)
    assert mr
    check("ibv_dereg_mr", call("ibv_dereg_mr", ctypes.c_void_p(mr), returns=ctypes.c_int), 0)
    check("a dmabuf", register(pd, comp_mask=FD | FD_OFFSET | IOVA, fd=0, iova=0), None)
    check("errno", ctypes.get_errno(), errno.EINVAL)
    check("half of a dmabuf", register(pd, comp_mask=FD, fd=0), None)
    check("errno", ctypes.get_errno(), errno.EOPNOTSUPP)


def check_counters(context, pd, handle):
    room = ctypes.create_string_buffer(256)
    refused("_ibv_query_comp_cntr_caps", context, room, ctypes.c_size_t(len(room)))
    refused("ibv_create_comp_cntr", context, room, returns=ctypes.c_void_p)
    for name in ("ibv_set_comp_cntr", "ibv_set_err_comp_cntr", "ibv_inc_comp_cntr", "ibv_inc_err_comp_cntr"):
        refused(name, handle, ctypes.c_uint64(1))
    for name in ("ibv_read_comp_cntr", "ibv_read_err_comp_cntr"):
        refused(name, handle, room)
    refused("ibv_destroy_comp_cntr", handle)
    refused("ibv_qp_attach_comp_cntr", pd, handle, room)  # a queue pair, too, begins with its context


def main():
    count = ctypes.c_int()
    devices = ctypes.cast(call("ibv_get_device_list", ctypes.byref(count)), ctypes.POINTER(ctypes.c_void_p))
    names = [call("ibv_get_device_name", ctypes.c_void_p(devices[i]), returns=ctypes.c_char_p) for i in range(count.value)]
    context = ctypes.c_void_p(call("ibv_open_device", ctypes.c_void_p(devices[names.index(b"uroce0")])))
    pd = ctypes.c_void_p(call("ibv_alloc_pd", context))
    assert context and pd
    check_buffers(pd)
    check_registration(pd)
    handle = ctypes.byref(Handle(context=context.value))
    check_counters(context, pd, handle)
    refused("ibv_alloc_dmah", context, ctypes.create_string_buffer(64), returns=ctypes.c_void_p)
    refused("ibv_dealloc_dmah", handle)
    speed = ctypes.c_uint64()
    check("ibv_query_port_speed", call("ibv_query_port_speed", context, 1, ctypes.byref(speed), returns=ctypes.c_int), 0)
    check("speed", speed.value, 400)
    check("port 2", call("ibv_query_port_speed", context, 2, ctypes.byref(speed), returns=ctypes.c_int), errno.EINVAL)
    check("ibv_dm_export_dmabuf_fd", call("ibv_dm_export_dmabuf_fd", handle, returns=ctypes.c_int), -1)
    check("errno", ctypes.get_errno(), errno.EOPNOTSUPP)
    check("ibv_dealloc_pd", call("ibv_dealloc_pd", pd, returns=ctypes.c_int), 0)
    check("ibv_close_device", call("ibv_close_device", context, returns=ctypes.c_int), 0)
    call("ibv_free_device_list", devices, returns=None)
    print("all as they should be")


if __name__ == "__main__":
    main()
