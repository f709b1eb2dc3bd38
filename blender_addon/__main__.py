# SPDX-License-Identifier: GPL-3.0-or-later
"""``python -m blender_addon IMAGE... --output scene.blend``: the add-on in Blender as a module."""

from __future__ import annotations

import contextlib
import signal
import sys
from collections.abc import Iterator


def main() -> int:
    """Register the add-on in an empty Blender, run, unregister; returns the exit code."""
    try:
        return _run()
    except KeyboardInterrupt:  # while Blender starts or ends
        print("Stopped.", file=sys.stderr)
        return 130


@contextlib.contextmanager
def _interrupted_afterwards() -> Iterator[None]:
    """Act on Ctrl+C after Blender's start and end, which ignore exceptions."""
    asked: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, _: asked.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if asked and before is not signal.SIG_IGN:
        raise KeyboardInterrupt


def _run() -> int:
    try:
        with _interrupted_afterwards():
            import bpy

            bpy.ops.wm.read_factory_settings(use_empty=True)
    except ImportError:
        print(
            "This needs Blender as a Python module, which has packages for CPython 3.11: "
            'python -m pip install ".[blender]" in a clone of GSV3D.',
            file=sys.stderr,
        )
        return 1
    from . import headless, register, unregister

    register()
    try:
        return headless.run(sys.argv[1:], "python -m blender_addon")
    finally:
        unregister()


if __name__ == "__main__":
    sys.exit(main())
