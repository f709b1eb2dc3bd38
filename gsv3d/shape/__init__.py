# SPDX-License-Identifier: Apache-2.0
"""Estimate what a picture's object fills of space."""

from gsv3d.shape.estimate import estimate_shape

__all__ = ["estimate_shape"]
