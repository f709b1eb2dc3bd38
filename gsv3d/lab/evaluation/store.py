# SPDX-License-Identifier: Apache-2.0
"""The folder of an evaluation: its files, each whole or not there, and what may be compared.

``truth/`` holds the rendered objects, ``meshes/`` and ``views/`` the candidates' meshes and their
pictures, ``generated/`` what else a model gave, ``measures/`` the numbers, one file a case and
candidate. What is there is not made again. Several models can be evaluated into one folder, one
after the other, and on more and more objects: they share the objects and the baselines.
"""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gsv3d.errors import DataError, OutputError
from gsv3d.lab.evaluation import baselines
from gsv3d.lab.evaluation.protocol import Case, EvaluationSettings
from gsv3d.meshing.mesh import TexturedMesh
from gsv3d.outputs import write_atomic

if TYPE_CHECKING:
    from gsv3d.multiview.guidance import Consistency

FORMAT = 2
KINDS = ("truth", "meshes", "views", "generated", "measures")


@dataclass(frozen=True)
class Run:
    """One candidate's way to answer all cases: a baseline, or a model with one of its seeds.

    Attributes:
        candidate: the baseline's or model's name.
        seed: seed of the model's noise; None for baselines, which draw nothing.
    """

    candidate: str
    seed: int | None = None

    @property
    def key(self) -> str:
        name = "".join(c if c.isalnum() or c in "-_." else "_" for c in self.candidate)
        return name if self.seed is None else f"{name}--seed{self.seed}"

    def __str__(self) -> str:
        return self.candidate if self.seed is None else f"{self.candidate}, seed {self.seed}"


@dataclass(frozen=True)
class ModelIdentity:
    """A model's files and settings, which tell its results from another's.

    Attributes:
        sha256: of the model's files.
        steps: denoising steps; None is the model's own number.
        faces: triangle budget of the meshes.
        texture_size: side of the meshes' textures in texels.
        frames: views of the model's orbit.
        pose: what the model is told of the reference's pose: nothing ("auto"), elevation 10 and no
            mirror ("off"), the true elevation and no mirror ("elevation"), or the true elevation
            and the true mirror plane ("truth").
        orbit: one of ``gsv3d.cameras.ORBIT_CHOICES``; None is the model's own.
        consistency: see ``gsv3d.multiview.guidance``; None is the model's own.
    """

    sha256: str
    steps: int | None = None
    faces: int = 5000
    texture_size: int = 512
    frames: int | None = None
    pose: str = "elevation"
    orbit: str | None = None
    consistency: Consistency | None = None


@dataclass(frozen=True)
class Evaluation:
    """One evaluation in one folder.

    Attributes:
        folder: folder of the report.
        settings: settings of the pictures.
        cases: cases of this run: the objects' own first, then those of the robustness plot.
        model: name of the model to be evaluated now; None for none.
        models: seeds by name of all models in this folder, this one included.
        retrieval: True if there is a library of props to retrieve from.
        description: words on which objects these are, for the report.
    """

    folder: Path
    settings: EvaluationSettings
    cases: Sequence[Case]
    model: str | None = None
    models: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    retrieval: bool = False
    description: str = ""

    @property
    def baselines(self) -> list[str]:
        """Names of the baselines in this folder, "empty" last."""
        return [n for n in baselines.NAMES if self.retrieval or n != baselines.RETRIEVAL]

    @property
    def runs(self) -> list[Run]:
        """Every candidate of the folder, models first."""
        models = [Run(name, seed) for name in sorted(self.models) for seed in self.models[name]]
        return [*models, *(Run(name) for name in self.baselines)]

    @property
    def model_runs(self) -> list[Run]:
        """The runs of the model to be evaluated now."""
        return [run for run in self.runs if run.candidate == self.model and run.seed is not None]

    def path(self, kind: str, case: Case, run: Run | None = None) -> Path:
        """Return where something of a case lies: its truth, or of a run one of ``KINDS``."""
        stem = case.name if run is None else f"{case.name}--{run.key}"
        return self.folder / kind / f"{stem}.{'json' if kind == 'measures' else 'npz'}"

    def orbit_path(self, case: Case, frames: int) -> Path:
        """Return where the true object's orbit of so many frames lies."""
        return self.folder / "truth" / f"{case.name}--orbit{frames}.npz"

    def record_path(self, case: Case, run: Run) -> Path:
        """Return where the cost of a model's run, or the reason of its failure, lies."""
        return self.path("generated", case, run).with_suffix(".json")


def prepare_folder(
    folder: Path,
    settings: EvaluationSettings,
    cases: Sequence[Case],
    model: str | None = None,
    identity: ModelIdentity | None = None,
    seeds: Sequence[int] = (0,),
    library: str | None = None,
    description: str = "",
) -> Evaluation:
    """Make the report's folders and their record, ``evaluation.json``.

    Args:
        folder: folder of the report.
        settings: settings of the pictures.
        cases: drawn for it.
        model: name to be evaluated, if any.
        identity: identity of that model.
        seeds: seeds of that model's noise.
        library: digest of the retrieval's index, if there is one.
        description: see ``Evaluation``.

    Raises:
        OutputError: not writable, or an evaluation is there that this one cannot be compared with.
    """
    record = folder / "evaluation.json"
    try:
        for kind in KINDS:
            (folder / kind).mkdir(parents=True, exist_ok=True)
        there = read_json(record) if record.exists() else {}
        there = _check_record(folder, there, settings, library)
        objects = _merge_objects(folder, dict(there["objects"]), cases)
        models = {name: dict(entry) for name, entry in there["models"].items()}
        if model is not None and identity is not None:
            _add_model(folder, models, model, identity, seeds)
        write_json(
            record,
            {
                "format": FORMAT,
                "settings": asdict(settings),
                "retrieval": library or there["retrieval"],
                "objects": objects,
                "models": models,
            },
        )
    except OutputError:
        raise
    except (OSError, DataError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise OutputError(f"{folder} cannot be used ({error}).") from error
    known = {name: tuple(entry["seeds"]) for name, entry in models.items()}
    return Evaluation(
        folder, settings, tuple(cases), model, known, library is not None, description
    )


def _check_record(
    folder: Path, there: dict[str, Any], settings: EvaluationSettings, library: str | None
) -> dict[str, Any]:
    """Return the record of an older run into the same folder, or an empty one."""
    if not there:
        return {"objects": {}, "models": {}, "retrieval": None}
    own = EvaluationSettings(**there["settings"])
    if there["format"] != FORMAT or own != settings:
        raise OutputError(
            f"{folder} holds an evaluation with other settings.", "Give another --report folder."
        )
    if library is not None and there["retrieval"] not in (None, library):
        raise OutputError(
            f"{folder} holds results retrieved from other props.", "Give another --report folder."
        )
    return there


def _merge_objects(folder: Path, objects: dict[str, str], cases: Sequence[Case]) -> dict[str, str]:
    """Return digests of the objects' files by name, those of this run added."""
    for case in cases:
        if case.elevation_of is None:
            path = case.source.path
            digest = digest_file(path) if path.is_file() else ""
            if objects.setdefault(case.source.name, digest) != digest:
                raise OutputError(
                    f"{folder} holds another object of the name {case.source.name}.",
                    "Give another --report folder.",
                )
    return objects


def _add_model(
    folder: Path,
    models: dict[str, Any],
    name: str,
    identity: ModelIdentity,
    seeds: Sequence[int],
) -> None:
    wanted = asdict(identity)
    entry = models.setdefault(name, {**wanted, "seeds": []})
    # A folder may be of a time when there was no such choice.
    before = {"pose": "elevation", "orbit": None, "consistency": None} | entry
    if {key: before[key] for key in wanted} != wanted:
        raise OutputError(
            f"{folder} holds another model, or other settings of it, under the name '{name}'.",
            "Give this one another --name.",
        )
    others = {Run(other).key.casefold() for other in models if other != name}
    others |= {key.casefold() for key in baselines.NAMES}
    if Run(name).key.casefold() in others:
        raise OutputError(
            f"In {folder} the name '{name}' cannot be told from another's.",
            "Give this model another --name.",
        )
    entry["seeds"] = sorted({*entry["seeds"], *seeds})


def save_arrays(path: Path, **arrays: Any) -> None:
    """Write an .npz, whole or not at all."""
    stream = io.BytesIO()
    np.savez_compressed(stream, **arrays)
    _write(path, stream.getvalue())


def load_arrays(path: Path) -> dict[str, np.ndarray]:
    """Read what ``save_arrays`` wrote.

    Raises:
        DataError: it is damaged.
    """
    try:
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as data:
            return dict(data)
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile) as error:
        raise DataError(f"{path} is damaged ({error}).", "Delete it; it is made again.") from error


def save_mesh(path: Path, mesh: TexturedMesh) -> None:
    """Write a mesh for ``load_mesh``."""
    save_arrays(path, **{name: getattr(mesh, name) for name in mesh.__dataclass_fields__})


def load_mesh(path: Path) -> TexturedMesh:
    """Read what ``save_mesh`` wrote; DataError as ``load_arrays``."""
    return TexturedMesh(**load_arrays(path))


def write_json(path: Path, value: Any) -> None:
    """Write a record, whole or not at all."""
    _write(path, (json.dumps(value, indent=1) + "\n").encode())


def _write(path: Path, data: bytes) -> None:
    try:
        write_atomic(path, data)
    except OutputError as error:
        # A full disk would fail all other cases, too: worker processes are ended by an OSError.
        raise error.__cause__ or error from None


def read_json(path: Path) -> Any:
    """Read a record.

    Raises:
        DataError: it is damaged.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path} is damaged ({error}).", "Delete it; it is made again.") from error


def digest_file(path: Path) -> str:
    """Return the SHA-256 of a file's contents."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest_folder(folder: Path) -> str:
    """Return the SHA-256 over the names and contents of a folder's files: which model this was.

    Only JSON and weights count: a model card does not make another model.
    """
    total = hashlib.sha256()
    kept = (".json", ".safetensors")
    for path in sorted(p for p in folder.rglob("*") if p.suffix in kept and p.is_file()):
        total.update(path.relative_to(folder).as_posix().encode() + b"\0")
        total.update(bytes.fromhex(digest_file(path)))
    return total.hexdigest()
