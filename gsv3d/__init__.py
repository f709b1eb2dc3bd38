# SPDX-License-Identifier: Apache-2.0
"""GSV3D: one picture to multi-view latents, 3D Gaussians and a textured mesh."""

from gsv3d._version import __version__

__all__ = ["__version__"]
