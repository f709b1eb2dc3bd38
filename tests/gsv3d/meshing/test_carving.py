# SPDX-License-Identifier: Apache-2.0
"""Meshes of lattices whose bars are finer than the mesh's grid."""

from __future__ import annotations

import numpy as np
import pytest

from gsv3d.cameras import DISTANCE, orbit
from gsv3d.meshing import MeshSettings, extract_mesh
from gsv3d.meshing.carving import cover_fine_gaps
from gsv3d.meshing.mirror import mirror_reference
from gsv3d.meshing.preview import rasterize_mesh
from gsv3d.meshing.reference import Reference
from tests.gsv3d.meshing.test_extract import paint_ball
from tests.gsv3d.meshing.test_outline import measure_iou

SIZE = 256
CAMERA = orbit([0.0], [10.0], size=SIZE)
VOXEL = 4 * DISTANCE / float(CAMERA.Ks[0, 0, 0])
"""A voxel is four pixels."""

V, U = np.mgrid[:SIZE, :SIZE] - SIZE // 2
DISC = U**2 + V**2 < 80**2
BARS = U % 6 < 3
"""Bars and gaps of three pixels."""

HANDLE = (abs(U) < 6) & (V > 0) & (V < 120)
RACKET = (DISC & BARS) | HANDLE | (DISC & (U**2 + V**2 > 72**2))


def draw_picture(shown: np.ndarray) -> Reference:
    """Draw red bars; the pixels beside them are green and transparent."""
    rgba = np.zeros((*shown.shape, 4), np.uint8)
    rgba[..., 1] = 255
    rgba[shown] = (200, 30, 30, 255)
    return Reference(rgba, CAMERA)


@pytest.mark.parametrize(
    "shown",
    [DISC, DISC & (U**2 + V**2 > 60**2), DISC & (U % 40 < 20), DISC | HANDLE, DISC & (U > 60)],
    ids=["disc", "ring", "wide bars", "handle", "sliver"],
)
def test_an_outline_that_a_mesh_can_follow_is_left_as_it_is(shown: np.ndarray) -> None:
    reference = draw_picture(shown)
    assert cover_fine_gaps(reference, VOXEL) is reference


def test_a_lattice_is_filled_in_the_outline_and_has_its_gaps_in_the_alpha() -> None:
    reference = draw_picture(RACKET)
    filled = cover_fine_gaps(reference, VOXEL)
    assert filled.alpha is not None
    assert (filled.coverage > 0.5)[DISC | RACKET].all()
    np.testing.assert_array_equal((filled.alpha > 0.5)[DISC], RACKET[DISC])
    # Wider than the picture's object by a voxel at most.
    assert not (filled.coverage > 0.5)[(U**2 + V**2 > 85**2) & (V < 40)].any()
    # Its color goes on under the gaps.
    np.testing.assert_array_equal(filled.rgba[filled.coverage > 0.5][:, :3], [[200, 30, 30]] * (
        filled.coverage > 0.5).sum())  # fmt: skip


def test_what_is_wide_beside_a_lattice_is_opaque_from_all_sides() -> None:
    filled = cover_fine_gaps(draw_picture(RACKET), VOXEL)
    end = V > 105
    assert filled.alpha is not None and (filled.alpha[end] == 1).all()
    np.testing.assert_array_equal((filled.coverage > 0.5)[end], RACKET[end])


def test_the_mesh_of_a_lattice_has_its_outline_and_its_colors() -> None:
    reference = draw_picture(RACKET)
    references = [reference, mirror_reference(reference, 90.0)]
    mesh = extract_mesh(paint_ball(), 1000, 512, None, references, settings=MeshSettings(voxels=58))
    assert mesh.texture.shape == (512, 512, 4)
    drawn = rasterize_mesh(mesh, CAMERA)[0]
    assert measure_iou(drawn[..., 3] > 127, RACKET) > 0.97
    assert measure_iou(rasterize_mesh(mesh, CAMERA, clay=True)[0, ..., 3] > 127, RACKET) > 0.97
    # Neither the green of the empty pixels nor a dark rim.
    middle = (drawn[..., 3] > 127) & (U**2 + V**2 < 60**2)
    off = np.abs(drawn[middle][:, :3].astype(int) - [200, 30, 30]).max(axis=1) > 12
    assert off.mean() < 1e-3  # a string's edge may show some of the ball's own color
    # The handle is no hollow rim from the side.
    side = rasterize_mesh(mesh, orbit([90.0], 10.0, size=SIZE))[0, ..., 3] > 127
    rows = side[np.flatnonzero(side.any(axis=1))[-15:-5]]
    assert all(row[np.flatnonzero(row)[0] : np.flatnonzero(row)[-1]].all() for row in rows)


def test_a_lattice_of_something_else_carves_nothing() -> None:
    """Let a picture of another object make no holes."""
    far = np.roll(RACKET, SIZE // 2, axis=1)
    mesh = extract_mesh(paint_ball(radius=0.1), 600, 64, references=[draw_picture(far & (U > 100))])
    assert not mesh.clipped
