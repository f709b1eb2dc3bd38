# SPDX-License-Identifier: Apache-2.0
"""3D Gaussians: the container, its spherical harmonics and its files."""

from gsv3d.gaussians.container import Gaussians
from gsv3d.gaussians.sh import SH_C0

__all__ = ["SH_C0", "Gaussians"]
