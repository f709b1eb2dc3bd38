# SPDX-License-Identifier: GPL-3.0-or-later
"""Splats as shaders draw them, compared with a renderer of numpy's."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from blender_addon import splats
from tests import splat_reference

SIZE = (96, 72)


def test_covariances_are_those_of_turned_ellipsoids() -> None:
    arrays = splat_reference.make_scene(20)
    found = splats.covariances(arrays["quats"], arrays["scales"])
    for quat, scale, values in zip(arrays["quats"], arrays["scales"], found, strict=True):
        axes = splat_reference.compute_rotation(quat) * scale
        wanted = (axes @ axes.T)[np.triu_indices(3)]
        np.testing.assert_allclose(values, wanted, rtol=1e-4, atol=1e-9)


@pytest.mark.parametrize("count", [1, 255, 256, 257, 1000])
def test_every_gaussian_lies_where_a_shader_looks_for_it(count: int) -> None:
    means = np.arange(count * 3, dtype="f4").reshape(count, 3)
    quats = np.tile(np.array([1, 0, 0, 0], "f4"), (count, 1))
    shapes = splats.shape_texels(means, quats, np.full((count, 3), 2.0, "f4"), means[:, 0])
    colors = splats.color_texels(means[:, None].repeat(4, axis=1))
    for index in {0, count // 2, count - 1}:
        row, column = divmod(index, splats.PER_ROW)
        np.testing.assert_array_equal(shapes[row, column * 3], [*means[index], means[index, 0]])
        np.testing.assert_array_equal(shapes[row, column * 3 + 1], [4, 0, 0, 4])
        np.testing.assert_array_equal(shapes[row, column * 3 + 2], [0, 4, 0, 0])
        np.testing.assert_array_equal(colors[row, column * 4 + 3, :3], means[index])


def test_the_farthest_is_blended_first() -> None:
    means = np.random.default_rng(0).normal(size=(5000, 3)).astype("f4")
    away = np.array([0.3, -2.0, 0.5])
    depths = means @ away
    order = splats.far_to_near(means, away)
    assert sorted(order) == list(range(5000))
    # To the 16 bits in which depths are told apart.
    assert np.diff(depths[order]).max() <= np.ptp(depths) / 65535 * 1.01
    np.testing.assert_array_equal(splats.far_to_near(means[:1], away), [0])


@pytest.fixture
def gpu(empty_blender: Any) -> Any:
    """Return gpu with a context for drawing; Blenders before 5.3 have none without a window."""
    import gpu

    if not hasattr(gpu, "init"):
        pytest.skip("this Blender draws nothing without a window")
    gpu.init()
    return gpu


def make_projection(K: np.ndarray, width: int, height: int, near=0.1, far=100.0) -> np.ndarray:
    """Return OpenGL's projection for intrinsics in pixels, counted from the upper left."""
    lens = np.zeros((4, 4))
    lens[0, 0], lens[0, 2] = 2 * K[0, 0] / width, 1 - 2 * K[0, 2] / width
    lens[1, 1], lens[1, 2] = 2 * K[1, 1] / height, 2 * K[1, 2] / height - 1
    lens[2, 2], lens[2, 3] = -(far + near) / (far - near), -2 * far * near / (far - near)
    lens[3, 2] = -1
    return lens


def make_camera() -> tuple[np.ndarray, np.ndarray]:
    """Return a camera of OpenCV's axes, and intrinsics with a shifted middle."""
    viewmat = splat_reference.look_at_origin(np.array([0.4, -2, 0.6]))
    return viewmat, np.array([[130.0, 0, 51.5], [0, 120.0, 33.0], [0, 0, 1]])


def read_texture(gpu: Any, texture: Any, channels: int) -> np.ndarray:
    """Return a texture's floats, row 0 on top."""
    buffer = texture.read()
    flat = np.array(buffer.to_list(), "f4")
    return flat.reshape(texture.height, texture.width, channels)[::-1]


def draw_cloud(
    gpu: Any, arrays: dict[str, np.ndarray], world: np.ndarray
) -> tuple[Any, np.ndarray]:
    """Draw Gaussians in an object placed by ``world``; return the picture and its lens."""
    from blender_addon import splat_shaders

    viewmat, K = make_camera()
    to_camera = np.diag([1.0, -1, -1, 1]) @ viewmat @ world
    lens = make_projection(K, *SIZE)
    picture = splat_shaders.Picture(*SIZE)
    shaders = splat_shaders.Shaders()
    shaders.clear(picture)
    cloud = splat_shaders.Cloud(**arrays)
    shaders.draw(picture, cloud, cloud.order(-to_camera[2, :3]), to_camera, lens)
    return picture, lens


@pytest.mark.bpy
@pytest.mark.parametrize("degree", [0, 1])
def test_splats_are_drawn_as_by_the_reference(gpu, degree: int) -> None:
    arrays = splat_reference.make_scene(400, degree)
    picture, _ = draw_cloud(gpu, arrays, np.eye(4))
    viewmat, K = make_camera()
    wanted = splat_reference.draw(**arrays, viewmat=viewmat, K=K, width=SIZE[0], height=SIZE[1])
    found = read_texture(gpu, picture.colors, 4)
    assert wanted[..., 3].max() > 0.9 and wanted[..., 3].min() == 0
    assert splat_reference.measure_psnr(found, wanted) > 48
    # Two of about the same depth may change places.
    assert (np.abs(found - wanted) > 0.01).mean() < 0.01


@pytest.mark.bpy
def test_what_draws_after_the_splats_finds_what_it_had_set(gpu) -> None:
    from blender_addon import splat_shaders

    def state() -> tuple:
        return gpu.state.blend_get(), gpu.state.depth_test_get(), gpu.state.depth_mask_get()

    gpu.state.blend_set("ADDITIVE")
    gpu.state.depth_test_set("GREATER")
    gpu.state.depth_mask_set(True)
    before = state()
    picture, lens = draw_cloud(gpu, splat_reference.make_scene(10), np.eye(4))
    assert state() == before
    target = gpu.types.GPUTexture(SIZE, format="RGBA16F")
    with gpu.types.GPUFrameBuffer(color_slots=(target,)).bind():
        splat_shaders.Shaders().show(picture, lens)
    assert state() == before


@pytest.mark.bpy
def test_an_objects_turn_move_and_size_are_followed(gpu) -> None:
    arrays = splat_reference.make_scene(300, 0, seed=1)
    quat = np.array([0.8, 0.1, -0.5, 0.3])
    quat /= np.linalg.norm(quat)
    turn = splat_reference.compute_rotation(quat)
    world = np.eye(4)
    world[:3, :3], world[:3, 3] = 0.5 * turn, [0.2, 0.1, -0.1]
    picture, _ = draw_cloud(gpu, arrays, world)
    # The same by hand: a quaternion times a quaternion is a turn after a turn.
    w, v = arrays["quats"][:, :1], arrays["quats"][:, 1:]
    product = [quat[0] * w - v @ quat[1:, None], quat[0] * v + w * quat[1:] + np.cross(quat[1:], v)]
    moved = {
        **arrays,
        "means": arrays["means"] @ world[:3, :3].T + world[:3, 3],
        "quats": np.concatenate(product, axis=1),
        "scales": 0.5 * arrays["scales"],
    }
    viewmat, K = make_camera()
    wanted = splat_reference.draw(**moved, viewmat=viewmat, K=K, width=SIZE[0], height=SIZE[1])
    assert splat_reference.measure_psnr(read_texture(gpu, picture.colors, 4), wanted) > 55


@pytest.mark.bpy
def test_an_orthographic_view_has_no_vanishing_point(gpu) -> None:
    from blender_addon import splat_shaders

    arrays = splat_reference.make_scene(100, 1, seed=2)
    viewmat, _ = make_camera()
    far = 1000.0  # so far away that a perspective is as good as none
    K = np.array([[60.0 * far, 0, 48], [0, 60.0 * far, 36], [0, 0, 1]])
    distant = viewmat.copy()
    distant[2, 3] += far - 2
    wanted = splat_reference.draw(**arrays, viewmat=distant, K=K, width=SIZE[0], height=SIZE[1])
    lens = np.diag([120 / SIZE[0], 120 / SIZE[1], -0.01, 1.0])
    to_camera = np.diag([1.0, -1, -1, 1]) @ viewmat
    picture = splat_shaders.Picture(*SIZE)
    shaders, cloud = splat_shaders.Shaders(), splat_shaders.Cloud(**arrays)
    shaders.clear(picture)
    shaders.draw(picture, cloud, cloud.order(-to_camera[2, :3]), to_camera, lens)
    assert splat_reference.measure_psnr(read_texture(gpu, picture.colors, 4), wanted) > 45


@pytest.mark.bpy
def test_harmonics_of_degree_three_are_summed(gpu) -> None:
    """One Gaussian's color against scipy's own spherical harmonics."""
    from scipy.special import sph_harm_y

    random = np.random.default_rng(3)
    arrays = {n: v[:1] for n, v in splat_reference.make_scene(1, 3).items()}
    arrays |= {
        "means": np.zeros((1, 3), "f4"),
        "scales": np.full((1, 3), 0.5, "f4"),
        "opacities": np.ones(1, "f4"),
        "sh": random.uniform(-0.2, 0.2, (1, 16, 3)).astype("f4"),
    }
    picture, _ = draw_cloud(gpu, arrays, np.eye(4))
    x, y, z = np.array([-0.4, 2.0, -0.6]) / np.linalg.norm([0.4, 2.0, 0.6])
    polar, azimuth = np.arccos(z), np.arctan2(y, x)
    values = []
    for degree in range(4):
        for m in range(-degree, degree + 1):
            value = sph_harm_y(degree, abs(m), polar, azimuth)
            part = value.imag if m < 0 else value.real
            values.append(part * (np.sqrt(2) if m else 1))
    wanted = 0.5 + np.array(values) @ arrays["sh"][0]
    found = read_texture(gpu, picture.colors, 4)
    brightest = found[..., 3] >= 0.998
    np.testing.assert_allclose((found[brightest][:, :3] / 0.999).mean(axis=0), wanted, atol=3e-3)


@pytest.mark.bpy
def test_what_stands_before_the_splats_hides_them(gpu) -> None:
    from blender_addon import splat_shaders

    arrays = splat_reference.make_scene(400, 0)
    picture, lens = draw_cloud(gpu, arrays, np.eye(4))
    color = read_texture(gpu, picture.colors, 4)
    viewmat, _ = make_camera()
    middle = viewmat[2, 3]
    kept = []  # Blender 5.3 may take what is made anew for what was freed at the same address
    for depth, shown in ((middle - 1.0, False), (middle + 1.0, True)):
        target = gpu.types.GPUTexture(SIZE, format="RGBA16F")
        behind = gpu.types.GPUTexture(SIZE, format="DEPTH_COMPONENT32F")
        buffer = gpu.types.GPUFrameBuffer(depth_slot=behind, color_slots=(target,))
        with buffer.bind():
            in_window = 0.5 + 0.5 * (-lens[2, 2] * depth + lens[2, 3]) / depth
            buffer.clear(color=(0.0, 0.0, 0.0, 0.0), depth=in_window)
            shaders = splat_shaders.Shaders()
            kept.append((target, behind, buffer, shaders))
            shaders.show(picture, lens)
        found = read_texture(gpu, target, 4)
        if shown:
            alpha = np.maximum(color[..., 3:], 1 / 255)
            wanted = alpha * np.minimum(color[..., :3] / alpha, 1) ** 2.2
            wanted[color[..., 3] < 1 / 255] = 0
            np.testing.assert_allclose(found[..., :3], wanted, atol=2e-3)
        else:
            assert not found.any()
