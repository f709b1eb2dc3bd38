# SPDX-License-Identifier: Apache-2.0
"""Make one self-contained GLB of a repository's object, or say why it is left out."""

from __future__ import annotations

import importlib.util
import io
import posixpath
import re
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote

import numpy as np
from PIL import Image

from gsv3d.errors import DataError
from gsv3d.lab.datasets import mesh_files
from gsv3d.lab.datasets.light import decode_srgb
from gsv3d.lab.gathering.likeness import Likeness, measure_likeness
from gsv3d.lab.gathering.prop_files import name_coloring, to_glb
from gsv3d.lab.gathering.repositories import Repository
from gsv3d.lab.gathering.sources import IN_FILE, LICENSES, Pack, Source
from gsv3d.lab.processes import silence_standard_output
from gsv3d.lab.rasterizing.props import Prop, load_prop
from gsv3d.meshing.export import turn_y_up

SUFFIXES = (".glb", ".gltf", ".obj", ".fbx")
"""Formats that are taken. FBX and rigs need Blender."""

MOST_TRIANGLES = 200_000
THINNEST = 0.01
"""Least share of the largest extent that the smallest one must have."""

MOST_CLEAR = 0.02
"""Largest share of clear pixels in a texture that is drawn with its alpha."""

_READ_SIDE = 1024
"""Side that textures are read with, before they are cropped."""


@dataclass(frozen=True)
class Candidate:
    """A file of a repository that may become an object.

    Attributes:
        name: name of the object, unique.
        source, pack: its origin.
        git_folder: git folder of the source's repository.
        path: path of the file in the repository.
    """

    name: str
    source: Source
    pack: Pack
    git_folder: Path
    path: str

    def __str__(self) -> str:
        return f"{self.source.repository}: {self.path}"


@dataclass(frozen=True)
class Made:
    """An object as it is written.

    Attributes:
        glb: the file.
        facts: its fields in the index.
        likeness: its measures.
    """

    glb: bytes
    facts: dict[str, Any]
    likeness: Likeness


def make_maker() -> Callable[[Candidate], Made]:
    """Return ``make_object``; called once in each process."""
    import torch

    torch.set_num_threads(1)
    silence_standard_output(errors=True)  # Blender's exporter prints a line for each mesh
    return make_object


def make_object(candidate: Candidate) -> Made:
    """Make one object.

    Raises:
        DataError: it is left out; one sentence says why.
    """
    source = candidate.source
    repository = Repository(candidate.git_folder, source.commit, source.repository)
    with tempfile.TemporaryDirectory(prefix="gsv3d-object-") as name:
        folder = Path(name).resolve()
        file = folder / PurePosixPath(candidate.path)
        exported = folder / "exported.glb"
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(repository.read(candidate.path))
            _write_references(repository, file, folder)
            facts = _read_license(file) if source.license == IN_FILE else {}
            rigged = _has_rig(file)
            facts["posed_static_of_rig"] = rigged
            if rigged or file.suffix.lower() == ".fbx":
                _export_with_blender(file, exported)
                return _convert(exported, candidate, facts)
            return _convert(file, candidate, facts)
        except DataError as error:  # a temporary path says nothing
            text = error.message
            for path in (file, exported):
                text = text.replace(str(path), str(candidate))
            raise DataError(text) from error


def _convert(file: Path, candidate: Candidate, facts: dict[str, Any]) -> Made:
    _refuse_clear_textures(file)
    prop = load_prop(file, _READ_SIDE)
    if prop.missing_textures:
        names = ", ".join(prop.missing_textures)
        raise DataError(f"{candidate}: its textures are missing ({names}).")
    extents = np.ptp(prop.vertices[prop.faces].reshape(-1, 3), axis=0)
    count = len(prop.faces)
    if count > MOST_TRIANGLES:
        raise DataError(f"{candidate}: it has {count:,} triangles, more than {MOST_TRIANGLES:,}.")
    if not extents.max() > 0 or extents.min() < THINNEST * extents.max():
        raise DataError(f"{candidate}: it is flat.")
    if candidate.pack.up == "z":  # it was read as if it had +Y up
        prop = replace(
            prop,
            vertices=turn_y_up(prop.vertices),
            corner_normals=turn_y_up(prop.corner_normals),
        )
        extents = extents[[0, 2, 1]]
    if candidate.pack.srgb_factors:
        prop = replace(prop, corner_colors=decode_srgb(prop.corner_colors).astype(np.float32))
    glb, materials = to_glb(prop)
    try:
        likeness = measure_likeness(prop)
    except ValueError as error:
        raise DataError(f"{candidate}: {error}.") from error
    x, y, z = extents
    facts |= {
        "triangles": count,
        "extents": [round(float(v), 4) for v in (x, z, y)],
        "colour": name_coloring(prop),
        "materials": materials,
        "bytes": len(glb),
        "watertight": _is_watertight(prop),
    }
    return Made(glb, facts, likeness)


def _is_watertight(prop: Prop) -> bool:
    """Tell whether every edge has two faces, after vertices at one place are joined."""
    places = np.round(prop.vertices / np.ptp(prop.vertices, axis=0).max(), 6)
    _, index = np.unique(places, axis=0, return_inverse=True)
    faces = index.reshape(-1)[prop.faces]
    edges = np.sort(faces[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2), axis=1)
    edges = edges[edges[:, 0] != edges[:, 1]]
    _, counts = np.unique(edges, axis=0, return_counts=True)
    return bool(len(counts)) and bool((counts == 2).all())


def _write_references(repository: Repository, file: Path, folder: Path) -> None:
    """Write the repository's files that a file names: buffers, pictures, materials."""
    here = PurePosixPath(file.relative_to(folder).as_posix()).parent
    suffix, data = file.suffix.lower(), file.read_bytes()
    names: list[str] = []
    if suffix in (".glb", ".gltf"):
        document = _read_document(file)
        entries = [*document.get("buffers", []), *document.get("images", [])]
        uris = [entry.get("uri", "data:") for entry in entries]
        names = [unquote(uri) for uri in uris if not uri.startswith("data:")]
    elif suffix in (".obj", ".mtl"):
        word = "mtllib" if suffix == ".obj" else "map_Kd"
        text = mesh_files.strip_mark(data).decode(errors="replace")
        names = [name.strip() for name in re.findall(rf"^\s*{word}\s+(.+)$", text, re.MULTILINE)]
    paths = [path for name in names if (path := _resolve(here, name)) is not None]
    repository.write_files(paths, folder)
    for path in paths:
        if path.lower().endswith(".mtl") and (folder / path).is_file():
            _write_references(repository, folder / path, folder)


def _resolve(folder: PurePosixPath, name: str) -> str | None:
    """Return a path below the repository's root; None if it leaves it."""
    path = posixpath.normpath(folder / name.replace("\\", "/")).lstrip("/")
    return None if path.split("/")[0] in ("", ".", "..") else path


def _read_document(file: Path) -> dict[str, Any]:
    if file.suffix.lower() not in (".glb", ".gltf"):
        return {}
    try:
        return mesh_files.Document(file).json
    except Exception as error:  # a damaged file raises errors of many kinds
        raise DataError(f"{file} cannot be read: {mesh_files.describe_damage(error)}.") from error


def _has_rig(file: Path) -> bool:
    document = _read_document(file)
    compressed = set(document.get("extensionsUsed", ())) & set(mesh_files.COMPRESSIONS)
    return bool(document.get("skins")) or bool(compressed)


def _read_license(file: Path) -> dict[str, Any]:
    """Return license and author that a file names in its ``asset.extras``, as Sketchfab writes."""
    extras = _read_document(file).get("asset", {}).get("extras", {})
    if not isinstance(extras, dict):
        extras = {}
    license = str(extras.get("license", "")).split(" ")[0]
    license = "CC0-1.0" if license == "CC0" else license
    if license not in LICENSES:
        raise DataError(f"{file}: its license is {license or 'not named'}.")
    author, title = str(extras.get("author", "")), str(extras.get("title", ""))
    if not author:
        raise DataError(f"{file}: it names no author.")
    return {
        "license": license, "author": author, "title": title, "url": str(extras.get("source", "")),
    }  # fmt: skip


def _refuse_clear_textures(path: Path) -> None:
    """Refuse leaves and grass that are painted on cards: they would be drawn as whole cards.

    Raises:
        DataError: a texture that is drawn with its alpha has clear pixels.
    """
    if path.suffix.lower() not in (".glb", ".gltf"):
        return
    file = mesh_files.Document(path)
    document = file.json
    for material in document.get("materials", []):
        base = material.get("pbrMetallicRoughness", {}).get("baseColorTexture")
        if base is None or material.get("alphaMode", "OPAQUE") == "OPAQUE":
            continue
        try:
            image = document["images"][document["textures"][base["index"]]["source"]]
            data = mesh_files.read_picture(file, image)
            picture = Image.open(io.BytesIO(data)).convert("RGBA")
        except Exception:  # Pillow raises many kinds for damaged pictures
            continue  # load_prop names what is missing
        alpha = np.asarray(picture.resize((128, 128)))[..., 3]
        if (alpha < 128).mean() > MOST_CLEAR:
            raise DataError(f"{path}: its texture is cut out by its alpha.")


def _export_with_blender(file: Path, target: Path) -> None:
    """Export a file that trimesh does not read, or a rig at rest, as a plain GLB."""
    if importlib.util.find_spec("bpy") is None:
        raise DataError(
            f"{file}: reading it needs the Python package bpy.",
            'Install it with: pip install -e ".[blender]".',
        )
    from gsv3d.lab.datasets.blender_objects import export_plain_glb

    try:
        missing = export_plain_glb(file, target)
    except (RuntimeError, ValueError) as error:
        reason = str(error).strip().splitlines()[-1].rstrip(".")
        raise DataError(f"{file} cannot be read: {reason}.") from error
    if missing:
        raise DataError(f"{file}: its textures are missing ({', '.join(missing)}).")
