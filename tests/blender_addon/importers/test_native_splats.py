# SPDX-License-Identifier: GPL-3.0-or-later
"""Blender's own splats (5.3), rendered by Cycles and EEVEE, compared with a renderer of numpy's."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from blender_addon.importers import placement, prepare
from blender_addon.requests import Target
from tests import splat_reference

pytestmark = pytest.mark.bpy

WIDTH, HEIGHT, FOCAL = 80, 60, 100.0


def make_camera() -> tuple[np.ndarray, np.ndarray]:
    """Return a camera of OpenCV's axes that looks at the origin, and its intrinsics."""
    viewmat = splat_reference.look_at_origin(np.array([0.4, -2.0, 0.6]))
    return viewmat, np.array([[FOCAL, 0, WIDTH / 2], [0, FOCAL, HEIGHT / 2], [0, 0, 1]])


def render_scene(bpy: Any, path: Path, engine: str) -> np.ndarray:
    """Render the scene from `camera`, as (HEIGHT, WIDTH, 4) colors times alpha."""
    from mathutils import Matrix

    scene = bpy.context.scene
    made = bpy.data.objects.new("Camera", bpy.data.cameras.new("Camera"))
    scene.collection.objects.link(made)
    viewmat, _ = make_camera()
    turned = np.linalg.inv(viewmat) @ np.diag([1.0, -1, -1, 1])
    scene.camera, made.matrix_world = made, Matrix(turned.tolist())
    made.data.sensor_fit, made.data.angle_x = "HORIZONTAL", 2 * math.atan(WIDTH / 2 / FOCAL)
    render = scene.render
    render.engine, render.film_transparent, render.filepath = engine, True, str(path)
    render.resolution_x, render.resolution_y = WIDTH, HEIGHT
    render.image_settings.color_mode, render.image_settings.color_depth = "RGBA", "16"
    scene.view_settings.view_transform = "Standard"
    scene.cycles.device, scene.cycles.samples, scene.cycles.use_denoising = "CPU", 256, False
    scene.cycles.pixel_filter_type = "BOX"
    scene.eevee.taa_render_samples, scene.render.filter_size = 16, 0.01
    bpy.ops.render.render(write_still=True)
    image = bpy.data.images.load(str(path))
    image.colorspace_settings.name = "Non-Color"
    pixels = np.empty(WIDTH * HEIGHT * 4, np.float32)
    image.pixels.foreach_get(pixels)
    picture = pixels.reshape(HEIGHT, WIDTH, 4)[::-1]
    return np.concatenate([picture[..., :3] * picture[..., 3:], picture[..., 3:]], axis=-1)


@pytest.mark.timeout(900)  # EEVEE without a card
@pytest.mark.parametrize(("engine", "degree"), [("CYCLES", 0), ("CYCLES", 1), ("BLENDER_EEVEE", 1)])
def test_native_splats_render_as_the_reference_draws_them(
    empty_blender, finish, tmp_path, engine: str, degree: int
) -> None:
    from blender_addon import compat
    from blender_addon.importers.gaussians import import_gaussians

    if not compat.has_native_splats():
        pytest.skip("this Blender has no native splats")
    arrays = splat_reference.make_scene(80, degree)
    # Cycles widens no splat by 0.3 square pixels: large ones look the same all the same. Colors
    # within 0..1, for it blends in linear light.
    arrays["scales"] = np.sqrt(arrays["scales"] * 0.1)
    arrays["sh"] *= 0.7 / (1 + degree)
    cloud = prepare.prepare_gaussians(**arrays)
    finish(import_gaussians(cloud, "j", Target("b"), placement.Fit((0, 0, 0), 1.0)))
    found = render_scene(empty_blender, tmp_path / "native.png", engine)
    viewmat, K = make_camera()
    wanted = splat_reference.draw(**arrays, viewmat=viewmat, K=K, width=WIDTH, height=HEIGHT)
    assert splat_reference.measure_psnr(average_cells(found), average_cells(wanted)) > 33


def average_cells(picture: np.ndarray) -> np.ndarray:
    """Return means of 5 x 5 pixels: both engines draw transparency as noise."""
    return picture.reshape(HEIGHT // 5, 5, WIDTH // 5, 5, 4).mean((1, 3))
