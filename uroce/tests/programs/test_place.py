# SPDX-License-Identifier: Apache-2.0
"""ATOMIC WRITE and FLUSH, as a program compiled with the verbs.h at hand sees them."""
import pytest

from rig import DEVICE, PLACE, SCALE, Pair


@pytest.mark.parametrize("fault, options", [("", []), ("reorder=2%,duplicate=2%,seed=3", []),
                                            ("loss=2%,reorder=2%,duplicate=2%,seed=3", ["--lossy"])],
                         ids=["undisturbed", "disorder", "loss"])
def test_words_and_flushes_arrive(fault, options):
    environment = {"UROCE_FAULT": fault} if fault else {}
    pair = Pair([PLACE, "--device", DEVICE, "--deadline", str(int(60 * SCALE)), *options], environment=environment, port_option="--port")
    for text in pair.finish(70):
        assert "placed: 60 words" in text
