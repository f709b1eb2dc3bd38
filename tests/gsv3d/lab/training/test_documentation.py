# SPDX-License-Identifier: Apache-2.0
"""docs/training.md names every field of a configuration with its default, and no other."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

import pytest

from gsv3d.lab.training.config import COMPONENTS, SETTINGS, ModelConfig
from gsv3d.lab.training.schedule import Schedule

TEXT = (Path(__file__).resolve().parents[4] / "docs" / "training.md").read_text("utf-8")


def table(heading: str) -> dict[str, str]:
    """Return fields with their defaults, or with their meaning if the table has two columns."""
    section = TEXT.split(f"### {heading}\n", 1)[1].split("\n##", 1)[0]
    rows = re.findall(r"^\| (`[^|]+) \| ([^|]+) \|", section, re.MULTILINE)
    found: dict[str, str] = {}
    for names, defaults in rows:
        fields = re.findall(r"`([^`]+)`", names)
        values = defaults.split(", ") if len(fields) > 1 else [defaults]
        for index, name in enumerate(fields):
            found[name] = values[index].strip() if index < len(values) else ""
    return found


def in_words(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return "`[" + ", ".join(value) + "]`"
    return f"{value:g}" if isinstance(value, int | float) else str(value)


def as_written(text: str) -> str:
    return f"{float(text):g}" if re.fullmatch(r"[\d.]+", text) else text


def test_the_schedule() -> None:
    expected = {f.name: in_words(f.default) for f in dataclasses.fields(Schedule)}
    found = {name: as_written(text) for name, text in table("Every stage: `schedule`").items()}
    assert found == expected


@pytest.mark.parametrize("stage", SETTINGS)
def test_a_stages_options(stage: str) -> None:
    expected = {f.name: in_words(f.default) for f in dataclasses.fields(SETTINGS[stage])}
    found = {name: as_written(text) for name, text in table(f"`{stage}`").items()}
    assert found == expected


def test_the_model() -> None:
    named = set(table("The model"))
    fields = {f.name for f in dataclasses.fields(ModelConfig)} - {"components", "stages"}
    assert fields <= named
    assert {f"components.{n}" for n in COMPONENTS} <= named
