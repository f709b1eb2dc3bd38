# SPDX-License-Identifier: Apache-2.0
"""3DGS PLY files, compared with those of plyfile and gsplat's exporter."""

from __future__ import annotations

import io
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
from gsplat import export_splats
from plyfile import PlyData, PlyElement

from gsv3d.gaussians.ply import Arrays, LeftOutWarning, read_ply, write_ply


def make_arrays(count: int = 20, degree: int = 1, seed: int = 0) -> Arrays:
    rng = np.random.default_rng(seed)
    quats = rng.normal(size=(count, 4))
    arrays = {
        "means": rng.normal(size=(count, 3)),
        "quats": quats / np.linalg.norm(quats, axis=1, keepdims=True),
        "scales": np.exp(rng.normal(size=(count, 3)) - 3),
        "opacities": rng.uniform(0.01, 0.99, size=count),
        "sh": rng.normal(size=(count, (degree + 1) ** 2, 3)),
    }
    return {name: array.astype(np.float32) for name, array in arrays.items()}


def list_columns(arrays: Arrays) -> dict[str, np.ndarray]:
    """Return the file's columns, written out by hand."""
    columns = {name: arrays["means"][:, i] for i, name in enumerate("xyz")}
    opacities = arrays["opacities"].astype(np.float64)
    columns["opacity"] = np.log(opacities / (1 - opacities))
    for i in range(3):
        columns[f"scale_{i}"] = np.log(arrays["scales"][:, i].astype(np.float64))
        columns[f"f_dc_{i}"] = arrays["sh"][:, 0, i]
    for i in range(4):
        columns[f"rot_{i}"] = arrays["quats"][:, i]
    number = arrays["sh"].shape[1] - 1
    for channel in range(3):
        for k in range(number):
            columns[f"f_rest_{channel * number + k}"] = arrays["sh"][:, 1 + k, channel]
    return columns


def encode_ply(
    columns: dict[str, np.ndarray], types: list[str], text: bool = False, order: str = "<"
) -> bytes:
    """Return a PLY that plyfile wrote; ``types`` are numpy codes, repeated over the columns."""
    dtype = [(name, types[i % len(types)]) for i, name in enumerate(columns)]
    records = np.empty(len(next(iter(columns.values()))), dtype=dtype)
    for name, values in columns.items():
        records[name] = values
    stream = io.BytesIO()
    element = PlyElement.describe(records, "vertex")
    PlyData([element], text=text, byte_order="=" if text else order).write(stream)
    return stream.getvalue()


def read_bytes(data: bytes | io.BytesIO) -> Arrays:
    """Read a PLY that is in memory."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.ply"
        path.write_bytes(data if isinstance(data, bytes) else data.getvalue())
        return read_ply(path)


def assert_same(found: Arrays, expected: Arrays, tolerance: float = 2e-6) -> None:
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        assert found[name].dtype == np.float32 and found[name].shape == array.shape, name
        np.testing.assert_allclose(found[name], array, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("degree", [0, 1, 2, 3])
def test_round_trip(tmp_path: Path, degree: int) -> None:
    arrays = make_arrays(50, degree)
    path = tmp_path / "Lampe mit Füßen 灯.ply"
    write_ply(path, arrays)
    assert_same(read_ply(path), arrays)
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]
    stream = io.BytesIO()
    write_ply(stream, arrays)
    assert stream.getvalue() == path.read_bytes()
    assert_same(read_bytes(stream), arrays)


@pytest.mark.parametrize("degree", [0, 3])
def test_plyfile_reads_what_is_written(tmp_path: Path, degree: int) -> None:
    arrays = make_arrays(30, degree)
    write_ply(tmp_path / "a.ply", arrays)
    vertex = PlyData.read(tmp_path / "a.ply")["vertex"]
    names = [prop.name for prop in vertex.properties]
    assert names[:9] == ["x", "y", "z", "nx", "ny", "nz", "f_dc_0", "f_dc_1", "f_dc_2"]
    assert names[-8:] == [
        "opacity", "scale_0", "scale_1", "scale_2", "rot_0", "rot_1", "rot_2", "rot_3",
    ]  # fmt: skip
    for name, values in list_columns(arrays).items():
        np.testing.assert_allclose(vertex[name], values, rtol=2e-6, atol=2e-6)


@pytest.mark.parametrize("degree", [0, 2])
@pytest.mark.parametrize("text, order", [(True, "="), (False, "<"), (False, ">")])
@pytest.mark.parametrize("types", [["f4"], ["f8"], ["f8", "f4"]])
def test_any_order_type_and_format_of_plyfile(
    degree: int, text: bool, order: str, types: list[str]
) -> None:
    arrays = make_arrays(25, degree, seed=degree)
    columns = list_columns(arrays) | {"nz": np.zeros(25), "label": np.arange(25)}
    names = sorted(columns, key=lambda name: name[::-1])
    data = encode_ply({name: columns[name] for name in names}, types, text, order)
    assert_same(read_bytes(data), arrays)


def test_integer_properties() -> None:
    arrays = make_arrays(6, 0)
    columns = list_columns(arrays)
    whole = {name: np.round(values * 3) for name, values in columns.items()}
    whole["rot_0"] = np.ones(6)
    found = read_bytes(encode_ply(whole, ["i2", "i4", "i1"], order=">"))
    np.testing.assert_array_equal(found["means"][:, 1], whole["y"])
    np.testing.assert_allclose(found["scales"][:, 2], np.exp(whole["scale_2"]), rtol=1e-6)


@pytest.mark.parametrize("degree", [0, 1, 3])
def test_gsplat_exporter(degree: int) -> None:
    arrays = make_arrays(40, degree)
    opacities = torch.from_numpy(arrays["opacities"])
    data = export_splats(
        means=torch.from_numpy(arrays["means"]),
        scales=torch.from_numpy(arrays["scales"]).log(),
        quats=torch.from_numpy(arrays["quats"]),
        opacities=torch.logit(opacities),
        sh0=torch.from_numpy(arrays["sh"][:, :1]),
        shN=torch.from_numpy(arrays["sh"][:, 1:]),
    )
    assert_same(read_bytes(data), arrays)


def test_other_elements_around_the_vertices() -> None:
    arrays = make_arrays(5, 0)
    vertex = PlyData.read(io.BytesIO(encode_ply(list_columns(arrays), ["f4"])))["vertex"]
    camera = PlyElement.describe(np.array([(1.5, 2)], dtype=[("a", "f8"), ("b", "u1")]), "camera")
    faces = np.empty(1, dtype=[("vertex_indices", "O")])
    faces["vertex_indices"][0] = np.array([0, 1, 2], dtype="i4")
    face = PlyElement.describe(faces, "face")
    for text in (False, True):
        stream = io.BytesIO()
        PlyData([camera, vertex, face], text=text, comments=["ein Würfel"[:4]]).write(stream)
        assert_same(read_bytes(stream), arrays)
    stream = io.BytesIO()
    PlyData([face, vertex]).write(stream)
    assert_same(read_bytes(stream), arrays)


def test_extremes_stay_finite() -> None:
    arrays = make_arrays(3, 0)
    arrays["opacities"][:] = [0, 1, 0.5]
    stream = io.BytesIO()
    write_ply(stream, arrays)
    assert_same(read_bytes(stream), arrays)
    columns = list_columns(make_arrays(3, 0))
    columns["scale_0"] = np.array([-1000.0, -3.0, 5.0])
    columns["opacity"] = np.array([-1e30, 0.0, 1e30])
    columns["rot_1"] = np.array([50.0, 0.0, 0.0])
    found = read_bytes(encode_ply(columns, ["f8"]))
    assert (found["scales"] > 0).all()
    np.testing.assert_array_equal(found["opacities"], [0, 0.5, 1])
    np.testing.assert_allclose(np.linalg.norm(found["quats"], axis=1), 1, rtol=1e-6)


def test_a_file_without_gaussians_is_read_back() -> None:
    stream = io.BytesIO()
    write_ply(stream, make_arrays(0, 2))
    assert read_bytes(stream)["sh"].shape == (0, 1, 3)


@pytest.mark.parametrize(
    "name, value, kind",
    [
        *((name, np.nan, "f4") for name in ("x", "f_dc_1", "f_rest_4", "opacity", "scale_2")),
        *((name, np.inf, "f4") for name in ("y", "f_dc_0", "f_rest_8", "rot_3", "scale_1")),
        ("z", -np.inf, "f4"), ("rot_0", -np.inf, "f8"), ("rot_1", np.nan, "f4"),
        ("x", 1e60, "f8"), ("f_rest_0", -1e39, "f8"), ("scale_0", 100.0, "f4"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("text", [False, True])
def test_a_gaussian_that_cannot_be_drawn_is_left_out(
    name: str, value: float, kind: str, text: bool
) -> None:
    arrays = make_arrays(4, 1)
    columns = {key: values.astype(np.float64) for key, values in list_columns(arrays).items()}
    columns[name][2] = value
    said = f"1 of 4 Gaussians cannot be drawn.* Gaussian 2, with {name} = "
    with pytest.warns(LeftOutWarning, match=said):
        found = read_bytes(encode_ply(columns, [kind], text))
    assert_same(found, {key: array[[0, 1, 3]] for key, array in arrays.items()})


def test_a_rotation_of_length_zero_is_left_out() -> None:
    arrays = make_arrays(4, 0)
    arrays["quats"][[1, 2]] = 0
    stream = io.BytesIO()
    write_ply(stream, arrays)
    with pytest.warns(LeftOutWarning, match="2 of 4 .* Gaussian 1, with a rotation of length 0"):
        found = read_bytes(stream)
    assert_same(found, {key: array[[0, 3]] for key, array in arrays.items()})


def test_infinite_logarithms_and_logits_are_extremes_that_can_be_drawn() -> None:
    columns = list_columns(make_arrays(3, 0))
    columns["scale_1"] = np.array([-np.inf, -3.0, -2.0])
    columns["opacity"] = np.array([-np.inf, 0.0, np.inf])
    found = read_bytes(encode_ply(columns, ["f4"]))
    np.testing.assert_array_equal(found["opacities"], [0, 0.5, 1])
    assert 0 < found["scales"][0, 1] < 1e-37


@pytest.mark.parametrize("size", [1e-200, 1e-30, 1e30])
def test_rotations_of_any_length(size: float) -> None:
    arrays = make_arrays(3, 0)
    columns = list_columns(arrays)
    for i in range(4):
        columns[f"rot_{i}"] = arrays["quats"][:, i].astype(np.float64) * size
    assert_same(read_bytes(encode_ply(columns, ["f8"])), arrays)


def test_harmonics_of_zeros_are_a_filling() -> None:
    """Read degree 0 that was written as degree 1, for KIRI's add-on, or as 3, by gsplat."""
    arrays = make_arrays(4, 0)
    stream = io.BytesIO()
    write_ply(stream, arrays)
    vertex = PlyData.read(io.BytesIO(stream.getvalue()))["vertex"]
    rest = [prop.name for prop in vertex.properties if prop.name.startswith("f_rest_")]
    assert rest == [f"f_rest_{i}" for i in range(9)]
    assert all((vertex[name] == 0).all() for name in rest)
    padded = arrays | {"sh": np.pad(arrays["sh"], ((0, 0), (0, 15), (0, 0)))}
    stream = io.BytesIO()
    write_ply(stream, padded)
    assert_same(read_bytes(stream), arrays)
