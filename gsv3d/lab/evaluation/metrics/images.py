# SPDX-License-Identifier: Apache-2.0
"""Metrics of pictures: masks, PSNR, MSE, and SSIM on the object's box."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image
from scipy import ndimage

from gsv3d.masks import box_of

_MSE_FLOOR = 1e-10

SSIM_SIGMA = 1.5
"""Of SSIM's Gaussian window, cut off at 5 pixels: 11 x 11 (Wang et al. 2004, section III-B)."""

_SSIM_RADIUS = 5
_SSIM_C1, _SSIM_C2 = 0.01**2, 0.03**2


@dataclass(frozen=True)
class ViewScores:
    """V views compared with the true ones, (V,) float64 each.

    Attributes:
        psnr: dB of sRGB on white, at most 100.
        ssim: mean over the true object's box.
        mse: of sRGB in 0..1 on white.
        mask_iou: of alpha above one half.
    """

    psnr: np.ndarray
    ssim: np.ndarray
    mse: np.ndarray
    mask_iou: np.ndarray


@dataclass(frozen=True)
class Views:
    """V pictures of an object.

    Attributes:
        colour: (V, H, W, 3) float in 0..1, on white.
        mask: (V, H, W) bool, where the object is.
    """

    colour: np.ndarray
    mask: np.ndarray

    @classmethod
    def of_rgba(cls, rgba: np.ndarray) -> Views:
        """From (V, H, W, 4) uint8 with straight alpha."""
        return cls(on_white(rgba), rgba[..., 3] > 127)

    @classmethod
    def resized(cls, colour: np.ndarray, mask: np.ndarray, size: int) -> Views:
        """From (V, S, S, 3) uint8 on white and (V, S, S) bool, brought to ``size`` pixels.

        Colours by Lanczos' filter, a mask where a half or more of a pixel is in it.
        """
        if colour.shape[1] != size:
            colour = np.stack([_resize(picture, size) for picture in colour])
            covered = mask.astype(np.uint8) * 255
            mask = np.stack([_resize(picture, size) for picture in covered]) > 127
        return cls(colour.astype(np.float64) / 255, mask)

    def __len__(self) -> int:
        return len(self.colour)

    def __getitem__(self, index: slice) -> Views:
        return Views(self.colour[index], self.mask[index])


def _resize(picture: np.ndarray, size: int) -> np.ndarray:
    filters = Image.Resampling
    chosen = filters.LANCZOS if picture.ndim == 3 else filters.BILINEAR
    return np.asarray(Image.fromarray(picture).resize((size, size), chosen))


def compare_views(views: Views, true: Views) -> ViewScores:
    """Compare pictures with the true ones, one with one.

    Raises:
        ValueError: other shapes.
    """
    if views.colour.shape != true.colour.shape or views.mask.shape != true.mask.shape:
        raise ValueError(f"views {views.colour.shape} cannot be compared with {true.colour.shape}")
    pairs = list(zip(views.colour, true.colour, strict=True))
    errors = np.array([mse(a, b) for a, b in pairs])
    boxes = [object_box(mask) for mask in true.mask]
    masks = zip(views.mask, true.mask, strict=True)
    return ViewScores(
        psnr=-10 * np.log10(np.maximum(errors, _MSE_FLOOR)),
        ssim=np.array([ssim_in_box(a, b, box) for (a, b), box in zip(pairs, boxes, strict=True)]),
        mse=errors,
        mask_iou=np.array([mask_iou(a, b) for a, b in masks]),
    )


def mask_iou(first: np.ndarray, second: np.ndarray) -> float:
    """Intersection over union of two boolean masks; 1 when both are empty."""
    union = np.logical_or(first, second).sum()
    return float(np.logical_and(first, second).sum() / union) if union else 1.0


def on_white(rgba: np.ndarray) -> np.ndarray:
    """(..., 4) uint8 with straight alpha to (..., 3) float in 0..1 on white."""
    values = rgba.astype(np.float64) / 255
    alpha = values[..., 3:]
    return values[..., :3] * alpha + (1 - alpha)


def mse(first: np.ndarray, second: np.ndarray) -> float:
    """Mean squared error of two pictures."""
    return float(np.mean((first - second) ** 2))


def psnr(first: np.ndarray, second: np.ndarray) -> float:
    """Peak signal-to-noise ratio in dB of two pictures in 0..1; at most 100 (equal pictures)."""
    return -10 * float(np.log10(max(mse(first, second), _MSE_FLOOR)))


def ssim_map(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """(H, W) structural similarity at every pixel of two (H, W, 3) pictures in 0..1.

    Wang et al. 2004, equation 13, with their Gaussian window and constants, the mean over the
    channels; beyond the rim the picture is mirrored.
    """

    def mean(values: np.ndarray) -> np.ndarray:
        return ndimage.gaussian_filter(
            values, (SSIM_SIGMA, SSIM_SIGMA, 0), mode="reflect", radius=(_SSIM_RADIUS,) * 2 + (0,)
        )

    mean_a, mean_b = mean(first), mean(second)
    var_a = mean(first * first) - mean_a**2
    var_b = mean(second * second) - mean_b**2
    covariance = mean(first * second) - mean_a * mean_b
    top = (2 * mean_a * mean_b + _SSIM_C1) * (2 * covariance + _SSIM_C2)
    bottom = (mean_a**2 + mean_b**2 + _SSIM_C1) * (var_a + var_b + _SSIM_C2)
    return (top / bottom).mean(axis=-1)


def object_box(mask: np.ndarray) -> tuple[slice, slice]:
    """Rows and columns of a mask's box; the whole picture where the mask is empty."""
    return box_of(mask) or (slice(0, mask.shape[0]), slice(0, mask.shape[1]))


def ssim_in_box(first: np.ndarray, second: np.ndarray, box: tuple[slice, slice]) -> float:
    """Mean of ``ssim_map`` over a box: on white, most of a picture is equal without any merit."""
    height, width = first.shape[:2]
    rows, columns = box
    # Only what the windows of the box's pixels reach is filtered; mirroring at a cut inside the
    # picture stays outside the box.
    top, left = max(0, rows.start - _SSIM_RADIUS), max(0, columns.start - _SSIM_RADIUS)
    cut = (
        slice(top, min(height, rows.stop + _SSIM_RADIUS)),
        slice(left, min(width, columns.stop + _SSIM_RADIUS)),
    )
    values = ssim_map(first[cut], second[cut])
    inside = values[rows.start - top : rows.stop - top, columns.start - left : columns.stop - left]
    return float(inside.mean())
