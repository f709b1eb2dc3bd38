# SPDX-License-Identifier: Apache-2.0
"""Texture charts and baked textures."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
import trimesh

from gsv3d.cameras import orbit
from gsv3d.meshing import raster, texture
from gsv3d.meshing.extract import mesh_from_volume
from gsv3d.meshing.fusion import fuse_depths
from gsv3d.meshing.mesh import TexturedMesh
from gsv3d.meshing.preview import rasterize_mesh
from gsv3d.meshing.raster import CHUNK, rasterize
from gsv3d.meshing.reference import Reference, align_reference
from gsv3d.meshing.settings import MeshSettings
from gsv3d.meshing.texture import bake_texture
from gsv3d.meshing.unwrap import unwrap_uvs
from tests.gsv3d.meshing import analytic

NO_CLOUD = (np.zeros((1, 3), np.float32), np.array([[0.0, 1.0, 0.0]], np.float32))


@pytest.fixture(scope="module")
def two_colored():
    views = analytic.draw_box((0.3, 0.3, 0.3))
    volume = fuse_depths(views, np.full(3, -0.3), np.full(3, 0.3), 1.1 / 40)
    return mesh_from_volume(volume, views, NO_CLOUD, 2000, 128)


def sample_texture(mesh: TexturedMesh) -> tuple[np.ndarray, np.ndarray]:
    """Return the faces' middles (F, 3) and the texture's colors there."""
    points = mesh.vertices[mesh.faces].mean(axis=1)
    uvs = mesh.corner_uvs.mean(axis=1)
    size = len(mesh.texture)
    column = np.clip((uvs[:, 0] * size).astype(int), 0, size - 1)
    row = np.clip(((1 - uvs[:, 1]) * size).astype(int), 0, size - 1)
    return points, mesh.texture[row, column] / 255.0


def test_each_side_of_a_two_colored_cube_has_its_color(two_colored):
    points, colors = sample_texture(two_colored)
    wanted = np.where(points[:, 1:2] < 0, analytic.FRONT, analytic.BACK)
    clear = np.abs(points[:, 1]) > 0.04
    error = np.abs(colors - wanted).max(axis=1)[clear]
    assert (error < 0.02).mean() > 0.99


def test_a_picture_of_the_mesh_shows_the_colors_where_they_are(two_colored):
    front, right, back = rasterize_mesh(two_colored, orbit([0, 90, 180], 0.0, size=64))
    np.testing.assert_allclose(front[32, 32, :3] / 255, analytic.FRONT, atol=0.02)
    np.testing.assert_allclose(back[32, 32, :3] / 255, analytic.BACK, atol=0.02)
    # From +X the input's side (-Y) is on the left.
    np.testing.assert_allclose(right[32, 24, :3] / 255, analytic.FRONT, atol=0.02)
    np.testing.assert_allclose(right[32, 40, :3] / 255, analytic.BACK, atol=0.02)
    assert front[2, 2, 3] == 0 and front[32, 32, 3] == 255


def test_a_reference_picture_shows_on_its_side_and_nowhere_else(two_colored):
    """Take as the reference the cube from the front, all green."""
    camera = orbit([0.0], [0.0], size=128)
    half = camera.Ks[0, 0, 0].item() * 0.3 / (2.35 - 0.3)
    rgba = np.zeros((128, 128, 4), np.uint8)
    v, u = np.abs(np.mgrid[:128, :128] + 0.5 - 64)
    rgba[np.maximum(u, v) < half] = (0, 255, 0, 255)
    mesh = two_colored
    projection = align_reference(mesh.vertices, mesh.faces, Reference(rgba, camera))
    assert projection is not None
    views = analytic.draw_box((0.3, 0.3, 0.3))
    texture = bake_texture(
        mesh.vertices, mesh.faces, mesh.corner_uvs, 128, views, NO_CLOUD, None, [projection],
        backs="model",
    )  # fmt: skip
    points, colors = sample_texture(
        TexturedMesh(mesh.vertices, mesh.faces, mesh.corner_uvs, texture)
    )
    # The middle of the front, not its rim, is the picture's; what it does not see is as before.
    front = (points[:, 1] < -0.29) & (np.abs(points[:, [0, 2]]).max(axis=1) < 0.2)
    assert front.sum() > 5
    np.testing.assert_allclose(colors[front], np.tile([0, 1, 0], (front.sum(), 1)), atol=0.02)
    _, before = sample_texture(mesh)
    other = points[:, 1] > 0.05
    np.testing.assert_allclose(colors[other], before[other], atol=0.01)


def lay_green_over(mesh: TexturedMesh, azimuth: float = 0.0, size: int = 128):
    """Lay a picture of the cube's side at that azimuth, all green, over the mesh."""
    camera = orbit([azimuth], [0.0], size=size)
    half = camera.Ks[0, 0, 0].item() * 0.3 / (2.35 - 0.3)
    rgba = np.zeros((size, size, 4), np.uint8)
    v, u = np.abs(np.mgrid[:size, :size] + 0.5 - size / 2)
    rgba[np.maximum(u, v) < half] = (0, 255, 0, 255)
    return align_reference(mesh.vertices, mesh.faces, Reference(rgba, camera))


def bake_cube(mesh: TexturedMesh, size: int, projections, **more) -> TexturedMesh:
    views = analytic.draw_box((0.3, 0.3, 0.3))
    texture = bake_texture(
        mesh.vertices, mesh.faces, mesh.corner_uvs, size, views, NO_CLOUD, None,
        projections, **more,
    )  # fmt: skip
    return TexturedMesh(mesh.vertices, mesh.faces, mesh.corner_uvs, texture)


def test_the_back_looks_as_the_front_does_where_asked(two_colored):
    """Paint the middle of the back green, as the picture's front, where backs are the picture's."""
    projection = lay_green_over(two_colored)
    points, through = sample_texture(bake_cube(two_colored, 128, [projection], backs="picture"))
    _, model = sample_texture(bake_cube(two_colored, 128, [projection], backs="model"))
    middle = np.abs(points[:, [0, 2]]).max(axis=1) < 0.2
    back, front = middle & (points[:, 1] > 0.29), middle & (points[:, 1] < -0.29)
    assert back.sum() > 5 and front.sum() > 5
    green = np.tile([0, 1, 0], (back.sum(), 1))
    np.testing.assert_allclose(through[back], green, atol=0.02)
    np.testing.assert_allclose(model[back], np.tile(analytic.BACK, (back.sum(), 1)), atol=0.02)
    np.testing.assert_array_equal(through[front], model[front])
    # The sides, which it grazes, are the model's either way.
    side = (np.abs(points[:, 0]) > 0.29) & (np.abs(points[:, 1:]).max(axis=1) < 0.12)
    assert side.sum() > 3
    np.testing.assert_allclose(through[side], model[side], atol=0.01)


def test_the_first_picture_lies_over_the_second_and_the_second_over_the_back(two_colored):
    """Lay a red picture over the front and a green one over the back."""
    front, behind = lay_green_over(two_colored), lay_green_over(two_colored, 180.0)
    assert front is not None and behind is not None
    front.layers[..., :2] = front.layers[..., 1::-1].copy()  # red for green
    points, colors = sample_texture(bake_cube(two_colored, 128, [front, behind], backs="picture"))
    middle = np.abs(points[:, [0, 2]]).max(axis=1) < 0.2
    for side, color in (
        (middle & (points[:, 1] < -0.29), [1, 0, 0]),
        (middle & (points[:, 1] > 0.29), [0, 1, 0]),
    ):
        assert side.sum() > 5
        np.testing.assert_allclose(colors[side], np.tile(color, (side.sum(), 1)), atol=0.02)


def test_a_texture_larger_than_the_views_need_is_enlarged(two_colored, monkeypatch):
    """Compare small and large where the views' colors are; keep the picture as sharp."""
    projection = lay_green_over(two_colored)
    whole = bake_cube(two_colored, 512, [projection])
    monkeypatch.setattr(texture, "FILL_PIXELS", 512 * 100)  # several bands
    enlarged = bake_cube(two_colored, 512, [projection], settings=MeshSettings(views_texture=128))
    assert enlarged.texture.shape == (512, 512, 3)
    points, colors = sample_texture(enlarged)
    _, wanted = sample_texture(whole)
    clear = np.abs(points[:, 1]) > 0.04
    assert (np.abs(colors - wanted).max(axis=1)[clear] < 0.02).mean() > 0.99


def test_gaps_are_filled_in_bands_as_in_one_piece(monkeypatch):
    """Give each gap's texel within the margin a nearest one's color, by comparing all pairs."""
    rng = np.random.default_rng(4)
    covered = np.zeros((90, 90), dtype=bool)
    covered[::18, ::15] = True
    covered[40:50, 20:60] = True
    picture = rng.integers(0, 256, (90, 90, 3), dtype=np.uint8)
    filled = picture.copy()
    monkeypatch.setattr(texture, "FILL_PIXELS", 90 * 25)
    monkeypatch.setattr(texture, "FILL_MARGIN", 20)
    texture._fill_gaps(filled, covered)
    np.testing.assert_array_equal(filled[covered], picture[covered])
    charts = np.argwhere(covered)
    for row, column in np.argwhere(~covered):
        squares = ((charts - [row, column]) ** 2).sum(axis=1)
        nearest = picture[tuple(charts[squares == squares.min()].T)]
        assert (nearest == filled[row, column]).all(axis=1).any()


def test_baking_takes_memory_for_the_texture_and_a_chunk(two_colored, monkeypatch):
    """Hold the texture, the mask of its charts, and the larger of a chunk and a band.

    A chunk's candidate has about 40 numbers of 8 bytes at once (indices, points, edges, weights); a
    band's texel has an int64 and two int32 of scipy's transform, and up to three indices of 8.
    """
    size, band = 2048, 2048 * 256
    monkeypatch.setattr(texture, "FILL_PIXELS", band)
    projection = lay_green_over(two_colored)
    tracemalloc.start()
    try:
        bake_cube(two_colored, size, [projection], settings=MeshSettings(views_texture=128))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    # The texture, the views enlarged to its size, and where charts are.
    assert peak < (3 + 3 + 1) * size**2 + max(40 * 8 * CHUNK, 40 * band * 1.5)


def test_the_gaps_between_charts_continue_a_chart(two_colored):
    """Leave no filling color, which filtering would show at the seams."""
    texture = two_colored.texture.reshape(-1, 3) / 255.0
    one, other = np.array(analytic.FRONT), np.array(analytic.BACK)
    along = ((texture - one) @ (other - one)) / ((other - one) @ (other - one))
    nearest = one + np.clip(along, 0, 1)[:, None] * (other - one)
    assert np.abs(texture - nearest).max() < 0.03


def test_what_no_view_sees_takes_the_nearest_gaussians():
    mesh = trimesh.creation.icosphere(2, 0.05)
    vertices, faces = np.asarray(mesh.vertices), np.asarray(mesh.faces)
    views = analytic.draw_sphere(0.4)  # the small sphere is hidden inside
    corner_uvs = unwrap_uvs(vertices, faces, 64)
    texture = bake_texture(vertices, faces, corner_uvs, 64, views, NO_CLOUD)
    np.testing.assert_array_equal(np.unique(texture.reshape(-1, 3), axis=0), [[0, 255, 0]])


def test_uvs_lie_in_the_square_and_do_not_overlap(two_colored):
    uvs = two_colored.corner_uvs
    assert uvs.min() >= 0 and uvs.max() <= 1
    size = 1024
    corners = uvs.astype(float) * size
    pixels = np.concatenate([f.pixels for f in rasterize(corners, size, size)])
    twice = len(pixels) - len(np.unique(pixels))
    assert twice / len(pixels) < 0.002  # texel centers on a shared edge
    assert len(pixels) / size**2 > 0.4  # and the square is used


def test_texels_are_square():
    """Keep most edges' length ratios, since a stretched texture wastes detail one way."""
    box = trimesh.creation.box((1.0, 0.2, 0.1)).subdivide().subdivide()
    vertices, faces = np.asarray(box.vertices), np.asarray(box.faces)
    uvs = unwrap_uvs(vertices, faces, 512)
    in_space = np.linalg.norm(vertices[faces] - vertices[np.roll(faces, 1, axis=1)], axis=2)
    in_texture = np.linalg.norm(uvs - np.roll(uvs, 1, axis=1), axis=2)
    ratio = in_texture / in_space
    assert ratio.max() / ratio.min() < 1.2


def test_rasterize_agrees_with_a_test_of_every_pixel():
    rng = np.random.default_rng(1)
    corners = rng.uniform(-4, 20, size=(40, 3, 2))
    found = {(int(p), int(t)) for f in rasterize(corners, 16, 12)
             for p, t in zip(f.pixels, f.triangles, strict=True)}  # fmt: skip
    for t, (a, b, c) in enumerate(corners):
        for row in range(12):
            for column in range(16):
                p = np.array([column + 0.5, row + 0.5])
                signs = [
                    (q - o)[0] * (p - o)[1] - (q - o)[1] * (p - o)[0]
                    for o, q in ((a, b), (b, c), (c, a))
                ]
                inside = all(s > 1e-9 for s in signs) or all(s < -1e-9 for s in signs)
                assert inside == ((row * 16 + column, t) in found)


def test_triangles_larger_than_a_chunk_are_found_in_parts(monkeypatch):
    corners = np.random.default_rng(2).uniform(-4, 40, size=(7, 3, 2))
    (whole,) = rasterize(corners, 32, 32)
    monkeypatch.setattr(raster, "CHUNK", 100)
    parts = list(rasterize(corners, 32, 32))
    assert len(parts) > 7 and max(len(part.pixels) for part in parts) <= 100
    for name in ("pixels", "triangles", "weights"):
        together = np.concatenate([getattr(part, name) for part in parts])
        np.testing.assert_array_equal(together, getattr(whole, name))


def test_rasterize_interpolates_linearly():
    corners = np.array([[[0, 0], [10, 0], [0, 10]]], dtype=float)
    (fragments,) = rasterize(corners, 10, 10)
    x, y = fragments.pixels % 10 + 0.5, fragments.pixels // 10 + 0.5
    np.testing.assert_allclose(fragments.weights @ corners[0], np.stack([x, y], 1), atol=1e-5)


def test_a_mesh_checks_its_arrays():
    good = {
        "vertices": np.zeros((3, 3)),
        "faces": [[0, 1, 2]],
        "corner_uvs": np.zeros((1, 3, 2)),
        "texture": np.zeros((4, 4, 3)),
    }
    TexturedMesh(**good)
    for name, wrong in {
        "vertices": np.full((3, 3), np.nan),
        "faces": [[0, 1, 3]],
        "corner_uvs": np.zeros((2, 3, 2)),
        "texture": np.zeros((4, 5, 3)),
    }.items():
        with pytest.raises(ValueError, match=name):
            TexturedMesh(**(good | {name: wrong}))
