# SPDX-License-Identifier: Apache-2.0
"""One job from views with cameras to Gaussians and a textured mesh."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from gsv3d.gaussians import Gaussians
from gsv3d.lifting.fit import fit_in_cube
from gsv3d.lifting.hull import find_frame
from gsv3d.lifting.settings import LiftSettings
from gsv3d.lifting.views import Frame, Views
from gsv3d.meshing import MeshSettings, TexturedMesh, extract_mesh
from gsv3d.tasks import Clock

OF_FITTED = MeshSettings(voxels=192)
"""Fitted Gaussians are sharper than a decoder's: rods of a pixel or two are there to be kept."""

PHASES = ("fitting", "fusing", "simplifying", "unwrapping", "texturing")


@dataclass(frozen=True)
class Lifted:
    """Result of one job, in the world where the object fills the unit cube.

    Attributes:
        views: views with cameras of that world.
        gaussians: fitted.
        mesh: textured, within the face budget.
        frame: from that world to the cameras' own.
        timings: seconds of the fit, of the mesh, and both ("total").
    """

    views: Views
    gaussians: Gaussians
    mesh: TexturedMesh
    frame: Frame
    timings: dict[str, float]


def lift_to_mesh(
    views: Views,
    settings: LiftSettings,
    faces: int,
    texture_size: int,
    report: Callable[[str, int, int], None],
) -> Lifted:
    """Fit Gaussians to views and make a mesh of them.

    Args:
        views: two or more, with cameras of any scale.
        settings: settings of the fit.
        faces: most triangles of the mesh.
        texture_size: side of the texture in texels.
        report: called with (phase, step, of), a phase of ``PHASES``; may raise ``Cancelled``.

    Raises:
        DataError: the views have no visual hull, or a camera stands inside it.
        GSV3DError: the Gaussians have no surface.
    """
    clock = Clock()
    clock.enter("fitting")
    report("fitting", 0, settings.iterations)
    frame = find_frame(views, settings.agreement)
    inner = frame.views(views)
    gaussians = fit_in_cube(inner, settings, lambda step, of, _: report("fitting", step, of))
    clock.enter("meshing")
    mesh = extract_mesh(gaussians, faces, texture_size, report, settings=OF_FITTED)
    return Lifted(inner, gaussians, mesh, frame, clock.stop())
