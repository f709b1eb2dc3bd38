# SPDX-License-Identifier: Apache-2.0
"""Kills of processes lose no job; ``python -m tests.backend.kills`` runs as long as you like."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.backend.kills import run_trial


@pytest.mark.slow
def test_nothing_is_lost_when_processes_are_killed(tmp_path: Path) -> None:
    trial = run_trial(tmp_path, kills=20, seed=3)
    assert not trial.faults, trial.counts
    assert trial.counts["done"] == trial.counts["jobs"] > 0
    assert trial.counts["backend killed"] > 5
