# SPDX-License-Identifier: GPL-3.0-or-later
"""An empty Blender with the add-on in it, and help for driving its session."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.fake_backend import FakeBackend


@pytest.fixture
def empty_blender() -> Iterator[Any]:
    """Return bpy with an empty factory scene."""
    import bpy

    bpy.ops.wm.read_factory_settings(use_empty=True)
    yield bpy
    bpy.ops.wm.read_factory_settings(use_empty=True)


@pytest.fixture
def addon(empty_blender: Any) -> Iterator[SimpleNamespace]:
    """Register the add-on; return ``bpy``, its ``session``, and ``drain_until``."""
    import blender_addon
    from blender_addon import session

    blender_addon.register()

    def drain_until(condition: Callable[[], Any], seconds: float = 60.0) -> None:
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
    """Return the module, which needs Blender."""
    from blender_addon import references

    return references


@pytest.fixture
def serve(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., FakeBackend]]:
    """Start a fake backend of a behavior, which the preferences name."""
    from blender_addon import preferences

    with ExitStack() as stack:

        def start(behavior: str = "normal", **options: Any) -> FakeBackend:
            fake = stack.enter_context(FakeBackend(tmp_path, behavior, **options))
            place = preferences.BackendPlace("", fake.connection_path, tmp_path)
            monkeypatch.setattr(preferences, "backend_place", lambda: place)
            return fake

        yield start


@pytest.fixture
def backend(serve: Callable[..., FakeBackend]) -> FakeBackend:
    """Start a fake backend that works, which the preferences name."""
    return serve()


@pytest.fixture
def connect(
    addon: SimpleNamespace, serve: Callable[..., FakeBackend]
) -> Callable[..., FakeBackend]:
    """Start a fake backend of a behavior, and have the session use it."""

    def start(behavior: str = "normal", **options: Any) -> FakeBackend:
        fake = serve(behavior, **options)
        folder = fake.connection_path.parent
        addon.session.get().start_backend("", fake.connection_path, folder)
        return fake

    return start


@pytest.fixture
def pretend(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Have Python code run in place of the backend that is started."""
    from blender_addon import backend_process

    def use(code: str) -> None:
        monkeypatch.setattr(
            backend_process,
            "serve_command",
            lambda python, *rest: [str(python), "-c", code, *map(str, rest)],
        )

    return use
