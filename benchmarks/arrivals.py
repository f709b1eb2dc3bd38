# SPDX-License-Identifier: Apache-2.0
"""Measure how long Blender stands still while results arrive, redraws included.

Run: ``blender --python benchmarks/arrivals.py`` in a Blender that has the add-on, or
``python benchmarks/arrivals.py`` where the window test runs (docs/testing.md), without a card.

The add-on gets a result of 4,000 Gaussians and 5,000 faces, then one of 200,000 Gaussians, 100,000
faces and a texture of 2048 px, then the first again among 20,000 other objects; as from a backend,
each comes as coarse Gaussians, final ones and the mesh. A timer is called at every turn of
Blender's main loop; the longest times between two calls are the stalls. For comparison it also
times a redraw of the window with nothing new in it, and an empty that is added. At the end the view
turns, and its frames are timed.
"""

from __future__ import annotations

import importlib
import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Generator
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
CASES = ((4_000, 5_000, 1024, 0), (200_000, 100_000, 2048, 0), (4_000, 5_000, 1024, 20_000))
"""Numbers of Gaussians and faces, texture side in pixels, and other objects in the scene."""
ADDON = "bl_ext.user_default.gsv3d"
WINDOW = (960, 640)
"""Size of the window in pixels: small, since every pixel takes time without a card."""


def make_gaussians(count: int) -> dict[str, np.ndarray]:
    """Return ``count`` Gaussians that cover the surface of a ball about twice."""
    random = np.random.default_rng(0)
    means, quats = random.normal(size=(count, 3)), random.normal(size=(count, 4))
    means /= np.linalg.norm(means, axis=1, keepdims=True)
    return {
        "means": (0.4 * means).astype("f4"),
        "quats": (quats / np.linalg.norm(quats, axis=1, keepdims=True)).astype("f4"),
        "scales": np.full((count, 3), 0.4 / math.sqrt(count), "f4"),
        "opacities": np.full(count, 0.9, "f4"),
        "sh": means[:, None].astype("f4"),
    }


def make_mesh(faces: int, texture: int) -> dict[str, np.ndarray]:
    """Return a ball with about ``faces`` faces, textured with noise."""
    side = math.isqrt(faces // 2)
    u, v = np.meshgrid(*[np.linspace(0, 1, side + 1)] * 2, indexing="ij")
    around, down = 2 * math.pi * u, math.pi * v
    points = [np.cos(around) * np.sin(down), np.sin(around) * np.sin(down), np.cos(down)]
    first = (np.arange(side)[:, None] * (side + 1) + np.arange(side)).reshape(-1, 1)
    corners = first + np.array([0, side + 1, side + 2, 0, side + 2, 1])
    triangles = corners.reshape(-1, 3).astype("i4")
    uvs = np.stack([u, v], axis=-1).reshape(-1, 2).astype("f4")
    return {
        "vertices": 0.4 * np.stack(points, axis=-1).reshape(-1, 3).astype("f4"),
        "faces": triangles,
        "corner_uvs": uvs[triangles],
        "texture": np.random.default_rng(1).integers(0, 256, (texture, texture, 3), np.uint8),
    }


def add_crowd(count: int) -> None:
    """Add ``count`` copies of a triangle in a square grid beside the result."""
    import bpy

    data = bpy.data.meshes.new("crowd")
    data.from_pydata([(0, 0, 0), (0.5, 0, 0), (0, 0.5, 0)], [], [(0, 1, 2)])
    for index in range(count):
        made = bpy.data.objects.new("crowd", data)
        row, column = divmod(index, math.isqrt(count))
        made.location = (column + 5, row, 0)
        bpy.context.scene.collection.objects.link(made)


class Recorder:
    """Times between two turns of Blender's main loop, by the activity at the time."""

    def __init__(self) -> None:
        self.doing = ""
        self.gaps: dict[str, list[float]] = {}
        self._last = 0.0

    def tick(self) -> float:
        now = time.perf_counter()
        if self._last:
            self.gaps.setdefault(self.doing, []).append(now - self._last)
        self._last = now
        return 0.0

    def worst(self) -> dict[str, list[int]]:
        """Return the three longest times of each activity, in milliseconds."""
        return {
            doing: [round(1000 * gap) for gap in sorted(gaps)[:-4:-1]]
            for doing, gaps in self.gaps.items()
            if doing
        }


def turn_view(space: Any, degrees: float) -> None:
    """Turn the view to look at the middle of the result from an azimuth."""
    from mathutils import Euler

    view = space.region_3d
    view.view_rotation = Euler((math.radians(76), 0.0, math.radians(degrees))).to_quaternion()
    view.view_location, view.view_distance = (0.0, 0.0, 0.5), 4.0


def measure(case: tuple[int, int, int, int]) -> Generator[float, None, dict[str, Any]]:
    """Let a result arrive; yield the seconds to wait, and return the measures."""
    import bpy

    session = importlib.import_module(f"{ADDON}.session").get()
    jobs, requests = (importlib.import_module(f"{ADDON}.{one}") for one in ("jobs", "requests"))
    prepare = importlib.import_module(f"{ADDON}.importers.prepare")
    window = bpy.context.window_manager.windows[0]
    area = next(area for area in window.screen.areas if area.type == "VIEW_3D")
    for thing in list(bpy.data.objects):
        bpy.data.objects.remove(thing)
    add_crowd(case[3])
    empty = bpy.data.objects.new("added", None)
    turn_view(area.spaces.active, 24)
    counts = (case[0] // 2, case[0])
    coarse, final = (prepare.prepare_gaussians(**make_gaussians(n)) for n in counts)
    textured = prepare.prepare_mesh(**make_mesh(*case[1:3]))
    job = session.book.add(jobs.Job(requests.Words("a ball"), requests.Target("ball")))
    # What Blender does once, such as compiling shaders, is no part of an arrival.
    session.delivery.gaussians(job, prepare.prepare_gaussians(**make_gaussians(10)), {})
    session.ensure_timer()
    yield 4.0
    recorder = Recorder()
    tick = recorder.tick
    bpy.app.timers.register(tick)
    for doing, arrive in (
        ("redraw before", None),
        ("an empty is added", lambda: bpy.context.scene.collection.objects.link(empty)),
        ("coarse Gaussians", lambda: session.delivery.gaussians(job, coarse, {})),
        ("final Gaussians", lambda: session.delivery.gaussians(job, final, {})),
        ("redraw with Gaussians", None),
        ("mesh", lambda: session.delivery.mesh(job, textured, {})),
        ("redraw with mesh", None),
    ):
        recorder.doing = doing
        if arrive is None:
            for shown in window.screen.areas:
                shown.tag_redraw()
        else:
            arrive()
            session.ensure_timer()
            while not session.delivery.idle:
                yield 0.1
        yield 3.0
        recorder.doing = ""
        yield 0.2
    bpy.app.timers.unregister(tick)

    for thing in bpy.data.objects:
        if "gsv3d_kind" in thing:
            thing.hide_set(thing["gsv3d_kind"] != "gaussians")
    yield 1.0
    frames = []
    with bpy.context.temp_override(window=window, area=area):
        for frame in range(10):
            turn_view(area.spaces.active, 24 + 3 * frame)
            start = time.perf_counter()
            bpy.ops.wm.redraw_timer(type="DRAW_WIN_SWAP", iterations=1)
            frames.append(time.perf_counter() - start)
    turned = round(1000 * sorted(frames)[len(frames) // 2])
    return {"case": case, "stalls": recorder.worst(), "frame while turning": turned}


def measure_inside() -> None:
    """Measure in this Blender, print, and quit it."""
    import bpy

    def steps() -> Generator[float, None, None]:
        yield 1.0
        for case in CASES:
            found = yield from measure(case)
            print("ARRIVALS " + json.dumps(found), flush=True)

    bpy.context.preferences.view.show_splash = False
    running = steps()

    def tick() -> float | None:
        try:
            return next(running)
        except StopIteration:
            bpy.ops.wm.quit_blender()
        except BaseException:
            importlib.import_module("traceback").print_exc()
            os._exit(3)
        return None

    bpy.app.timers.register(tick, first_interval=1.0)


def measure_outside() -> None:
    """Install the add-on in the window test's system, measure there, and print a table."""
    sys.path.insert(0, str(ROOT))
    from tests.window import machine

    folder = ROOT / ".window-arrivals"
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / "log.txt"
    log.write_text("")
    system = machine.prepare(log)
    build = [sys.executable, "build_addon.py", "--platform", "linux-x64", "--output", str(folder)]
    subprocess.run(build, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    (archive,) = folder.glob("*.zip")
    install = ["blender", "--command", "extension", "install-file", "-r", "user_default"]
    size = [str(side) for side in WINDOW]
    run = ["blender", "--window-geometry", "0", "0", *size, "--python", f"/host{__file__}"]
    for command, screen in (([*install, "--enable", str(archive)], False), (run, True)):
        command = [f"BLENDER_USER_RESOURCES={folder / 'user'}", *command]
        if system.run(command, shared=folder, log=log, timeout=900, screen=screen):
            sys.exit(f"Blender failed:\n{machine.read_tail(log)}")
    for line in log.read_text(errors="replace").splitlines():
        if line.startswith("ARRIVALS "):
            found = json.loads(line.removeprefix("ARRIVALS "))
            print(
                "{} Gaussians, {} faces, {} px, {} other objects; longest stalls in ms:".format(
                    *found["case"]
                )
            )
            for doing, worst in found["stalls"].items():
                print(f"  {doing:24}" + "".join(f"{gap:6}" for gap in worst))
            print(f"  a frame while the view turns: {found['frame while turning']} ms")


if __name__ == "__main__":
    measure_inside() if "bpy" in sys.modules else measure_outside()
