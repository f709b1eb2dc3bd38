# SPDX-License-Identifier: Apache-2.0
"""Rasterized views against Blender's pixels and against closed forms."""

import importlib.util
import io
import tarfile
from functools import partial

import numpy as np
import pytest
import torch
import trimesh
from PIL import Image
from trimesh.visual.material import PBRMaterial

from gsv3d.cameras import orbit
from gsv3d.lab.datasets.light import Environment
from gsv3d.lab.rasterizing import load_prop
from gsv3d.lab.rasterizing.lighting import load_baked_environments, make_lights
from gsv3d.lab.rasterizing.orbits import Surface, draw
from tests.gsv3d.lab.datasets.samples import paint

BPY = (
    importlib.util.find_spec("bpy") is not None and importlib.util.find_spec("OpenEXR") is not None
)


@pytest.fixture(scope="module")
def lamp(tmp_path_factory):
    """Return a prop with a texture, base colors, smooth and flat parts, and parts in shadow."""
    rng = np.random.default_rng(0)
    base = trimesh.creation.box((0.8, 0.08, 0.6))
    # Blender interpolates between texels, the rasterizer does not: few of the pixels lie there.
    checks = rng.integers(60, 255, (4, 4, 3), dtype=np.uint8).repeat(16, axis=0).repeat(16, axis=1)
    base.visual = trimesh.visual.TextureVisuals(
        uv=rng.random((len(base.vertices), 2)),
        material=PBRMaterial(baseColorTexture=Image.fromarray(checks)),
    )
    pole = trimesh.creation.cylinder(0.06, 0.8, sections=24)
    pole.apply_transform(trimesh.transformations.rotation_matrix(np.pi / 2, [1, 0, 0]))
    pole.apply_translation([0.1, 0.4, 0])
    shade = trimesh.creation.icosphere(subdivisions=3, radius=0.25)
    shade.apply_translation([0.1, 0.8, 0])
    for part, color in ((pole, [40, 200, 90]), (shade, [230, 120, 20])):
        paint(part, color)
    path = tmp_path_factory.mktemp("lamp") / "lamp.glb"
    trimesh.Scene([base, pole, shade]).export(path)
    return path


def placed(prop) -> np.ndarray:
    low, high = prop.vertices.min(axis=0), prop.vertices.max(axis=0)
    scale = 1 / (high - low).max()
    transform = np.eye(4)
    transform[:3, :3] *= scale
    transform[:3, 3] = -(low + high) / 2 * scale
    return transform


def test_a_white_sky_shows_the_base_color(lamp):
    prop = load_prop(lamp)
    surface = Surface(prop, placed(prop), torch.device("cpu"))
    sky = Environment("white", np.ones((16, 32, 3), dtype=np.float32))
    cameras = orbit([0, 120], [20, -10], size=96)
    views = draw(surface, cameras, make_lights(sky, 0))
    rgba = views.rgba.numpy()
    # The middle of the shade: unshadowed, smooth, base color (230, 120, 20) in linear light / 255.
    color = np.array([230, 120, 20]) / 255
    wanted = np.where(color <= 0.0031308, color * 12.92, 1.055 * color ** (1 / 2.4) - 0.055)
    top = int(np.flatnonzero(rgba[0, ..., 3].any(axis=1))[0])
    patch = rgba[0, top + 6 : top + 10, 52:58]
    assert (patch[..., 3] == 255).all()
    assert np.abs(patch[..., :3].mean(axis=(0, 1)) - 255 * wanted).max() < 14
    assert ((views.depth > 0) <= (views.rgba[..., 3] > 0)).all()


def test_coverage_is_antialiased(lamp):
    prop = load_prop(lamp)
    surface = Surface(prop, placed(prop), torch.device("cpu"))
    lights = make_lights(load_baked_environments()[0], 0)
    small = draw(surface, orbit([15], 10, size=32), lights).rgba[0, ..., 3].float() / 255
    large = draw(surface, orbit([15], 10, size=256), lights).rgba[0, ..., 3].float() / 255
    pooled = torch.nn.functional.avg_pool2d(large[None, None], 8)[0, 0]
    assert (small - pooled).abs().mean() < 0.012
    assert ((small > 0) & (small < 1)).any()


@pytest.mark.bpy
@pytest.mark.skipif(not BPY, reason="bpy or OpenEXR is not installed")
def test_blenders_pixels(lamp):
    """The same plan under the same light, drawn by Cycles in a process of its own."""
    from gsv3d.lab.datasets.objects import ObjectFile
    from gsv3d.lab.datasets.orbits import OrbitRecord, OrbitSettings, plan_orbit
    from gsv3d.lab.datasets.rendering import ObjectRenderer
    from gsv3d.lab.processes import run_in_processes

    settings = OrbitSettings(size=96, orbit_views=3, novel_views=2, samples=32, seed=5)
    (outcome,) = run_in_processes(partial(ObjectRenderer, settings), [ObjectFile("lamp", lamp)], 1)
    assert outcome.error is None
    with tarfile.open(fileobj=io.BytesIO(outcome.value.tar)) as tar:
        files = {m.name.split(".", 1)[1]: tar.extractfile(m).read() for m in tar.getmembers()}
    blender = OrbitRecord.from_members(files)
    environment = {e.name: e for e in load_baked_environments()}[blender.render["light"]]
    lights = make_lights(environment, plan_orbit(settings, "lamp").light_yaw_deg)
    surface = Surface(load_prop(lamp), blender.transform, torch.device("cpu"))
    cameras = orbit(blender.azimuths_deg.tolist(), blender.elevations_deg.tolist(), size=96)
    views = draw(surface, cameras, lights)
    ours, theirs = views.rgba.numpy().astype(float), blender.rgba.astype(float)
    a, b = ours[..., 3] > 127, theirs[..., 3] > 127
    assert (a & b).sum() / (a | b).sum() > 0.97
    solid = (ours[..., 3] > 250) & (theirs[..., 3] > 250)
    difference = (ours - theirs)[solid][:, :3]
    # Cycles' own noise at 32 samples, interpolated texels, and the second bounce.
    assert np.abs(difference).mean() < 12
    assert np.abs(difference.mean(axis=0)).max() < 6
    turned = make_lights(environment, plan_orbit(settings, "lamp").light_yaw_deg + 180)
    wrong = draw(surface, cameras, turned).rgba.numpy().astype(float) - theirs
    assert np.abs(wrong[solid][:, :3]).mean() > 1.4 * np.abs(difference).mean()
    both = solid & (views.depth.numpy() > 0) & (blender.depth > 0)
    assert np.median(np.abs(views.depth.numpy()[both] - blender.depth[both])) < 1e-2
