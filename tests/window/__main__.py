# SPDX-License-Identifier: Apache-2.0
"""``python -m tests.window``: the window test; with ``--images``, the README's pictures too."""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

import pytest

from tests.window.pictures import shrink
from tests.window.test_window import FOLDER, HERE, ROOT

IMAGES = {
    "reference": "reference",
    "result": "material",
    "mesh": "mesh",
    "start": "start",
    "search": "search",
    "cutout": "cutout",
    "german": "de",
}
"""File name in docs/images: screenshot."""
SIDEBAR_ALONE = {"cutout": "sidebar", "german": "narrow"}
"""File name: fact that says where the sidebar is."""


def read_facts() -> dict[str, Any]:
    """Return the facts that the play noted."""
    noted: dict[str, Any] = json.loads((FOLDER / "facts.json").read_text("utf-8"))
    return noted


def list_chosen() -> dict[str, str]:
    """Return the screenshots for README and guide; of the views, the last one of a running job."""
    shots = read_facts()["job"]["shots"]
    of_views = [name for name, text in shots if "views" in text]
    return {**IMAGES, "panel": (of_views or [name for name, _ in shots])[-1]}


def main() -> int:
    """Run the test; return pytest's exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.window", description=__doc__)
    parser.add_argument("--images", action="store_true", help="renew the pictures in docs/images")
    arguments = parser.parse_args()
    status = int(pytest.main(["-m", "window", str(HERE)]))
    if status == 0 and arguments.images:
        for name, shot in list_chosen().items():
            target = ROOT / "docs" / "images" / f"{name}.png"
            part = read_facts()[SIDEBAR_ALONE[name]] if name in SIDEBAR_ALONE else None
            shrink(FOLDER / f"{shot}.png", target, part)
            print(f"docs/images/{name}.png from {shot}.png")
    return status


if __name__ == "__main__":
    sys.exit(main())
