# SPDX-License-Identifier: Apache-2.0
"""Estimate what a picture's object fills of space."""

from gsv3d.shape.estimate import SURE, estimate_shape, find_certainty

__all__ = ["SURE", "estimate_shape", "find_certainty"]
