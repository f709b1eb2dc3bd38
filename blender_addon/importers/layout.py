# SPDX-License-Identifier: GPL-3.0-or-later
"""Make the attributes of Gaussians, for points and for native splats. No bpy.

Native splats (Blender 5.3, as its splat writer has them): ``position``, ``scale`` linear,
``rotation`` wxyz, ``radiance:base`` the raw degree-0 SH coefficients and the opacity 0..1, and
one ``radiance:sh_<i>`` per higher coefficient. Points carry the same facts under plain names plus
``Color``, linear RGB and opacity, which is what Blender can show without knowing about SH.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .placement import Fit
from .prepare import GaussianArrays

_KEYS = {
    "FLOAT": "value",
    "FLOAT_VECTOR": "vector",
    "FLOAT_COLOR": "color",
    "FLOAT4": "vector",
    "QUATERNION": "value",
}


@dataclass(frozen=True)
class AttributeValues:
    """One attribute on the POINT domain; ``values`` (N,) or (N, C) float32, contiguous."""

    name: str
    data_type: str
    values: np.ndarray

    @property
    def key(self) -> str:
        """Return the property of an attribute's element that ``foreach_set`` writes."""
        return _KEYS[self.data_type]


def points_layout(arrays: GaussianArrays, fit: Fit) -> list[AttributeValues]:
    """Return the attributes of a mesh of points, positions first."""
    return [
        *_shapes(arrays, fit),
        AttributeValues("opacity", "FLOAT", arrays.opacities),
        AttributeValues("Color", "FLOAT_COLOR", arrays.colors),
        *_coefficients(arrays, "sh_", first=0),
    ]


def splat_layout(arrays: GaussianArrays, fit: Fit) -> list[AttributeValues]:
    """Return the attributes of a point cloud of the type GAUSSIAN_SPLAT, positions first."""
    base = np.concatenate([arrays.sh[:, 0], arrays.opacities[:, None]], axis=1)
    return [
        *_shapes(arrays, fit),
        AttributeValues("radiance:base", "FLOAT4", np.ascontiguousarray(base, np.float32)),
        *_coefficients(arrays, "radiance:sh_", first=1),
    ]


def _shapes(arrays: GaussianArrays, fit: Fit) -> list[AttributeValues]:
    return [
        AttributeValues("position", "FLOAT_VECTOR", fit.apply(arrays.means)),
        AttributeValues("scale", "FLOAT_VECTOR", arrays.scales * np.float32(fit.scale)),
        AttributeValues("rotation", "QUATERNION", arrays.quats),
    ]


def _coefficients(arrays: GaussianArrays, prefix: str, first: int) -> list[AttributeValues]:
    """Return a vector attribute for each coefficient from ``first`` on, numbered from 0."""
    return [
        AttributeValues(
            f"{prefix}{index - first}", "FLOAT_VECTOR", np.ascontiguousarray(arrays.sh[:, index])
        )
        for index in range(first, arrays.sh.shape[1])
    ]
