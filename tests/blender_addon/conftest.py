# SPDX-License-Identifier: GPL-3.0-or-later
"""An empty Blender with the add-on in it, and help for driving its session."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest


@pytest.fixture
def empty_blender() -> Iterator[Any]:
    """An empty factory scene."""
    import bpy

    bpy.ops.wm.read_factory_settings(use_empty=True)
    yield bpy
    bpy.ops.wm.read_factory_settings(use_empty=True)


@pytest.fixture
def addon(empty_blender: Any) -> Iterator[SimpleNamespace]:
    """The registered add-on: ``bpy``, its ``session``, and ``drain_until``."""
    import blender_addon
    from blender_addon import session

    blender_addon.register()

    def drain_until(condition: Callable[[], Any], seconds: float = 20.0) -> None:
        end = time.monotonic() + seconds
        while not condition():
            backend = session.get().backend
            assert time.monotonic() < end, (
                f"waited {seconds} s; {backend.state}, {backend.problem}, "
                f"{[j.describe() for j in session.get().book]}"
            )
            if not session.get().drain():
                time.sleep(0.005)

    try:
        yield SimpleNamespace(bpy=empty_blender, session=session, drain_until=drain_until)
    finally:
        blender_addon.unregister()


@pytest.fixture
def finish() -> Callable[[Any], str]:
    """Run a generator of import steps to its end and return its value."""

    def run(steps: Any) -> str:
        while True:
            try:
                next(steps)
            except StopIteration as stop:
                return stop.value

    return run


@pytest.fixture
def references(empty_blender):
    """The module, which needs Blender."""
    from blender_addon import references

    return references
