# SPDX-License-Identifier: Apache-2.0
"""Less usual parts of glTF, against Blender's importer and renderer."""

from __future__ import annotations

import base64
import copy
import importlib.util
import io
import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from gsv3d.cameras import orbit, to_blender
from gsv3d.errors import DataError
from gsv3d.lab.datasets.light import encode_straight_srgb
from gsv3d.lab.datasets.orbits import normalizing_transform
from gsv3d.lab.rasterizing import load_prop
from gsv3d.lab.rasterizing.orbits import Surface, draw
from gsv3d.meshing.export import pack_glb

CODES = {"f4": 5126, "u4": 5125, "u2": 5123, "i2": 5122, "u1": 5121, "i1": 5120}
TYPES = {1: "SCALAR", 2: "VEC2", 3: "VEC3", 4: "VEC4"}
CORNERS = np.array([[-1, -1, 0], [1, -1, 0], [1, 1, 0], [-1, 1, 0]], "f4")
UVS = np.array([[0, 1], [1, 1], [1, 0], [0, 0]], "f4")
HALF_UVS = np.array([[0, 0.5], [0.5, 0.5], [0.5, 0], [0, 0]], "f4")


def texture() -> Image.Image:
    """Return a texture of sixteen tiles of different colors."""
    x, y = np.meshgrid(np.arange(64) // 16, np.arange(64) // 16)
    return Image.fromarray(np.stack([x * 85, y * 85, x * 0 + 128], -1).astype(np.uint8))


class Square:
    """A glTF document of a square with a texture, to be changed before it is written."""

    def __init__(self) -> None:
        self.blob = bytearray()
        picture = io.BytesIO()
        texture().save(picture, "PNG")
        uri = f"data:image/png;base64,{base64.b64encode(picture.getvalue()).decode()}"
        self.document: dict[str, Any] = {"asset": {"version": "2.0"}, "accessors": []}
        self.document |= {"bufferViews": [], "scene": 0, "scenes": [{"nodes": [0]}]}
        self.document |= {"nodes": [{"mesh": 0}], "images": [{"uri": uri}]}
        self.texture: dict[str, Any] = {"index": 0}
        self.document["textures"] = [{"source": 0}]
        pbr = {"metallicFactor": 0, "baseColorTexture": self.texture}
        self.document["materials"] = [{"name": "tiles", "pbrMetallicRoughness": pbr}]
        self.attributes = {"POSITION": self.add(CORNERS), "TEXCOORD_0": self.add(UVS)}
        self.primitive: dict[str, Any] = {"attributes": self.attributes, "material": 0}
        self.primitive["indices"] = self.add(np.array([[0], [1], [2], [0], [2], [3]], "u2"))
        self.document["meshes"] = [{"primitives": [self.primitive]}]

    def view(self, array: np.ndarray) -> int:
        self.blob += bytes(-len(self.blob) % 4)
        entry = {"buffer": 0, "byteOffset": len(self.blob), "byteLength": array.nbytes}
        self.document["bufferViews"].append(entry)
        self.blob += array.astype(array.dtype.newbyteorder("<")).tobytes()
        return len(self.document["bufferViews"]) - 1

    def add(self, array: np.ndarray, normalized: bool = False) -> int:
        entry: dict[str, Any] = {"bufferView": self.view(array), "count": len(array)}
        entry |= {"componentType": CODES[array.dtype.str[1:]], "type": TYPES[array.shape[1]]}
        if normalized:
            entry["normalized"] = True
        elif array.shape[1] == 3:
            entry |= {"min": array.min(axis=0).tolist(), "max": array.max(axis=0).tolist()}
        self.document["accessors"].append(entry)
        return len(self.document["accessors"]) - 1

    def transformed(self, **transform: Any) -> None:
        self.texture["extensions"] = {"KHR_texture_transform": transform}
        self.document["extensionsUsed"] = ["KHR_texture_transform"]

    def instanced(self, **attributes: int) -> None:
        extension = {"EXT_mesh_gpu_instancing": {"attributes": attributes}}
        self.document["nodes"][0] |= {"extensions": extension, "translation": [0, 0.5, 0]}
        self.document["extensionsUsed"] = ["EXT_mesh_gpu_instancing"]

    def glb(self) -> bytes:
        self.document["buffers"] = [{"byteLength": len(self.blob)}]
        return pack_glb(json.dumps(self.document).encode(), bytes(self.blob))


def normalized(values: np.ndarray, kind: str) -> np.ndarray:
    return np.round(values * np.iinfo(kind).max).astype(kind)


def square(case: str) -> bytes:
    """Return a GLB of one of the CASES."""
    made = Square()
    colors = np.array([[1, 0.5, 0.25, 1], [0.02, 1, 0.5, 1], [1, 1, 0, 1], [0.2, 0.2, 1, 1]])
    places = np.array([[0, 0, 0], [2, 0, 0], [0, 3, 1]], "f4")
    turns = np.array([[0, 0, 0, 1], [0, 0, np.sin(0.4), np.cos(0.4)]])
    turns = np.concatenate([turns, [[np.sin(0.3), 0, 0, np.cos(0.3)]]])
    match case.split():
        case ["offset"]:
            made.transformed(offset=[0.25, 0.5])
        case ["scale"]:
            made.transformed(scale=[0.5, 0.25])
        case ["rotation"]:
            made.transformed(rotation=np.pi / 2)
        case ["transform"]:
            made.transformed(rotation=0.6, scale=[0.5, 0.3], offset=[0.1, 0.45])
        case ["second"]:
            made.attributes["TEXCOORD_1"] = made.add(HALF_UVS)
            made.texture["texCoord"] = 1
        case ["second-by-extension"]:
            made.attributes["TEXCOORD_1"] = made.add(HALF_UVS)
            made.transformed(texCoord=1, scale=[0.5, 1])
        case ["uvs", kind]:
            made.attributes["TEXCOORD_0"] = made.add(normalized(UVS, kind), normalized=True)
        case ["colors", "f4", width]:
            made.attributes["COLOR_0"] = made.add(colors[:, : int(width)].astype("f4"))
        case ["colors", kind, width]:
            values = normalized(colors, kind)[:, : int(width)]
            made.attributes["COLOR_0"] = made.add(values, normalized=True)
        case ["nearly-black"]:
            made.attributes["COLOR_0"] = made.add(np.ones((4, 4), "u1"), normalized=True)
        case ["fan"]:
            made.primitive |= {"mode": 6, "indices": made.add(np.array([[0], [1], [2], [3]], "u2"))}
        case ["fan-without-indices"]:
            del made.primitive["indices"]
            made.primitive["mode"] = 6
        case ["sparse"]:
            places = {"bufferView": made.view(np.array([[2]], "u2")), "componentType": 5123}
            values = {"bufferView": made.view(np.array([[3, 2, 1]], "f4"))}
            accessor = made.document["accessors"][made.attributes["POSITION"]]
            accessor["sparse"] = {"count": 1, "indices": places, "values": values}
            accessor["max"] = [3, 2, 1]
        case ["instances"]:
            scales = np.array([[1, 1, 1], [0.5, 0.5, 0.5], [1, 2, 1]], "f4")
            made.instanced(
                TRANSLATION=made.add(places), SCALE=made.add(scales),
                ROTATION=made.add(turns.astype("f4")),
            )  # fmt: skip
        case ["instances-normalized"]:
            made.instanced(
                TRANSLATION=made.add(places), ROTATION=made.add(normalized(turns, "i2"), True)
            )
    return made.glb()


CASES = [
    "plain", "offset", "scale", "rotation", "transform", "second", "second-by-extension", "uvs u1",
    "uvs u2", "colors f4 3", "colors u1 4", "colors u2 3", "colors u2 4", "nearly-black", "fan",
    "fan-without-indices", "sparse", "instances", "instances-normalized",
]  # fmt: skip


@pytest.fixture(scope="module")
def blender():
    pytest.importorskip("bpy")
    pytest.importorskip("OpenEXR")
    from gsv3d.lab.datasets.blender_scene import BlenderScene

    scene = BlenderScene(64, 4, 33.8)
    yield scene
    scene.close()


@pytest.mark.bpy
@pytest.mark.skipif(importlib.util.find_spec("bpy") is None, reason="bpy is not installed")
@pytest.mark.parametrize("case", CASES)
def test_it_looks_as_in_blender(tmp_path: Path, case: str, blender) -> None:
    path = tmp_path / "square ü.glb"
    path.write_bytes(square(case))
    prop = load_prop(path)
    assert prop.remarks(path) == []
    cameras = orbit([0, 120], 20, size=64)
    matrices = cameras.viewmats.numpy()
    transform, _ = normalizing_transform(prop.vertices, 0.0, matrices, 33.8)
    ours = draw(Surface(prop, transform, torch.device("cpu")), cameras, None).rgba.numpy()
    try:
        points = blender.load(path)
        blender.world.light_flat()
        blender.make_matt()
        blender.place(transform)
        theirs = [
            encode_straight_srgb(blender.render_view(to_blender(matrix)).rgba)
            for matrix in matrices
        ]
    finally:
        blender.clear()
    for end in (np.min, np.max):
        np.testing.assert_allclose(end(prop.vertices, 0), end(points, 0), atol=1e-5)
    solid, covered = (np.stack([picture[..., 3] > 250 for picture in p]) for p in (ours, theirs))
    assert (solid & covered).sum() > 0.9 * (solid | covered).sum() > 500
    difference = np.abs(ours.astype(int) - theirs)[solid & covered][:, :3]
    # Where two tiles meet, a pixel is drawn in one color of several.
    assert np.median(difference) <= 2 and difference.mean() < 5


def test_what_cannot_be_honored_is_remarked_on(tmp_path: Path) -> None:
    path = tmp_path / "square.glb"
    made = Square()
    made.texture["texCoord"] = 3
    path.write_bytes(made.glb())
    prop = load_prop(path)
    assert prop.plain and (prop.texture_index == -1).all()
    assert prop.remarks(path) == [
        f"{path}: drawn without textures that are missing: a texture of tiles (no coordinates)."
    ]
    made = Square()
    made.document["extensionsRequired"] = ["KHR_materials_ior", "ACME_hair"]
    path.write_bytes(made.glb())
    said = f"{path}: drawn without what these extensions add: ACME_hair."
    assert load_prop(path).remarks(path) == [said]


def leaves(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return the paths of all values in a document."""
    entries = value.items() if isinstance(value, dict) else enumerate(value)
    return [
        inner
        for key, entry in entries
        for inner in ([(*path, key)] + (leaves(entry, (*path, key)) if entry_of(entry) else []))
    ]


def entry_of(value: Any) -> bool:
    return isinstance(value, (dict, list))


ODD = [None, -1, 0, 1, 7, 2**31, 2**63, 1e308, float("nan"), "", "x", [], {}, [[]], {"a": 1}, True]


@settings(max_examples=120, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_odd_documents_give_a_mesh_or_a_sentence(tmp_path: Path, data: st.DataObject) -> None:
    whole = square(data.draw(st.sampled_from(CASES)))
    (length,) = struct.unpack_from("<I", whole, 12)
    document, blob = json.loads(whole[20 : 20 + length]), whole[28 + length :]
    for _ in range(data.draw(st.integers(1, 3))):
        *above, key = data.draw(st.sampled_from(leaves(document)))
        place = document
        for step in above:
            place = place[step]
        if data.draw(st.booleans()):
            place[key] = copy.deepcopy(data.draw(st.sampled_from(ODD)))
        else:
            del place[key]
    check(tmp_path / "odd.glb", pack_glb(json.dumps(document).encode(), blob))


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    case=st.sampled_from(CASES),
    cut=st.floats(0.5, 1),
    changes=st.lists(st.tuples(st.floats(0, 0.999), st.integers(0, 255)), max_size=6),
)
def test_damaged_files_give_a_mesh_or_a_sentence(
    tmp_path: Path, case: str, cut: float, changes: list[tuple[float, int]]
) -> None:
    data = bytearray(square(case))
    for where, value in changes:
        data[int(where * len(data))] = value
    check(tmp_path / "damaged.glb", bytes(data[: int(cut * len(data))]))


def check(path: Path, data: bytes) -> None:
    path.write_bytes(data)
    try:
        prop = load_prop(path)
    except DataError as error:
        assert path.name in str(error) and "\n" not in str(error)
        return
    assert np.isfinite(prop.vertices).all() and np.isfinite(prop.corner_uvs).all()
    assert (prop.faces >= 0).all() and (prop.faces < len(prop.vertices)).all()
    assert ((prop.corner_colors >= 0) & np.isfinite(prop.corner_colors)).all()
