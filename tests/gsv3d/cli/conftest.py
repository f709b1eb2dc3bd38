# SPDX-License-Identifier: Apache-2.0
"""Fixtures that several files of these tests use."""

from __future__ import annotations

import pytest

from tests.gsv3d.fake_pipeline import FakePipeline


@pytest.fixture
def pipeline(monkeypatch: pytest.MonkeyPatch) -> FakePipeline:
    """Return the fake that the commands get in place of the model."""
    fake = FakePipeline()
    monkeypatch.setattr("gsv3d.models.load_pipeline", lambda name, **_: fake)
    return fake
