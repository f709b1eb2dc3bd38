# SPDX-License-Identifier: GPL-3.0-or-later
"""Files of a run without a window, which get free names and are written whole. No bpy."""

from __future__ import annotations

import contextlib
import itertools
import os
import uuid
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from .filenames import (
    claim,
    free_stem,
    key_of,
    keys_in,
    keys_of,
    numbered,
    release,
    safe_stem,
)
from .problems import file_problem

_OF_PICTURE = (".glb", ".ply", ".json")


class ResultFiles:
    """Names for the files of a run that no other file of their folder has.

    A single picture's files are named after the .blend, those of several after the pictures.

    Args:
        output: path of the .blend that was asked for.
        pictures: the pictures by the names of their results.
        overwrite: whether to replace files of these names. Pictures are never replaced.

    Attributes:
        stem: stem of the .blend and the preview.
        preview: ending of the preview.
        moved: whether a result gets another name because one was taken.
    """

    def __init__(self, output: Path, pictures: Mapping[str, Path], overwrite: bool) -> None:
        self._output, self._overwrite = output, overwrite
        folder = os.path.realpath(output.parent)
        inside = [p for p in pictures.values() if os.path.realpath(p.parent) == folder]
        taken = {key_of(path.name) for path in inside}
        self.preview = "_preview.png" if key_of(f"{output.stem}.png") in taken else ".png"
        if not overwrite:
            taken |= keys_in(output.parent)
        several = len(pictures) > 1
        self._endings = [".blend", self.preview, *(() if several else _OF_PICTURE)]
        self.stem = free_stem(output.stem, self._endings, taken)
        self.moved = self.stem != output.stem
        taken |= keys_of(self.stem, self._endings)
        self._stems: dict[str, str] = {}
        for name in pictures if several else ():
            stem = self._stems[name] = free_stem(safe_stem(name), _OF_PICTURE, taken)
            self.moved |= stem != safe_stem(name)
            taken |= keys_of(stem, _OF_PICTURE)

    @contextlib.contextmanager
    def of_scene(self) -> Iterator[Path]:
        """Hold the name of the .blend and the preview while they are written.

        Yields:
            Their path without an ending. It has another number where a run that was quicker has
            taken the name since.
        """
        with self._held(self.stem, self._endings) as target:
            yield target

    @contextlib.contextmanager
    def of_picture(self, name: str, of_scene: Path) -> Iterator[Path]:
        """Hold the name of a picture's files; ``of_scene``'s own if there is only one."""
        if not self._stems:
            yield of_scene
            return
        with self._held(self._stems[name], _OF_PICTURE) as target:
            yield target

    @contextlib.contextmanager
    def _held(self, stem: str, endings: Sequence[str]) -> Iterator[Path]:
        """Hold a name by empty files; no empty .blend, which Blender would keep as a backup."""
        target, held = self._output.with_name(stem), []
        for number in itertools.count(1):
            if self._overwrite:
                break
            target = self._output.with_name(numbered(stem, number))
            paths = [target.with_name(target.name + ending) for ending in endings]
            held = [path for path in paths if path.suffix != ".blend"]
            try:
                if not any(path.exists() for path in paths) and claim(held):
                    break
            except OSError:  # writing the files themselves will say why they cannot be written
                break
        try:
            yield target
        finally:
            release(held)


def check_writable(output: Path) -> None:
    """Find out before the work whether files can be written. Raises `Problem` if not."""
    probe = _temporary(output.parent)
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        with open(probe, "xb"):
            pass
        probe.unlink()
    except OSError as error:
        raise file_problem(error, output.parent, "write to") from error
    longest = output.with_name(f"{output.stem}_preview.png")
    try:
        longest.lstat()
    except FileNotFoundError as error:
        problem = file_problem(error, longest, "write")
        if "too long" in problem.what:
            raise problem from error
    except OSError as error:
        raise file_problem(error, output, "write") from error


def write_file(path: Path, data: bytes) -> None:
    """Write a file whole or not at all. Raises `Problem`."""
    partial = _temporary(path.parent)
    try:
        partial.write_bytes(data)
        os.replace(partial, path)
    except OSError as error:
        raise file_problem(error, path, "write") from error
    finally:
        with contextlib.suppress(OSError):
            partial.unlink()


def _temporary(folder: Path) -> Path:
    """Return a new name in a folder; ``tempfile`` waits long where Windows denies the folder."""
    return folder / f".{uuid.uuid4().hex[:12]}.part"
