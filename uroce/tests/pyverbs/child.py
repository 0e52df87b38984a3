# SPDX-License-Identifier: Apache-2.0
"""Runs some of the tests in one process and writes what becomes of each to a descriptor, a JSON object a line.

usage: child.py FOLDER DESCRIPTOR list | child.py FOLDER DESCRIPTOR TEST...
"""
import faulthandler
import json
import os
import signal
import sys
import unittest
from importlib.machinery import SourceFileLoader


class Reporter(unittest.TestResult):
    def __init__(self, out):
        super().__init__()
        self.out = out

    def tell(self, test, event, text=""):
        os.write(self.out, (json.dumps({"test": test.id(), "event": event, "text": text[-3000:]}) + "\n").encode())

    def startTest(self, test):
        super().startTest(test)
        self.tell(test, "start")

    def stopTest(self, test):
        super().stopTest(test)
        self.tell(test, "stop")

    def addSuccess(self, test):
        self.tell(test, "passed")

    def addExpectedFailure(self, test, err):
        self.tell(test, "passed")

    def addSkip(self, test, reason):
        self.tell(test, "skipped", reason)

    def addFailure(self, test, err):
        self.tell(test, "failed", self._exc_info_to_string(err, test))

    addError = addFailure

    def addUnexpectedSuccess(self, test):
        self.tell(test, "failed", "passed unexpectedly")

    def addSubTest(self, test, subtest, err):
        if err:
            self.tell(test, "failed", self._exc_info_to_string(err, test))


def all_tests(suite):
    for entry in suite:
        if isinstance(entry, unittest.TestSuite):
            yield from all_tests(entry)
        else:
            yield entry


def main():
    folder, out, wanted = sys.argv[1], int(sys.argv[2]), sys.argv[3:]
    # A test may fork and exec: the parent's descriptor is not theirs.
    os.set_inheritable(out, False)
    faulthandler.register(signal.SIGUSR1, all_threads=True)
    sys.path.insert(0, folder)
    from args_parser import parser
    sys.argv[1:] = ["--dev", "uroce0", "--gid", "0"]
    module = SourceFileLoader("tests", os.path.join(folder, "__init__.py")).load_module()
    parser.parse_args()
    loader = unittest.TestLoader()
    tests = [test for part in module.__test_modules__ for test in all_tests(loader.loadTestsFromModule(part))]
    if wanted == ["list"]:
        os.write(out, "".join(f"{test.id()}\n" for test in tests).encode())
        return
    by_id = {test.id(): test for test in tests}
    reporter = Reporter(out)
    for name in wanted:
        by_id[name].run(reporter)


main()
