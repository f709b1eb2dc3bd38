# SPDX-License-Identifier: Apache-2.0
"""SV3D: the pose-conditioned video UNet, its conditioning and its guidance."""

from gsv3d.multiview.conditioning import pose_ids
from gsv3d.multiview.guidance import triangular_guidance
from gsv3d.multiview.unet import SV3DUNetSpatioTemporalConditionModel

__all__ = [
    "SV3DUNetSpatioTemporalConditionModel",
    "pose_ids",
    "triangular_guidance",
]
