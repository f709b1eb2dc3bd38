# SPDX-License-Identifier: Apache-2.0
"""Light rasterized surfaces from all around, with shadows: much like Cycles, at low cost.

An environment becomes some dozens of distant lights. Each has a shadow map, so a surface point gets
sum over lights of radiance * max(0, n . l) * visibility * 4 / L, which tends to the irradiance over
pi as the number of lights L grows. Light that is blocked comes back, weaker, from what blocks it:
a first bounce off a surface of the object's mean color.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import resources

import numpy as np
import torch
from torch import Tensor

from gsv3d.lab.datasets.light import Environment, fibonacci_sphere, find_exposure
from gsv3d.lab.rasterizing.triangles import rasterize_projected

NUM_LIGHTS = 32
"""Number of distant lights of an environment, whose map is blurred by 30 degrees."""

SHADOW_SIZE = 96
"""Side of a shadow map in pixels; it spans the ball around the object."""

BIAS = 0.02
"""Largest distance of a lit point behind the nearest surface, in extents of the object."""


@dataclass(frozen=True)
class Lights:
    """L distant lights of equal solid angle.

    Attributes:
        directions: (L, 3) unit vectors toward the lights.
        radiance: (L, 3) linear RGB.
    """

    directions: Tensor
    radiance: Tensor


def load_baked_environments() -> list[Environment]:
    """Load Blender's eight studio HDRIs (CC0), blurred and exposed, at 16 x 32 pixels."""
    file = resources.files("gsv3d.lab.rasterizing") / "environments.npz"
    with file.open("rb") as stream, np.load(stream, allow_pickle=False) as data:
        return [Environment(name, data[name].astype(np.float32)) for name in sorted(data.files)]


def make_random_environment(rng: np.random.Generator) -> Environment:
    """Make up an environment: a sky, a ground, up to three soft lamps, exposed as the HDRIs."""
    rows = 16
    polar = ((np.arange(rows) + 0.5) * np.pi / rows)[:, None]
    around = (np.arange(2 * rows) + 0.5) * np.pi / rows
    z = np.broadcast_to(np.cos(polar), (rows, 2 * rows))
    directions = np.stack([np.sin(polar) * np.cos(around), np.sin(polar) * np.sin(around), z], -1)
    tint = 1 + 0.15 * rng.standard_normal((2, 3))
    sky, ground = np.abs(tint) * rng.uniform([[0.3], [0.1]], [[1.0], [0.6]])
    pixels = ground + (sky - ground) * (0.5 + 0.5 * np.tanh(3 * z))[..., None]
    for _ in range(rng.integers(1, 4)):
        lamp = rng.standard_normal(3)
        lamp[2] = abs(lamp[2])
        lamp /= np.linalg.norm(lamp)
        lobe = np.exp((directions @ lamp - 1) / np.deg2rad(rng.uniform(25, 45)) ** 2)
        color = np.abs(1 + 0.15 * rng.standard_normal(3)) * rng.uniform(0.5, 5)
        pixels = pixels + lobe[..., None] * color
    return Environment("random", (pixels * find_exposure(pixels)).astype(np.float32))


def make_lights(environment: Environment, yaw_deg: float, count: int = NUM_LIGHTS) -> Lights:
    """Cut an environment into distant lights.

    Args:
        environment: columns run clockwise seen from above, the middle one toward +X (as in Cycles).
        yaw_deg: turn of the directions that are looked up, as in ``BlenderWorld.light_hdri``.
        count: number of lights, L.
    """
    rows, columns = environment.pixels.shape[:2]
    directions = fibonacci_sphere(count)
    turn = np.deg2rad(yaw_deg)
    azimuth = np.arctan2(directions[:, 1], directions[:, 0]) + turn
    column = ((0.5 - azimuth / (2 * np.pi)) % 1.0) * columns
    row = np.arccos(np.clip(directions[:, 2], -1, 1)) / np.pi * rows
    pixels = environment.pixels[np.minimum(row.astype(int), rows - 1), column.astype(int) % columns]
    return Lights(
        torch.from_numpy(directions).float(), torch.from_numpy(np.ascontiguousarray(pixels)).float()
    )


def compute_irradiance(
    points: Tensor,
    normals: Tensor,
    lights: Lights,
    vertices: Tensor,
    faces: Tensor,
    bounce: float = 0.4,
) -> Tensor:
    """Compute (P, 3) irradiance over pi at surface points: what matt white would reflect.

    Args:
        points: (P, 3) on the surface.
        normals: (P, 3) unit normals, on the side that is looked at.
        lights: lights on the points' device.
        vertices: (N, 3) vertices of the object that casts shadows.
        faces: (F, 3) its triangles.
        bounce: share of blocked light that the blocker reflects, 0..1.
    """
    depth, frames, scale = draw_shadow_maps(vertices, faces, lights.directions)
    local = torch.einsum("lij,pj->lpi", frames, points)
    column = ((local[..., 0] * scale + 0.5) * SHADOW_SIZE).long().clamp(0, SHADOW_SIZE - 1)
    row = ((local[..., 1] * scale + 0.5) * SHADOW_SIZE).long().clamp(0, SHADOW_SIZE - 1)
    index = torch.arange(len(frames), device=points.device)[:, None]
    nearest = depth[index, row, column]
    visible = (local[..., 2] >= nearest - BIAS).to(points)
    visible = bounce + (1 - bounce) * visible
    cosine = (lights.directions @ normals.T).clamp_min(0)
    return 4 / len(frames) * (visible * cosine).T @ lights.radiance


def draw_shadow_maps(
    vertices: Tensor, faces: Tensor, directions: Tensor
) -> tuple[Tensor, Tensor, float]:
    """Draw what each distant light sees of an object around the origin.

    Returns:
        (L, S, S) height toward the light of the surface nearest to it, -inf without a surface;
        (L, 3, 3) rotations from the world to (across, down, toward the light); and the factor from
        world units to shares of the map.
    """
    helper = torch.zeros_like(directions)
    smallest = directions.abs().argmin(dim=1)
    helper[torch.arange(len(directions)), smallest] = 1.0
    across = torch.nn.functional.normalize(torch.cross(helper, directions, dim=1), dim=1)
    down = torch.cross(directions, across, dim=1)
    frames = torch.stack([across, down, directions], dim=1)
    radius = float(vertices.norm(dim=1).max()) * 1.01
    scale = 0.5 / radius
    local = torch.einsum("lij,nj->lni", frames, vertices)
    screen = (local[..., :2] * scale + 0.5) * SHADOW_SIZE
    weight = local[..., 2] + 2 * radius  # positive, largest where nearest to the light
    seen = rasterize_projected(screen, weight, faces, SHADOW_SIZE, SHADOW_SIZE)
    return seen.dense(1 / seen.depth - 2 * radius, empty=-torch.inf), frames, scale


def face_the_camera(normals: Tensor, geometric: Tensor, toward: Tensor) -> Tensor:
    """Turn (P, 3) shading normals to the side of the surface that (P, 3) ``toward`` points to."""
    side = (geometric * toward).sum(-1, keepdim=True).sign()
    aligned = (normals * geometric).sum(-1, keepdim=True).sign()
    side = torch.where(side == 0, 1.0, side)
    aligned = torch.where(aligned == 0, 1.0, aligned)
    return normals * side * aligned
