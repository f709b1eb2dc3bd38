# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import mmap
import sys

import pytest

from gsv3d.lab.evaluation.memory import PeakMemory, _peak_of_life


def touch(size: int) -> None:
    """Hold memory for a moment, from the system itself: malloc may have kept some to give."""
    with mmap.mmap(-1, size) as block:
        block[:: mmap.PAGESIZE] = b"x" * (size // mmap.PAGESIZE)


def test_the_peak_holds_what_was_there_for_a_moment() -> None:
    memory = PeakMemory()
    memory.start()
    before = memory.process_mib()
    touch(96 * 2**20)
    assert memory.process_mib() > before + 60
    assert _peak_of_life() / 2**20 >= memory.process_mib() - 1


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux forgets earlier peaks")
def test_earlier_peaks_are_forgotten() -> None:
    PeakMemory().start()
    touch(128 * 2**20)
    high = PeakMemory().process_mib()
    memory = PeakMemory()
    memory.start()
    assert memory.process_mib() < high - 60
