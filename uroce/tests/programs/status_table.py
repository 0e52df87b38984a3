#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""What becomes of everything that is wrong: the lines of the program `status`, compared with those on record, and the table of
docs/UROCE.md that is made of these.

usage: status_table.py check KIND <LINES        KIND: uroce, rxe-6.1 ...; lines that differ are printed, and the exit status is 1
       status_table.py record KIND <LINES       puts the lines on record
       status_table.py write                    writes the table into docs/UROCE.md
"""
import os
import sys

FOLDER = os.path.dirname(os.path.abspath(__file__))
RECORDS = os.path.join(FOLDER, "status")
DOCUMENT = os.path.join(FOLDER, "..", "..", "..", "docs", "UROCE.md")
KINDS = ("uroce", "rxe-6.1", "rxe-6.12", "rxe-7")
BEGIN, END = "<!-- begin: status_table.py write -->\n", "<!-- end -->\n"


def parse(text):
    """Lines to {(way, case): result}."""
    cases = {}
    for line in text.splitlines():
        way, case, result = line.split(" | ", 2)
        assert (way, case) not in cases, line
        cases[way, case] = result
    return cases


def path_of(kind):
    return os.path.join(RECORDS, f"{kind}.txt")


def recorded(kind):
    with open(path_of(kind), encoding="ascii") as file:
        return parse(file.read())


def kind_of_kernel(release):
    """6.1.0-56-amd64: rxe-6.1."""
    major, minor = release.split(".")[:2]
    return f"rxe-{major}.{minor}" if int(major) < 7 else f"rxe-{major}"


def differences(kind, text, complete=True):
    """What the lines say otherwise than those on record; `complete`: and which of these they leave out."""
    expected, found = recorded(kind), parse(text)
    lines = []
    for key, result in found.items():
        if expected.get(key) != result:
            lines.append(f"{' | '.join(key)}\n  is        {result}\n  should be {expected.get(key, 'nothing: it is not on record')}")
    if complete:
        lines += [f"{' | '.join(key)}\n  is        missing" for key, result in expected.items() if key not in found]
    return lines


# ---- the table ----

NOTHING_ELSE = "RTS RTS"


def short_statuses(text):
    """What is behind a failed request is flushed anyhow, and receives with it."""
    words = [word.split("*")[0] for word in text.split()]
    if len(words) == 2 and words[1] == "WR_FLUSH_ERR":
        words.pop()
    return " ".join(words).replace("WR_FLUSH_ERR", "flush")


def cell(result):
    requester, target, events, states = result.split(" | ")
    text = "nothing" if requester == "-" else short_statuses(requester)
    if target != "-":
        text += f" / {short_statuses(target)}"
    for end, event in zip(("requester", "target"), events.split()):
        if event != "-":
            text += f", {event}" + (" (requester)" if end == "requester" else "")
    return text if states == NOTHING_ELSE else f"{text}; {states.replace(' ', ', ')}"


def joined(cases):
    """['RC SEND', 'RC WRITE', 'UC SEND']: RC SEND, WRITE, UC SEND."""
    words, before = [], None
    for case in cases:
        service, operation = case.split()
        words.append(operation if service == before else case)
        before = service
    return ", ".join(words)


def rows():
    """{cells, one for each kind: {way: [case]}}, in the order of the record."""
    kinds = [recorded(kind) for kind in KINDS]
    made = {}
    for way, case in kinds[0]:
        cells = tuple(cell(cases[way, case]) if (way, case) in cases else "not there" for cases in kinds)
        made.setdefault(cells, {}).setdefault(way, []).append(case)
    return made


def ways_of(row):
    """Those with the same cases together: 'way; way (cases); way (cases)'."""
    by_cases = {}
    for way, cases in row.items():
        by_cases.setdefault(joined(cases), []).append(way)
    return "<br>".join(f"{'; '.join(ways)}: {cases}" for cases, ways in by_cases.items())


def table():
    lines = ["| What is wrong: operations | uroce | rxe 6.1 | rxe 6.12 | rxe 7.2 |", "|---|---|---|---|---|"]
    for cells, row in rows().items():
        shown = [cells[0]] + ["=" if text == cells[0] else text for text in cells[1:]]
        lines.append(f"| {ways_of(row)} | {' | '.join(shown)} |")
    return "".join(line + "\n" for line in lines)


def documented():
    """The document with the table, as it is and as it should be."""
    with open(DOCUMENT, encoding="utf-8") as file:
        text = file.read()
    head, rest = text.split(BEGIN)
    tail = rest.split(END, 1)[1]
    return text, head + BEGIN + table() + END + tail


def main():
    if sys.argv[1:] == ["write"]:
        _, wanted = documented()
        with open(DOCUMENT, "w", encoding="utf-8") as file:
            file.write(wanted)
        return 0
    if len(sys.argv) != 3 or sys.argv[1] not in ("check", "record"):
        print(__doc__, file=sys.stderr)
        return 2
    text = sys.stdin.read()
    if sys.argv[1] == "record":
        parse(text)
        with open(path_of(sys.argv[2]), "w", encoding="ascii") as file:
            file.write(text)
        return 0
    lines = differences(sys.argv[2], text)
    print("\n".join(lines))
    return 1 if lines else 0


if __name__ == "__main__":
    sys.exit(main())
