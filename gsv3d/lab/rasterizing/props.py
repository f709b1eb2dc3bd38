# SPDX-License-Identifier: Apache-2.0
"""Read props from GLB files without Blender: triangles, normals, base colors; bake textures."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gsv3d.errors import DataError
from gsv3d.lab.datasets import mesh_files
from gsv3d.lab.datasets.light import decode_srgb, encode_srgb
from gsv3d.lab.rasterizing import plain_gltf
from gsv3d.meshing.mesh import TexturedMesh

TEXTURE_SIDE = 128
"""Largest side of a texture in pixels; larger ones are reduced."""

BAKED_SIDE = 2048
"""Side of a baked texture in texels; larger if a prop has too many faces for it."""


@dataclass(frozen=True)
class Prop:
    """A triangle mesh with base colors, +Z up.

    Attributes:
        vertices: (V, 3) float32.
        faces: (F, 3) int32.
        corner_normals: (F, 3, 3) float32 unit shading normals.
        corner_uvs: (F, 3, 2) float32, origin at the texture's lower left, repeating.
        corner_colors: (F, 3, 3) float32 linear colors that multiply the texture's.
        texture_index: (F,) int32 index into ``textures``, -1 for none.
        textures: arrays (h, w, 3) uint8 sRGB.
        plain: True if it has neither a texture, nor vertex colors, nor a base color.
        missing_textures: names of textures that are missing or no pictures.
        animated: True if its file has animations; it is drawn without them.
        left_out: extensions that its file requires, and that it is drawn without.
    """

    vertices: np.ndarray
    faces: np.ndarray
    corner_normals: np.ndarray
    corner_uvs: np.ndarray
    corner_colors: np.ndarray
    texture_index: np.ndarray
    textures: tuple[np.ndarray, ...]
    plain: bool
    missing_textures: tuple[str, ...] = ()
    animated: bool = False
    left_out: tuple[str, ...] = ()

    def remarks(self, path: Path) -> list[str]:
        """Return sentences on faults of the file, for its maker."""
        said = []
        if self.missing_textures:
            names = ", ".join(self.missing_textures)
            said.append(f"{path}: drawn without textures that are missing: {names}.")
        if self.animated:
            said.append(f"{path}: it is animated; drawn as it stands before it moves.")
        if self.left_out:
            names = ", ".join(self.left_out)
            said.append(f"{path}: drawn without what these extensions add: {names}.")
        return said


def load_prop(path: Path, texture_side: int = TEXTURE_SIDE) -> Prop:
    """Read the meshes of a GLB or glTF file, with their nodes' transforms.

    Args:
        path: path of the file.
        texture_side: largest side of a texture in pixels; larger ones are reduced.

    Raises:
        DataError: the file cannot be read, is compressed, has no triangles, or has vertices that
            are not finite numbers.
    """
    if not path.is_file():
        raise DataError(f"{path}: there is no such file.")
    try:
        return _read(path, texture_side)
    except DataError:
        raise
    except Exception as error:  # trimesh and numpy raise many kinds for damaged files
        reason = mesh_files.describe_damage(error)
        raise DataError(
            f"{path} cannot be read as a mesh: {reason}.", f"{mesh_files.AGAIN}."
        ) from error


def _read(path: Path, texture_side: int) -> Prop:
    import trimesh

    document: dict[str, Any] = {}
    missing: list[str] = []
    source: Any = path
    options: dict[str, Any] = {}
    if path.suffix.lower() in (".glb", ".gltf"):
        file = mesh_files.Document(path)
        document = file.json
        compressed = set(document.get("extensionsRequired", ())) & set(mesh_files.COMPRESSIONS)
        if compressed:
            raise DataError(
                f"{path}: its meshes are compressed ({', '.join(sorted(compressed))}).",
                "Export it without compression, or render it with gsv3d render.",
            )
        mesh_files.check_geometry(file)
        missing = mesh_files.find_missing_pictures(file)
        data, without_uvs = plain_gltf.rewrite(file)
        missing += without_uvs
        if data is not None:
            source = io.BytesIO(data)
            resolver = trimesh.resolvers.FilePathResolver(str(path))
            options = {"file_type": "glb", "resolver": resolver}
    elif path.suffix.lower() == ".obj":
        source = io.BytesIO(mesh_files.strip_mark(path.read_bytes()))
        options = {"file_type": "obj", "resolver": _materials_of(path)}
    scene = trimesh.load_scene(source, process=False, skip_materials=False, **options)
    parts = []
    textures: list[np.ndarray] = []
    seen: dict[int, int] = {}
    plain = True
    for node in scene.graph.nodes_geometry:
        transform, name = scene.graph[node]
        geometry = scene.geometry[name]
        if not isinstance(geometry, trimesh.Trimesh) or not len(geometry.faces):
            continue
        part, colored = _part(
            geometry, np.asarray(transform), textures, seen, missing, texture_side
        )
        parts.append(part)
        plain = plain and not colored
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
    return Prop(
        textures=tuple(textures),
        plain=plain,
        missing_textures=tuple(sorted(set(missing))),
        animated=bool(document.get("animations")),
        left_out=tuple(plain_gltf.find_unknown_extensions(document)),
        **joined,
    )


def _materials_of(path: Path) -> Any:
    """Return a resolver that gives trimesh the files of an OBJ without byte-order marks."""
    from trimesh.resolvers import FilePathResolver

    class WithoutMarks(FilePathResolver):
        def get(self, name: str) -> bytes:
            return mesh_files.strip_mark(super().get(name))

    return WithoutMarks(str(path))


def _part(
    mesh: Any,
    transform: np.ndarray,
    textures: list[np.ndarray],
    seen: dict[int, int],
    missing: list[str],
    texture_side: int,
) -> tuple[dict[str, np.ndarray], bool]:
    """Return one mesh's arrays, and True if it has colors of its own.

    Its texture is appended to ``textures``; if it is missing, its material's name to ``missing``.
    """
    faces = np.asarray(mesh.faces, dtype=np.int32)
    count = len(faces)
    if faces.min() < 0 or faces.max() >= len(mesh.vertices):
        raise mesh_files.DamagedError("faces name vertices that are not there")
    vertices = np.asarray(mesh.vertices, dtype=np.float64) @ transform[:3, :3].T + transform[:3, 3]
    with np.errstate(invalid="ignore", over="ignore"):
        placed = vertices.astype(np.float32)
        normals = np.asarray(mesh.vertex_normals) @ np.linalg.pinv(transform[:3, :3])
        normals = normals / np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-12)
        corner_normals = _with_normals_of_faces(normals[faces], vertices[faces])
    uvs = np.zeros((count, 3, 2), dtype=np.float32)
    colors = np.ones((count, 3, 3), dtype=np.float32)
    index, colored = -1, False
    visual = mesh.visual
    material = getattr(visual, "material", None)
    if material is not None:
        if hasattr(material, "to_pbr"):  # of an OBJ
            material = material.to_pbr()
        factor = getattr(material, "baseColorFactor", None)
        if factor is not None:
            scale = 255.0 if np.issubdtype(np.asarray(factor).dtype, np.integer) else 1.0
            base = np.asarray(factor, dtype=np.float64)[:3] / scale
            colors *= base.astype(np.float32)
            colored = bool(np.ptp(base) > 0.02)
        picture = getattr(material, "baseColorTexture", None)
        if picture is not None and visual.uv is not None:
            if id(picture) not in seen:
                try:
                    textures.append(_texture(picture, texture_side))
                    seen[id(picture)] = len(textures) - 1
                except Exception:  # Pillow raises many kinds for damaged pictures
                    missing.append(f"a texture of {material.name}")
                    seen[id(picture)] = -1
            index = seen[id(picture)]
            colored = colored or index >= 0
            uvs = np.nan_to_num(np.asarray(visual.uv, dtype=np.float32), posinf=0, neginf=0)[faces]
    own = _vertex_colors(mesh, visual)
    if own is not None:
        colors *= own[faces].astype(np.float32)
        colored = colored or bool(np.ptp(own) > 0.02)
    return {
        "vertices": placed,
        "faces": faces,
        "corner_normals": corner_normals.astype(np.float32),
        "corner_uvs": uvs,
        "corner_colors": colors,
        "texture_index": np.full(count, index, dtype=np.int32),
    }, colored


def _with_normals_of_faces(normals: np.ndarray, corners: np.ndarray) -> np.ndarray:
    """Replace (F, 3, 3) corner normals that have no direction by those of the faces."""
    bad = ~(np.linalg.norm(normals, axis=-1) > 0.5)
    if not bad.any():
        return normals
    across = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    across = across / np.maximum(np.linalg.norm(across, axis=-1, keepdims=True), 1e-300)
    return np.where(bad[..., None], across[:, None], normals)


def _vertex_colors(mesh: Any, visual: Any) -> np.ndarray | None:
    """Return (V, 3) vertex colors in 0..1, linear as in glTF, or None."""
    if getattr(visual, "kind", None) == "vertex":
        return np.asarray(visual.vertex_colors, dtype=np.float64)[:, :3] / 255
    attributes = getattr(visual, "vertex_attributes", {}) or {}
    own = attributes.get("color")
    if own is None or len(own) != len(mesh.vertices):
        return None
    return np.asarray(own, dtype=np.float64)[:, :3].clip(0, 1)


def _texture(picture: Any, side: int) -> np.ndarray:
    from PIL import Image

    picture = picture.convert("RGB")
    if max(picture.size) > side:
        scale = side / max(picture.size)
        size = tuple(max(1, round(length * scale)) for length in picture.size)
        picture = picture.resize(size, Image.Resampling.BOX)
    return np.asarray(picture)


def bake_texture(prop: Prop) -> TexturedMesh:
    """Bake a prop's base colors into one texture with a block of texels for every face.

    Blocks have 8 x 8 texels, fewer if the texture's side would exceed ``BAKED_SIDE``. A face fills
    the half of its block below the diagonal. The other half repeats the diagonal, so that filtering
    brings in no color of another face.
    """
    faces = len(prop.faces)
    across = int(np.ceil(np.sqrt(faces)))
    block = next((b for b in (8, 4) if across * b <= BAKED_SIDE), 2)
    ramp = np.linspace(0, 1, block)
    v, u = np.meshgrid(ramp, ramp, indexing="ij")
    beyond = np.maximum(u + v - 1, 0) / 2
    u, v = u - beyond, v - beyond
    weights = np.stack([1 - u - v, u, v], axis=-1)  # (block, block, 3)
    side = across * block
    texture = np.zeros((across, block, across, block, 3), np.uint8)
    for start in range(0, faces, 20_000):
        part = np.arange(start, min(faces, start + 20_000))
        colors = encode_srgb(_base_colors(prop, part, weights))
        texture[part // across, :, part % across] = np.rint(colors * 255)
    picture = texture.reshape(side, side, 3)[::-1]  # row 0 is the top, v = 0 the bottom
    corners = np.array([[0.5, 0.5], [block - 0.5, 0.5], [0.5, block - 0.5]])
    origin = np.stack([np.arange(faces) % across, np.arange(faces) // across], axis=-1) * block
    uvs = (origin[:, None] + corners) / side
    return TexturedMesh(prop.vertices, prop.faces, uvs, picture)


def _base_colors(prop: Prop, faces: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return (n, b, b, 3) linear base colors of faces at barycentric (b, b, 3) weights."""
    color = np.einsum("uvk,fkc->fuvc", weights, prop.corner_colors[faces])
    at = np.einsum("uvk,fkc->fuvc", weights, prop.corner_uvs[faces])
    for index, texture in enumerate(prop.textures):
        painted = prop.texture_index[faces] == index
        height, width = texture.shape[:2]
        column = np.minimum(((at[painted, ..., 0] % 1) * width).astype(int), width - 1)
        row = np.minimum((((1 - at[painted, ..., 1]) % 1) * height).astype(int), height - 1)
        color[painted] *= decode_srgb(texture[row, column] / 255)
    return color
