# SPDX-License-Identifier: Apache-2.0
"""Views with cameras to Gaussians, fitted from the visual hull of their masks."""

from gsv3d.lifting.fit import lift
from gsv3d.lifting.job import Lifted, lift_to_mesh
from gsv3d.lifting.settings import LiftSettings, LossWeights
from gsv3d.lifting.views import Views, crop

__all__ = [
    "LiftSettings",
    "Lifted",
    "LossWeights",
    "Views",
    "crop",
    "lift",
    "lift_to_mesh",
]
