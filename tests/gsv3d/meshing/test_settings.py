# SPDX-License-Identifier: Apache-2.0
"""Settings of a mesh: each reaches its step."""

from __future__ import annotations

from dataclasses import fields

from gsv3d.meshing import MeshSettings, extract_mesh
from gsv3d.meshing.mirror import mirror_reference
from tests.gsv3d.meshing.test_carving import BARS, U, V, picture
from tests.gsv3d.meshing.test_extract import ball


def test_no_step_uses_settings_of_its_own() -> None:
    """A ball, in the picture barred and with something loose beside it, goes through every step."""
    asked = set()

    class Recorded(MeshSettings):
        def __getattribute__(self, name: str) -> object:
            asked.add(name)
            return super().__getattribute__(name)

    loose = (abs(U - 105) < 8) & (abs(V) < 8)
    reference = picture(((U**2 + V**2 < 63**2) & (BARS | (U < 0))) | loose)
    references = [reference, mirror_reference(reference, 90.0)]
    settings = Recorded(voxels=40, views_texture=32)
    extract_mesh(ball(), 400, 64, references=references, settings=settings)
    assert {field.name for field in fields(MeshSettings)} - asked == set()
