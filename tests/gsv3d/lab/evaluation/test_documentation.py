# SPDX-License-Identifier: Apache-2.0
"""docs/evaluation.md names every column and folder, and only options that exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from gsv3d.lab.evaluation.results import COLUMNS, PER_VIEW
from gsv3d.lab.evaluation.store import KINDS

PAGE = Path(__file__).parents[4] / "docs" / "evaluation.md"


def test_every_column_is_defined() -> None:
    named = set(re.findall(r"`(\w+)`", PAGE.read_text(encoding="utf-8")))
    missing = set(COLUMNS) | set(PER_VIEW)
    assert not missing - named


@pytest.mark.parametrize("kind", KINDS)
def test_every_folder_is_named(kind: str) -> None:
    assert f"`{kind}/`" in PAGE.read_text(encoding="utf-8")


def test_every_option_is_real() -> None:
    import argparse

    from gsv3d.lab.cli import evaluate

    parser = argparse.ArgumentParser()
    help_text = evaluate.add_parser(parser.add_subparsers()).format_help()
    named = set(re.findall(r"--[a-z][a-z-]+", PAGE.read_text(encoding="utf-8")))
    assert named and not [option for option in named if option not in help_text]
