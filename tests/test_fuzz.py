# SPDX-License-Identifier: Apache-2.0
"""Damaged messages and pictures are refused in words; ``python -m tests.fuzz`` goes on longer."""

from __future__ import annotations

import random

import pytest

from tests.fuzz import TARGETS


@pytest.mark.parametrize("name", TARGETS)
def test_damage_is_refused_in_words(name: str) -> None:
    target, make_seeds = TARGETS[name]
    seeds, dice = make_seeds(), random.Random(4)
    assert len(seeds) >= 10
    for seed in seeds:
        target(seed)
    for _ in range(300):
        data = bytearray(dice.choice(seeds))
        for _ in range(dice.randrange(1, 5)):
            data[dice.randrange(len(data))] = dice.randrange(256)
        del data[len(data) - dice.choice((0, 0, 1, 7)) :]
        target(bytes(data))
