# SPDX-License-Identifier: Apache-2.0
"""The files of one result: .glb, .ply, .obj, a sheet .png and a record .json."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from gsv3d._version import __version__
from gsv3d.filenames import readable
from gsv3d.generation import GenerationResult
from gsv3d.meshing import export
from gsv3d.outputs import write_atomic
from gsv3d.settings import GenerationSettings
from gsv3d.sheet import contact_sheet

if TYPE_CHECKING:
    from PIL import Image

    from gsv3d.gaussians import Gaussians
    from gsv3d.lifting import Lifted, LiftSettings
    from gsv3d.meshing import TexturedMesh

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
    license: str = "",
) -> list[Path]:
    """Write a result; the record comes last, so that its presence says all are there.

    Args:
        result: of ``generate``.
        target: path of the files without a suffix; the name may hold dots.
        formats: of "glb", "ply" and "obj".
        settings, model, image, device: for the record.
        license: the model's, for the record; empty if it is not recorded.

    Returns:
        the files written.

    Raises:
        OutputError: a file can't be written; those before it stay.
    """
    elevations = result.elevations_deg
    if elevations is None:
        elevations = np.full(len(result.azimuths_deg), result.pose.elevation_deg)
    sheet = contact_sheet(
        result.prepared, result.views, result.azimuths_deg, result.mesh, elevations, result.distance
    )
    record = {
        "model": model,
        "license": license or None,
        "device": device,
        "image": readable(str(image)),
        "settings": asdict(settings),
        "gaussians_made_by": result.made_by,
        "cutout_certainty": result.certainty,
        "pose": asdict(result.pose),
        "views": {
            "azimuths_deg": np.round(result.azimuths_deg.astype(float), 3).tolist(),
            "elevations_deg": np.round(elevations.astype(float), 3).tolist(),
            "distance": result.distance,
        },
        "timings": result.timings,
    }
    return _write_all(target, formats, result.mesh, result.gaussians, sheet, record)


def write_lifted(
    lifted: Lifted,
    target: Path,
    *,
    formats: Sequence[str],
    settings: LiftSettings,
    folder: Path,
    device: str,
) -> list[Path]:
    """Write what was fitted to a folder of pictures, in the frame and scale of their cameras.

    Args:
        lifted: of ``lift_to_mesh``.
        target: path of the files without a suffix; the name may hold dots.
        formats: of "glb", "ply" and "obj".
        settings, folder, device: for the record.

    Returns:
        the files written; the record comes last.

    Raises:
        OutputError: a file can't be written; those before it stay.
    """
    frame, views = lifted.frame, lifted.views
    places = views.cameras.positions.cpu().numpy()
    azimuths = np.rad2deg(np.arctan2(places[:, 0], -places[:, 1])) % 360
    elevations = np.rad2deg(np.arctan2(places[:, 2], np.hypot(places[:, 0], places[:, 1])))
    alpha = views.alpha[..., None]
    layers = torch.cat([views.colors / alpha.clamp_min(1e-3), alpha], dim=-1).clamp(0, 1)
    on_white = views.colors + 1 - alpha
    sheet = contact_sheet(
        (layers[0] * 255).round().to(torch.uint8).cpu().numpy(),
        (on_white.clamp(0, 1) * 255).round().to(torch.uint8).cpu().numpy(),
        azimuths,
        lifted.mesh,
        elevations,
    )
    record = {
        "device": device,
        "folder": readable(str(folder)),
        "views": len(views),
        "settings": asdict(settings),
        "frame": {"centre": frame.center.tolist(), "extent": frame.extent},
        "timings": lifted.timings,
    }
    mesh = replace(lifted.mesh, vertices=frame.place(lifted.mesh.vertices))
    return _write_all(target, formats, mesh, frame.outward(lifted.gaussians), sheet, record)


def _write_all(
    target: Path,
    formats: Sequence[str],
    mesh: TexturedMesh,
    gaussians: Gaussians,
    sheet: Image.Image,
    record: dict[str, Any],
) -> list[Path]:
    files: list[Path] = []
    for suffix in ("glb", "obj"):
        if suffix in formats:
            files += export.write(mesh, _with_suffix(target, f".{suffix}"))
    if "ply" in formats:
        file = io.BytesIO()
        gaussians.save_ply(file)
        files.append(_write(_with_suffix(target, ".ply"), file.getvalue()))
    files.append(_write(_with_suffix(target, ".png"), export.result_png(sheet)))
    record = {
        "version": __version__,
        **record,
        "gaussians": len(gaussians),
        "vertices": len(mesh.vertices),
        "faces": len(mesh.faces),
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
