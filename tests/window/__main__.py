# SPDX-License-Identifier: Apache-2.0
"""``python -m tests.window``: the window test; with ``--images``, the README's pictures too."""

from __future__ import annotations

import argparse
import sys

import pytest

from tests.window.pictures import shrink
from tests.window.test_window import FOLDER, HERE, ROOT

IMAGES = {"panel": "reference", "progress": "progress", "result": "material", "mesh": "mesh"}
"""File name in docs/images: screenshot."""


def main() -> int:
    """Run the test; return pytest's exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.window", description=__doc__)
    parser.add_argument("--images", action="store_true", help="renew the pictures in docs/images")
    arguments = parser.parse_args()
    status = int(pytest.main(["-m", "window", str(HERE)]))
    if status == 0 and arguments.images:
        for name, shot in IMAGES.items():
            found = sorted(FOLDER.glob(f"{shot}*.png"))
            source = found[len(found) * 2 // 3]
            shrink(source, ROOT / "docs" / "images" / f"{name}.png")
            print(f"docs/images/{name}.png from {source.name}")
    return status


if __name__ == "__main__":
    sys.exit(main())
