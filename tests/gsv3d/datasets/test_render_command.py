# SPDX-License-Identifier: Apache-2.0
"""One run of the command over good and bad files, compared with closed forms."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from gsv3d.cameras import orbit
from gsv3d.cli.render import main
from gsv3d.datasets.orbits import Orbit

pytestmark = [
    pytest.mark.bpy,
    pytest.mark.skipif(importlib.util.find_spec("bpy") is None, reason="bpy is not installed"),
    pytest.mark.skipif(importlib.util.find_spec("OpenEXR") is None, reason="no OpenEXR package"),
]
SIZE = 48
OPTIONS = ["--size", str(SIZE), "--orbit-views", "4", "--novel-views", "2", "--samples", "8",
           "--light", "flat", "--workers", "1"]  # fmt: skip


@pytest.fixture(scope="module")
def rendered(tmp_path_factory: pytest.TempPathFactory, meshes):
    source = tmp_path_factory.mktemp("objects ü")
    output = tmp_path_factory.mktemp("orbits") / "out put"
    meshes.coloured_box(source / "box.glb", (2.0, 1.0, 1.5), offset=4.0)
    meshes.plain_box(source / "plain.glb")
    meshes.textured_box(source / "texture_a.glb", (255, 0, 0))
    meshes.textured_box(source / "texture_b.glb", (0, 255, 0))
    meshes.not_finite(source / "nan.glb")
    meshes.without_faces(source / "points.glb")
    (source / "broken.glb").write_bytes(b"glTF" + bytes(40))
    (source / "broken.blend").write_bytes(b"BLENDER nothing")
    (source / "tetra.obj").write_text("v 0 0 0\nv 1 0 0\nv 0 1 0\nv 0 0 1\nf 1 2 3\nf 1 2 4\n")
    import contextlib
    import io

    errors = io.StringIO()
    with contextlib.redirect_stderr(errors):
        code = main([str(source), "--output", str(output), *OPTIONS, "--random-colours"])
    return source, output, code, errors.getvalue()


def test_bad_objects_are_named_and_the_others_are_there(rendered) -> None:
    _, output, code, errors = rendered
    assert code == 1
    assert sorted(p.name for p in output.iterdir()) == [
        "box.npz", "dataset.json", "plain.npz", "tetra.npz", "texture_a.npz", "texture_b.npz",
    ]  # fmt: skip
    lines = [line for line in errors.splitlines() if line.startswith("skipped: ")]
    assert len(lines) == 4 and "Traceback" not in errors
    for name, words in (
        ("nan.glb", "not finite"),
        ("points.glb", "no faces"),
        ("broken.glb", "cannot read it"),
        ("broken.blend", "cannot read it"),
    ):
        assert sum(name in line and words in line for line in lines) == 1, errors


def test_depth_mask_and_colours_of_a_box_are_those_of_traced_rays(rendered, meshes) -> None:
    _, output, _, _ = rendered
    result = Orbit.load(output / "box.npz")
    cameras = orbit(result.azimuths_deg.tolist(), result.elevations_deg.tolist(), size=SIZE)
    origins, directions = (x.numpy().astype(np.float64) for x in cameras.rays())
    # Into the box's own frame: undo the recorded similarity.
    rotation = result.transform[:3, :3]
    inverse = np.linalg.inv(rotation)
    centre = np.array([4.0, 4.0, 8.0])  # glTF's (4, 8, -4)
    local_origins = (origins - result.transform[:3, 3]) @ inverse.T - centre
    local_directions = directions @ inverse.T
    half = np.array([1.0, 0.5, 0.75])
    to_low, to_high = ((s * half - local_origins) / local_directions for s in (-1, 1))
    entry, leave = np.minimum(to_low, to_high), np.maximum(to_low, to_high)
    near, far = entry.max(axis=-1), leave.min(axis=-1)
    hit = near < far
    depth = result.depth.astype(np.float64)
    assert (hit == (depth > 0)).mean() > 0.995
    inside = hit & (depth > 0)
    # Directions have unit z-depth, so the parameter is the planar depth.
    assert np.abs(near - depth)[inside].max() < 0.02
    assert np.median(np.abs(near - depth)[inside]) < 0.002
    axis = entry.argmax(axis=-1)
    sign = -np.sign(np.take_along_axis(local_directions, axis[..., None], axis=-1)[..., 0])
    checked = 0
    for normal, colour in meshes.FACES.values():
        k = int(np.flatnonzero(normal)[0])
        seen = inside & (axis == k) & (sign == normal[k])
        if seen.sum() > 20:
            checked += 1
            median = np.median(result.rgba[seen][:, :3], axis=0)
            np.testing.assert_allclose(median, colour, atol=12)
    assert checked >= 4


def test_the_record_says_how_the_object_was_placed(rendered) -> None:
    _, output, _, _ = rendered
    result = Orbit.load(output / "box.npz")
    assert result.num_orbit == 4 and result.light == "flat" and result.seed == 0
    turned = result.transform[:3, :3] @ np.diag([2.0, 1.0, 1.5])
    extent = np.abs(turned).sum(axis=1).max()
    assert extent == pytest.approx(result.scale, abs=1e-4)
    angle = np.rad2deg(np.arctan2(result.transform[1, 0], result.transform[0, 0])) % 360
    assert angle == pytest.approx(result.yaw_deg, abs=1e-3)


def test_a_texture_is_not_kept_for_the_next_object(rendered) -> None:
    _, output, _, _ = rendered
    for name, channel in (("texture_a", 0), ("texture_b", 1)):
        result = Orbit.load(output / f"{name}.npz")
        opaque = result.rgba[result.rgba[..., 3] == 255][:, :3]
        assert np.median(opaque, axis=0).argmax() == channel


def test_only_objects_without_colour_get_one(rendered) -> None:
    _, output, _, _ = rendered
    plain = Orbit.load(output / "plain.npz")
    colour = np.median(plain.rgba[plain.rgba[..., 3] == 255][:, :3], axis=0)
    assert np.ptp(colour) > 8


def test_a_second_run_renders_only_what_is_missing_and_the_same(rendered, capsys) -> None:
    source, output, _, _ = rendered
    before = Orbit.load(output / "box.npz")
    (output / "box.npz").unlink()
    kept = (output / "plain.npz").stat().st_mtime_ns
    code = main([str(source / "box.glb"), str(source / "plain.glb"), "--output", str(output),
                 *OPTIONS, "--random-colours"])  # fmt: skip
    assert code == 0 and "1 objects are there already" in capsys.readouterr().out
    after = Orbit.load(output / "box.npz")
    np.testing.assert_array_equal(before.rgba, after.rgba)
    np.testing.assert_array_equal(before.depth, after.depth)
    assert (output / "plain.npz").stat().st_mtime_ns == kept


def test_other_settings_do_not_mix_into_a_folder(rendered, capsys) -> None:
    source, output, _, _ = rendered
    assert main([str(source / "box.glb"), "--output", str(output), "--size", "32"]) == 2
    assert "holds orbits rendered with size = 48, not 32" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--size", "4"], "size is 4"),
        (["--workers", "0"], "workers is 0"),
        (["--limit", "0"], "limit is 0"),
        (["--split", "dev"], "none of the sources is an index"),
    ],
)
def test_bad_options_get_one_sentence(tmp_path: Path, capsys, arguments, words) -> None:
    (tmp_path / "a.glb").touch()
    code = main([str(tmp_path / "a.glb"), "--output", str(tmp_path / "o"), *arguments])
    error = capsys.readouterr().err
    assert code == 2 and words in error and error.count("\n") == 1


def test_an_empty_folder_and_an_output_that_is_a_file(tmp_path: Path, capsys) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    assert main([str(empty), "--output", str(tmp_path / "o")]) == 2
    assert "no 3D object in the folder" in capsys.readouterr().err
    (tmp_path / "a.glb").touch()
    assert main([str(tmp_path / "a.glb"), "--output", str(tmp_path / "a.glb")]) == 2
    assert "cannot be used as the output folder" in capsys.readouterr().err
