# SPDX-License-Identifier: Apache-2.0
"""RDMA devices."""
from __future__ import annotations

import threading
import weakref
from typing import TYPE_CHECKING

from ._binding import ffi, lib
from ._convert import Options, report, string
from ._handle import Handle, Owner, freer, made
from ._types import PortInfo
from .errors import check, errors_of

if TYPE_CHECKING:
    from typing import Unpack

    from ._types import DeviceOptions


@errors_of("srdma_device_list")
def devices() -> list[PortInfo]:
    """Lists the ports of all RDMA devices. Thread-safe."""
    out, count = ffi.new("struct srdma_port_info **"), ffi.new("size_t *")
    check(lib.srdma_device_list(out, count))
    try:
        return [report(out[0] + i) for i in range(count[0])]
    finally:
        lib.srdma_device_list_free(out)


class Device(Handle):
    """An open device, which connections and servers share; they keep it open. Thread-safe.

    Options: name, port, gid_index; see DeviceOptions. Without any it is the first device with an active port.
    """

    _what = "device"

    @errors_of("srdma_device_open")
    def __init__(self, **options: Unpack[DeviceOptions]) -> None:
        pointer = made(lib.srdma_device_open, "device", Options("device_options", options).struct)
        super().__init__(Owner(pointer, freer(lib.srdma_device_unref, "device")))

    @property
    def name(self) -> str:
        with self._using() as pointer:
            return string(lib.srdma_device_name(pointer)) or ""

    @property
    def port(self) -> int:
        """The number of the port, from 1."""
        with self._using() as pointer:
            return lib.srdma_device_port(pointer)


_default: weakref.ref[Device] | None = None
_default_lock = threading.Lock()


def default_device() -> Device:
    """The device for calls without one: opened when it is first needed, shared, and closed when no connection needs it any more."""
    global _default
    with _default_lock:
        device = _default() if _default else None
        if device is None or device.closed:
            device = Device()
            _default = weakref.ref(device)
        return device
