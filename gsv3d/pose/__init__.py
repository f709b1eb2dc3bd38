# SPDX-License-Identifier: Apache-2.0
"""Estimate where a picture was taken from, and the mirror plane of what it shows."""

from gsv3d.pose.estimate import DEFAULT_ELEVATION_DEG, PoseEstimate, estimate_pose
from gsv3d.pose.network import PICTURE_SIZE

__all__ = ["DEFAULT_ELEVATION_DEG", "PICTURE_SIZE", "PoseEstimate", "estimate_pose"]
