# SPDX-License-Identifier: Apache-2.0
"""Use the mirrored picture as a second picture of an object with a vertical mirror plane.

A picture flipped left-right shows the mirrored object. An object that equals its mirror image looks
like that from the mirrored camera. So one picture is two, from both sides of the plane.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch

from gsv3d.cameras import Cameras
from gsv3d.compiling import run_in_threads
from gsv3d.meshing import native, native_outline
from gsv3d.meshing.fusion import Volume, close_walls, measure_distance
from gsv3d.meshing.outline import match_reference_outline, resize_map
from gsv3d.meshing.reference import Reference, measure_outside
from gsv3d.meshing.settings import MeshSettings


def mirror_reference(reference: Reference, plane_azimuth_deg: float) -> Reference:
    """Return the picture flipped left-right and the camera that would have taken it.

    With S the reflection about the plane and F = diag(-1, 1, 1) that of the picture, a world-to-
    camera matrix M becomes F M S, which is a rotation and a shift again. A camera at azimuth 0
    comes to twice the plane's.

    Args:
        reference: the picture and its camera.
        plane_azimuth_deg: azimuth of the mirror plane, which holds the world's vertical axis; an
            angle and the one 180 degrees on name the same plane.
    """
    azimuth = np.deg2rad(plane_azimuth_deg)
    normal = np.array([np.cos(azimuth), np.sin(azimuth), 0.0, 0.0])
    reflection = np.eye(4) - 2 * np.outer(normal, normal)
    camera = reference.camera
    viewmat = np.diag([-1.0, 1, 1, 1]) @ camera.viewmats[0].cpu().numpy().astype(float) @ reflection
    Ks = camera.Ks.clone()
    Ks[:, 0, 2] = camera.width - Ks[:, 0, 2]
    mirrored = Cameras(torch.from_numpy(viewmat).float()[None], Ks, camera.width, camera.height)
    return Reference(np.ascontiguousarray(reference.rgba[:, ::-1]), mirrored)


def place_mirror_reference(
    volume: Volume,
    reference: Reference,
    first: Reference,
    settings: MeshSettings = MeshSettings(),
) -> tuple[Reference, float]:
    """Find where the mirror plane stands: move the mirrored camera until silhouettes agree best.

    The plane goes through the object's own middle, which need not be the picture's. Moving a plane
    along its normal moves the mirrored camera twice as far. The normal points from one camera to
    the other.

    Args:
        volume: the solid.
        reference: as returned by ``mirror_reference``.
        first: the picture that was mirrored.
        settings: the planes that are tried.

    Returns:
        the reference with its camera moved, and the intersection over union of the silhouettes.
    """
    size, reach = settings.placing_pixels, settings.mirror_reach
    camera = reference.camera.resized(size)
    between = (camera.positions[0] - first.camera.positions[0]).numpy().astype(np.float64)
    distance = float(np.linalg.norm(between))
    offsets = np.linspace(-reach, reach, settings.mirror_planes) if distance > 1e-3 else np.zeros(1)
    normal = between / max(distance, 1e-3)
    wanted = resize_map(reference.coverage, size) >= 0.5
    shell = np.argwhere((volume.field < 0) & (volume.field > -2 * volume.voxel))
    points, row = shell * volume.voxel + volume.origin, native.camera_rows(camera)

    def measure_agreement(offset: float) -> float:
        seen = np.zeros((size, size), dtype=bool)
        native_outline.mark_pixels(points, -2 * offset * normal, row, seen)
        return float((seen & wanted).sum() / max((seen | wanted).sum(), 1))

    agreements = [found for _, found in run_in_threads(measure_agreement, offsets.tolist())]
    best = int(np.argmax(agreements - settings.mirror_offset_cost * np.abs(offsets)))
    viewmats = reference.camera.viewmats.clone()
    shift = torch.from_numpy(2 * offsets[best] * normal).to(viewmats)
    viewmats[0, :3, 3] -= viewmats[0, :3, :3] @ shift
    moved = replace(reference.camera, viewmats=viewmats)
    return replace(reference, camera=moved), agreements[best]


def cut_outside_outline(
    volume: Volume, reference: Reference, pixels: int = MeshSettings.cutting_pixels
) -> Volume:
    """Cut off what stands out of the picture's outline, at ``pixels`` a side; add nothing."""
    camera = reference.camera.resized(pixels)
    distance = measure_distance(resize_map(reference.coverage, pixels), 0.5)
    walls = float(volume.field.max())
    outside = measure_outside(volume, np.arange(volume.field.size), camera, distance)
    outside = np.minimum(outside, walls).astype(np.float32).reshape(volume.field.shape)
    field = np.maximum(volume.field.astype(np.float32), outside)
    return Volume(close_walls(field, walls), volume.origin, volume.voxel)


def match_outlines(
    volume: Volume, references: Sequence[Reference], settings: MeshSettings = MeshSettings()
) -> tuple[Volume, list[Reference]]:
    """Give the solid the first picture's outline, and cut off what stands out of the others'.

    Args:
        volume: settled; its walls are outside.
        references: the picture, then mirrored ones.
        settings: how outlines are placed and matched.

    Returns:
        a volume of the same size, and the pictures that show the same object, their cameras placed.
    """
    first, *others = references
    kept = [first]
    for other in others:
        placed, agreement = place_mirror_reference(volume, other, first, settings)
        if agreement >= settings.mirror_agreement:
            volume = cut_outside_outline(volume, placed, settings.cutting_pixels)
            kept.append(placed)
    return match_reference_outline(volume, first, settings), kept
