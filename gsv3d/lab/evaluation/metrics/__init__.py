# SPDX-License-Identifier: Apache-2.0
"""Metrics of pictures, surfaces and volumes."""

from gsv3d.lab.evaluation.metrics.images import (
    Views,
    ViewScores,
    compare_views,
    mask_iou,
    mse,
    on_white,
    psnr,
    ssim_in_box,
)
from gsv3d.lab.evaluation.metrics.shapes import (
    FEW_SAMPLES,
    GRID,
    SURFACE_SAMPLES,
    Surface,
    SurfaceDistance,
    SurfaceSamples,
    icp,
    normalized,
    occupancy,
    sample_surface,
    sample_surface_with_normals,
    surface_distance,
    volume_iou,
)

__all__ = [
    "FEW_SAMPLES",
    "GRID",
    "SURFACE_SAMPLES",
    "Surface",
    "SurfaceDistance",
    "SurfaceSamples",
    "ViewScores",
    "Views",
    "compare_views",
    "icp",
    "mask_iou",
    "mse",
    "normalized",
    "occupancy",
    "on_white",
    "psnr",
    "sample_surface",
    "sample_surface_with_normals",
    "ssim_in_box",
    "surface_distance",
    "volume_iou",
]
