# SPDX-License-Identifier: Apache-2.0
"""The guide for artists, read as a test reads it."""

from __future__ import annotations

import re
from pathlib import Path

GUIDE = Path(__file__).resolve().parents[1] / "docs" / "artist_guide.md"


def names() -> set[str]:
    """Return the labels of buttons, fields and panels that the guide names: all that is bold."""
    return set(re.findall(r"\*\*(.+?)\*\*", GUIDE.read_text("utf-8")))


def walk() -> list[str]:
    """Return the names of the buttons that the numbered steps tell to press, in their order."""
    steps = re.findall(r"^\d+\. .*$", GUIDE.read_text("utf-8"), re.MULTILINE)
    return [name for step in steps for name in re.findall(r"[Pp]ress \*\*(.+?)\*\*", step)]


def pictures() -> list[Path]:
    """Return the pictures that the guide shows."""
    found = re.findall(r"!\[.+?\]\((.+?)\)", GUIDE.read_text("utf-8"))
    return [GUIDE.parent / name for name in found]
