# SPDX-License-Identifier: Apache-2.0
"""Lighting against closed forms."""

import numpy as np
import torch
import trimesh

from gsv3d.lab.datasets.light import Environment, compute_matt_radiance
from gsv3d.lab.rasterizing.lighting import (
    compute_irradiance,
    draw_shadow_maps,
    load_baked_environments,
    make_lights,
    make_random_environment,
)


def white(value=1.0):
    return Environment("white", np.full((16, 32, 3), value, dtype=np.float32))


def mesh_tensors(mesh):
    return torch.from_numpy(mesh.vertices).float(), torch.from_numpy(mesh.faces).long()


def test_a_convex_body_under_a_white_sky_is_white():
    sphere = trimesh.creation.icosphere(subdivisions=4, radius=0.4)
    vertices, faces = mesh_tensors(sphere)
    normals = vertices / 0.4
    light = compute_irradiance(
        vertices, normals, make_lights(white(), 0, count=64), vertices, faces
    )
    assert abs(float(light.mean()) - 1) < 0.01
    assert (light - 1).abs().max() < 0.08


def test_under_a_roof_only_the_bounce_is_left():
    floor = trimesh.creation.box((1, 1, 0.02))
    roof = trimesh.creation.box((8, 8, 0.02))
    roof.apply_translation([0, 0, 0.2])
    vertices, faces = mesh_tensors(trimesh.util.concatenate([floor, roof]))
    point, up = torch.tensor([[0.0, 0, 0.01]]), torch.tensor([[0.0, 0, 1]])
    lights = make_lights(white(), 0, count=64)
    dark = compute_irradiance(point, up, lights, vertices, faces, bounce=0.0)
    assert dark.max() < 0.1
    half = compute_irradiance(point, up, lights, vertices, faces, bounce=0.5)
    assert (half - 0.5).abs().max() < 0.06


def test_distant_lights_sum_to_the_maps_irradiance():
    environment = make_random_environment(np.random.default_rng(3))
    sphere = trimesh.creation.icosphere(subdivisions=3, radius=0.3)
    vertices, faces = mesh_tensors(sphere)
    normals = vertices / 0.3
    # There the map's columns run counterclockwise from +X; here they run clockwise from -X.
    mirrored = np.roll(environment.pixels[:, ::-1], -16, axis=1)
    for yaw, shift in ((0.0, 0), (90.0, -8)):
        light = compute_irradiance(
            vertices, normals, make_lights(environment, yaw, 256), vertices, faces
        )
        for channel in range(3):
            pixels = np.roll(mirrored[..., channel], shift, axis=1)
            wanted = compute_matt_radiance(pixels, normals.double().numpy())
            assert np.abs(light[:, channel].numpy() - wanted).max() < 0.12
            assert np.corrcoef(light[:, channel].numpy(), wanted)[0, 1] > 0.99


def test_shadow_maps_hold_the_height_toward_the_light():
    box = trimesh.creation.box((0.4, 0.4, 0.6))
    height, frames, scale = draw_shadow_maps(*mesh_tensors(box), torch.tensor([[0.0, 0, 1]]))
    top = height[torch.isfinite(height)]
    assert torch.allclose(top, torch.full_like(top, 0.3), atol=1e-4)
    side = (0.4 * scale * height.shape[-1]) ** 2
    assert abs(len(top) - side) < 4 * side**0.5
    assert torch.allclose(frames @ frames.transpose(1, 2), torch.eye(3), atol=1e-6)


def test_environments_are_eight_and_exposed():
    environments = load_baked_environments()
    assert len(environments) == 8
    for environment in environments:
        assert environment.pixels.shape == (16, 32, 3)
        assert 0.1 < environment.pixels.mean() < 3
