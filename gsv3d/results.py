# SPDX-License-Identifier: Apache-2.0
"""The files of one result: .glb, .ply, .obj, a sheet .png and a record .json."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np

from gsv3d._version import __version__
from gsv3d.filenames import readable
from gsv3d.generation import GenerationResult, GenerationSettings
from gsv3d.meshing import export
from gsv3d.outputs import write_atomic
from gsv3d.sheet import contact_sheet

_ENDINGS = {"glb": (".glb",), "ply": (".ply",), "obj": (".obj", ".mtl", "_texture.png")}


def endings_of(formats: Sequence[str]) -> list[str]:
    """Return the endings of all files that ``write_results`` writes."""
    return [ending for name in formats for ending in _ENDINGS[name]] + [".png", ".json"]


def write_results(
    result: GenerationResult,
    target: Path,
    *,
    formats: Sequence[str],
    settings: GenerationSettings,
    model: str,
    image: Path,
    device: str = "",
) -> list[Path]:
    """Writes a result; the record comes last, so that its presence says all are there.

    Args:
        result: of ``generate``.
        target: path of the files without a suffix; the name may hold dots.
        formats: of "glb", "ply" and "obj".
        settings, model, image, device: for the record.

    Returns:
        the files written.

    Raises:
        OutputError: a file can't be written; those before it stay.
    """
    files: list[Path] = []
    for suffix in ("glb", "obj"):
        if suffix in formats:
            files += export.write(result.mesh, _with_suffix(target, f".{suffix}"))
    if "ply" in formats:
        file = io.BytesIO()
        result.gaussians.save_ply(file)
        files.append(_write(_with_suffix(target, ".ply"), file.getvalue()))
    elevations = result.elevations_deg
    if elevations is None:
        elevations = np.full(len(result.azimuths_deg), result.pose.elevation_deg)
    sheet = contact_sheet(
        result.prepared, result.views, result.azimuths_deg, result.mesh, elevations
    )
    files.append(_write(_with_suffix(target, ".png"), export.result_png(sheet)))

    record = {
        "version": __version__,
        "model": model,
        "device": device,
        "image": readable(str(image)),
        "settings": asdict(settings),
        "cutout_certainty": result.certainty,
        "pose": asdict(result.pose),
        "timings": result.timings,
        "gaussians": len(result.gaussians),
        "vertices": len(result.mesh.vertices),
        "faces": len(result.mesh.faces),
        "files": [file.name for file in files],
    }
    text = json.dumps(record, indent=1, ensure_ascii=False) + "\n"
    files.append(_write(_with_suffix(target, ".json"), text.encode()))
    return files


def _with_suffix(target: Path, suffix: str) -> Path:
    return target.with_name(target.name + suffix)


def _write(path: Path, data: bytes) -> Path:
    write_atomic(path, data)
    return path
