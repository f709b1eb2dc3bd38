# SPDX-License-Identifier: Apache-2.0
"""Props from GLB files without Blender: triangles, normals, base colours."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gsv3d.errors import DataError

TEXTURE_SIDE = 128
"""Textures are reduced to at most so many pixels a side."""


@dataclass(frozen=True)
class Prop:
    """A triangle mesh with base colours, +Z up.

    Attributes:
        vertices: (V, 3) float32.
        faces: (F, 3) int32.
        corner_normals: (F, 3, 3) float32 unit shading normals.
        corner_uvs: (F, 3, 2) float32, origin at the texture's lower left, repeating.
        corner_colours: (F, 3, 3) float32 linear colour that multiplies the texture's.
        texture_index: (F,) int32 index into ``textures``, -1 for none.
        textures: (h, w, 3) uint8 sRGB each.
        plain: it has no colour of its own: neither texture, nor colours, nor a base colour.
    """

    vertices: np.ndarray
    faces: np.ndarray
    corner_normals: np.ndarray
    corner_uvs: np.ndarray
    corner_colours: np.ndarray
    texture_index: np.ndarray
    textures: tuple[np.ndarray, ...]
    plain: bool


def load_prop(path: Path) -> Prop:
    """Read the meshes of a GLB or glTF file, their nodes' transforms applied.

    Raises:
        DataError: unreadable, without triangles, or with vertices that are not finite numbers.
    """
    import trimesh

    if not path.is_file():
        raise DataError(f"{path}: there is no such file.")
    try:
        scene = trimesh.load_scene(path, process=False, skip_materials=False)
    except Exception as error:  # whatever a damaged file makes trimesh raise
        reason = f"{type(error).__name__}: {error}"
        raise DataError(f"{path} cannot be read as a mesh ({reason}).") from error
    parts = []
    textures: list[np.ndarray] = []
    seen: dict[int, int] = {}
    plain = True
    for node in scene.graph.nodes_geometry:
        transform, name = scene.graph[node]
        geometry = scene.geometry[name]
        if not isinstance(geometry, trimesh.Trimesh) or not len(geometry.faces):
            continue
        part, coloured = _part(geometry, np.asarray(transform), textures, seen)
        parts.append(part)
        plain = plain and not coloured
    if not parts:
        raise DataError(f"{path}: it has no faces to render.")
    offsets = np.cumsum([0] + [len(part["vertices"]) for part in parts[:-1]])
    for part, offset in zip(parts, offsets, strict=True):
        part["faces"] = part["faces"] + offset
    joined = {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}
    if not np.isfinite(joined["vertices"]).all():
        raise DataError(f"{path}: it has vertices that are not finite numbers.")
    # glTF is +Y up.
    for key in ("vertices", "corner_normals"):
        x, y, z = np.moveaxis(joined[key], -1, 0)
        joined[key] = np.stack([x, -z, y], axis=-1).astype(np.float32)
    return Prop(textures=tuple(textures), plain=plain, **joined)


def _part(
    mesh: Any, transform: np.ndarray, textures: list[np.ndarray], seen: dict[int, int]
) -> tuple[dict[str, np.ndarray], bool]:
    """One mesh's arrays, and whether it has colours of its own; its texture joins ``textures``."""
    faces = np.asarray(mesh.faces, dtype=np.int32)
    count = len(faces)
    vertices = np.asarray(mesh.vertices, dtype=np.float64) @ transform[:3, :3].T + transform[:3, 3]
    with np.errstate(invalid="ignore"):
        normals = np.asarray(mesh.vertex_normals) @ np.linalg.pinv(transform[:3, :3])
        normals = normals / np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-12)
    uvs = np.zeros((count, 3, 2), dtype=np.float32)
    colours = np.ones((count, 3, 3), dtype=np.float32)
    index, coloured = -1, False
    visual = mesh.visual
    material = getattr(visual, "material", None)
    if material is not None:
        factor = getattr(material, "baseColorFactor", None)
        if factor is not None:
            scale = 255.0 if np.issubdtype(np.asarray(factor).dtype, np.integer) else 1.0
            base = np.asarray(factor, dtype=np.float64)[:3] / scale
            colours *= base.astype(np.float32)
            coloured = bool(np.ptp(base) > 0.02)
        picture = getattr(material, "baseColorTexture", None)
        if picture is not None and visual.uv is not None:
            if id(picture) not in seen:
                seen[id(picture)] = len(textures)
                textures.append(_texture(picture))
            index, coloured = seen[id(picture)], True
            uvs = np.asarray(visual.uv, dtype=np.float32)[faces]
    own = _vertex_colours(mesh, visual)
    if own is not None:
        colours *= linear(own[faces]).astype(np.float32)
        coloured = coloured or bool(np.ptp(own) > 0.02)
    return {
        "vertices": vertices.astype(np.float32),
        "faces": faces,
        "corner_normals": normals.astype(np.float32)[faces],
        "corner_uvs": uvs,
        "corner_colours": colours,
        "texture_index": np.full(count, index, dtype=np.int32),
    }, coloured


def _vertex_colours(mesh: Any, visual: Any) -> np.ndarray | None:
    """(V, 3) sRGB-free vertex colours in 0..1, or None."""
    if getattr(visual, "kind", None) == "vertex":
        return np.asarray(visual.vertex_colors, dtype=np.float64)[:, :3] / 255
    attributes = getattr(visual, "vertex_attributes", {}) or {}
    own = attributes.get("color")
    if own is None or len(own) != len(mesh.vertices):
        return None
    own = np.asarray(own, dtype=np.float64)[:, :3]
    return own / 255 if own.max() > 1 else own


def _texture(picture: Any) -> np.ndarray:
    from PIL import Image

    picture = picture.convert("RGB")
    if max(picture.size) > TEXTURE_SIDE:
        scale = TEXTURE_SIDE / max(picture.size)
        size = tuple(max(1, round(side * scale)) for side in picture.size)
        picture = picture.resize(size, Image.Resampling.BOX)
    return np.asarray(picture)


def linear(srgb: np.ndarray) -> np.ndarray:
    """sRGB to linear light, both in 0..1 (IEC 61966-2-1)."""
    return np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
