# SPDX-License-Identifier: Apache-2.0
"""Memory does not grow with jobs; ``python -m tests.backend.soak`` runs as long as you like."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.backend.soak import Soak, compare_ends


@pytest.mark.slow
def test_memory_does_not_grow_with_jobs(tmp_path: Path) -> None:
    soak = Soak(tmp_path, seed=2)
    try:
        soak.run(jobs=240)
    finally:
        soak.close()
    assert not soak.faults
    first, last = compare_ends(soak.backend_mb)
    assert last < 1.05 * first
