# SPDX-License-Identifier: Apache-2.0
"""The names and pictures in the guide for artists."""

from __future__ import annotations

import re
from pathlib import Path

GUIDE = Path(__file__).resolve().parents[1] / "docs" / "artist_guide.md"


def list_names() -> set[str]:
    """Return the names of buttons, fields and panels in the guide, where all of them are bold."""
    return set(re.findall(r"\*\*(.+?)\*\*", GUIDE.read_text("utf-8")))


def list_presses() -> list[str]:
    """Return the names of the buttons that the numbered steps have artists press, in order."""
    steps = re.findall(r"^\d+\. .*$", GUIDE.read_text("utf-8"), re.MULTILINE)
    return [name for step in steps for name in re.findall(r"[Pp]ress \*\*(.+?)\*\*", step)]


def list_pictures() -> list[Path]:
    """Return the pictures that the guide shows."""
    found = re.findall(r"!\[.+?\]\((.+?)\)", GUIDE.read_text("utf-8"))
    return [GUIDE.parent / name for name in found]
