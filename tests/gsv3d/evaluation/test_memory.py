# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import sys

import numpy as np
import pytest

from gsv3d.evaluation.memory import PeakMemory, _peak_of_life


def test_the_peak_holds_what_was_there_for_a_moment() -> None:
    memory = PeakMemory()
    memory.start()
    before = memory.process_mib()
    block = np.ones(96 * 2**20, np.uint8)
    assert block[::4096].all()
    del block
    assert memory.process_mib() > before + 60
    assert _peak_of_life() / 2**20 >= memory.process_mib() - 1


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux forgets earlier peaks")
def test_earlier_peaks_are_forgotten() -> None:
    block = np.ones(128 * 2**20, np.uint8)
    assert block[::4096].all()
    high = PeakMemory().process_mib()
    del block
    memory = PeakMemory()
    memory.start()
    assert memory.process_mib() < high - 60
