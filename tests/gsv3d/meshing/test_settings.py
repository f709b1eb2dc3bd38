# SPDX-License-Identifier: Apache-2.0
"""Every setting of a mesh reaches its step."""

from __future__ import annotations

from dataclasses import fields

from gsv3d.meshing import MeshSettings, extract_mesh
from gsv3d.meshing.mirror import mirror_reference
from gsv3d.meshing.shape_prior import ShapePrior
from tests.gsv3d.meshing.test_carving import BARS, U, V, draw_picture
from tests.gsv3d.meshing.test_extract import paint_ball
from tests.gsv3d.meshing.test_shape_prior import make_logits


def test_no_step_uses_settings_of_its_own() -> None:
    """Show bars and a loose part in the picture, so that every step has work."""
    asked = set()

    class Recorded(MeshSettings):
        def __getattribute__(self, name: str) -> object:
            asked.add(name)
            return super().__getattribute__(name)

    loose = (abs(U - 105) < 8) & (abs(V) < 8)
    reference = draw_picture(((U**2 + V**2 < 63**2) & (BARS | (U < 0))) | loose)
    references = [reference, mirror_reference(reference, 90.0)]
    settings = Recorded(voxels=40, views_texture=32)
    shape = ShapePrior([make_logits(0.0)], 1.0)
    extract_mesh(paint_ball(), 400, 64, references=references, settings=settings, shape=shape)
    assert {field.name for field in fields(MeshSettings)} - asked == set()
