# SPDX-License-Identifier: Apache-2.0
"""From what Python has to the library's structures, and back. Which members there are is what the headers say."""
from __future__ import annotations

import functools
import ipaddress
import os
import weakref
from collections.abc import Callable, Mapping
from enum import IntEnum
from typing import Any

from . import _types
from ._binding import ffi, lib

# What C says of a pointer is how many there are in the member behind it.
COUNTS = ("_count", "_size", "_length")


def class_of(tag: str) -> type:
    """The class of _types for "struct srdma_conn_info" or "enum srdma_seal"."""
    name = "".join(word.capitalize() for word in tag.split()[-1].split("_")[1:])
    return getattr(_types, {"Error": "ErrorCode"}.get(name, name))


def members(ctype: Any) -> list[tuple[str, Any, str | None]]:
    """(name, type, name of the member with its count or None) of a structure; members that are such a count are left out."""
    found, fields = [], ctype.fields
    skip = False
    for number, (name, field) in enumerate(fields):
        following = fields[number + 1][0] if number + 1 < len(fields) else ""
        counted = field.type.kind == "pointer" and following.endswith(COUNTS)
        if not skip and name != "size":
            found.append((name, field.type, following if counted else None))
        skip = counted
    return found


# ---- options ------------------------------------------------------------------------------------------------------------


def c_string(value: Any) -> Any:
    """A string of C, which lives as long as the result."""
    if value is None:
        return ffi.NULL
    encoded = os.fsencode(value)
    if b"\0" in encoded:
        raise ValueError(f"a NUL in {value!r}")
    return ffi.new("char[]", encoded)


# What a structure points to lives as long as the structure.
_kept: weakref.WeakKeyDictionary[Any, list[Any]] = weakref.WeakKeyDictionary()


class Options:
    """A structure of options, filled from the names and values of `given`."""

    def __init__(self, tag: str, given: Mapping[str, Any], init: str | None = None) -> None:
        self.tag = tag
        self.struct = ffi.new(f"struct srdma_{tag} *")
        self.keep: list[Any] = []
        _kept[self.struct] = self.keep
        getattr(lib, init or f"srdma_{tag}_init")(self.struct)
        self._fill(self.struct, given)

    def _fill(self, struct: Any, given: Mapping[str, Any]) -> None:
        known = {name: (ctype, count) for name, ctype, count in members(ffi.typeof(struct).item)}
        for name, value in given.items():
            if name not in known:
                raise TypeError(f"{self.tag} has no {name!r}; there are {', '.join(sorted(known))}")
            try:
                self._set(struct, name, *known[name], value)
            except (TypeError, OverflowError, ValueError) as error:
                raise type(error)(f"{self.tag}, {name}: {error}") from None

    def _set(self, struct: Any, name: str, ctype: Any, count: str | None, value: Any) -> None:
        if ctype.kind == "enum":
            kind: Any = class_of(ctype.cname)
            setattr(struct, name, int(kind[value.upper()] if isinstance(value, str) else value))
        elif ctype.kind != "pointer":
            setattr(struct, name, value)
        elif ctype.item.kind == "function":
            setattr(struct, name, value)
        elif value is None:
            setattr(struct, name, ffi.NULL)
        elif count:
            self._set_many(struct, name, ctype.item, count, value)
        elif ctype.item.cname == "char":
            self._point(struct, name, c_string(str(value) if isinstance(value, int) and name == "port" else value))
        elif ctype.item.kind == "struct":
            inner = value if isinstance(value, Options) else Options(ctype.item.cname.removeprefix("struct srdma_"), value)
            self.keep.append(inner)
            setattr(struct, name, inner.struct)
        else:
            setattr(struct, name, value)

    def _set_many(self, struct: Any, name: str, item: Any, count: str, values: Any) -> None:
        if item.kind == "void" or item.cname == "uint8_t":
            data = bytes(values)
            self._point(struct, name, ffi.new("uint8_t[]", data or 1))  # one that is empty needs an address, too
            setattr(struct, count, len(data))
            return
        if isinstance(values, (str, bytes, Mapping)):
            raise TypeError(f"a list is needed, not {values!r}")
        values = list(values)
        if item.kind == "struct":
            tag = item.cname.removeprefix("struct srdma_")
            array = ffi.new(f"struct srdma_{tag}[]", len(values))
            for number, value in enumerate(values):
                one = Options(tag, value)
                self.keep.append(one)
                array[number] = one.struct[0]
        elif item.kind == "pointer":
            strings = [c_string(value) for value in values]
            self.keep.append(strings)
            array = ffi.new("char *[]", strings)
        else:
            array = ffi.new(f"{item.cname}[]", values)
        self._point(struct, name, array)
        setattr(struct, count, len(values))

    def _point(self, struct: Any, name: str, memory: Any) -> None:
        self.keep.append(memory)
        setattr(struct, name, memory)


# ---- reports ------------------------------------------------------------------------------------------------------------


def string(pointer: Any) -> str | None:
    return ffi.string(pointer).decode(errors="replace") if pointer else None


def address_text(address: Any) -> str:
    """ "10.0.0.1:4433" or "[fd00::1]:4433" """
    host, port = ffi.new("char[128]"), ffi.new("char[16]")
    if lib.securdma_address_text(address, host, len(host), port, len(port)) != 0:
        return ""
    text = (string(host) or "").removeprefix("::ffff:")  # an IPv4 address on a socket of IPv6
    return f"[{text}]:{string(port)}" if ":" in text else f"{text}:{string(port)}"


def enumerated(kind: type[IntEnum], value: int) -> int:
    """A newer library may have values that this version of the package does not know: those stay numbers."""
    try:
        return kind(value)
    except ValueError:
        return value


def report(struct: Any) -> Any:
    """The data class with the contents of a structure that the library has filled."""
    ctype = ffi.typeof(struct)
    ctype = ctype.item if ctype.kind == "pointer" else ctype
    return class_of(ctype.cname)(**{name: read(struct) for name, read in _readers(ctype)})


@functools.cache
def _readers(ctype: Any) -> list[tuple[str, Callable[[Any], Any]]]:
    return [(name, _reader(name, kind, count)) for name, kind, count in members(ctype)]


def _reader(name: str, ctype: Any, count: str | None) -> Callable[[Any], Any]:
    if ctype.kind == "enum":
        kind = class_of(ctype.cname)
        return lambda struct: enumerated(kind, getattr(struct, name))
    if ctype.kind == "array":
        return lambda struct: string(getattr(struct, name))
    if ctype.kind == "union":
        return lambda struct: ipaddress.IPv6Address(bytes(getattr(struct, name).raw))
    if ctype.kind != "pointer":
        return lambda struct: getattr(struct, name)
    if count is not None:
        many: str = count
        return lambda struct: _many(getattr(struct, name), ctype.item, getattr(struct, many))
    if ctype.item.cname == "char":
        return lambda struct: string(getattr(struct, name))
    if ctype.item.cname == "struct sockaddr":
        return lambda struct: address_text(getattr(struct, name))
    return lambda struct: report(getattr(struct, name)) if getattr(struct, name) else None


def _many(pointer: Any, item: Any, count: int) -> Any:
    if item.kind == "void" or item.cname == "uint8_t":
        return bytes(ffi.buffer(pointer, count)) if pointer else None
    if item.kind == "pointer":
        return [report(pointer[i]) for i in range(count)]
    return ffi.unpack(pointer, count) if count else []


# ---- data ---------------------------------------------------------------------------------------------------------------


def milliseconds(timeout: float | None) -> int:
    """Seconds, as Python has them, rounded up; None: the default of the connection."""
    if timeout is None:
        return lib.SRDMA_DEFAULT_TIMEOUT
    if not 0 <= timeout < 2**31 / 1000:
        raise ValueError(f"a timeout of {timeout} seconds: it must not be negative, nor above 2147483")
    return -int(-timeout * 1000 // 1)
