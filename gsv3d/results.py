# SPDX-License-Identifier: Apache-2.0
"""The files of one result: .glb, .ply, .obj, a contact sheet .png and a record .json."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

from gsv3d._version import __version__
from gsv3d.cameras import DISTANCE, orbit
from gsv3d.compiling import run_in_threads
from gsv3d.filenames import readable
from gsv3d.generation import GenerationResult
from gsv3d.meshing import TexturedMesh, export
from gsv3d.meshing.preview import rasterize_looks
from gsv3d.outputs import write_atomic
from gsv3d.settings import GenerationSettings

if TYPE_CHECKING:
    from gsv3d.gaussians import Gaussians
    from gsv3d.lifting import Lifted, LiftSettings

_ENDINGS = {"glb": (".glb",), "ply": (".ply",), "obj": (".obj", ".mtl", "_texture.png")}

TILE = 256
"""Side of a sheet's tile in pixels."""

COLUMNS = 6
_BACKGROUND = (236, 236, 236, 255)
_INK = (60, 60, 60, 255)


def list_endings(formats: Sequence[str]) -> list[str]:
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
        result: as returned by ``generate``.
        target: path of the files without a suffix; the name may hold dots.
        formats: one or more of "glb", "ply" and "obj".
        settings, model, image, device: for the record.
        license: the model's, for the record; empty if it is not recorded.

    Returns:
        the files written.

    Raises:
        OutputError: a file can't be written; those before it stay.
    """
    azimuths, elevations = result.azimuths_deg, result.elevations_deg
    sheet = draw_contact_sheet(
        result.prepared, result.views, azimuths, elevations, result.mesh, result.distance
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
            "azimuths_deg": np.round(azimuths.astype(float), 3).tolist(),
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
        lifted: as returned by ``lift_to_mesh``.
        target: path of the files without a suffix; the name may hold dots.
        formats: one or more of "glb", "ply" and "obj".
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
    sheet = draw_contact_sheet(
        (layers[0] * 255).round().to(torch.uint8).cpu().numpy(),
        (on_white.clamp(0, 1) * 255).round().to(torch.uint8).cpu().numpy(),
        azimuths,
        elevations,
        lifted.mesh,
    )
    record = {
        "device": device,
        "folder": readable(str(folder)),
        "views": len(views),
        "settings": asdict(settings),
        "frame": {"center": frame.center.tolist(), "extent": frame.extent},
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
    def write_mesh() -> list[Path]:
        files: list[Path] = []
        for suffix in ("glb", "obj"):
            if suffix in formats:
                files += export.write(mesh, _with_suffix(target, f".{suffix}"))
        if "ply" in formats:
            file = io.BytesIO()
            gaussians.save_ply(file)
            files.append(write_atomic(_with_suffix(target, ".ply"), file.getvalue()))
        return files

    def write_sheet() -> list[Path]:
        return [write_atomic(_with_suffix(target, ".png"), export.encode_result(sheet))]

    written = run_in_threads(lambda write: write(), [write_mesh, write_sheet])
    files = [file for _, some in written for file in some]
    record = {
        "version": __version__,
        **record,
        "gaussians": len(gaussians),
        "vertices": len(mesh.vertices),
        "faces": len(mesh.faces),
        "files": [file.name for file in files],
    }
    text = json.dumps(record, indent=1, ensure_ascii=False) + "\n"
    files.append(write_atomic(_with_suffix(target, ".json"), text.encode()))
    return files


def _with_suffix(target: Path, suffix: str) -> Path:
    return target.with_name(target.name + suffix)


def draw_contact_sheet(
    prepared: np.ndarray,
    views: np.ndarray,
    azimuths_deg: np.ndarray,
    elevations_deg: np.ndarray,
    mesh: TexturedMesh,
    distance: float = DISTANCE,
) -> Image.Image:
    """Draw one picture of a whole result.

    The first row holds the input and some of the model's views, the second the textured mesh from
    the same sides, the third its bare shape.

    Args:
        prepared: (S, S, 4) uint8, the reference as the model saw it.
        views: (V, S, S, 3) uint8.
        azimuths_deg, elevations_deg: (V,) of the views.
        mesh: the result.
        distance: distance of the views' cameras from the origin.

    Returns:
        An RGB picture.
    """
    by_azimuth = np.argsort(np.asarray(azimuths_deg, dtype=np.float64) % 360.0, kind="stable")
    count = min(COLUMNS - 1, len(by_azimuth))
    chosen = by_azimuth[[round(i * len(by_azimuth) / count) for i in range(count)]]
    azimuths = [float(azimuths_deg[i]) % 360.0 for i in chosen]
    elevations = [float(elevations_deg[i]) for i in chosen]

    cameras = orbit(azimuths, elevations, size=TILE, distance=distance)
    textured, clay = rasterize_looks(mesh, cameras, ((0.35, False), (1.0, True)))
    sides = [f"{azimuth:.0f}°" for azimuth in azimuths]
    rows: list[list[tuple[str, np.ndarray | None]]] = [
        [("input", prepared)],
        [(f"{len(mesh.faces):,} triangles", _texture_tile(mesh))],
        [("", None)],
    ]
    for side, view, color, shape in zip(sides, views[chosen], textured, clay, strict=True):
        rows[0].append((f"view {side}", view))
        rows[1].append((f"mesh {side}", color))
        rows[2].append((f"shape {side}", shape))

    sheet = Image.new("RGBA", (TILE * (count + 1), TILE * len(rows)), _BACKGROUND)
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(size=13)
    for row, tiles in enumerate(rows):
        for column, (label, tile) in enumerate(tiles):
            if tile is None:
                continue
            picture = Image.fromarray(tile).convert("RGBA")
            picture = picture.resize((TILE, TILE), Image.Resampling.BILINEAR)
            sheet.alpha_composite(picture, (column * TILE, row * TILE))
            draw.text((column * TILE + 6, row * TILE + 4), label, fill=_INK, font=font)
    return sheet.convert("RGB")


def _texture_tile(mesh: TexturedMesh) -> np.ndarray:
    """Return the texture with a margin, so that the label above it can be read."""
    inner = TILE - 48
    texture = Image.fromarray(mesh.texture).convert("RGBA")
    tile = np.zeros((TILE, TILE, 4), dtype=np.uint8)
    tile[28 : 28 + inner, 24 : 24 + inner] = texture.resize((inner, inner), Image.Resampling.BOX)
    return tile
