# SPDX-License-Identifier: Apache-2.0
"""Rows of a benchmark: a figure, what it is measured beside, the aim, and whether it is met."""
import argparse
import dataclasses
import json
import os
import re
import statistics
import sys


class Missing(Exception):
    """What a measurement needs is not there; the text says what. The rows that need it are left out with this reason."""


class Failed(SystemExit):
    """A measurement went wrong. It ends the program, unless it was taken in_turn with others."""


def in_turn(rounds, measures):
    """Takes every measure once a round, one after the other, so that a machine that drifts drifts for all; the order turns around each
    round. Returns the name of each to its values, or to the reason why there are none. A measure that fails in one round is not taken
    again: such a failure says more than the other rounds."""
    values = {name: [] for name in measures}
    for number in range(rounds):
        for name in list(measures) if number % 2 == 0 else reversed(measures):
            if isinstance(values[name], list):
                try:
                    values[name].append(measures[name]())
                except Missing as reason:
                    values[name] = f"skipped: {reason}"
                except Failed as reason:
                    print(reason, file=sys.stderr)
                    values[name] = "FAILED: " + str(reason).partition("\n")[0]
    return values


@dataclasses.dataclass
class Row:
    """`ours` and `theirs`: one value a round, or the reason why there are none; without `theirs` the aim is for the value itself. The
    median of the rounds' ratios has to be at least `least` and at most `most`; with `each`, every one of them."""
    figure: str
    unit: str
    ours: list
    beside: str = ""
    theirs: list = None
    least: float = None
    most: float = None
    each: bool = False
    after: str = ""  # for people: what else there is to say

    @property
    def skipped(self):
        """Why nothing was measured, or "": "skipped: " and what is missing, or "FAILED: " and what failed."""
        return next((values for values in (self.ours, self.theirs) if isinstance(values, str)), "")

    @property
    def ratios(self):
        return self.ours if self.theirs is None else [a / b for a, b in zip(self.ours, self.theirs)]

    @property
    def middle(self):
        return statistics.median(self.ratios)

    @property
    def met(self):
        judged = self.ratios if self.each else [self.middle]
        return all((self.least is None or value >= self.least) and (self.most is None or value <= self.most) for value in judged)

    @property
    def aim(self):
        if self.least is None and self.most is None:
            return ""
        if self.least is not None and self.most is not None:
            return f"{self.least:g} to {self.most:g}{' each' if self.each else ''}"
        return f"at least {self.least:g}" if self.least is not None else f"at most {self.most:g}"

    @property
    def verdict(self):
        if self.skipped:
            return self.skipped
        return "" if not self.aim else "met" if self.met else "MISSED"

    @property
    def spread(self):
        shown = [short(value) if self.theirs is None else f"{value:.2f}" for value in (self.middle, min(self.ratios), max(self.ratios))]
        return shown[0] if len(self.ratios) == 1 else f"{shown[0]} ({shown[1]}..{shown[2]})"


def as_dict(entry):
    """Of a row, or of a remark, which is one already."""
    if not isinstance(entry, Row):
        return entry
    facts = {**dataclasses.asdict(entry), "skipped": entry.skipped}
    return facts if entry.skipped else {**facts, "ratio": entry.middle, "min": min(entry.ratios), "max": max(entry.ratios), "met": entry.met}


def from_dict(facts):
    return Row(**{field.name: facts[field.name] for field in dataclasses.fields(Row)})


def short(value):
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def middle_of(values, unit):
    return f"{short(statistics.median(values))} {unit}".rstrip()


# ---- the forms in which they are shown -----------------------------------------------------------------------------------


def as_text(row):
    if row.skipped:
        return f"{row.figure}: {row.verdict}"
    aim = f"; aim {row.aim}: {row.verdict}" if row.aim else ""
    after = f"; {row.after}" if row.after else ""
    if row.theirs is None:
        return f"{row.figure}: {row.spread} {row.unit}".rstrip() + aim + after
    return (f"{row.figure}: {row.spread} times {row.beside} ({middle_of(row.ours, row.unit)} to {middle_of(row.theirs, row.unit)})"
            f"{aim}{after}")


def as_markdown(row):
    after = f" ({row.after})" if row.after else ""
    if row.skipped:
        return f"| {row.figure} | | {row.beside} | | {row.aim}: {row.skipped} |"
    theirs = "" if row.theirs is None else middle_of(row.theirs, row.unit)
    ours = middle_of(row.ours, row.unit) if row.theirs is not None else f"{row.spread} {row.unit}".rstrip()
    ratio = "" if row.theirs is None else row.spread
    verdict = f": {row.verdict.replace('MISSED', '**missed**')}" if row.aim else ""
    return f"| {row.figure}{after} | {ours} | {', '.join(filter(None, (row.beside, theirs)))} | {ratio} | {row.aim}{verdict} |"


MARKDOWN_HEAD = "| | Measured | Beside | Ratio (range) | Aim |\n|---|---:|---|---:|---|"


def table(rows):
    """All rows in columns of their own width."""
    head = ("figure", "ratio or value", "beside", "aim", "")
    lines = [head] + [(row.figure, "" if row.skipped else row.spread + ("" if row.theirs is not None else f" {row.unit}"), row.beside, row.aim,
                       row.verdict) for row in rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(line, widths)).rstrip() for line in lines)


def summary(rows):
    """How many aims are met, and which are not."""
    judged = [row for row in rows if row.aim and not row.skipped]
    missed = [row.figure + (f", beside {row.beside}" if row.beside else "") for row in judged if not row.met]
    return "\n  ".join([f"{len(judged) - len(missed)} of {len(judged)} aims met{'; missed:' if missed else ''}", *missed])


def add_options(parser):
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--markdown", action="store_true")
    parser.add_argument("--lines", action="store_true", help=argparse.SUPPRESS)


class Report:
    """Shows rows and remarks as they come, as text or as lines of JSON for a program; JSON and Markdown come at the end, and meanwhile the
    text goes to standard error."""

    def __init__(self, options):
        self.json, self.markdown, self.lines = options.json, options.markdown, options.lines
        self.entries = []

    @property
    def rows(self):
        return [entry for entry in self.entries if isinstance(entry, Row)]

    def _add(self, entry, text):
        self.entries.append(entry)
        if self.lines:
            print(json.dumps(as_dict(entry)), flush=True)
        else:
            print(text, file=sys.stderr if self.json or self.markdown else sys.stdout, flush=True)

    def add(self, *rows):
        for row in rows:
            self._add(row, as_text(row))

    def say(self, text, **facts):
        self._add({"text": text, **facts}, text)

    def title(self, text):
        self._add({"title": text}, f"\n== {text}")

    def end(self):
        """1, if a measurement failed."""
        if self.json:
            print(json.dumps([as_dict(entry) for entry in self.entries], indent=1))
        elif self.markdown:
            if not any("title" in entry for entry in self.entries if isinstance(entry, dict)):
                print(MARKDOWN_HEAD)
            for entry in self.entries:
                if isinstance(entry, Row):
                    print(as_markdown(entry))
                elif "title" in entry:
                    print(f"\n### {entry['title'].capitalize()}\n\n{MARKDOWN_HEAD}")
        return int(any(row.skipped.startswith("FAILED") for row in self.rows))


# ---- the older build that some rows are measured beside ------------------------------------------------------------------


def commit_of(build):
    """What an older build is called: the start of its commit, where it lies as scripts/build-commit puts it."""
    found = re.search(r"commits/([0-9a-f]{7})[0-9a-f]*/build", os.path.realpath(build)) if build else None
    return found[1] if found else "the older build"
