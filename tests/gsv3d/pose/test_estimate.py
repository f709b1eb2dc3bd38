# SPDX-License-Identifier: Apache-2.0
"""The choice of a mirror plane, the network's files, and the network on unseen shapes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh
from PIL import Image

from gsv3d.cameras import orbit
from gsv3d.errors import ModelError
from gsv3d.lab.rasterizing import Prop
from gsv3d.lab.rasterizing.lighting import load_baked_environments, make_lights
from gsv3d.lab.rasterizing.orbits import Surface, draw
from gsv3d.lab.training.framed_pictures import measure_log_depth
from gsv3d.pose import PICTURE_SIZE, estimate_pose
from gsv3d.pose.estimate import (
    CONFIG,
    SHIPPED,
    WEIGHTS,
    PoseEstimator,
    choose_plane,
    load_estimator,
    refine_plane,
    save_estimator,
)
from gsv3d.pose.network import NUM_PLANES, PoseNetwork
from gsv3d.preprocessing import prepare

PLANES = np.arange(NUM_PLANES) * 180.0 / NUM_PLANES


def make_peak(azimuth: float, width: float = 4.0) -> np.ndarray:
    apart = np.abs((PLANES - azimuth + 90) % 180 - 90)
    return np.exp(-((apart / width) ** 2))


def draw_mesh(mesh: trimesh.Trimesh, yaw_deg: float, elevation_deg: float) -> np.ndarray:
    """Return the prepared picture (S, S, 4) of a gray mesh."""
    turned = mesh.copy()
    turned.apply_transform(trimesh.transformations.rotation_matrix(np.deg2rad(yaw_deg), [0, 0, 1]))
    vertices, faces = np.array(turned.vertices, np.float32), np.array(turned.faces, np.int32)
    prop = Prop(
        vertices=vertices,
        faces=faces,
        corner_normals=np.repeat(np.array(turned.face_normals, np.float32)[:, None], 3, axis=1),
        corner_uvs=np.zeros((len(faces), 3, 2), np.float32),
        corner_colors=np.full((len(faces), 3, 3), 0.4, np.float32),
        texture_index=np.full(len(faces), -1, np.int32),
        textures=(),
        plain=True,
    )
    lights = make_lights(load_baked_environments()[0], 0.0)
    cameras = orbit([0.0], elevation_deg, size=128)
    rgba = draw(Surface(prop, np.eye(4), torch.device("cpu")), cameras, lights).rgba[0].numpy()
    return prepare(Image.fromarray(rgba), PICTURE_SIZE).rgba


@pytest.mark.parametrize("azimuth", [20.0, 44.0, 90.0, 134.0, 160.0])
def test_a_lone_plane_is_chosen(azimuth: float) -> None:
    assert PLANES[choose_plane(0.05 + 0.9 * make_peak(azimuth))] == pytest.approx(azimuth, abs=2)


def test_of_equal_planes_the_one_with_the_most_of_a_side_view_is_chosen() -> None:
    assert PLANES[choose_plane(np.maximum(make_peak(0), make_peak(90)))] == pytest.approx(90, abs=2)
    assert PLANES[choose_plane(np.maximum(make_peak(60), make_peak(8)))] == pytest.approx(60, abs=2)
    assert PLANES[choose_plane(np.full(NUM_PLANES, 0.9))] in (44.0, 46.0, 134.0, 136.0)


@pytest.mark.parametrize("azimuth", [0.7, 45.0, 89.1, 179.3])
def test_a_peak_is_found_between_planes(azimuth: float) -> None:
    scores = make_peak(azimuth)
    found = refine_plane(scores, int(scores.argmax()))
    assert abs((found - azimuth + 90) % 180 - 90) < 0.3 and 0 <= found < 180


def test_an_estimator_survives_its_files(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = PoseNetwork().eval()
    limits = {
        "score_limit": 0.45678,
        "half_trust_deg": 6.0,
        "spread_factor": 1.5,
        "depth_spread_factor": 1.25,
    }
    save_estimator(tmp_path, network, **limits)
    loaded = load_estimator(tmp_path)
    assert (loaded.score_limit, loaded.half_trust_deg, loaded.spread_factor) == (0.457, 6, 1.5)
    assert loaded.depth_spread_factor == 1.25
    pictures = torch.rand(3, 4, PICTURE_SIZE, PICTURE_SIZE)
    with torch.no_grad():
        before, after = network(pictures), loaded.network(pictures)
    torch.testing.assert_close(after.plane_logits, before.plane_logits, atol=5e-3, rtol=0)
    torch.testing.assert_close(after.elevation_deg, before.elevation_deg, atol=0.1, rtol=0)


@pytest.mark.parametrize("damage", ["missing", "cut", "words"])
def test_a_damaged_network_is_named(tmp_path: Path, damage: str) -> None:
    if damage != "missing":
        (tmp_path / CONFIG).write_bytes((SHIPPED / CONFIG).read_bytes())
        (tmp_path / WEIGHTS).write_bytes((SHIPPED / WEIGHTS).read_bytes()[:5000])
    if damage == "words":
        (tmp_path / CONFIG).write_text("[]")
    with pytest.raises(ModelError, match="no pose network") as caught:
        load_estimator(tmp_path)
    assert str(tmp_path) in str(caught.value)


def test_pictures_of_another_form_are_refused() -> None:
    for wrong in (np.zeros((64, 64, 4), np.uint8), np.zeros((PICTURE_SIZE, PICTURE_SIZE, 4))):
        with pytest.raises(ValueError, match="uint8"):
            estimate_pose(wrong)


def test_the_network_is_followed_as_far_as_it_is_trusted() -> None:
    network = load_estimator().network
    rgba = draw_mesh(trimesh.creation.box((0.9, 0.5, 0.4)), 30, 40)
    sure = PoseEstimator(network, 0.0, 1e6, 1.0, 1.0)(rgba)
    half = PoseEstimator(network, 0.0, sure.elevation_error_deg, 2.0, 3.0)(rgba)
    assert sure.plane_azimuth_deg is not None
    assert half.elevation_deg == pytest.approx((10 + sure.elevation_deg) / 2, abs=1e-3)
    assert half.elevation_error_deg == pytest.approx(2 * sure.elevation_error_deg)
    assert half.depth_error == pytest.approx(3 * sure.depth_error)
    unsure = PoseEstimator(network, 1.0, 0.0, 1.0, 1.0)(rgba)
    assert unsure == replace(sure, elevation_deg=10.0, plane_azimuth_deg=None)


def test_a_picture_and_its_mirror_image_are_read_alike() -> None:
    estimator = PoseEstimator(load_estimator().network, 0.0, 1e6, 1.0, 1.0)
    rgba = draw_mesh(trimesh.creation.box((0.9, 0.5, 0.4)), 20, 30)
    one, other = estimator(rgba), estimator(rgba[:, ::-1])
    assert other.elevation_deg == pytest.approx(one.elevation_deg, abs=0.01)
    assert other.plane_score == pytest.approx(one.plane_score, abs=1e-3)
    assert other.depth_ratio == pytest.approx(one.depth_ratio, rel=1e-3)
    turn = one.plane_azimuth_deg + other.plane_azimuth_deg
    assert (turn + 90) % 180 - 90 == pytest.approx(0, abs=0.1)


@pytest.mark.parametrize(("yaw", "elevation"), [(30, 5), (-35, 25), (20, 45)])
def test_the_shipped_network_reads_a_box(yaw: float, elevation: float) -> None:
    found = estimate_pose(draw_mesh(trimesh.creation.box((0.9, 0.5, 0.4)), yaw, elevation))
    assert found.elevation_deg == pytest.approx(elevation, abs=10)
    assert found.plane_azimuth_deg is not None
    assert abs((found.plane_azimuth_deg - yaw + 45) % 90 - 45) < 10


@pytest.mark.parametrize("yaw", [0, 40, 70])
def test_the_shipped_network_tells_deep_from_flat(yaw: float) -> None:
    box = trimesh.creation.box((0.9, 0.4, 0.4))
    turned = (
        box.vertices @ trimesh.transformations.rotation_matrix(np.deg2rad(-yaw), [0, 0, 1])[:3, :3]
    )
    found = estimate_pose(draw_mesh(box, yaw, 25))
    assert np.log(found.depth_ratio) == pytest.approx(measure_log_depth(turned, 0.0), abs=0.3)
