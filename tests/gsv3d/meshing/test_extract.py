# SPDX-License-Identifier: Apache-2.0
"""Meshes made of Gaussians, by way of the renderer."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
import trimesh

from gsv3d.cameras import orbit
from gsv3d.errors import GSV3DError
from gsv3d.gaussians import Gaussians
from gsv3d.meshing import MeshSettings, extract_mesh
from gsv3d.meshing.mirror import mirror_reference
from gsv3d.meshing.preview import rasterize_mesh
from gsv3d.meshing.reference import Reference
from gsv3d.meshing.simplify import count_bad_edges
from gsv3d.meshing.surface import label_parts
from gsv3d.meshing.views import fit_bounds
from gsv3d.rendering import render
from tests.gsv3d.fake_pipeline import make_ball


def paint_ball(count: int = 3000, radius: float = 0.35) -> Gaussians:
    """Return a ball of small Gaussians; red at y < 0, the input's side, and blue behind."""
    ball = make_ball((1, 1, 1), count, radius)
    red, blue = torch.tensor([0.9, 0.1, 0.1]), torch.tensor([0.1, 0.1, 0.9])
    rgb = torch.where(ball.means[:, 1:2] < 0, red, blue)
    return Gaussians.from_rgb(ball.means, ball.quats, ball.scales * 0.75, ball.opacities, rgb)


@pytest.fixture(scope="module")
def meshed():
    steps: list[tuple[str, int, int]] = []
    mesh = extract_mesh(paint_ball(), 600, 128, lambda *step: steps.append(step))
    return mesh, steps


def test_the_mesh_of_a_ball_is_that_ball(meshed):
    mesh, _ = meshed
    assert len(mesh.faces) <= 600
    assert count_bad_edges(mesh.faces) == 0
    solid = trimesh.Trimesh(mesh.vertices, mesh.faces, process=False)
    assert solid.is_watertight
    # A ball of the outline that the Gaussians show, two standard deviations outside the centers.
    camera = orbit([30.0], [15.0], size=256)
    shown = render(paint_ball(), camera).alpha[0, ..., 0].numpy() > 0.5
    drawn = rasterize_mesh(mesh, camera)[0, ..., 3] > 127
    assert (shown & drawn).sum() > 0.96 * (shown | drawn).sum()
    assert solid.volume == pytest.approx(4 / 3 * np.pi * 0.374**3, rel=0.06)
    assert mesh.texture.shape == (128, 128, 3)


def test_its_colors_are_on_their_sides(meshed):
    mesh, _ = meshed
    centers = mesh.vertices[mesh.faces].mean(axis=1)
    uvs = mesh.corner_uvs.mean(axis=1)
    colors = mesh.texture[((1 - uvs[:, 1]) * 128).astype(int), (uvs[:, 0] * 128).astype(int)]
    red, blue = centers[:, 1] < -0.05, centers[:, 1] > 0.05
    # Within what the views hold: 0.9 and 0.1, blended a little at outlines.
    np.testing.assert_allclose(np.median(colors[red], axis=0), [230, 26, 26], atol=6)
    np.testing.assert_allclose(np.median(colors[blue], axis=0), [26, 26, 230], atol=6)
    assert (colors[red, 0] > 200).mean() > 0.98 and (colors[blue, 2] > 200).mean() > 0.98


def test_the_mesh_has_the_outline_of_the_picture():
    """Show a ball with a handle in the picture, and Gaussians of the ball alone.

    Mirrored about the plane through the handle, the picture shows the back as well.
    """
    camera = orbit([0.0], [10.0], size=256)
    v, u = np.mgrid[:256, :256] - 127.5
    shown = render(paint_ball(), camera).alpha[0, ..., 0].numpy() > 0.5
    handle = (abs(v) < 9) & (u > 0) & (u < 110)
    rgba = np.zeros((256, 256, 4), np.uint8)
    rgba[shown | handle] = (40, 160, 60, 255)
    reference = Reference(rgba, camera)
    mesh = extract_mesh(
        paint_ball(),
        2000,
        128,
        references=[reference, mirror_reference(reference, 90.0)],
        backs="model",
    )
    assert count_bad_edges(mesh.faces) == 0
    drawn = rasterize_mesh(mesh, camera)[0, ..., 3] > 127
    wanted = shown | handle
    assert (drawn & wanted).sum() > 0.95 * (drawn | wanted).sum()
    # A bar and no fin: 18 pixels are 0.1 high, and it is not much thicker.
    tip = mesh.vertices[mesh.vertices[:, 0] > 0.45]
    assert np.ptp(tip[:, 2]) == pytest.approx(0.1, abs=0.04)
    assert 0.05 < np.ptp(tip[:, 1]) < 0.25
    for side in rasterize_mesh(mesh, orbit([0.0, 180.0], 10.0, size=64)):
        np.testing.assert_allclose(side[32, 32], (40, 160, 60, 255), atol=3)


def make_table(legs: tuple[float, ...]) -> Gaussians:
    """Return small Gaussians of a table top and of legs at these x."""
    rng = np.random.default_rng(0)
    boxes = [((0, 0, 0.2), (0.4, 0.15, 0.04), 3000)]
    boxes += [((x, -0.1, -0.1), (0.02, 0.02, 0.3), 600) for x in legs]
    points = np.concatenate([c + rng.uniform(-1, 1, (n, 3)) * half for c, half, n in boxes])
    like = paint_ball(len(points))
    return replace(like, means=torch.from_numpy(points).float(), scales=like.scales * 0.7)


@pytest.mark.parametrize(("faces", "agreement"), [(500, 0.9), (3000, 0.96)])
def test_a_table_keeps_the_legs_that_its_gaussians_lost(faces, agreement):
    camera = orbit([0.0], [10.0], size=256)
    legs = (-0.35, -0.12, 0.12, 0.35)
    shown = render(make_table(legs), camera).alpha[0, ..., 0].numpy()
    rgba = np.full((256, 256, 4), 120, np.uint8)
    rgba[..., 3] = np.round(shown * 255)
    mesh = extract_mesh(make_table(legs[::2]), faces, 64, references=[Reference(rgba, camera)])
    assert len(mesh.faces) <= faces and count_bad_edges(mesh.faces) == 0
    assert label_parts(mesh.faces, len(mesh.vertices)).max() == 0
    drawn = rasterize_mesh(mesh, camera)[0, ..., 3] > 127
    wanted = shown > 0.5
    assert (drawn & wanted).sum() > agreement * (drawn | wanted).sum()
    feet = mesh.vertices[mesh.vertices[:, 2] < -0.3]
    for x in legs:
        foot = feet[abs(feet[:, 0] - x) < 0.06]
        # In the depth of the table, whose front edge hides where the leg is attached.
        assert abs(foot[:, 1].mean()) < 0.2


def test_faint_strays_do_not_widen_the_frame():
    gaussians = paint_ball()
    strays = paint_ball(60, 0.95)
    strays.opacities[:] = 0.03
    both = Gaussians(
        **{n: torch.cat([getattr(gaussians, n), getattr(strays, n)]) for n in vars(strays)}
    )
    low, high = fit_bounds(both, np.full(3, -1.0), np.full(3, 1.0))
    # The ball, a standard deviation or two of its Gaussians, and two pixels of 2/96.
    np.testing.assert_allclose(low, -0.385, atol=0.04)
    np.testing.assert_allclose(high, 0.385, atol=0.04)
    faint = both.filter(both.opacities < 0.1)
    np.testing.assert_array_equal(fit_bounds(faint, low, high), (low, high))


def test_progress_goes_through_the_phases_and_to_their_ends(meshed):
    _, steps = meshed
    phases = list(dict.fromkeys(phase for phase, _, _ in steps))
    assert phases == ["fusing", "simplifying", "unwrapping", "texturing"]
    for phase in phases:
        counts = [step for name, step, _ in steps if name == phase]
        assert counts == sorted(counts)
        assert counts[-1] == next(of for name, _, of in reversed(steps) if name == phase)


def test_an_exception_from_progress_ends_it():
    class StopError(Exception):
        pass

    def stop(phase: str, step: int, of: int) -> None:
        raise StopError

    with pytest.raises(StopError):
        extract_mesh(paint_ball(200), 100, 32, stop)


def test_no_gaussians_and_broken_ones_are_said_in_words():
    gaussians = paint_ball(50)
    with pytest.raises(GSV3DError, match="no visible Gaussians"):
        extract_mesh(gaussians.filter(torch.zeros(50, dtype=torch.bool)), 100, 32)
    gaussians.means[:] = float("nan")
    with pytest.raises(GSV3DError, match="no visible Gaussians"):
        extract_mesh(gaussians, 100, 32)


@pytest.mark.parametrize(
    ("field", "value"), [("faces", 3), ("faces", 10**7), ("texture_size", 1), ("texture_size", 1e5)]
)
def test_bounds_are_named(field, value):
    with pytest.raises(ValueError, match=f"{field} must be"):
        extract_mesh(paint_ball(50), **{field: int(value)})


@pytest.mark.slow
def test_the_same_gaussians_give_the_same_mesh(meshed):
    mesh, _ = meshed
    again = extract_mesh(paint_ball(), 600, 128)
    np.testing.assert_array_equal(mesh.vertices, again.vertices)
    np.testing.assert_array_equal(mesh.corner_uvs, again.corner_uvs)
    np.testing.assert_array_equal(mesh.texture, again.texture)


def test_more_voxels_keep_rods_that_are_thinner_than_a_voxel() -> None:
    """Keep two rods 0.8 long, their axes 0.04 apart, which 116 voxels lose."""
    along = torch.linspace(-0.4, 0.4, 300)
    means = torch.cat([torch.stack([0 * along + x, 0 * along, along], 1) for x in (-0.02, 0.02)])
    quats = torch.tensor([[1.0, 0, 0, 0]]).expand(600, 4)
    rods = Gaussians.from_rgb(
        means, quats, torch.full((600, 3), 0.003), torch.full((600,), 0.95), torch.ones(600, 3)
    )
    with pytest.raises(GSV3DError, match="have no surface"):
        extract_mesh(rods, 1000, 32)
    mesh = extract_mesh(rods, 1000, 32, settings=MeshSettings(voxels=192))
    np.testing.assert_allclose(np.ptp(mesh.vertices, axis=0), [0.05, 0.01, 0.81], atol=0.01)
    assert (np.abs(mesh.vertices[:, 0]) > 0.01).all()  # nothing between them
