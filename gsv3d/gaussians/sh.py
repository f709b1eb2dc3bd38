# SPDX-License-Identifier: Apache-2.0
"""Real spherical harmonics to degree 3, in the order and with the signs of 3D Gaussian Splatting.

A color seen along the unit direction d (from the camera to the Gaussian) is
``0.5 + sum_k Y_k(d) * sh_k``, clamped at 0 from below (Kerbl et al. 2023, section 4; the constants
are those of Sloan, "Efficient Spherical Harmonic Evaluation", JCGT 2013).
"""

from __future__ import annotations

import torch
from torch import Tensor

SH_C0 = 0.28209479177387814
"""Y_0, the constant harmonic: sqrt(1 / (4 pi))."""

_C1 = 0.4886025119029199
_C2 = (1.0925484305920792, 0.31539156525252005, 0.5462742152960396)
_C3 = (
    0.5900435899266435,
    2.890611442640554,
    0.4570457994644658,
    0.3731763325901154,
    1.445305721320277,
)

MAX_DEGREE = 3


def count_coefficients(degree: int) -> int:
    """Return the number of coefficients per color channel: (degree + 1) squared."""
    if not 0 <= degree <= MAX_DEGREE:
        raise ValueError(f"degree is {degree}; it must be between 0 and {MAX_DEGREE}.")
    return (degree + 1) ** 2


def find_degree(coefficients: int) -> int:
    """Return the degree that has this many coefficients per channel (1, 4, 9 or 16)."""
    for degree in range(MAX_DEGREE + 1):
        if count_coefficients(degree) == coefficients:
            return degree
    raise ValueError(f"{coefficients} SH coefficients per channel; it must be 1, 4, 9 or 16.")


def rgb_to_sh(rgb: Tensor) -> Tensor:
    """Return the degree-0 coefficient of a color in 0..1, any shape."""
    return (rgb - 0.5) / SH_C0


def evaluate_basis(directions: Tensor, degree: int) -> Tensor:
    """Evaluate the harmonics.

    Args:
        directions: (..., 3) unit vectors.
        degree: 0..3.

    Returns:
        (..., K) with K = (degree + 1) squared.
    """
    coefficients = count_coefficients(degree)
    x, y, z = directions.unbind(-1)
    values = [torch.full_like(x, SH_C0)]
    if degree >= 1:
        values += [-_C1 * y, _C1 * z, -_C1 * x]
    if degree >= 2:
        xx, yy, zz = x * x, y * y, z * z
        values += [
            _C2[0] * x * y,
            -_C2[0] * y * z,
            _C2[1] * (2 * zz - xx - yy),
            -_C2[0] * x * z,
            _C2[2] * (xx - yy),
        ]
    if degree >= 3:
        values += [
            -_C3[0] * y * (3 * xx - yy),
            _C3[1] * x * y * z,
            -_C3[2] * y * (4 * zz - xx - yy),
            _C3[3] * z * (2 * zz - 3 * xx - 3 * yy),
            -_C3[2] * x * (4 * zz - xx - yy),
            _C3[4] * z * (xx - yy),
            -_C3[0] * x * (xx - 3 * yy),
        ]
    assert len(values) == coefficients
    return torch.stack(values, dim=-1)


def evaluate(sh: Tensor, directions: Tensor) -> Tensor:
    """Evaluate the colors seen along directions.

    Args:
        sh: (..., K, 3) coefficients, K in 1, 4, 9, 16.
        directions: (..., 3), any length above 0, broadcast against sh's leading dimensions.

    Returns:
        (..., 3) colors, at least 0, not limited above.
    """
    degree = find_degree(sh.shape[-2])
    if degree == 0:
        color = SH_C0 * sh[..., 0, :]
    else:
        unit = torch.nn.functional.normalize(directions, dim=-1)
        color = (evaluate_basis(unit, degree)[..., None] * sh).sum(dim=-2)
    return (color + 0.5).clamp_min(0.0)
