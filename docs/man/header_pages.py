#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Makes the manual pages of section 3 from the comments of the public headers.

usage: header_pages.py --list HEADER...              print the names of the files that it would write
       header_pages.py HEADER... EXAMPLE.c FOLDER    write them

A group of functions, which begins with a comment between two dashes, is one page, named for its first function; the other
functions of the group refer to it. The comment at the top of the first header is the page securdma(3). A file examples/PAGE.c beside this
program becomes the page's EXAMPLES: its second line, a comment, is the text before the rest. It fails when a comment names what no header
declares, and when a function belongs to no group or has no comment.
"""
import errno
import os
import pathlib
import re
import sys
import time

TOKEN = re.compile(
    r"/\* ---- (?P<part>.*?) -+ \*/|/\* -- (?P<page>.*?) -- \*/|/\*\*(?P<doc>.*?)\*/|/\*.*?\*/|"
    r"#define (?P<macro>\w+)(?P<parameters>\([\w, ]+\)(?=\s))?[ \t]*(?P<value>(?:[^\n]*\\\n)*[^\n]*)|#[^\n]*|extern \"C\" \{|\}\s*#endif|"
    r"(?P<inline>SRDMA_INLINE[^{};]*)\{[^{}]*\}|(?P<code>[^\s{};/#](?:[^{};/]|\{[^{}]*\})*);", re.S)
MEMBER = re.compile(r"(?:/\*\*(?!<)(?P<before>.*?)\*/\s*)?(?P<code>[^/]+?)(?:;|,(?![^(]*\))|\Z)\s*(?:/\*\*<(?P<after>.*?)\*/)?", re.S)
FUNCTION = re.compile(r"(?:SRDMA_API|(?P<inline>SRDMA_INLINE)|(?P<typedef>typedef))\s+(?P<type>.*?)\b(?P<name>srdma_\w+)\((?P<arguments>.*)\)", re.S)
TYPE = re.compile(r"(?P<kind>struct|enum)\s+(?P<name>\w+)\s*(?:\{(?P<body>.*)\})?$", re.S)


EXAMPLES = pathlib.Path(__file__).resolve().parent / "examples"


class Mistake(Exception):
    """The header does not have the form that this program, and its readers, need."""


def one_line(code):
    return " ".join(code.split())


class Comment:
    """A comment's paragraphs and lists, what it says of the result, and the errors that it lists."""

    def __init__(self, text):
        self.blocks = []  # str: a paragraph; list of str: its items
        self.errors = []  # (names, text)
        self.errors_text = self.returns = ""
        where, join = None, False
        for line in re.sub(r"^[ \t]*\*(?: ? ?)(.*)$", r"\1", text, flags=re.M).strip().splitlines():
            stripped = line.strip()
            if not stripped:
                join = False
                continue
            error = re.match(r"(-E[A-Z0-9]+|SRDMA_E[A-Z]+)((?:, (?:-E[A-Z0-9]+|SRDMA_E[A-Z]+))*)\s{2,}(.*)", stripped)
            if stripped.startswith("Errors:"):
                where, self.errors_text = "errors", stripped[7:].strip()
            elif stripped.startswith("Returns:"):
                where, self.returns = "returns", stripped[8:].strip()
            elif where == "errors" and error:
                self.errors.append((error[1] + error[2], error[3]))
            elif where == "errors" and self.errors:
                self.errors[-1] = (self.errors[-1][0], self.errors[-1][1] + " " + stripped)
            elif where == "errors":
                self.errors_text += " " + stripped
            elif where == "returns":
                self.returns += " " + stripped
            elif stripped.startswith("- "):
                if not (self.blocks and isinstance(self.blocks[-1], list)):
                    self.blocks.append([])
                self.blocks[-1].append(stripped[2:])
                join = True
            elif join and isinstance(self.blocks[-1], list):
                self.blocks[-1][-1] += " " + stripped
            elif join:
                self.blocks[-1] += " " + stripped
            else:
                self.blocks.append(stripped)
                join = True


class Function:
    def __init__(self, match):
        self.name, self.type = match["name"], one_line(match["type"])
        self.is_callback = bool(match["typedef"])
        self.arguments = [one_line(a) for a in re.split(r",(?![^()]*\))", match["arguments"])]


class Type:
    def __init__(self, match, comment):
        self.name, self.comment = f"{match['kind']} {match['name']}", comment
        self.is_opaque, self.members = match["body"] is None, []
        for member in MEMBER.finditer(match["body"] or ""):
            text = member["after"] or member["before"]
            if member["code"].strip():
                self.members.append((one_line(member["code"]), Comment(text) if text else None))


class Page:
    def __init__(self, header, part, title):
        self.header, self.part, self.title = header, part, title  # header: the name of its file
        self.groups = []  # (Comment, [Function]): functions that share a comment
        self.types, self.macros = [], []  # macros: (name, value, Comment)

    def functions(self):
        return [f for _, functions in self.groups for f in functions if not f.is_callback]

    def name(self):
        functions = self.functions()
        return next((f.name for f in functions if not f.name.endswith(("_init", "_sized"))), functions[0].name)


class Header:
    """All public headers together."""

    def __init__(self, paths):
        self.pages, self.top = [], None
        for path in paths:
            self.read(path)
        for page in self.pages:
            if not page.functions():
                raise Mistake(f"the group '{page.title}' has no function")
        self.pages_of = {f.name: page for page in self.pages for f in page.functions()}
        types = [t for page in self.pages for t in page.types]
        self.types = {t.name.split()[1] for t in types} | {
            f.name for page in self.pages for _, functions in page.groups for f in functions if f.is_callback}
        self.constants = {re.match(r"\w+", name)[0] for page in self.pages for name, _, _ in page.macros} | {
            re.match(r"\w+", code)[0] for t in types if t.name.startswith("enum") for code, _ in t.members}

    def read(self, path):
        part, comment, shared, own_pages = "", None, False, len(self.pages)
        for token in TOKEN.finditer(path.read_text(encoding="utf-8")):
            page = self.pages[-1] if len(self.pages) > own_pages else None
            if token["part"]:
                part = token["part"]
            elif token["page"]:
                self.pages.append(Page(path.name, part, token["page"]))
                comment, shared = None, False
            elif token["doc"]:
                comment, shared = Comment(token["doc"]), False
                self.top = self.top or comment
            elif token["macro"] and page:
                page.macros.append((token["macro"] + (token["parameters"] or ""), "" if token["parameters"] else token["value"], comment))
                comment = None
            elif token["code"] or token["inline"]:
                shared = self.declaration(page, (token["code"] or token["inline"]).strip(), comment, shared)
                comment = None

    @staticmethod
    def declaration(page, code, comment, shared):
        """Returns whether the comment is that of the next function, too, if that has none."""
        if not page:
            raise Mistake(f"no group has begun before '{one_line(code)}'")
        function, kind = FUNCTION.fullmatch(code), TYPE.fullmatch(code)
        if function and comment:
            page.groups.append((comment, [Function(function)]))
        elif function and shared:
            functions = page.groups[-1][1]
            # A function that gives the size comes before the one that takes it.
            functions.insert(len(functions) - (functions[-1].name == function["name"] + "_sized"), Function(function))
        elif kind:
            page.types.append(Type(kind, comment))
            return False
        else:
            raise Mistake(f"'{one_line(code)}' has no comment, or is neither function nor type")
        return not page.groups[-1][1][-1].is_callback


class Writer:
    """Writes one page in mdoc."""

    def __init__(self, header, page=None):
        self.header, self.page = header, page
        self.own = {f.name for f in page.functions()} if page else set()
        self.seen, self.lines = set(), []

    def reference(self, match):
        name, call = match[1], match[2] or ""
        if name in self.own:
            return rf"\fB{name}\fR()"
        if name in self.header.pages_of:
            self.seen.add(self.header.pages_of[name].name())
            return rf"\fB{name}\fR(3)"
        if call or name not in self.header.types:
            raise Mistake(f"a comment names {name}{call}, which the header does not declare")
        return name

    def check(self, text):
        for name in re.findall(r"\bSRDMA_[A-Z0-9_]+\b(?!\*)|(?<!\w)-E[A-Z0-9]+\b", text):
            if name not in self.header.constants and not hasattr(errno, name[1:]):
                raise Mistake(f"a comment names {name}, which neither the header nor errno(3) has")

    def text(self, text):
        self.check(text)
        text = text.replace("\\", r"\e")
        # Not a member of a structure.
        text = re.sub(r"\b(srdma_[a-z0-9_]+)(\(\))?(?![a-z0-9_]|\.[a-z])", self.reference, text)
        text = re.sub(r"`([^`]*)`", r"\\fI\1\\fR", text)
        text = re.sub(r"(?<![\w)])-(?=[A-Z0-9])", r"\\-", text)
        # A new sentence, a new line.
        text = re.sub(r"([.!?:]\)?) (?=[A-Z`\\])", r"\1\n", text)
        self.lines += [r"\&" + line if line[0] in ".'" else line for line in text.splitlines()]

    def put(self, *lines):
        self.lines += lines

    def blocks(self, comment):
        for number, block in enumerate(comment.blocks if comment else []):
            if isinstance(block, list):
                self.put(".Bl -bullet -width Ds")
                for item in block:
                    self.put(".It")
                    self.text(item)
                self.put(".El")
            else:
                if number > 0:
                    self.put(".Pp")
                self.text(block)

    @staticmethod
    def sentence(functions, verb, verb_of_many):
        """'.Fn a , b and c VERB' in mdoc."""
        lines = [f".Fn {f.name}" for f in functions]
        for i in range(len(lines) - 2):
            lines[i] += " ,"
        if len(lines) > 1:
            lines.insert(-1, "and")
        return [*lines, verb if len(functions) == 1 else verb_of_many]

    def start(self, name, others, title):
        epoch = os.environ.get("SOURCE_DATE_EPOCH")
        date = time.gmtime(int(epoch) if epoch else self.header_time)
        self.put(r'.\" SPDX-License-Identifier: Apache-2.0', rf'.\" Made from the comments of {self.page.header if self.page else "securdma.h"}: change them instead.',
                 f".Dd {time.strftime('%B', date)} {date.tm_mday}, {date.tm_year}", f".Dt {name.upper()} 3", ".Os",
                 ".Sh NAME", *(f".Nm {n} ," for n in [name, *others][:-1]), f".Nm {[name, *others][-1]}", f".Nd {title}",
                 ".Sh LIBRARY", r"The securdma library (libsecurdma, \-lsecurdma)", ".Sh SYNOPSIS", f".In {self.page.header if self.page else 'securdma.h'}")

    def synopsis(self, functions):
        for f in functions:
            self.put(f".Ft {'typedef ' if f.is_callback else ''}{f.type}", f".Fo {f.name}",
                     *(f'.Fa "{a}"' for a in f.arguments), ".Fc")

    def type(self, kind):
        self.put(f".Ss {kind.name}")
        self.blocks(kind.comment)
        self.put(".Bl -tag -width Ds")
        for code, comment in kind.members:
            self.put(f'.It {"Dv" if kind.name.startswith("enum") else "Fa"} "{code}"')
            self.blocks(comment)
        self.put(".El")

    def description(self):
        page = self.page
        self.put(".Sh DESCRIPTION")
        if len(page.groups) == 1 and not any(t.is_opaque for t in page.types):
            self.blocks(page.groups[0][0])
        else:
            self.put(".Bl -tag -width Ds")
            for kind in page.types:
                if kind.is_opaque and kind.comment:
                    self.put(f".It Vt {kind.name}")
                    self.blocks(kind.comment)
            for comment, functions in page.groups:
                self.put(".It " + " , ".join(f"Fn {f.name}" for f in functions))
                self.blocks(comment)
            self.put(".El")
        if page.macros:
            self.put(".Ss Constants", ".Bl -tag -width Ds")
            for name, value, comment in page.macros:
                self.put(f'.It Dv "{name}"' + f" No = {value}".replace('"4433"', r"\(dq4433\(dq").replace('"log"', r"\(dqlog\(dq") * bool(value))
                self.blocks(comment)
            self.put(".El")
        for kind in page.types:
            if not kind.is_opaque:
                self.type(kind)

    def results(self):
        told = [(c, fs) for c, fs in self.page.groups if c.returns]
        usual = [f for c, fs in self.page.groups if not c.returns and (c.errors or c.errors_text) for f in fs
                 if not f.is_callback]
        if told or usual:
            self.put(".Sh RETURN VALUES")
        if usual:
            self.put(*self.sentence(usual, "returns 0 when it succeeds, and a negative error when it fails.",
                                    "return 0 when they succeed, and a negative error when they fail."))
        for number, (comment, functions) in enumerate(told):
            if usual or number > 0:
                self.put(".Pp")
            self.put(*self.sentence(functions, "returns", "return"))
            self.text(comment.returns)

    def errors(self):
        groups = [(c, fs) for c, fs in self.page.groups if c.errors or c.errors_text]
        if groups:
            self.put(".Sh ERRORS")
        for number, (comment, functions) in enumerate(groups):
            if number > 0:
                self.put(".Pp")
            if comment.errors_text:
                self.put("The errors of", *self.sentence(functions, "are", "are"))
                self.text(comment.errors_text)
            if comment.errors:
                self.put(*self.sentence(functions, "fails with:", "fail with:"), ".Bl -tag -width Ds")
                for names, text in comment.errors:
                    self.check(names)
                    self.put(".It " + " , ".join(f"Er {name}" for name in names.split(", ")).replace("Er -", r"Er \-"))
                    self.text(text)
                self.put(".El")

    def code(self, lines):
        self.put(".Bd -literal")
        for line in lines:
            line = line.replace("\\", r"\e").expandtabs(4)
            self.put(r"\&" + line if line[:1] in (".", "'") else line)
        self.put(".Ed")

    def example(self):
        path = EXAMPLES / f"{self.page.name()}.c"
        if not path.exists():
            return
        _, intro, *lines = path.read_text(encoding="utf-8").splitlines()
        self.put(".Sh EXAMPLES")
        self.text(intro.removeprefix("/* ").removesuffix(" */"))
        self.code(lines)

    def see_also(self, names):
        names = sorted(set(names) - {self.page.name() if self.page else "securdma"})
        self.put(".Sh SEE ALSO", *(f".Xr {n} 3 ," for n in names[:-1]), f".Xr {names[-1]} 3")

    def group_page(self):
        functions = [f for _, fs in self.page.groups for f in fs]
        others = [f.name for f in self.page.functions() if f.name != self.page.name()]
        self.start(self.page.name(), others, self.page.title)
        self.synopsis(functions)
        self.description()
        self.results()
        self.example()
        self.errors()
        related = [p.name() for p in self.header.pages if p.part == self.page.part]
        self.see_also([*related, *self.seen, "securdma"])
        return self.lines

    def top_page(self, example):
        blocks = self.header.top.blocks
        self.start("securdma", [], blocks[0].rstrip(".")[0].lower() + blocks[0].rstrip(".")[1:])
        self.put(".Sh DESCRIPTION")
        self.text(blocks[1])
        self.put(".Pp", "Compile a program with the flags of", ".Ql pkg-config --cflags --libs securdma .")
        for heading, items in zip(blocks[2::2], blocks[3::2]):
            if isinstance(items, list):
                shown = Comment("")
                shown.blocks = [items]
                self.put(f".Sh {heading.upper()}")
                self.blocks(shown)
        self.put(".Sh FUNCTIONS")
        part = None
        for page in self.header.pages:
            if page.part != part:
                self.put(*([".El"] if part else []), f".Ss {page.part[0].upper() + page.part[1:]}", ".Bl -tag -width Ds")
                part = page.part
            self.put(f".It Xr {page.name()} 3", page.title[0].upper() + page.title[1:] + ".")
        self.put(".El", ".Sh EXAMPLES", "A client of", ".Xr securdma-serve 1 :")
        self.code(example.read_text(encoding="utf-8").splitlines())
        self.put(".Sh SEE ALSO", ".Xr securdma 1 ,", ".Xr securdma-serve 1")
        return self.lines


def main(arguments):
    listing = arguments[:1] == ["--list"]
    paths = [pathlib.Path(a) for a in (arguments[1:] if listing else arguments[:-2])]
    if not paths:
        sys.exit(__doc__)
    header = Header(paths)
    if listing:
        print("securdma.3", *(f"{name}.3" for name in header.pages_of), sep="\n")
        return
    Writer.header_time = max(path.stat().st_mtime for path in paths)
    files = {"securdma": Writer(header).top_page(pathlib.Path(arguments[-2]))}
    for name, page in header.pages_of.items():
        files[name] = Writer(header, page).group_page() if name == page.name() else [f".so man3/{page.name()}.3"]
    for name, lines in files.items():
        (pathlib.Path(arguments[-1]) / f"{name}.3").write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except Mistake as mistake:
        sys.exit(f"header_pages.py: {mistake}")
