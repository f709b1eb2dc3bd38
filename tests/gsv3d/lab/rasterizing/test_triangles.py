# SPDX-License-Identifier: Apache-2.0
"""The z-buffer against ray casting and closed forms."""

import numpy as np
import pytest
import torch
import trimesh

from gsv3d.cameras import orbit
from gsv3d.lab.rasterizing import rasterize


def tensors(mesh):
    return torch.from_numpy(mesh.vertices).float(), torch.from_numpy(mesh.faces).long()


def scene_of_solids():
    """Return a few overlapping solids: occlusion, slivers, faces from both sides."""
    parts = [
        trimesh.creation.icosphere(subdivisions=2, radius=0.3),
        trimesh.creation.box((0.9, 0.1, 0.2)),
        trimesh.creation.cylinder(0.08, 0.95, sections=24),
        trimesh.creation.annulus(0.35, 0.45, 0.05),
    ]
    return trimesh.util.concatenate(parts)


def test_agrees_with_ray_casting():
    mesh = scene_of_solids()
    cameras = orbit([0, 70, 200], [10, 50, -20], size=40)
    seen = rasterize(*tensors(mesh), cameras)
    origins, directions = (x.reshape(-1, 3).numpy().astype(np.float64) for x in cameras.rays())
    caster = trimesh.ray.ray_triangle.RayMeshIntersector(mesh)
    points, rays, _ = caster.intersects_location(origins, directions, multiple_hits=True)
    lengths = np.einsum("ij,ij->i", points - origins[rays], directions[rays]) / np.einsum(
        "ij,ij->i", directions[rays], directions[rays]
    )
    nearest = np.full(len(origins), np.inf)
    np.minimum.at(nearest, rays, lengths)
    depth = seen.dense(seen.depth, empty=torch.inf).reshape(-1).numpy()
    covered, hit = np.isfinite(depth), np.isfinite(nearest)
    # A ray through an edge may miss for the caster and hit here, where edges are closed.
    assert (covered != hit).mean() < 2e-3
    both = covered & hit
    assert both.sum() > 800
    wrong = np.abs(depth[both] - nearest[both]) > 1e-3
    assert wrong.mean() < 2e-3


def test_depth_and_barycentrics_rebuild_the_pixels_ray():
    mesh = scene_of_solids()
    vertices, faces = tensors(mesh)
    cameras = orbit([30, 120], [20, 0], size=64)
    seen = rasterize(vertices, faces, cameras)
    points = seen.interpolate(vertices[faces])
    origins, directions = cameras.rays()
    on_ray = origins[seen.covered] + seen.depth[:, None] * directions[seen.covered]
    assert (points - on_ray).abs().max() < 2e-4
    assert torch.allclose(seen.barycentrics.sum(1), torch.ones(len(points)), atol=1e-5)


def test_neighboring_triangles_leave_no_seam():
    side = 17
    grid = np.stack(np.meshgrid(*[np.linspace(-0.4, 0.4, side)] * 2, indexing="ij"), -1)
    rng = np.random.default_rng(0)
    grid[1:-1, 1:-1] += rng.uniform(-0.015, 0.015, (side - 2, side - 2, 2))
    vertices = np.stack([grid[..., 0], 0 * grid[..., 0], grid[..., 1]], -1).reshape(-1, 3)
    i, j = np.meshgrid(np.arange(side - 1), np.arange(side - 1), indexing="ij")
    a = (i * side + j).ravel()
    faces = np.concatenate(
        [np.stack([a, a + 1, a + side], -1), np.stack([a + 1, a + side + 1, a + side], -1)]
    )
    camera = orbit([0], 0, size=128)
    seen = rasterize(torch.from_numpy(vertices).float(), torch.from_numpy(faces), camera)
    rows, columns = np.nonzero(seen.covered[0].numpy())
    box = seen.covered[0, rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
    assert box.all()
    assert len(rows) == box.numel()


def test_coverage_of_a_square_is_its_projected_area():
    half = 0.31
    corners = torch.tensor([[-half, 0, -half], [half, 0, -half], [half, 0, half], [-half, 0, half]])
    faces = torch.tensor([[0, 1, 2], [0, 2, 3]])
    camera = orbit([0], 0, size=200, distance=2.0)
    pixels = int(rasterize(corners, faces, camera).covered.sum())
    side = 2 * half / 2.0 * float(camera.Ks[0, 0, 0])
    assert abs(pixels - side**2) < 2 * side


def test_the_nearer_triangle_hides_the_farther_whatever_their_order():
    def square(y, half):
        return [[-half, y, -half], [half, y, -half], [0, y, half]]

    vertices = torch.tensor(square(-0.2, 0.3) + square(0.2, 0.3), dtype=torch.float32)
    camera = orbit([0], 0, size=64)
    faces = torch.tensor([[0, 1, 2], [3, 4, 5]])
    for order in ([0, 1], [1, 0]):
        seen = rasterize(vertices, faces[order], camera)
        middle = seen.dense(seen.face, empty=-1)[0, 32, 32]
        assert order[middle] == 0
        assert seen.dense(seen.depth)[0, 32, 32] == pytest.approx(2.35 - 0.2, abs=1e-4)


@pytest.mark.parametrize(
    "vertices",
    [
        [[0, 0, 0], [0, 0, 0], [1, 0, 0]],  # no area
        [[-0.1, -5, 0], [0.1, -5, 0], [0, 0, 0.1]],  # reaches behind the camera
        [[float("nan"), 0, 0], [0.1, 0, 0], [0, 0, 0.1]],
        [[50, 0, 50], [51, 0, 50], [50, 0, 51]],  # beside the picture
    ],
)
def test_what_cannot_be_drawn_is_left_out(vertices):
    seen = rasterize(
        torch.tensor(vertices).float(), torch.tensor([[0, 1, 2]]), orbit([0], 0, size=32)
    )
    assert not seen.covered.any()
    assert seen.interpolate(torch.zeros(1, 3, 2)).shape == (0, 2)


def test_a_triangle_larger_than_the_picture_fills_it():
    vertices = torch.tensor([[-9.0, 1, -9], [9, 1, -9], [0, 1, 20]])
    seen = rasterize(vertices, torch.tensor([[0, 1, 2]]), orbit([0], 0, size=48))
    assert seen.covered.all()
    assert torch.allclose(seen.depth, torch.full_like(seen.depth, 3.35), atol=1e-3)


def test_many_views_are_drawn_as_one_by_one(monkeypatch):
    from gsv3d.lab.rasterizing import triangles

    mesh = scene_of_solids()
    cameras = orbit(np.arange(6) * 60.0, 15, size=32)
    whole = rasterize(*tensors(mesh), cameras)
    monkeypatch.setattr(triangles, "PAIRS_AT_ONCE", 1)
    parts = rasterize(*tensors(mesh), cameras)
    assert torch.equal(whole.face, parts.face)
    assert torch.equal(whole.depth, parts.depth)


@pytest.mark.gpu
def test_cuda_draws_the_same():
    mesh = scene_of_solids()
    cameras = orbit([0, 70], [10, 50], size=96)
    here = rasterize(*tensors(mesh), cameras)
    vertices, faces = tensors(mesh)
    there = rasterize(vertices.cuda(), faces.cuda(), cameras.to("cuda"))
    assert (here.covered != there.covered.cpu()).float().mean() < 1e-4
    both = here.covered & there.covered.cpu()
    difference = here.dense(here.depth) - there.dense(there.depth).cpu()
    assert (difference[both].abs() > 1e-4).float().mean() < 1e-3
