# SPDX-License-Identifier: Apache-2.0
"""Results wait at the wrong moments, and none is lost by what happens before they come."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.fake_backend import FakeBackend
from tests.window import plays

pytestmark = [pytest.mark.window, pytest.mark.timeout(900)]

FOLDER = plays.ROOT / ".window-troubles"
HERE = Path(__file__).parent
IMAGE = plays.ROOT / "examples" / "barrel.png"
LIMIT_S = 300


@pytest.fixture(scope="module")
def facts() -> dict[str, Any]:
    """Play `troubles.py`, and return its facts."""
    fake = FakeBackend(FOLDER, "normal", step_s=0.15)
    settings = {"limit": LIMIT_S}
    return plays.play(FOLDER, HERE / "troubles.py", IMAGE, settings, LIMIT_S, fake)[0]


@pytest.mark.parametrize(
    ("moment", "words"),
    [
        ("render", "waiting for the render to end"),
        ("bake", "waiting for the bake to end"),
        ("move", "waiting for Move to end"),
        ("edit_mode", "waiting for you to leave Edit Mode"),
    ],
)
def test_a_result_waits_and_says_for_what(facts: dict[str, Any], moment: str, words: str) -> None:
    seen = facts[moment]
    assert seen["state"] == "ready" and words in seen["text"]
    assert seen["after"] == 1, "it came as soon as it could"


def test_nothing_came_while_it_waited(facts: dict[str, Any]) -> None:
    assert facts["render"]["meshes"] == 0
    assert facts["move"]["meshes"] == 1
    assert facts["edit_mode"]["meshes"] == 2
    assert facts["bake"]["meshes"] == 3


def test_undo_past_an_import_loses_nothing(facts: dict[str, Any]) -> None:
    assert facts["undo"] == {"undone": -1, "again": 0}


def test_disabling_leaves_nothing(facts: dict[str, Any]) -> None:
    seen = facts["disable"]
    assert (seen["previews"], seen["threads"], seen["rows"]) == (0, [], 0)
    assert facts["finished"]
