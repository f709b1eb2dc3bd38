# SPDX-License-Identifier: Apache-2.0
"""Work in threads."""

from __future__ import annotations

import time

import pytest
import torch

from gsv3d.compiling import run_in_threads


def test_answers_come_in_the_order_of_their_parts():
    def answer_late(part: int) -> int:
        time.sleep(0.01 * (part % 3 == 0))
        return part * part

    assert list(run_in_threads(answer_late, range(20))) == [(i, i * i) for i in range(20)]


def test_few_answers_wait_to_be_taken():
    """Bound what waits: a large texture has hundreds of chunks of some megabytes."""
    made = []
    for taken, _ in enumerate(run_in_threads(made.append, range(100)), start=1):
        assert len(made) <= taken + 2 * torch.get_num_threads()


def test_an_error_ends_the_work():
    made = []

    def fail_at_three(part: int) -> None:
        made.append(part)
        if part == 3:
            raise ValueError("three")

    with pytest.raises(ValueError, match="three"):
        list(run_in_threads(fail_at_three, range(100)))
    assert len(made) <= 3 + 1 + 2 * torch.get_num_threads()
