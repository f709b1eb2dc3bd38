# SPDX-License-Identifier: Apache-2.0
"""A worker that follows a script: the JSON that stands in place of the picture or the prompt.

The server runs it in place of the model, over the same link and with the same runtime::

    {"steps": 5, "step_s": 0.02, "coarse_at": [2], "gaussians": 1000, "texture": 64,
     "die_at": 3, "hang_at": 3, "fail_at": 3, "fault_at": 3, "file_limit": 100000, "nan": true,
     "print": 3, "hold": "a file that it waits for"}
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[2]))

from backend.errors import BackendError
from backend.ray_runner import RayRunner
from backend.worker_runtime import Watch, serve_jobs
from tests.canned_results import make_sphere, make_views


def make_gaussians(count: int, seed: int) -> dict[str, np.ndarray]:
    values = make_sphere(count, seed)
    return {**values, "sh": values["sh"].astype(np.float32)}


def make_mesh(texture: int) -> dict[str, np.ndarray]:
    return {
        "vertices": np.eye(3, dtype=np.float32),
        "faces": np.array([[0, 1, 2]], np.int32),
        "corner_uvs": np.zeros((1, 3, 2), np.float32),
        "texture": np.random.default_rng(texture).integers(0, 256, (texture, texture, 3), np.uint8),
    }


class Scripted:
    """A runner of jobs that follows their scripts."""

    def _device(self) -> str:
        return sys.argv[sys.argv.index("--device") + 1] if "--device" in sys.argv else "auto"

    def describe(self) -> tuple[str, list[dict[str, Any]]]:
        if "--broken" in sys.argv:
            raise ImportError("\x1b[31mlibgpu is missing\x1b[0m")
        if "--mute" in sys.argv:
            print("importing a driver", flush=True)
            time.sleep(1000)
        # A file NAME.model in the worker's folder, that of the logs, stands for an added model.
        added = sorted(path.stem for path in Path.cwd().glob("*.model"))
        names = ["blockout", *added]
        device = self._device()
        told = "scripted" if device in ("auto", "cpu") else f"scripted on {device}"
        needs = {"large": 16, "huge": 99}
        return told, [
            {"name": name, "installed": True, "decoder": False, "needs": needs.get(name, 0)}
            for name in names
        ]

    def memory(self) -> int:
        """Return the number that ends a card's name, as in "card with 24"; 8 if none does."""
        size = self._device().split()[-1]
        return int(size) if size.isdigit() else 8

    def devices(self) -> list[str]:
        return [a.removeprefix("--has=") for a in sys.argv if a.startswith("--has=")] or ["cpu"]

    def run(self, settings: Mapping[str, Any], picture: bytes, watch: Watch) -> dict[str, float]:
        words = settings["kind"] == "imagine"
        script = json.loads(settings["prompt"] if words else picture)
        steps, seed = script.get("steps", 5), settings.get("seed", 0)
        if "file_limit" in script:
            import resource
            import signal

            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (script["file_limit"], -1))
        for number in range(script.get("print", 0)):
            print("line", number)
        while "hold" in script and not Path(script["hold"]).exists():
            time.sleep(0.02)
            watch.progress("denoising", 0, steps)
        for step in range(1, steps + 1):
            time.sleep(script.get("step_s", 0.01))
            watch.progress("imagining" if words else "denoising", step, steps)
            if step == script.get("die_at"):
                os._exit(7)
            if step == script.get("hang_at"):
                time.sleep(1000)
            if step == script.get("fault_at"):
                raise ZeroDivisionError("a fault\x1b[0m \udcff")
            if step == script.get("fail_at"):
                raise BackendError("There is no object in the picture.", "Use another picture.")
            if step in script.get("coarse_at", ()):
                watch.artifact("gaussians", make_gaussians(200, step), step=step, of=steps)
                watch.artifact("views", make_views())
        if settings["kind"] == "cutout":
            data = np.frombuffer(b"cut out", "u1")
            watch.artifact("file", {"data": data}, name="png", certainty=0.25)
            return {"cutting": 1.0, "total": 1.0}
        if words:
            drawn = np.frombuffer(f"drawn with {settings['text_model']}".encode(), "u1")
            watch.artifact("file", {"data": drawn}, name="png")
            return {"imagining": 1.0, "total": 1.0}
        watch.artifact("views", make_views(), final=True)
        final = make_gaussians(script.get("gaussians", 1000), seed)
        if script.get("nan"):
            final["means"][0, 0] = np.nan
        watch.artifact("gaussians", final, step=steps, of=steps, final=True)
        watch.progress("texturing", 1, 1)
        # The answer repeats what was asked for, so that a test can check it.
        asked = {name: settings[name] for name in ("elevation", "plane")}
        pose = {name: value for name, value in asked.items() if value is not None}
        pose["mirrored"] = float(settings["mirror"] != "off")
        made = make_mesh(script.get("texture", 64))
        if script.get("holes"):
            made["alpha"] = made["texture"][..., 0]
        watch.artifact("mesh", made, pose=pose)
        for name in settings["files"]:
            watch.artifact("file", {"data": np.frombuffer(b"data of " + name.encode(), "u1")},
                           name=name)  # fmt: skip
        return {"denoising": 1.0, "total": 2.0}

    def explain(self, error: BaseException) -> None:
        return None


def make_runner() -> Any:
    """Return the runner of the jobs: with --ray=ADDRESS one in an actor of that cluster."""
    addresses = [a.removeprefix("--ray=") for a in sys.argv if a.startswith("--ray=")]
    cards = "--without-cards" not in sys.argv
    return RayRunner(addresses[0], Scripted, 1, cards) if addresses else Scripted()


if __name__ == "__main__":
    code = serve_jobs(make_runner)
    time.sleep(1000 * ("--stays" in sys.argv))
    sys.exit(code)
