# SPDX-License-Identifier: GPL-3.0-or-later
"""The add-on without a window: ``python -m blender_addon`` and ``blender --command gsv3d``.

It uses the panel's session, client and importers. Timers do not fire here, so `Session.drain` is
called directly.
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
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import bpy

from . import backend_link, backend_process, preferences, session
from .arguments import make_parser
from .backend_link import BackendState
from .batch import check_picture, collection_name, expand, name_of, unique_names
from .console import ProgressLine
from .filenames import readable
from .importers import scene
from .jobs import Job, JobState
from .preview_render import render_preview
from .problems import Problem
from .protocol import require_protocol
from .requests import Request, Target
from .result_files import ResultFiles, check_writable, write_file

_TICK_S = 0.03


def command(argv: list[str]) -> int:
    """Run ``blender --command gsv3d``, with an empty scene whatever the start-up file holds."""
    bpy.data.batch_remove(list(bpy.data.objects))
    return run(argv, "blender --command gsv3d")


def run(argv: Sequence[str], prog: str) -> int:
    """Do what the command line asks; return the exit code: 0, or 1 if anything failed."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a console that lacks a letter must not end the run
            stream.reconfigure(errors="replace")
    for before, word in zip([prog, *argv], argv, strict=False):
        if not word or re.fullmatch(r"--[\w-]+=", word):
            _complain(
                f"The argument after '{word[:-1] or before}' is empty. "
                "If it comes from a variable of your shell, that is not set."
            )
            return 2
    try:
        options = make_parser(prog).parse_args(argv)
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
class _Run:
    """One call of the command."""

    options: argparse.Namespace
    failed: bool = False
    jobs: list[Job] = field(default_factory=list)

    def go(self) -> int:
        output = _blend_path(self.options.output)
        pictures = self._find_pictures()
        check_writable(output)
        files = ResultFiles(output, pictures, self.options.overwrite)
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
                with session.get().showing_once():
                    self._submit(pictures, files.stem)
                self._wait()
                done = [job for job in self.jobs if job.state is JobState.DONE]
                if done:
                    self._write(done, files)
                session.get().jobs.forget(job for job in self.jobs if not job.state.active)
            finally:
                session.close(wait=True)  # before its folder goes away
        return 1 if self.failed or not done else 0

    def _find_pictures(self) -> dict[str, Path]:
        """Return the pictures by the names of their results; complain of those that cannot be sent.

        Raises `Problem` if none can.
        """
        files, problems = expand(self.options.images)
        pictures = []
        for path in files:
            try:
                check_picture(path)
                pictures.append(path)
            except Problem as problem:
                problems.append(problem)
        for complaint in problems:
            _complain(str(complaint))
        self.failed = bool(problems)
        if not pictures:
            raise Problem("No picture is left to work on.", "Nothing was written.")
        names = unique_names([name_of(path.name) for path in pictures])
        return dict(zip(names, pictures, strict=True))

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

    def _submit(self, pictures: Mapping[str, Path], title: str) -> None:
        options = self.options
        here = bpy.context.scene
        unit = here.unit_settings.scale_length or 1.0
        several = len(pictures) > 1
        batch = uuid.uuid4().hex if several else ""
        for slot, (name, path) in enumerate(pictures.items()):
            target = Target(
                name=name,
                height=options.height / unit,
                scene=here.name,
                collection=collection_name(title) if several else "",
                batch=batch,
                slot=slot,
            )
            request = Request(
                image=path,
                filename=readable(path.name),
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
        while not current.delivery.idle or any(
            j.state.active or j.state is JobState.ARRIVED for j in self.jobs
        ):
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
        """Write one file; if that fails, say so and continue with the others."""
        try:
            action(path, *arguments)
        except Problem as problem:
            self.failed = True
            _complain(str(problem))
        else:
            print(f"Wrote {readable(str(path))}", flush=True)


def _record(job: Job) -> bytes:
    """Return what the file beside a result says of how it was made."""
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
    """Save the file, which Blender writes whole or not at all. Raises `Problem`."""
    try:
        bpy.ops.wm.save_as_mainfile(filepath=str(path), compress=True)
    except RuntimeError as error:
        reason = str(error).strip().removeprefix("Error: ").rstrip(".")
        raise Problem(
            f"Could not save {path}: {reason}.", "Check its folder and the disk."
        ) from error
