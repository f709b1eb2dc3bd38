# SPDX-License-Identifier: Apache-2.0
"""Metrics of pictures, surfaces and volumes; numpy and scipy alone but for ``perceptual``."""

from gsv3d.lab.evaluation.metrics.alignment import icp
from gsv3d.lab.evaluation.metrics.images import (
    Views,
    ViewScores,
    compare_views,
    mask_iou,
    mse,
    on_white,
    psnr,
    ssim_map,
)
from gsv3d.lab.evaluation.metrics.surfaces import (
    FEW_SAMPLES,
    SURFACE_SAMPLES,
    THRESHOLDS,
    Surface,
    SurfaceDistance,
    SurfaceSamples,
    normalised,
    point_to_surface,
    sample_surface,
    sample_surface_with_normals,
    surface_distance,
)
from gsv3d.lab.evaluation.metrics.volumes import GRID, occupancy, volume_iou

__all__ = [
    "FEW_SAMPLES",
    "GRID",
    "SURFACE_SAMPLES",
    "THRESHOLDS",
    "Surface",
    "SurfaceDistance",
    "SurfaceSamples",
    "ViewScores",
    "Views",
    "compare_views",
    "icp",
    "mask_iou",
    "mse",
    "normalised",
    "occupancy",
    "on_white",
    "point_to_surface",
    "psnr",
    "sample_surface",
    "sample_surface_with_normals",
    "ssim_map",
    "surface_distance",
    "volume_iou",
]
