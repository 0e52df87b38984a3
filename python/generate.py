#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Makes from the public headers what the Python package takes from them, so that nothing of them is written down a second time.

usage: generate.py HEADERS FOLDER     HEADERS: the folder of the headers; FOLDER: where the two files go

_binding.c   the extension module: all functions, structures and constants, as cffi's API mode wants them. The compiler compares
             each of them with the headers
_types.py    enumerations as IntEnum, options as TypedDict, what the library reports as data classes, each with the headers'
             comments, and the errors of each function
"""
import pathlib
import re
import sys

import cffi
import header_pages

HERE = pathlib.Path(__file__).resolve().parent
# Of libibverbs' names those that a program needs for its options.
VERBS_CONSTANTS = ("IBV_ACCESS_LOCAL_WRITE", "IBV_ACCESS_REMOTE_WRITE", "IBV_ACCESS_REMOTE_READ", "IBV_ACCESS_REMOTE_ATOMIC")
VERBS_ENUMS = {"ibv_port_state": ("NOP", "DOWN", "INIT", "ARMED", "ACTIVE", "ACTIVE_DEFER"), "ibv_qp_state": ("RESET", "INIT", "RTR", "RTS", "SQD", "SQE", "ERR")}
VERBS_PREFIX = {"ibv_port_state": "IBV_PORT_", "ibv_qp_state": "IBV_QPS_"}
# What a function of the package takes as an argument of its own.
ARGUMENTS = {"cert_request": ("kind",), "link_options": ("conn", "endpoints"), "piece": ("memory",), "server_options": ("conn", "limits")}
OUTSIDE = """
union ibv_gid { uint8_t raw[16]; ...; };
"""
INTEGERS = r"(?:unsigned|int|short|size_t|u?int(?:8|16|32|64)_t|(?:unsigned )?(?:long|char))"


def headers_of(folder):
    """All public headers; securdma.h, which the others need, comes first."""
    found = sorted(pathlib.Path(folder).glob("securdma*.h"))
    if not found or found[0].name != "securdma.h":
        sys.exit(f"generate.py: {folder} has no securdma.h: install libsecurdma-dev, or name the folder of the headers")
    return found


class Structure:
    """A structure of the headers: its members with their types, which C lets several members share."""

    def __init__(self, kind):
        self.name, self.comment, self.members = kind.name.split()[1], kind.comment, []
        before = ""
        for code, comment in kind.members:
            if re.fullmatch(r"\**\w+(\[\w+\])?", code):  # "uint32_t qpn, peer_qpn": the second one has no type of its own
                code = f"{before} {code}"
                if comment and not self.members[-1][2]:
                    self.members[-1] = (*self.members[-1][:2], comment, None)
            handler = re.fullmatch(r"(?P<type>[^()]+)\(\*(?P<name>\w+)\)\((?P<arguments>.*)\)", code)
            plain = re.fullmatch(r"(?P<type>.*?)(?P<stars>\**)(?P<name>\w+)(?P<array>\[\w+\])?", code)
            name = (handler or plain)["name"]
            if not handler:
                before = plain["type"].strip()
            self.members.append((name, code, comment, handler))

    def is_options(self):
        """Whether a program fills it: it has an _init function, or is for one call."""
        return any("set by srdma_" in text(comment) for _, _, comment, _ in self.members)

    def handlers(self):
        return [(name, handler) for name, _, _, handler in self.members if handler]


def text(comment):
    """A comment as one line."""
    return " ".join(block if isinstance(block, str) else " ".join(block) for block in comment.blocks) if comment else ""


class Binding:
    """All that the headers declare."""

    def __init__(self, folder):
        self.paths = headers_of(folder)
        self.header = header_pages.Header(self.paths)
        types = [t for page in self.header.pages for t in page.types]
        self.enums = [t for t in types if t.name.startswith("enum")]
        self.structures = [Structure(t) for t in types if t.name.startswith("struct") and not t.is_opaque]
        self.opaque = sorted({t.name for t in types if t.is_opaque} | set(re.findall(
            r"struct (?:ibv_\w+|sockaddr)\b", " ".join(path.read_text(encoding="utf-8") for path in self.paths))))
        self.functions = [f for page in self.header.pages for _, functions in page.groups for f in functions]
        self.macros = [macro for page in self.header.pages for macro in page.macros if "(" not in macro[0]]

    # ---- for cffi ----

    def constants(self):
        for name, value, _ in self.macros:
            number = re.fullmatch(r"\(?(-?\d+)\)?", value)
            if not value.startswith('"'):
                yield f"#define {name} {number[1] if number else '...'}"
        yield from (f"#define {name} ..." for name in VERBS_CONSTANTS)

    def declarations(self):
        lines = [OUTSIDE, *self.constants(), *(f"{name};" for name in self.opaque)]
        lines += [f"enum {tag} {{ {', '.join(VERBS_PREFIX[tag] + name for name in names)}, ... }};" for tag, names in VERBS_ENUMS.items()]
        lines += [f"{kind.name} {{ {', '.join(code for code, _ in kind.members)} }};" for kind in self.enums]
        lines += [f"typedef {f.type} {f.name}({', '.join(f.arguments)});" for f in self.functions if f.is_callback]
        lines += [f"struct {s.name} {{ {' '.join(code + ';' for _, code, _, _ in s.members)} }};" for s in self.structures]
        lines += [f"{f.type} {f.name}({', '.join(f.arguments)});" for f in self.functions if not f.is_callback]
        # What the library calls: functions in Python under the name of the member or of the type.
        for structure in self.structures:
            lines += [f'extern "Python" {h["type"]} securdma_{name}({h["arguments"]});' for name, h in structure.handlers()]
        lines += [f'extern "Python" {f.type} {f.name.replace("srdma_", "securdma_")}({", ".join(f.arguments)});'
                  for f in self.functions if f.name in ("srdma_admit_fn", "srdma_check_fn", "srdma_release_fn")]
        return "\n".join(lines)

    def builder(self, module="securdma._binding", **more):
        helpers = (HERE / "helpers.h").read_text(encoding="utf-8")
        ffi = cffi.FFI()
        ffi.cdef(self.declarations())
        ffi.cdef("\n".join(f"{declaration};" for declaration in re.findall(r"^/\*\* .*?\*/\nstatic (.*?\))\n\{", helpers, flags=re.M | re.S)))
        ffi.set_source(module, "".join(f"#include <{path.name}>\n" for path in self.paths) + helpers, **more)
        return ffi

    # ---- for people, and for programs that check types ----

    def enumeration(self, tag, members, comment):
        """members: (name, value or None, comment). The prefix that all names share goes."""
        names = [name for name, _, _ in members]
        prefix = re.match(r"(?:[A-Z0-9]+_)*", names[0])[0]
        while not all(name.startswith(prefix) for name in names):
            prefix = re.match(r"(.*_)?[A-Z0-9]+_$", prefix)[1] or ""
        lines, value = [f"class {class_name(tag)}(IntEnum):", f'    """{comment or f"enum {tag}."}"""', ""], -1
        for name, given, about in members:
            value = int(given) if given is not None else value + 1
            lines.append(f"    {name[len(prefix):]} = {value}" + (f"  #: {about}" if about else ""))
        return lines

    def python_type(self, code, counted):
        """The type in Python of a member in C, and of what it holds."""
        code = code.replace("const ", "").replace("const*", "*")
        kind = re.fullmatch(r"(?P<type>.*?) ?(?P<stars>[*]*(?:const ?)?[*]*)\w+(?P<array>\[\w+\])?", code)
        base, stars = kind["type"].strip(), kind["stars"].replace("const", "").replace(" ", "")
        if base == "bool":
            return "bool"
        if base == "char" and (kind["array"] or stars == "*"):
            return "str" if kind["array"] else "str | None"
        if base == "char" and stars:
            return "list[str]"
        if base == "void" or base == "uint8_t" and stars:
            return "bytes | None"
        if base == "union ibv_gid":
            return "IPv6Address"
        if base == "struct sockaddr":
            return "str"
        if re.fullmatch(r"(struct|enum) \w+", base):
            name = class_name(base.split()[1])
            return f"list[{name}]" if counted else f"{name} | None" if stars else name
        if re.fullmatch(INTEGERS, base):
            return "list[int]" if stars else "int"
        raise header_pages.Mistake(f"'{code}' has no type in Python")

    def structure(self, structure):
        options = structure.is_options()
        lines = ["class {}(TypedDict, total=False):".format(class_name(structure.name)) if options else
                 f"@dataclass(frozen=True)\nclass {class_name(structure.name)}:",
                 f'    """{docstring(structure.comment) or f"struct {structure.name}."}"""', ""]
        members, skip = structure.members, False
        for number, (name, code, comment, handler) in enumerate(members):
            following = members[number + 1][0] if number + 1 < len(members) else ""
            counted = "*" in code and following.endswith(("_count", "_size", "_length"))
            if not skip and name not in ("size", "arg", *ARGUMENTS.get(structure.name.removeprefix("srdma_"), ())) and not handler and not code.startswith("srdma_"):
                secret = " = field(repr=False)" if "a secret" in text(comment) and not options else ""
                word = " | str" if options and code.startswith("enum ") else " | int" if options and name == "port" and "char" in code else ""
                lines.append(f"    {name}: {self.python_type(code, counted)}{word}{secret}")
                if text(comment):
                    lines.append(f'    """{shown(text(comment))}"""')
            skip = counted
        return lines

    def types(self):
        lines = ['"""Made from the headers of the library by generate.py."""', "from __future__ import annotations", "",
                 "from dataclasses import dataclass, field", "from enum import IntEnum", "from ipaddress import IPv6Address", "from typing import TypedDict", "",
                 "# What options and reports are filled from and into is in _convert.py.", ""]
        for name, value, comment in self.macros:
            if value.startswith('"'):
                lines += [f"{name.removeprefix('SRDMA_')} = {value}  #: {text(comment)}", ""]
        for tag, names in VERBS_ENUMS.items():
            lines += ["", *self.enumeration(tag, [(VERBS_PREFIX[tag] + name, None, "") for name in names], f"enum {tag} of libibverbs."), ""]
        for kind in self.enums:
            members = []
            for code, comment in kind.members:
                name, _, value = code.partition("=")
                members.append((name.strip(), value.strip() or None, text(comment)))
            lines += ["", *self.enumeration(kind.name.split()[1], members, docstring(kind.comment)), ""]
        for structure in self.structures:
            lines += ["", *self.structure(structure), ""]
        public = [line.split()[0 if line[0].isupper() else 1].partition("(")[0].rstrip(":") for line in "\n".join(lines).splitlines()
                  if re.match(r"class |[A-Z_]+ = ", line)]
        lines += ["", f"__all__ = {sorted(public)!r}", "", "#: The errors of each function, as its manual page has them.", "ERRORS = {"]
        for page in self.header.pages:
            for comment, functions in page.groups:
                said = [f"{names}: {about}" for names, about in comment.errors]
                said += [comment.errors_text] if comment.errors_text else []
                lines += [f"    {f.name!r}: {said!r}," for f in functions if said]
        return "\n".join([*lines, "}", ""])


def class_name(tag):
    """srdma_conn_info: ConnInfo; ibv_port_state: PortState."""
    name = "".join(word.capitalize() for word in re.sub("^(srdma|ibv)_", "", tag).split("_"))
    return {"Error": "ErrorCode"}.get(name, name)  # Error is the exception


def shown(words):
    words = re.sub(r"\bNULL\b", "None", words.replace("\\", "\\\\").replace('"""', "'''"))
    return words + " " if words.endswith('"') else words


def docstring(comment):
    return shown(text(comment))


def main(headers, folder):
    binding, folder = Binding(headers), pathlib.Path(folder)
    binding.builder().emit_c_code(str(folder / "_binding.c"))
    (folder / "_types.py").write_text(binding.types(), encoding="utf-8")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    try:
        main(*sys.argv[1:])
    except header_pages.Mistake as mistake:
        sys.exit(f"generate.py: {mistake}")
