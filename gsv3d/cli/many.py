# SPDX-License-Identifier: Apache-2.0
"""``gsv3d generate`` for thousands of pictures: leave out what is done, count, use a cluster.

On a cluster each worker has one picture at a time, read when it is handed out, and this process
writes the files as they come: neither pictures nor results pile up.
"""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gsv3d.errors import OutputNameError, out_of_memory
from gsv3d.filenames import readable

if TYPE_CHECKING:
    from gsv3d.generation import GenerationResult

Work = Sequence[tuple[Path, Path]]
"""Pictures, each with the path of its results without an ending."""
_Task = tuple[str, str, bytes | None]
"""A picture's absolute path, the name of its results, and its bytes if they can be read."""


def leave_out_done(images: Sequence[Path], output: Path) -> list[Path]:
    """Return the pictures without a record, which is written last, in the folder of results."""
    done = set()
    for path in output.glob("*.json"):
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
            done.add(_key(record["image"]))
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            continue  # another program's, or held by a run that was ended
    return [image for image in images if _key(image) not in done]


def _key(path: str | Path) -> str:
    return readable(os.path.normcase(os.path.abspath(path)))


@dataclass
class Tally:
    """Counts of a run's inputs, by what became of them."""

    inputs: int
    made: int = 0
    there: int = 0
    failed: int = 0
    start: float = field(default_factory=time.monotonic)

    def table(self) -> str:
        """Return the counts, and the time of all, as lines."""
        seconds = time.monotonic() - self.start
        rows = [("made", self.made), ("there already", self.there), ("failed", self.failed)]
        lines = [f"  {name:<14}{count:>9,}" for name, count in [("inputs", self.inputs), *rows]]
        each = f", {seconds / self.made:.1f} each" if self.made else ""
        return "\n".join([*lines, f"  {'seconds':<14}{seconds:>9,.0f}{each}"])


@dataclass
class Generator:
    """Make results with one model; this is what is sent to a worker of a cluster.

    Attributes:
        model, device, memory: see ``gsv3d.models.load_pipeline``.
        settings: settings of all jobs.
        formats: formats of the results.
        pipeline: the model, once it is loaded.
    """

    model: str
    device: str
    memory: str
    settings: Any
    formats: Sequence[str]
    pipeline: Any = field(default=None, init=False)

    def __call__(self) -> Callable[[_Task], Any]:
        self.load()
        return self._make

    def load(self) -> None:
        from gsv3d.models import load_pipeline

        self.pipeline = load_pipeline(self.model, device=self.device, memory=self.memory)

    def write(self, result: GenerationResult, image: Path, target: Path) -> list[Path]:
        """Write the files of a picture's result, of which ``target`` is the path without ending."""
        from gsv3d.models import find, read_license
        from gsv3d.results import write_results

        return write_results(
            result,
            target,
            formats=self.formats,
            settings=self.settings,
            model=self.model,
            image=Path(os.path.abspath(image)),  # the same for a run that begins elsewhere
            device=str(getattr(self.pipeline, "_execution_device", self.pipeline.device)),
            license=read_license(find(self.model)),
        )

    def _make(self, task: _Task) -> tuple[list[tuple[str, bytes]], Any]:
        """Return the names and bytes of a result's files, and how certain the cut-out is."""
        from gsv3d.generation import generate
        from gsv3d.preprocessing import load_image

        image, name, data = task
        try:
            picture = load_image(image) if data is None else load_image(data, image)
            result = generate(self.pipeline, picture, self.settings)
        except Exception as error:
            told = out_of_memory(error, self.settings.texture_size)
            if told is None:
                raise
            raise told from error
        with tempfile.TemporaryDirectory(prefix="gsv3d-") as folder:
            files = self.write(result, Path(image), Path(folder) / name)
            return [(file.name, file.read_bytes()) for file in files], result.certainty


class _Tasks(Sequence[_Task]):
    """Pictures, each read when it is handed out. The worker names those that cannot be read."""

    def __init__(self, work: Work) -> None:
        self._work = work

    def __len__(self) -> int:
        return len(self._work)

    def __getitem__(self, index: Any) -> Any:
        image, target = self._work[index]
        data = None
        with contextlib.suppress(OSError):
            data = image.read_bytes()
        return os.path.abspath(image), target.name, data


def generate_on_ray(
    work: Work,
    generator: Generator,
    address: str,
    endings: Sequence[str],
    overwrite: bool,
    threads: int | None,
) -> Iterator[tuple[Path, list[Path], Any, str | None]]:
    """Generate on a Ray cluster and write the results here.

    Args:
        work: what to make.
        generator: generator of the results; its model is installed on every machine.
        address: address of the cluster.
        endings: endings of the files of a result.
        overwrite: whether to replace files.
        threads: CPUs, and so threads, of a worker without a card; 1 unless given.

    Yields:
        Each picture as it ends, its files, how certain the cut-out is, and why it failed or None.

    Raises:
        GSV3DError: the cluster or the model cannot be used, or the disk is full.
    """
    from gsv3d.clusters import run_on_ray

    outcomes = run_on_ray(
        generator,
        _Tasks(work),
        address,
        describe=lambda task: task[0],
        cards=generator.device != "cpu",
        cpus=threads or 1,
    )
    with contextlib.closing(outcomes):
        for outcome in outcomes:
            image, target = work[outcome.index]
            if outcome.error is not None:
                yield image, [], None, outcome.error
                continue
            files, certainty = outcome.value
            try:
                yield image, _write(files, target, endings, overwrite), certainty, None
            except OutputNameError as error:
                yield image, [], None, str(error)


def _write(
    files: Sequence[tuple[str, bytes]], target: Path, endings: Sequence[str], overwrite: bool
) -> list[Path]:
    from gsv3d.outputs import free_target, write_atomic

    with free_target(target, endings, overwrite) as free:
        if free != target:  # the files name each other
            raise OutputNameError(
                f"{target} was taken by another program meanwhile.", "Do it again with --resume."
            )
        for name, data in files:
            write_atomic(target.parent / name, data)
    return [target.parent / name for name, _ in files]
