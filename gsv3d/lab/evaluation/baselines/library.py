# SPDX-License-Identifier: Apache-2.0
"""The props that are retrieved from, and how all of them look: rendered once, kept in a file."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from gsv3d.errors import DataError
from gsv3d.lab.datasets.objects import ObjectFile, find_objects
from gsv3d.lab.datasets.processes import run_in_processes
from gsv3d.lab.evaluation.baselines.prop_views import Looks, looks_of_prop
from gsv3d.lab.evaluation.files import file_digest, load_arrays, save_arrays

FORMAT = "gsv3d-looks/1"
SPLIT = "train"


@dataclass(frozen=True)
class Library:
    """N props and the looks of their 72 views.

    Attributes:
        props: in the order of the arrays' first axis.
        looks: of N * 72 views, prop by prop.
        digest: tells this library from others: its props' names and contents, and the format.
    """

    props: tuple[ObjectFile, ...]
    looks: Looks
    digest: str


def library_digest(props: Sequence[ObjectFile]) -> str:
    """SHA-256 over the names and contents of the props, and the format of their looks."""
    total = hashlib.sha256(FORMAT.encode())
    for prop in props:
        total.update(prop.name.encode() + b"\0" + file_digest(prop.path).encode())
    return total.hexdigest()


def find_library(source: Path, split: str = SPLIT) -> list[ObjectFile]:
    """The props of one split of an index.json.

    Raises:
        DataError: it is not one, or has no such split.
    """
    return find_objects([source], split)


def load_library(
    props: Sequence[ObjectFile],
    cache: Path,
    report: Callable[[str, int, int], None],
    workers: int = 1,
) -> Library:
    """Read the looks of props from the cache, or render them into it.

    Props that cannot be read are left out.

    Args:
        props: to retrieve from.
        cache: folder; the file in it is named by the library's digest.
        report: told of progress.
        workers: processes.

    Raises:
        DataError: no prop can be read, or the file in the cache is damaged.
    """
    there = [prop for prop in props if prop.path.is_file()]
    digest = library_digest(there)
    path = cache / f"looks-{digest[:16]}.npz"
    if not path.exists():
        cache.mkdir(parents=True, exist_ok=True)
        _render(there, path, report, workers)
    arrays = load_arrays(path)
    by_name = {prop.name: prop for prop in there}
    kept = tuple(by_name[str(name)] for name in arrays["names"])
    return Library(kept, Looks(arrays["masks"], arrays["colours"], arrays["means"]), digest)


@dataclass(frozen=True)
class _LooksFactory:
    def __call__(self) -> Callable[[Path], tuple[np.ndarray, np.ndarray, np.ndarray]]:
        import torch

        torch.set_num_threads(1)
        return _looks


def _looks(path: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    looks = looks_of_prop(path)
    return looks.masks, looks.colours, looks.means


def _render(
    props: Sequence[ObjectFile],
    path: Path,
    report: Callable[[str, int, int], None],
    workers: int,
) -> None:
    found: dict[int, tuple[np.ndarray, np.ndarray, np.ndarray]] = {}
    outcomes = run_in_processes(_LooksFactory(), [prop.path for prop in props], workers)
    for done, outcome in enumerate(outcomes, 1):
        if outcome.error is None:
            found[outcome.index] = outcome.value
        report("rendering the retrieval's props", done, len(props))
    if not found:
        raise DataError("None of the props to retrieve from can be read.")
    order = sorted(found)
    save_arrays(
        path,
        names=np.array([props[index].name for index in order]),
        masks=np.concatenate([found[index][0] for index in order]),
        colours=np.concatenate([found[index][1] for index in order]),
        means=np.concatenate([found[index][2] for index in order]),
    )
