# SPDX-License-Identifier: Apache-2.0
"""One run of ``gsv3d render`` over good and bad files, compared with closed forms."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import json
import os
import struct
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import trimesh

from gsv3d.cameras import orbit
from gsv3d.cli import main
from gsv3d.lab.datasets.orbits import OrbitRecord
from gsv3d.lab.datasets.shards import index_shards
from tests.gsv3d.lab.datasets import samples
from tests.gsv3d.lab.rasterizing import odd_meshes

pytestmark = [
    pytest.mark.bpy,
    pytest.mark.skipif(importlib.util.find_spec("bpy") is None, reason="bpy is not installed"),
    pytest.mark.skipif(importlib.util.find_spec("OpenEXR") is None, reason="no OpenEXR package"),
]
SIZE = 48
OPTIONS = ["--size", str(SIZE), "--orbit-views", "4", "--novel-views", "2", "--samples", "8",
           "--light", "flat", "--normals", "camera", "--random-colors"]  # fmt: skip
BOX = np.array([2.0, 1.0, 1.5])
FORMATS = ["gltf", "obj", "fbx", "usd", "usda", "usdc", "usdz", "ply", "blend"]
MOVING = ["moving_glb", "moving_usd", "moving_blend"]


def make_objects(folder: Path) -> None:
    """Write objects of every format and with every fault."""
    samples.colored_box(folder / "box.glb", tuple(BOX), offset=4.0)
    samples.colored_box(folder / "kilometers.glb", tuple(BOX * 20_000), offset=50_000.0)
    script = Path(__file__).with_name("export_box.py")
    subprocess.run(
        [sys.executable, str(script), str(folder / "box.glb"), str(folder)],
        check=True, stdout=subprocess.DEVNULL, timeout=120,
    )  # fmt: skip
    samples.plain_box(folder / "plain.glb")
    samples.textured_box(folder / "texture_a.glb", (255, 0, 0))
    samples.textured_box(folder / "texture_b.glb", (0, 255, 0))
    samples.untextured_box(folder / "no_texture.gltf")
    odd_meshes.not_finite(folder / "nan.glb")
    (folder / "nan.obj").write_text("v 0 0 nan\nv 1 0 0\nv 0 1 0\nf 1 2 3\n")
    (folder / "inf.ply").write_text(
        "ply\nformat ascii 1.0\nelement vertex 3\nproperty float x\nproperty float y\n"
        "property float z\nelement face 1\nproperty list uchar int vertex_indices\nend_header\n"
        "0 0 inf\n1 0 0\n0 1 0\n3 0 1 2\n"
    )
    odd_meshes.without_faces(folder / "points.glb")
    trimesh.PointCloud(np.eye(3)).export(folder / "points.ply")
    (folder / "broken.glb").write_bytes(b"glTF" + bytes(40))
    box = trimesh.creation.box((1, 1, 1))
    box.visual = trimesh.visual.TextureVisuals(material=trimesh.visual.material.PBRMaterial())
    whole = box.export(file_type="glb")
    (folder / "no_material.glb").write_bytes(whole.replace(b'"material":0', b'"material":7'))
    corners = struct.pack("<3I", *box.faces[0])
    (folder / "no_vertex.glb").write_bytes(whole.replace(corners, struct.pack("<3I", 1, 9, 0)))
    (folder / "broken.usdc").write_bytes(b"PXR-USDC" + bytes(40))
    (folder / "broken.fbx").write_bytes(b"Kaydara FBX Binary  \x00" + bytes(40))
    (folder / "broken.blend").write_bytes(b"BLENDER nothing")
    (folder / "tetra.obj").write_text("v 0 0 0\nv 1 0 0\nv 0 1 0\nv 0 0 1\nf 1 2 3\nf 1 2 4\n")


BAD = {
    "nan.glb": "not finite", "nan.obj": "not finite", "inf.ply": "not finite",
    "points.glb": "no faces", "points.ply": "no faces", "broken.glb": "cannot read it",
    "no_material.glb": "what its importer does not know. Export or download it again.",
    "no_vertex.glb": "a face of mesh 0 names vertex 9, the last is 7",
    "broken.usdc": "", "broken.fbx": "", "broken.blend": "cannot read it",
}  # fmt: skip


@pytest.fixture(scope="module")
def rendered(tmp_path_factory: pytest.TempPathFactory):
    source = tmp_path_factory.mktemp("objects ü")
    output = tmp_path_factory.mktemp("orbits") / "out put"
    make_objects(source)
    errors, out = io.StringIO(), io.StringIO()
    with contextlib.redirect_stderr(errors), contextlib.redirect_stdout(out):
        code = main(["render", str(source), "--output", str(output), "--workers", "1", *OPTIONS])
    return source, output, code, errors.getvalue(), out.getvalue()


def record(output: Path, name: str) -> OrbitRecord:
    (entry,) = (entry for entry in index_shards(output) if entry.key == name)
    return entry.read()


def test_bad_objects_are_named_and_the_others_are_there(rendered) -> None:
    _, output, code, errors, _ = rendered
    assert code == 1
    (shard,) = output.glob("*.tar")
    assert shard.name == "objects_ü0-000000.tar"
    assert sorted(path.name for path in output.iterdir()) == [
        ".lock", "DATASHEET.md", "dataset.json", shard.name,
    ]  # fmt: skip
    good = ["box", "kilometers", "no_texture", "plain", "tetra", "texture_a", "texture_b"]
    good += [f"{name}_box" for name in FORMATS] + MOVING
    assert [entry.key for entry in index_shards(output)] == sorted(good)
    lines = [line for line in errors.splitlines() if line.startswith("skipped: ")]
    assert len(lines) == len(BAD) and "Traceback" not in errors
    for name, words in BAD.items():
        assert sum(name in line and words in line for line in lines) == 1, errors


def test_depth_mask_and_colors_of_a_box_are_those_of_traced_rays(rendered) -> None:
    result = record(rendered[1], "box")
    cameras = orbit(result.azimuths_deg.tolist(), result.elevations_deg.tolist(), size=SIZE)
    np.testing.assert_allclose(result.viewmats, cameras.viewmats.numpy(), atol=1e-5)
    np.testing.assert_allclose(result.intrinsics, cameras.Ks[0].numpy(), rtol=1e-6)
    origins, directions = (x.numpy().astype(np.float64) for x in cameras.rays())
    # Into the box's own frame: undo the recorded similarity.
    rotation = result.transform[:3, :3]
    inverse = np.linalg.inv(rotation)
    center = np.array([4.0, 4.0, 8.0])  # glTF's (4, 8, -4)
    local_origins = (origins - result.transform[:3, 3]) @ inverse.T - center
    local_directions = directions @ inverse.T
    half = BOX / 2
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
    assert result.normals is not None
    for normal, color in samples.FACES.values():
        k = int(np.flatnonzero(normal)[0])
        seen = inside & (axis == k) & (sign == normal[k])
        for view in range(len(depth)):
            chosen = seen[view]
            if chosen.sum() > 20:
                checked += 1
                median = np.median(result.rgba[view][chosen][:, :3], axis=0)
                np.testing.assert_allclose(median, color, atol=12)
                turned = result.viewmats[view, :3, :3] @ rotation @ normal
                turned /= np.linalg.norm(turned)
                found = np.median(result.normals[view][chosen], axis=0)
                np.testing.assert_allclose(found, turned, atol=0.01)
                assert found[2] < 0  # it faces the camera, which looks along +z
    assert checked >= 12
    assert not result.normals[~hit & (result.rgba[..., 3] == 0)].any()


def surface_points(result: OrbitRecord) -> tuple[np.ndarray, np.ndarray]:
    """Return what is seen, in the object's own world: (N, 3) points and (N, 3) colors."""
    focal, center = result.intrinsics[0, 0], result.intrinsics[0, 2]
    pixel = (np.arange(SIZE) + 0.5 - center) / focal
    x, y = np.meshgrid(pixel, pixel)
    rays = np.stack([x, y, np.ones_like(x)], axis=-1)
    camera = rays * result.depth[..., None]
    shown = (result.depth > 0) & (result.rgba[..., 3] == 255)
    to_world = np.linalg.inv(result.transform) @ np.linalg.inv(result.viewmats)
    points = (
        np.einsum("vij,vhwj->vhwi", to_world[:, :3, :3], camera) + to_world[:, None, None, :3, 3]
    )
    return points[shown], result.rgba[..., :3][shown]


@pytest.mark.parametrize("name", ["kilometers", *(f"{x}_box" for x in FORMATS), *MOVING])
def test_every_format_shows_the_same_box_the_same_way_up(rendered, name: str) -> None:
    points, colors = surface_points(record(rendered[1], name))
    low, high = points.min(axis=0), points.max(axis=0)
    size = high - low
    np.testing.assert_allclose(size / size.max(), BOX / BOX.max(), atol=0.06)
    unit = (points - (low + high) / 2) / size * 2  # -1..1 on each axis
    matched = 0
    for normal, color in samples.FACES.values():
        k = int(np.flatnonzero(normal)[0])
        on_face = (unit[:, k] * normal[k] > 0.93) & (np.abs(np.delete(unit, k, 1)) < 0.8).all(1)
        if on_face.sum() > 20 and name != "ply_box":  # which has no materials
            matched += 1
            np.testing.assert_allclose(np.median(colors[on_face], axis=0), color, atol=12)
    assert matched >= 4 or name == "ply_box"


def test_a_missing_texture_and_a_movement_are_said_once(rendered) -> None:
    _, output, _, errors, _ = rendered
    notes = [line for line in errors.splitlines() if line.startswith("note: ")]
    (note,) = (line for line in notes if "no_texture.gltf" in line)
    assert "without textures that are missing: gone.png." in note
    result = record(output, "no_texture")
    assert result.missing_textures == ("gone.png",)
    shown = result.rgba[result.rgba[..., 3] == 255][:, :3]
    assert np.ptp(np.median(shown, axis=0)) < 140  # not the magenta of Blender's missing pictures
    for name, file in zip(MOVING, ("glb", "usdc", "blend"), strict=True):
        moving = record(output, name)
        assert moving.frame == 7
        (note,) = (line for line in notes if f"{name}.{file}" in line)
        assert "it is animated; rendered at its first frame, 7." in note
    assert record(output, "box").frame is None and len(notes) == 4


def test_the_record_says_how_the_object_was_placed(rendered) -> None:
    result = record(rendered[1], "box")
    assert (result.num_orbit, result.orbit, result.render["light"]) == (4, "static", "flat")
    turned = result.transform[:3, :3] @ np.diag(BOX)
    extent = np.abs(turned).sum(axis=1).max()
    assert extent == pytest.approx(result.render["scale"], abs=1e-4)
    angle = np.rad2deg(np.arctan2(result.transform[1, 0], result.transform[0, 0])) % 360
    assert angle == pytest.approx(result.render["yaw_deg"], abs=1e-3)
    assert result.source == {"file": "box.glb", "pack": rendered[0].name}


def test_the_datasheet_states_the_facts(rendered) -> None:
    text = (rendered[1] / "DATASHEET.md").read_text(encoding="utf-8")
    assert "19 objects, 114 views of 48 x 48 pixels, 1 shards" in text
    assert "11 objects failed" in text and "nan.glb: it has vertices that are not finite" in text
    assert "1 objects lack textures" in text and "3 objects are animated" in text
    assert "Lights: flat (19)." in text and "| samples | 8 |" in text
    assert "--light flat" in text and "CC0" not in text


def test_progress_says_what_is_left(rendered) -> None:
    out = rendered[4].splitlines()
    assert out[-1].startswith("objects: 30/30, ") and out[-1].endswith("0:00:00 left")


def test_a_texture_is_not_kept_for_the_next_object(rendered) -> None:
    for name, channel in (("texture_a", 0), ("texture_b", 1)):
        result = record(rendered[1], name)
        opaque = result.rgba[result.rgba[..., 3] == 255][:, :3]
        assert np.median(opaque, axis=0).argmax() == channel


def test_only_objects_without_color_get_one(rendered) -> None:
    plain = record(rendered[1], "plain")
    color = np.median(plain.rgba[plain.rgba[..., 3] == 255][:, :3], axis=0)
    assert np.ptp(color) > 8
    assert plain.render["given_color"] and not record(rendered[1], "box").render["given_color"]


def test_a_second_run_renders_only_what_is_missing_and_the_same(
    rendered, tmp_path: Path, capsys
) -> None:
    source, output, _, _, _ = rendered
    rest = ["--output", str(tmp_path), "--workers", "1", *OPTIONS, "--normals", "world"]
    assert main(["render", str(source / "box.glb"), *rest]) == 0
    before, after = record(output, "box"), record(tmp_path, "box")
    np.testing.assert_array_equal(before.rgba, after.rgba)
    np.testing.assert_array_equal(before.depth, after.depth)
    turned = np.einsum("vij,vhwj->vhwi", before.viewmats[:, :3, :3], after.normals)
    assert np.abs(turned - before.normals).max() < 0.03
    (shard,) = tmp_path.glob("*.tar")
    kept = shard.read_bytes()
    assert main(["render", str(source / "box.glb"), str(source / "plain.glb"), *rest]) == 0
    assert "1 objects are there already" in capsys.readouterr().out
    assert shard.read_bytes() == kept and len(list(tmp_path.glob("*.tar"))) == 2
    assert [entry.key for entry in index_shards(tmp_path)] == ["box", "plain"]


def test_other_settings_do_not_mix_into_a_folder(rendered, capsys) -> None:
    source, output, _, _, _ = rendered
    assert main(["render", str(source / "box.glb"), "--output", str(output), "--size", "32"]) == 2
    assert "holds orbits rendered with size = 48, not 32" in capsys.readouterr().err


@pytest.mark.skipif(os.name == "nt", reason="SIGKILL")
@pytest.mark.slow
def test_a_killed_run_goes_on_where_it_was(rendered, tmp_path: Path) -> None:
    source, output, _, _, _ = rendered
    command = [sys.executable, "-m", "gsv3d", "render", str(source), "--output", str(tmp_path),
               "--workers", "1", *OPTIONS]  # fmt: skip
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 200
    while len(list(tmp_path.glob(".unpacked/*/*.tar"))) < 3:
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.05)
    process.kill()
    process.wait()
    # Whatever was whole at the kill stays as it is, byte for byte.
    kept = {path.stem: path.read_bytes() for path in tmp_path.glob(".unpacked/*/*.tar")}
    assert not list(tmp_path.glob("*.tar"))
    done = subprocess.run(command, capture_output=True, text=True, timeout=250)
    assert done.returncode == 1 and f"{len(kept)} objects are there already" in done.stdout
    assert [e.key for e in index_shards(tmp_path)] == [e.key for e in index_shards(output)]
    for name in kept:
        np.testing.assert_array_equal(record(tmp_path, name).rgba, record(output, name).rgba)
    assert len(json.loads((tmp_path / "dataset.json").read_text())["commands"]) == 1


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere there is always OpenGL or Metal")
def test_eevee_without_a_display_or_egl_is_refused_in_one_sentence(
    rendered, tmp_path: Path, capsys, monkeypatch
) -> None:
    monkeypatch.setenv("__EGL_VENDOR_LIBRARY_FILENAMES", "/nowhere")
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    code = main(["render", str(rendered[0] / "box.glb"), "--output", str(tmp_path),
                 "--engine", "eevee", "--workers", "1", *OPTIONS])  # fmt: skip
    error = capsys.readouterr().err
    assert code == 2 and error.count("\n") == 1
    assert "EEVEE needs a GPU or EGL, which this machine lacks" in error


@pytest.mark.gpu
def test_eevee_shows_what_cycles_shows(rendered, tmp_path: Path, capsys) -> None:
    """Marked gpu: where software draws for EEVEE, its shaders alone take minutes to compile."""
    code = main(["render", str(rendered[0] / "box.glb"), "--output", str(tmp_path),
                 "--engine", "eevee", "--workers", "1", *OPTIONS])  # fmt: skip
    if code == 2 and "EEVEE needs a GPU or EGL" in capsys.readouterr().err:
        pytest.skip("no GPU and no EGL on this machine")
    assert code == 0
    cycles, eevee = record(rendered[1], "box"), record(tmp_path, "box")
    assert eevee.render["engine"] == "eevee"
    masks = [item.rgba[..., 3] > 127 for item in (cycles, eevee)]
    assert (masks[0] & masks[1]).sum() / (masks[0] | masks[1]).sum() > 0.95
    both = (cycles.depth > 0) & (eevee.depth > 0) & masks[0] & masks[1]
    assert np.median(np.abs(cycles.depth - eevee.depth)[both]) < 0.005
    colors = np.abs(cycles.rgba.astype(int) - eevee.rgba)[both][:, :3]
    assert np.median(colors) < 25
    cosines = (cycles.normals * eevee.normals).sum(axis=-1)[both]
    assert np.median(cosines) > 0.999
