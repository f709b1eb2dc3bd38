# SPDX-License-Identifier: Apache-2.0
"""Fixtures that several files of these tests use."""

from __future__ import annotations

from pathlib import Path

import pytest

from gsv3d.pipeline import GSV3DPipeline
from tests import tiny


@pytest.fixture(scope="module")
def pipeline() -> GSV3DPipeline:
    return tiny.tiny_pipeline()


@pytest.fixture
def own_models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the folder where models are added; it is not the user's and is not there yet."""
    folder = tmp_path / "own models ü"
    monkeypatch.setenv("GSV3D_MODELS", str(folder))
    return folder
