# SPDX-License-Identifier: Apache-2.0
"""Everything that can be wrong, and the statuses, events and states that must come of it at both ends."""
import os

import rig
import status_table

STATUS = os.path.join(rig.BUILD, "tests", "programs", "status")


def test_every_error_has_its_status():
    lines = status_table.differences("uroce", rig.succeed([STATUS, "--device", rig.DEVICE], limit=120))
    assert not lines, "\n".join(["other statuses than on record (uroce/tests/programs/status/uroce.txt):", *lines])


def test_the_table_of_the_documentation_is_what_is_on_record():
    text, wanted = status_table.documented()
    assert text == wanted, "run uroce/tests/programs/status_table.py write"
