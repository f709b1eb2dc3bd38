# SPDX-License-Identifier: Apache-2.0
"""Props for the networks that learn from framed pictures."""

from __future__ import annotations

from pathlib import Path

import pytest
import trimesh


@pytest.fixture(scope="session")
def packs(tmp_path_factory) -> Path:
    """Twelve packs of one long box with a nose each: y is up, the nose is on the side +x."""
    root = tmp_path_factory.mktemp("props")
    for pack in range(12):
        length = 1 + 0.1 * pack
        body = trimesh.creation.box((length, 0.4, 0.4))
        nose = trimesh.creation.box((0.3, 1.2, 0.2))
        nose.apply_translation((length / 2, 0.4, 0))
        (root / f"pack{pack}").mkdir()
        trimesh.util.concatenate([body, nose]).export(root / f"pack{pack}" / f"thing{pack}.glb")
    return root
