# SPDX-License-Identifier: Apache-2.0
"""The container for 3D Gaussians."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import BinaryIO

import numpy as np
import torch
from torch import Tensor

from gsv3d.gaussians import sh as harmonics
from gsv3d.gaussians.ply import read_ply, write_ply

MIN_OPACITY = 0.005
"""A fainter Gaussian changes no pixel by a gray level (3D Gaussian Splatting prunes there too)."""


@dataclass(frozen=True)
class Gaussians:
    """N 3D Gaussians. All tensors share a floating-point type and a device.

    Attributes:
        means: (N, 3) centers in the world.
        quats: (N, 4) rotations wxyz, of any length above 0.
        scales: (N, 3) standard deviations along the rotated axes, linear, above 0.
        opacities: (N,) in 0..1.
        sh: (N, K, 3) spherical harmonics, K = (degree + 1) squared, degree 0..3.
    """

    means: Tensor
    quats: Tensor
    scales: Tensor
    opacities: Tensor
    sh: Tensor

    def __post_init__(self) -> None:
        count = self.means.shape[0] if self.means.ndim else 0
        for name, shape in (
            ("means", (count, 3)),
            ("quats", (count, 4)),
            ("scales", (count, 3)),
            ("opacities", (count,)),
        ):
            found = tuple(getattr(self, name).shape)
            if found != shape:
                raise ValueError(f"{name} has shape {found}; it must be {shape}.")
        found = tuple(self.sh.shape)
        if len(found) != 3 or found[0] != count or found[2] != 3:
            raise ValueError(f"sh has shape {found}; it must be ({count}, K, 3).")
        harmonics.find_degree(found[1])
        for field in fields(self):
            tensor = getattr(self, field.name)
            if not tensor.is_floating_point() or tensor.dtype != self.means.dtype:
                raise ValueError(
                    f"{field.name} is {tensor.dtype}; it must be floating-point and, as means, "
                    f"{self.means.dtype}."
                )
            if tensor.device != self.means.device:
                raise ValueError(
                    f"{field.name} is on {tensor.device}, means on {self.means.device}."
                )

    def validate(self) -> Gaussians:
        """Check the values, which construction does not (on a card that would wait for it).

        Raises:
            ValueError: a field with NaN or infinity, scales not above 0, opacities outside 0..1,
                quats of length 0.
        """
        for name, array in vars(self).items():
            if not torch.isfinite(array).all():
                raise ValueError(f"{name} has values that are NaN or infinite.")
        if not (self.scales > 0).all():
            raise ValueError("scales has values of 0 or below; they must be above 0.")
        if not ((self.opacities >= 0) & (self.opacities <= 1)).all():
            raise ValueError("opacities has values outside 0..1.")
        if not (self.quats.norm(dim=-1) > 0).all():
            raise ValueError("quats has rotations of length 0.")
        return self

    def __len__(self) -> int:
        return self.means.shape[0]

    @property
    def degree(self) -> int:
        """Return the degree of the spherical harmonics, 0..3."""
        return harmonics.find_degree(self.sh.shape[1])

    @property
    def device(self) -> torch.device:
        return self.means.device

    def rgb(self) -> Tensor:
        """Return (N, 3) view-independent color; not limited to 0..1."""
        return 0.5 + harmonics.SH_C0 * self.sh[:, 0]

    def to(self, *args: object, **kwargs: object) -> Gaussians:
        """Move to another device or floating-point type, as ``torch.Tensor.to`` does."""
        moved = {f.name: getattr(self, f.name).to(*args, **kwargs) for f in fields(self)}
        return replace(self, **moved)

    def detach(self) -> Gaussians:
        return replace(self, **{f.name: getattr(self, f.name).detach() for f in fields(self)})

    def filter(self, mask: Tensor) -> Gaussians:
        """Return those that a (N,) bool mask keeps, or that an index tensor names."""
        return replace(self, **{f.name: getattr(self, f.name)[mask] for f in fields(self)})

    def visible(self) -> Gaussians:
        """Return those that can be seen: finite, with an opacity of at least ``MIN_OPACITY``."""
        keep = self.opacities >= MIN_OPACITY
        for values in vars(self).values():
            keep = keep & torch.isfinite(values).reshape(len(self), -1).all(dim=1)
        return self.filter(keep)

    def numpy(self) -> dict[str, np.ndarray]:
        """Return the five arrays by name, on the CPU."""
        return {f.name: getattr(self, f.name).detach().cpu().numpy() for f in fields(self)}

    @classmethod
    def from_numpy(cls, arrays: Mapping[str, np.ndarray]) -> Gaussians:
        """Make a copy of the five arrays by name, as ``numpy`` and ``read_ply`` give them."""
        return cls(**{f.name: torch.tensor(np.asarray(arrays[f.name])) for f in fields(cls)})

    @classmethod
    def load_ply(cls, path: str | os.PathLike[str]) -> Gaussians:
        """Read a 3DGS PLY onto the CPU.

        Warns and raises as ``gsv3d.gaussians.ply.read_ply`` does.
        """
        return cls.from_numpy(read_ply(path))

    def save_ply(self, target: str | os.PathLike[str] | BinaryIO) -> None:
        """Write a 3DGS PLY; raises as ``gsv3d.gaussians.ply.write_ply`` does."""
        write_ply(target, self.to(torch.float32).numpy())

    @classmethod
    def from_rgb(
        cls, means: Tensor, quats: Tensor, scales: Tensor, opacities: Tensor, rgb: Tensor
    ) -> Gaussians:
        """Make Gaussians whose (N, 3) colors in 0..1 are the same from all sides."""
        return cls(means, quats, scales, opacities, harmonics.rgb_to_sh(rgb)[:, None])
