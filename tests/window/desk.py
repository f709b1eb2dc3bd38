# SPDX-License-Identifier: Apache-2.0
"""Real clicks, screenshots and waits with a limit inside a Blender with a window.

Runs in Blender's own Python, next to ``xdotool`` and ImageMagick's ``import``. A play is a
generator: it yields the seconds until it wants to go on, and Blender lives in between.
"""

from __future__ import annotations

import faulthandler
import json
import os
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import bpy

Play = Generator[float, None, Any]

DONE, FAILED, TOO_LONG = 0, 3, 4
"""Exit statuses of a Blender that plays."""

_STRIDE = 12
"""Pixels between two looks for a button, less than the height of one."""


class Desk:
    """One Blender window on one screen, and the `facts` noted there."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.facts: dict[str, Any] = {}
        self._start = time.monotonic()

    def say(self, text: str) -> None:
        """Write a line in the log, with the seconds since the start."""
        print(f"[{time.monotonic() - self._start:6.1f} s] {text}", flush=True)

    def note(self, **facts: Any) -> None:
        """Remember facts for the host, which asserts on them."""
        self.facts.update(facts)
        (self.folder / "facts.json").write_text(json.dumps(self.facts, indent=1), "utf-8")
        self.say(f"noted {', '.join(facts)}")

    # The screen

    @property
    def window(self) -> Any:
        return bpy.context.window_manager.windows[0]

    def area(self, kind: str = "VIEW_3D") -> Any:
        """Return the first area of a kind."""
        return next(area for area in self.window.screen.areas if area.type == kind)

    def region(self, kind: str, area: str = "VIEW_3D") -> Any:
        """Return a region of the first area of a kind, e.g. the sidebar: UI."""
        return next(region for region in self.area(area).regions if region.type == kind)

    def rectangle(self, region: Any) -> list[int]:
        """Return x, y, width, height of a region on the screen, y from the top."""
        top = self.window.height - region.y - region.height
        return [region.x, top, region.width, region.height]

    def shot(self, name: str) -> None:
        """Keep a picture of the whole screen as ``name``.png."""
        path = self.folder / f"{name}.png"
        # PNG's fastest level: the pictures are large, and only the chosen ones are kept for long.
        command = ["import", "-window", "root", "-quality", "10", str(path)]
        subprocess.run(command, check=True, timeout=60)
        self.say(f"took {path.name}")

    # Keyboard and mouse

    def xdo(self, *words: object) -> None:
        """Call xdotool."""
        subprocess.run(["xdotool", *map(str, words)], check=True, timeout=20)

    def move(self, x: float, y: float) -> None:
        """Move the pointer to a place on the screen, y from the top."""
        self.xdo("mousemove", round(x), round(y))

    def rest(self) -> None:
        """Move the pointer into an empty corner of the view, where it raises no tooltip."""
        x, y, _, height = self.rectangle(self.region("WINDOW"))
        self.move(x + 120, y + height - 60)

    def click(self, place: tuple[int, int]) -> Play:
        """Click the left button, and move the pointer away."""
        self.move(*place)
        yield 0.15
        self.xdo("click", 1)
        yield 0.15
        self.rest()
        yield 0.15

    def drag(self, start: tuple[int, int], end: tuple[int, int]) -> Play:
        """Press the left button at ``start``, and release it at ``end``."""
        self.move(*start)
        yield 0.2
        self.xdo("mousedown", 1)
        for share in (0.25, 0.5, 0.75, 1.0):
            yield 0.1
            self.move(*(a + (b - a) * share for a, b in zip(start, end, strict=True)))
        yield 0.1
        self.xdo("mouseup", 1)
        yield 0.3

    def find_button(
        self, operator: str, region: Any, *, right: int | None = None, below: int = 0
    ) -> Generator[float, None, tuple[int, int] | None]:
        """Return the place of a button in a region: where Ctrl+C copies ``bpy.ops.<operator>``.

        Blender tells nobody where it drew a button, but over one Ctrl+C copies its command. The
        pointer goes down the middle of the region, or ``right`` pixels from its right edge, from
        the screen's row ``below`` on. Returns None when the button is not there.
        """
        left, top, width, height = self.rectangle(region)
        x = left + width // 2 if right is None else left + width - right
        manager = bpy.context.window_manager
        for y in range(max(top + 6, below), top + height, _STRIDE):
            manager.clipboard = "nothing"
            self.move(x, y)
            yield 0.06
            self.xdo("key", "ctrl+c")
            yield 0.06
            if f"bpy.ops.{operator}(" in manager.clipboard:
                self.say(f"found {operator} at {x}, {y}: {manager.clipboard}")
                return x, y
        return None

    def press(
        self, operator: str, *, right: int | None = None, below: int = 0
    ) -> Generator[float, None, tuple[int, int]]:
        """Click a button of the sidebar, and return its place; raise LookupError without one."""
        place = yield from self.find_button(operator, self.region("UI"), right=right, below=below)
        if place is None:
            raise LookupError(f"there is no button {operator} in the sidebar")
        yield from self.click(place)
        return place

    def wait_for(
        self, condition: Callable[[], Any], what: str, limit: float, every: float = 0.2
    ) -> Generator[float, None, Any]:
        """Let Blender run until ``condition()`` is true, and return it; else raise TimeoutError."""
        end = time.monotonic() + limit
        while not (found := condition()):
            if time.monotonic() > end:
                raise TimeoutError(f"{what}: not within {limit:.0f} s")
            yield every
        self.say(what)
        return found


def play(desk: Desk, steps: Play, limit: float) -> None:
    """Play ``steps`` in Blender's timer, then end it: status 0, 3 on an error, 4 after a limit.

    An exception in a timer alone would leave Blender open for ever.
    """

    def too_long() -> None:
        print(f"Blender hangs or is too slow: not done after {limit:.0f} s", flush=True)
        faulthandler.dump_traceback(all_threads=True)
        os._exit(TOO_LONG)

    watchdog = threading.Timer(limit, too_long)
    watchdog.daemon = True
    watchdog.start()

    def leave(status: int) -> None:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)

    def tick() -> float | None:
        try:
            return next(steps)
        except StopIteration:
            # Not os._exit: the add-on has to end its backend as it does for an artist.
            desk.note(finished=True)
            bpy.ops.wm.quit_blender()
            return None
        except BaseException:
            traceback.print_exc()
            try:
                desk.shot("failure")
            finally:
                leave(FAILED)
            return None

    bpy.app.timers.register(tick, first_interval=1.0)
