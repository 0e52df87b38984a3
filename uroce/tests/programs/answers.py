# SPDX-License-Identifier: Apache-2.0
"""What calls that fail answer on uroce0, and what may be done with a list of devices. Run under uroce; the first wrong
answer ends it."""
import ctypes
import errno
import os
import struct

from newer_functions import call, check


def device_list():
    count = ctypes.c_int()
    devices = call("ibv_get_device_list", ctypes.byref(count))
    assert devices and count.value >= 1
    return devices, ctypes.cast(devices, ctypes.POINTER(ctypes.c_void_p))[count.value - 1]


def check_lists():
    """A program may free() a list, as that of libibverbs; a later one may get the same memory."""
    for _ in range(3):
        devices, ours = device_list()
        call("free", ctypes.c_void_p(devices), returns=None)
        check("the device", call("ibv_get_device_name", ctypes.c_void_p(ours), returns=ctypes.c_char_p), b"uroce0")
        again, _ = device_list()
        call("ibv_free_device_list", ctypes.c_void_p(again), returns=None)


def null(wanted, name, *arguments):
    check(name, call(name, *arguments), None)
    check(f"errno of {name}", ctypes.get_errno(), wanted)


def error(wanted, name, *arguments):
    check(name, call(name, *arguments, returns=ctypes.c_int), wanted)
    check(f"errno of {name}", ctypes.get_errno(), wanted)


def minus_one(wanted, name, *arguments):
    check(name, call(name, *arguments, returns=ctypes.c_int), -1)
    check(f"errno of {name}", ctypes.get_errno(), wanted)


def check_import():
    """Of what is no device. libibverbs looks through the list for one with this number, and behind what the public header shows."""
    for path in ("/dev/null", "/dev/full"):
        fd = os.open(path, os.O_RDWR)
        check("ibv_import_device", call("ibv_import_device", fd), None)
        os.close(fd)


def main():
    check_lists()
    check_import()
    _, ours = device_list()
    context = ctypes.c_void_p(call("ibv_open_device", ctypes.c_void_p(ours)))
    pd = ctypes.c_void_p(call("ibv_alloc_pd", context))
    room = ctypes.create_string_buffer(4096)
    nothing = ctypes.create_string_buffer(512)

    mr = ctypes.c_void_p(call("ibv_reg_mr", pd, room, ctypes.c_size_t(64), 1))
    null(errno.EINVAL, "ibv_reg_mr", pd, room, ctypes.c_size_t(64), 2)  # remote write without local
    null(errno.EFAULT, "ibv_reg_mr", pd, ctypes.c_void_p(0x1000), ctypes.c_size_t(64), 1)
    for fd, wanted in ((-1, errno.EBADF), (0, errno.EINVAL)):
        null(wanted, "ibv_reg_dmabuf_mr", pd, ctypes.c_uint64(0), ctypes.c_size_t(64), ctypes.c_uint64(0), fd, 1)
    null(errno.EINVAL, "ibv_create_cq", context, 0, None, None, 0)
    null(errno.EINVAL, "ibv_create_qp", pd, nothing)
    null(errno.EINVAL, "ibv_create_srq", pd, nothing)
    null(errno.EINVAL, "ibv_create_ah", pd, nothing)
    null(errno.EOPNOTSUPP, "ibv_import_pd", context, 0)
    error(errno.EBUSY, "ibv_dealloc_pd", pd)
    error(errno.EINVAL, "ibv_query_port", context, 2, nothing)
    error(errno.EOPNOTSUPP, "_ibv_query_gid_ex", context, 1, 0, nothing, 1, ctypes.c_size_t(64))
    error(errno.EINVAL, "_ibv_query_gid_ex", context, 1, 1000, nothing, 0, ctypes.c_size_t(64))
    minus_one(errno.EINVAL, "ibv_query_gid", context, 2, 0, nothing)
    minus_one(errno.EINVAL, "ibv_query_pkey", context, 1, 1, nothing)
    minus_one(errno.EINVAL, "ibv_get_pkey_index", context, 1, 0)

    cq = ctypes.c_void_p(call("ibv_create_cq", context, 4, None, None, 0))
    error(errno.EINVAL, "ibv_resize_cq", cq, 0)
    srq = ctypes.c_void_p(call("ibv_create_srq", pd, struct.pack("QIII", 0, 4, 1, 0)))
    assert cq and srq
    error(errno.EINVAL, "ibv_modify_srq", srq, struct.pack("III", 4, 1, 5), 2)  # a limit beyond the queue
    error(errno.EOPNOTSUPP, "ibv_query_ece", srq, nothing)  # a queue pair, too, begins with its context
    for name, thing in (("ibv_destroy_srq", srq), ("ibv_destroy_cq", cq), ("ibv_dereg_mr", mr), ("ibv_dealloc_pd", pd),
                        ("ibv_close_device", context)):
        check(name, call(name, thing, returns=ctypes.c_int), 0)
    print("all as they should be")


main()
