# SPDX-License-Identifier: Apache-2.0
"""Solids fitted to outlines, compared with closed forms of balls, bars and cameras."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from gsv3d.cameras import DISTANCE, orbit
from gsv3d.lab.rasterizing import rasterize
from gsv3d.meshing.fusion import Volume
from gsv3d.meshing.outline import _measure_outline, find_outline_bounds, match_reference_outline
from gsv3d.meshing.reference import Reference
from gsv3d.meshing.settings import MeshSettings
from gsv3d.meshing.surface import extract_surface, label_parts

SIZE, VOXEL, HALF = 256, 0.0125, 40
RADIUS = 0.3
CAMERA = orbit([0.0], [0.0], size=SIZE)
FOCAL = float(CAMERA.Ks[0, 0, 0])


def list_axes(volume: Volume | None = None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return x to the picture's right, y away from the camera and z up, of every voxel."""
    if volume is None:
        span = (np.arange(2 * HALF + 1) - HALF) * VOXEL
        return tuple(np.meshgrid(span, span, span, indexing="ij"))
    spans = [
        o + np.arange(n) * volume.voxel
        for o, n in zip(volume.origin, volume.field.shape, strict=True)
    ]
    return tuple(np.meshgrid(*spans, indexing="ij"))


def make_volume(distances: np.ndarray) -> Volume:
    field = np.clip(distances, -6 * VOXEL, 6 * VOXEL).astype(np.float32)
    return Volume(field, np.full(3, -HALF * VOXEL), VOXEL)


def make_ball() -> Volume:
    return make_volume(np.sqrt(sum(a**2 for a in list_axes())) - RADIUS)


def picture_solid(solid: np.ndarray) -> Reference:
    rgba = np.zeros((SIZE, SIZE, 4), np.uint8)
    rgba[solid] = (200, 100, 50, 255)
    return Reference(rgba, CAMERA)


def list_pixels() -> tuple[np.ndarray, np.ndarray]:
    """Return (right, up) where the pixels' rays cross the plane through the origin."""
    middle = (np.arange(SIZE) + 0.5 - SIZE / 2) * DISTANCE / FOCAL
    return middle[None, :].repeat(SIZE, 0), -middle[:, None].repeat(SIZE, 1)


def draw_disc(radius: float) -> np.ndarray:
    right, up = list_pixels()
    return right**2 + up**2 < radius**2


BALLS_OUTLINE = DISTANCE * np.tan(np.arcsin(RADIUS / DISTANCE))
"""Radius at which the tangents to the ball cross the plane through its center."""


def count_parts(volume: Volume) -> int:
    vertices, faces = extract_surface(volume)
    return len(np.unique(label_parts(faces, len(vertices))))


def draw_silhouette(volume: Volume) -> np.ndarray:
    """Return (SIZE, SIZE) bool: pixels whose centers the surface covers."""
    vertices, faces = extract_surface(volume)
    seen = rasterize(torch.from_numpy(vertices).float(), torch.from_numpy(faces.copy()), CAMERA)
    return seen.covered[0].numpy()


def measure_iou(a: np.ndarray, b: np.ndarray) -> float:
    return float((a & b).sum() / (a | b).sum())


def test_an_outline_that_is_there_already_changes_nothing_that_matters() -> None:
    after = match_reference_outline(make_ball(), picture_solid(draw_disc(BALLS_OUTLINE)))
    inside = np.sqrt(sum(a**2 for a in list_axes(after))) < RADIUS
    assert (inside != (after.field < 0)).sum() < 0.015 * inside.sum()


def test_what_stands_out_is_cut_off_along_the_rays() -> None:
    right, up = list_pixels()
    square = np.maximum(abs(right), abs(up)) < 0.2
    after = match_reference_outline(make_ball(), picture_solid(square))
    assert measure_iou(draw_silhouette(after), square) > 0.95
    # Inside the outline nothing changed: the middle is as deep as the ball.
    x, y, z = list_axes(after)
    core = (abs(x) < 0.1) & (abs(z) < 0.1)
    distance = (np.sqrt(x**2 + y**2 + z**2) - RADIUS)[core]
    sure = abs(distance) > 0.1 * VOXEL
    np.testing.assert_array_equal((after.field[core] < 0)[sure], (distance < 0)[sure])
    # A frustum and no box: nearer to the camera less of it is left.
    inside = after.field < 0
    near, far = inside & (y < -0.15), inside & (y > 0.15)
    expected = (DISTANCE - 0.2) / (DISTANCE + 0.2)
    assert x[near].max() / x[far].max() == pytest.approx(expected, abs=0.06)


def test_a_lost_bar_comes_back_round_in_the_depth_of_what_it_hangs_on() -> None:
    right, up = list_pixels()
    bar = (abs(up) < 0.05) & (right > 0) & (right < 0.45)
    after = match_reference_outline(make_ball(), picture_solid(draw_disc(BALLS_OUTLINE) | bar))
    assert measure_iou(draw_silhouette(after), draw_disc(BALLS_OUTLINE) | bar) > 0.95
    x, y, z = list_axes(after)
    section = (after.field < 0) & (abs(x - 0.38) <= after.voxel / 2)
    assert section.any()
    # Where the outermost ray touches the ball.
    assert y[section].mean() == pytest.approx(-(RADIUS**2) / DISTANCE, abs=1.5 * VOXEL)
    assert np.ptp(z[section]) + after.voxel == pytest.approx(0.1, abs=2 * VOXEL)
    assert np.ptp(y[section]) + after.voxel == pytest.approx(0.1, abs=2.5 * VOXEL)
    # Round: a circle fills pi / 4 of its square.
    filled = section.sum() * after.voxel**2 / 0.1**2
    assert filled == pytest.approx(np.pi / 4, abs=0.2)


def test_a_part_that_was_nearly_there_comes_back_where_it_nearly_was() -> None:
    """Bring back a thin plate behind the ball that is everywhere just above the level."""
    x, y, z = list_axes()
    plate = np.maximum.reduce([abs(y - 0.2) + 0.01, abs(z) - 0.06, abs(x) - 0.45])
    both = make_volume(np.minimum(np.sqrt(x**2 + y**2 + z**2) - RADIUS, np.maximum(plate, 0.01)))
    right, up = list_pixels()
    scale = DISTANCE / (DISTANCE + 0.2)
    bar = (abs(up) < 0.06 * scale) & (abs(right) < 0.45 * scale)
    after = match_reference_outline(both, picture_solid(draw_disc(BALLS_OUTLINE) | bar))
    x, y, z = list_axes(after)
    section = (after.field < 0) & (abs(x - 0.4) <= after.voxel / 2)
    assert section.any()
    assert y[section].mean() == pytest.approx(0.2, abs=2.5 * VOXEL)


def test_a_hole_in_the_picture_is_a_hole() -> None:
    ring = draw_disc(BALLS_OUTLINE) & ~draw_disc(0.12)
    after = match_reference_outline(make_ball(), picture_solid(ring))
    x, _, z = list_axes(after)
    assert not (after.field < 0)[x**2 + z**2 < 0.1**2].any()
    assert measure_iou(draw_silhouette(after), ring) > 0.93


LEGS = ((-0.4, -0.1), (-0.25, 0.1), (0.25, 0.1), (0.4, -0.1))
"""x and y of a table's legs, 0.03 wide; seen from the front all four stand side by side."""


def measure_table(legs: tuple[tuple[float, float], ...]) -> np.ndarray:
    """Return a bound of the signed distance to a table top, 0.9 x 0.3 x 0.1, and some legs."""
    x, y, z = list_axes()
    distance = np.maximum.reduce([abs(x) - 0.45, abs(y) - 0.15, abs(z - 0.25) - 0.05])
    for right, back in legs:
        leg = np.maximum.reduce(
            [abs(x - right) - 0.015, abs(y - back) - 0.015, abs(z + 0.05) - 0.3]
        )
        distance = np.minimum(distance, leg)
    return distance


def picture_table() -> Reference:
    """Draw the top's front edge and the legs, each at its own depth, by rays through the pixels."""
    right, up = list_pixels()
    near = (DISTANCE - 0.15) / DISTANCE
    solid = (abs(right * near) < 0.45) & (abs(up * near - 0.25) < 0.05)
    for x, y in LEGS:
        scale = (DISTANCE + y) / DISTANCE
        solid |= (abs(right * scale - x) < 0.015) & (up > -0.35) & (up < 0.25)
    return picture_solid(solid)


@pytest.mark.parametrize("left", [(0, 1, 2), (0, 3), (1,), ()])
def test_a_tables_lost_legs_come_back_in_one_piece_with_it(left: tuple[int, ...]) -> None:
    reference = picture_table()
    after = match_reference_outline(
        make_volume(measure_table(tuple(LEGS[i] for i in left))), reference
    )
    assert count_parts(after) == 1
    assert measure_iou(draw_silhouette(after), reference.rgba[..., 3] > 127) > 0.96
    x, y, z = list_axes(after)
    for i, (right, back) in enumerate(LEGS):
        leg = (after.field < 0) & (abs(x - right) < 0.05)
        for height in (-0.3, -0.1, 0.1):
            section = leg & (abs(z - height) <= after.voxel / 2)
            # At least a voxel and a half of the grid that was given, and where the table is.
            assert np.ptp(y[section]) + after.voxel >= 1.5 * after.voxel
            assert -0.15 < y[section].mean() < 0.15
            if i in left:
                assert y[section].mean() == pytest.approx(back, abs=VOXEL)


def test_loose_crumbs_are_dropped_and_what_the_picture_shows_hangs_together() -> None:
    x, y, z = list_axes()
    solid = np.sqrt(x**2 + y**2 + z**2) - RADIUS

    def crumb(at: tuple[float, float, float]) -> np.ndarray:
        return np.sqrt((x - at[0]) ** 2 + (y - at[1]) ** 2 + (z - at[2]) ** 2) - 0.03

    # One behind the ball, one outside the outline, and three along a bar, at uneven depths.
    for at in ((0, 0.42, 0), (0.1, 0, 0.42), (0.36, -0.1, 0), (0.4, 0.15, 0), (0.45, -0.05, 0)):
        solid = np.minimum(solid, crumb(at))
    right, up = list_pixels()
    shown = draw_disc(BALLS_OUTLINE) | ((abs(up) < 0.03) & (right > 0) & (right < 0.47))
    after = match_reference_outline(make_volume(solid), picture_solid(shown))
    assert count_parts(after) == 1
    assert measure_iou(draw_silhouette(after), shown) > 0.96
    x, y, z = list_axes(after)
    assert not (after.field < 0)[y > RADIUS + 0.03].any()


def test_a_see_through_part_of_the_picture_is_kept() -> None:
    reference = picture_solid(draw_disc(BALLS_OUTLINE))
    right, up = list_pixels()
    reference.rgba[draw_disc(BALLS_OUTLINE) & (up > -0.2), 3] = 77
    after = match_reference_outline(make_ball(), reference)
    assert measure_iou(draw_silhouette(after), draw_disc(BALLS_OUTLINE)) > 0.97
    np.testing.assert_allclose(
        find_outline_bounds(reference),
        find_outline_bounds(picture_solid(draw_disc(BALLS_OUTLINE))),
        atol=0.01,
    )


def test_a_line_thinner_than_a_voxel_stays_in_one_piece() -> None:
    right, up = list_pixels()
    line = (abs(up - 0.3 * right) < 0.4 * VOXEL) & (abs(right) < 0.45)
    shown = draw_disc(BALLS_OUTLINE) | line
    after = match_reference_outline(make_ball(), picture_solid(shown))
    seen = draw_silhouette(after)
    assert count_parts(after) == 1
    assert (seen & line).sum() >= 0.75 * line.sum()
    assert (seen & ~shown).sum() <= 3


@pytest.mark.parametrize("voxel", [2.5, 2.9, 4.0])
@pytest.mark.parametrize("thick", [1, 2, 3, 4, 5, 7])
def test_lines_are_as_thick_as_voxels_need_and_no_thicker(voxel: float, thick: int) -> None:
    """Widen a line that leads away from something wide; ``voxel`` and ``thick`` are in pixels."""
    shown = np.zeros((160, 160), np.float32)
    shown[20:140, 10:60] = 1
    shown[80 : 80 + thick, 60:150] = 1
    across = -_measure_outline(shown, MeshSettings.line_half * voxel)[:, 110]
    rows = np.flatnonzero(across > 0)
    # The surface is where the distance is 0, between two pixels' centers.
    width = np.ptp(rows) + sum(
        across[row] / (across[row] - across[row + step])
        for row, step in ((rows[0], -1), (rows[-1], 1))
    )
    least = 2 * MeshSettings.line_half * voxel
    low, high = (thick, thick) if thick >= least else (least, least + 1)
    assert low - 0.1 <= width <= high + 0.1


def test_a_slim_volume_is_refined_and_its_surface_stays_where_it_was() -> None:
    x, _, z = list_axes()
    slim = make_volume(np.sqrt(x**2 + z**2) - 0.1)
    keep = slice(HALF - 12, HALF + 13)
    field = slim.field[keep, :, keep]
    low = slim.origin + VOXEL * np.array([HALF - 12, 0, HALF - 12])
    right, up = list_pixels()
    after = match_reference_outline(
        Volume(field, low, VOXEL), picture_solid(right**2 + up**2 < 0.12**2)
    )
    assert after.voxel == pytest.approx(VOXEL / 3)
    vertices, _ = extract_surface(after)
    side = abs(vertices[:, 1]) < 0.3
    np.testing.assert_allclose(np.hypot(*vertices[side][:, [0, 2]].T), 0.1, atol=0.1 * VOXEL)


@pytest.mark.parametrize("shown", ["nothing", "something else"])
def test_a_picture_of_something_else_changes_nothing(shown: str) -> None:
    right, up = list_pixels()
    solid = np.zeros((SIZE, SIZE), bool) if shown == "nothing" else (right > 0.45) & (up > 0.45)
    before = make_ball()
    assert match_reference_outline(before, picture_solid(solid)) is before


def test_the_borders_of_the_volume_stay_outside() -> None:
    """Use an outline that reaches to the picture's border, and so beyond the volume."""
    right, up = list_pixels()
    after = match_reference_outline(
        make_ball(), picture_solid(draw_disc(BALLS_OUTLINE) | (abs(up) < 0.05))
    )
    for axis in range(3):
        walls = np.moveaxis(after.field, axis, 0)
        assert (walls[0] > 0).all() and (walls[-1] > 0).all()


def test_the_box_of_an_outline_is_where_its_rays_cross_the_origins_depth() -> None:
    right, up = list_pixels()
    low, high = find_outline_bounds(picture_solid((abs(right) < 0.3) & (up > -0.1) & (up < 0.2)))
    pixel = DISTANCE / FOCAL
    np.testing.assert_allclose(low, [-0.3, 0, -0.1], atol=pixel)
    np.testing.assert_allclose(high, [0.3, 0, 0.2], atol=pixel)
    # From elsewhere the same box is turned.
    side = Reference(picture_solid(abs(right) < 0.3).rgba, orbit([90.0], [0.0], size=64))
    low, high = find_outline_bounds(side)
    np.testing.assert_allclose(high[1] - low[1], 0.6, atol=2 * pixel)
    assert abs(high[0] - low[0]) < 1e-5
    low, high = find_outline_bounds(picture_solid(np.zeros((SIZE, SIZE), bool)))
    assert np.isinf(low).all() and np.isinf(high).all()
