# SPDX-License-Identifier: GPL-3.0-or-later
"""The add-on without a window: ``python -m blender_addon`` and ``blender --command gsv3d``.

The same session, client and importers as behind the panel. Timers do not fire here, so the drain
is called directly.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import signal
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import bpy

from . import backend_link, backend_process, preferences, session
from .backend_link import BackendState
from .batch import check_picture, expand, name_of, unique_names
from .console import ProgressLine
from .filenames import readable
from .importers import scene
from .jobs import Job, JobState, Request, Target
from .preview_render import render_preview
from .problems import Problem
from .protocol import require_protocol
from .result_files import ResultFiles, check_writable, write_file

_TICK_S = 0.03


def parser(prog: str) -> argparse.ArgumentParser:
    """Return the parser of both forms of the command."""
    made = argparse.ArgumentParser(
        prog=prog, description="Turn pictures into splats and textured meshes in a .blend."
    )
    made.add_argument("images", nargs="+", metavar="IMAGE", help="picture files or folders")
    made.add_argument("--output", required=True, type=Path, metavar="SCENE.blend")
    made.add_argument(
        "--overwrite",
        action="store_true",
        help="replace files of the same name; without it the results get another name",
    )
    made.add_argument("--model", default="blockout", help="which model (default: %(default)s)")
    made.add_argument("--steps", type=_number(1, 200), default=0, help="denoising steps")
    made.add_argument("--seed", type=_number(0, 2**31 - 1), default=0)
    made.add_argument("--faces", type=_number(20, 500_000), default=5000, help="face budget")
    made.add_argument("--texture-size", type=_number(16, 8192), default=1024, metavar="PIXELS")
    made.add_argument("--height", type=_meters, default=1.0, metavar="METERS")
    made.add_argument(
        "--elevation",
        type=_angle_or("auto", limit=90),
        default="auto",
        metavar="DEGREES",
        help="how far the picture looks down on the object (default: estimated)",
    )
    made.add_argument(
        "--mirror",
        type=_angle_or("auto", "off", limit=360),
        default="auto",
        metavar="DEGREES",
        help="where the object's mirror plane stands, 0 toward the camera, counter-clockwise seen"
        " from above; auto looks for one, off mirrors nothing (default: auto)",
    )
    made.add_argument(
        "--orbit",
        choices=("model", "static", "sine", "dynamic"),
        default="model",
        help="where the model's views stand: on its own orbit, on the picture's elevation, rising"
        " and falling once around, or moving at random, drawn by the seed (default: model)",
    )
    made.add_argument(
        "--frames", type=_number(2, 84), default=0, metavar="N", help="views (default: the model's)"
    )
    made.add_argument(
        "--azimuths",
        type=_angles,
        default=(),
        metavar="DEG,…",
        help="of the views, instead of an orbit: growing from 0 to less than 360, counter-clockwise"
        " seen from above, then 0, the picture's own (default: evenly spaced)",
    )
    made.add_argument(
        "--elevations",
        type=_angles,
        default=(),
        metavar="DEG,…",
        help="of the views, instead of an orbit: -90 to 90, the picture's own last (default: those"
        " of the model's orbit); write --elevations=-5,... where the first is negative",
    )
    made.add_argument(
        "--refine",
        action="store_true",
        help="fit the splats to the model's own views; those of a model without a decoder are"
        " fitted in any case",
    )
    made.add_argument("--python", default="", help="the Python that has GSV3D")
    made.add_argument(
        "--connection-file",
        type=Path,
        metavar="FILE",
        help="use the backend of this connection file if it runs",
    )
    return made


def _number(low: int, high: int) -> Callable[[str], int]:
    def read(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number") from None
        if not low <= value <= high:
            raise argparse.ArgumentTypeError(f"must be {low} to {high}, not {value}")
        return value

    return read


def _angle_or(*words: str, limit: float) -> Callable[[str], float | str]:
    def read(text: str) -> float | str:
        if text in words:
            return text
        try:
            value = float(text)
        except ValueError:
            raise argparse.ArgumentTypeError(
                f"{text!r} is neither a number nor {' or '.join(words)}"
            ) from None
        if not -limit <= value <= limit:
            raise argparse.ArgumentTypeError(f"must be {-limit:g} to {limit:g} degrees, not {text}")
        return value

    return read


def _angles(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} must be numbers with commas between") from None


def _meters(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number") from None
    if not 0.001 <= value <= 10_000:
        raise argparse.ArgumentTypeError(f"must be 0.001 to 10000 meters, not {text}")
    return value


def command(argv: list[str]) -> int:
    """Run ``blender --command gsv3d``, with an empty scene whatever the start-up file holds."""
    bpy.data.batch_remove(list(bpy.data.objects))
    return run(argv, "blender --command gsv3d")


def run(argv: Sequence[str], prog: str) -> int:
    """Do what the command line asks; returns the exit code: 0, or 1 if anything failed."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a console that lacks a letter must not end the run
            stream.reconfigure(errors="replace")
    arguments = list(argv)
    for before, word in zip([prog, *arguments], arguments, strict=False):
        if not word or re.fullmatch(r"--[\w-]+=", word):
            _complain(
                f"The argument after '{word[:-1] or before}' is empty. "
                "If it comes from a variable of your shell, that is not set."
            )
            return 2
    try:
        options = parser(prog).parse_args(arguments)
    except SystemExit as stop:  # argparse has printed its sentence; Blender must not be torn down
        return int(stop.code or 0)
    try:
        with _interrupted_by_signals():
            require_protocol()
            return _Run(options).go()
    except Problem as problem:
        _complain(str(problem))
        return 1
    except KeyboardInterrupt:
        _complain("Stopped.")
        return 130
    finally:
        session.close()


@contextlib.contextmanager
def _interrupted_by_signals() -> Iterator[None]:
    """Raise KeyboardInterrupt on every signal that asks to end, so that files are tidied up.

    These are SIGTERM and SIGHUP, and on Windows SIGBREAK (Ctrl+Break): there, ending a process by
    its id kills it without asking.
    """
    before = {}
    for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK"):
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) is not signal.SIG_IGN:  # as nohup sets
            before[number] = signal.signal(number, signal.default_int_handler)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler or signal.SIG_DFL)


def _complain(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


@dataclass
class _Picture:
    path: Path
    name: str = ""


@dataclass
class _Run:
    """One call of the command."""

    options: argparse.Namespace
    failed: bool = False
    jobs: list[Job] = field(default_factory=list)

    def go(self) -> int:
        output = _blend_path(self.options.output)
        pictures = self._find_pictures()
        check_writable(output)
        files = ResultFiles(output, {p.name: p.path for p in pictures}, self.options.overwrite)
        if files.moved:
            print(
                f"Some names are taken in {readable(str(output.parent))}. Those results get a "
                "number; --overwrite replaces what is there.",
                flush=True,
            )
        with tempfile.TemporaryDirectory(prefix="gsv3d-", ignore_cleanup_errors=True) as folder:
            try:
                session.get().jobs.on_end = self._ended
                self._start(Path(folder))
                self._submit(pictures, files.stem)
                self._wait()
                done = [job for job in self.jobs if job.state is JobState.DONE]
                if done:
                    self._write(done, files)
                session.get().jobs.forget(job for job in self.jobs if not job.state.active)
            finally:
                session.close(wait=True)  # before its folder goes away
        return 1 if self.failed or not done else 0

    def _find_pictures(self) -> list[_Picture]:
        files, problems = expand(self.options.images)
        pictures = []
        for path in files:
            try:
                check_picture(path)
                pictures.append(_Picture(path))
            except Problem as problem:
                problems.append(problem)
        for complaint in problems:
            _complain(str(complaint))
        self.failed = bool(problems)
        if not pictures:
            raise Problem("No picture is left to work on.", "Nothing was written.")
        names = unique_names([name_of(p.path.name) for p in pictures])
        for picture, name in zip(pictures, names, strict=True):
            picture.name = name
        return pictures

    def _start(self, folder: Path) -> None:
        place = preferences.backend_place()
        self._place = (
            self.options.python or place.python,
            self.options.connection_file or folder / "connection.json",
            folder / "backend",
        )
        try:
            session.get().start_backend(*self._place)
        except Problem as problem:
            if problem.hint != backend_process.CHOOSE_PYTHON:
                raise
            hint = (
                "Give --python the Python that has GSV3D, or press Install Backend in the"
                " extension's preferences once."
            )
            raise Problem(problem.what, hint) from problem
        self._restarts = 0
        if session.get().backend.process.running:
            print("Starting the backend ...", flush=True)

    def _submit(self, pictures: Sequence[_Picture], title: str) -> None:
        options = self.options
        here = bpy.context.scene
        unit = here.unit_settings.scale_length or 1.0
        several = len(pictures) > 1
        batch = uuid.uuid4().hex if several else ""
        for slot, picture in enumerate(pictures):
            target = Target(
                name=picture.name,
                height=options.height / unit,
                scene=here.name,
                collection=readable(title) if several else "",
                batch=batch,
                slot=slot,
            )
            request = Request(
                image=picture.path,
                filename=readable(picture.path.name),
                model=options.model,
                steps=options.steps,
                seed=options.seed,
                faces=options.faces,
                texture_size=options.texture_size,
                elevation=None if options.elevation == "auto" else options.elevation,
                mirror=options.mirror if isinstance(options.mirror, str) else "plane",
                plane=0.0 if isinstance(options.mirror, str) else options.mirror,
                orbit=options.orbit,
                frames=options.frames,
                azimuths=options.azimuths,
                elevations=options.elevations,
                refine=options.refine,
                files=("glb", "ply"),
                batch=several,
            )
            self.jobs.append(session.get().jobs.submit(request, target))

    def _wait(self) -> None:
        """Work on what arrives until every job has ended."""
        current = session.get()
        line = ProgressLine()
        silent_since = time.monotonic()
        while any(j.state.active or j.state is JobState.ARRIVED for j in self.jobs):
            more = current.drain(budget_s=0.05)
            job = current.book.current()
            if current.backend.state is BackendState.READY:
                silent_since = time.monotonic()
                if job is not None and job.state is JobState.RUNNING:
                    line.show(self.jobs.index(job) + 1, len(self.jobs), job)
            else:
                self._without_backend(time.monotonic() - silent_since)
            if not more:
                time.sleep(_TICK_S)
        line.end()

    def _without_backend(self, silent_s: float) -> None:
        """Start a backend that died again, twice at most; give up on one that is silent.

        At the second start after a death the backend itself fails the job it died over.
        """
        current = session.get()
        waiting = [j for j in self.jobs if j.state.active]
        problem = current.backend.problem or Problem("The backend does not answer.", "Try again.")
        died = current.backend.state is BackendState.FAILED
        if not waiting or not (died or silent_s > backend_link.START_PATIENCE_S):
            return
        worked = any(j.started for j in self.jobs)
        if died and worked and self._restarts < 2:
            self._restarts += 1
            _complain(f"{problem.what} Starting it again ...")
            current.start_backend(*self._place)
            return
        for job in waiting:
            current.jobs.give_up(job.id, problem)

    def _ended(self, job: Job) -> None:
        if job.state is JobState.FAILED:
            self.failed = True
            _complain(f"{job.request.filename}: {job.what} {job.hint}".strip())
        elif job.state is JobState.DONE:
            print(f"{job.name}: done", flush=True)

    def _write(self, done: Sequence[Job], files: ResultFiles) -> None:
        meshes = [o for o in (scene.find_object(j.id, scene.MESH) for j in done) if o is not None]
        with files.of_scene() as output:
            for job in done:
                made = {**session.get().jobs.files.get(job.id, {}), "json": _record(job)}
                arrived = sorted(made.items())
                with files.of_picture(job.name, output) as target:
                    for kind, data in arrived:
                        self._attempt(write_file, target.with_name(f"{target.name}.{kind}"), data)
            self._attempt(save_blend, output.with_name(f"{output.name}.blend"))
            if meshes:
                picture = output.with_name(output.name + files.preview)
                self._attempt(lambda path: render_preview(meshes, path), picture)

    def _attempt(self, action: Callable[..., None], path: Path, *arguments: object) -> None:
        """Write one file; if that fails say so and go on with the others."""
        try:
            action(path, *arguments)
        except Problem as problem:
            self.failed = True
            _complain(str(problem))
        else:
            print(f"Wrote {readable(str(path))}", flush=True)


def _record(job: Job) -> bytes:
    """Return what a result was made with, as the file beside it says it."""
    request = job.request
    assert isinstance(request, Request)
    licenses = {model.name: model.license for model in session.get().models()}
    settings = (
        "steps", "seed", "faces", "texture_size", "elevation", "mirror", "plane",
        "orbit", "frames", "azimuths", "elevations", "refine",
    )  # fmt: skip
    record = {
        "model": request.model,
        "license": licenses.get(request.model) or None,
        "image": request.filename,
        "settings": {name: getattr(request, name) for name in settings},
        "pose": job.pose,
        "timings": job.timings,
    }
    return (json.dumps(record, indent=1, ensure_ascii=False) + "\n").encode()


def _blend_path(given: Path) -> Path:
    if os.path.isdir(given):  # False where the name is too long
        raise Problem(f"{given} is a folder.", "Name a file: --output scene.blend")
    output = given if given.suffix.lower() == ".blend" else given.with_name(given.name + ".blend")
    return output.absolute()


def save_blend(path: Path) -> None:
    """Save the file; Blender itself writes aside and renames. Raises `Problem`."""
    try:
        bpy.ops.wm.save_as_mainfile(filepath=str(path), compress=True)
    except RuntimeError as error:
        reason = str(error).strip().removeprefix("Error: ").rstrip(".")
        raise Problem(
            f"Could not save {path}: {reason}.", "Check its folder and the disk."
        ) from error
