# SPDX-License-Identifier: Apache-2.0
"""Metrics of pictures: masks, PSNR, MSE, and SSIM on the object's box."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image
from skimage.metrics import structural_similarity

from gsv3d.masks import box_of

_MSE_FLOOR = 1e-10

_SSIM_MARGIN = 10
"""Pixels around a box that are filtered with it: the window reaches 5, and spans 11."""


@dataclass(frozen=True)
class ViewScores:
    """V views compared with the true ones, (V,) float64 each.

    Attributes:
        psnr: dB of sRGB on white, at most 100.
        ssim: mean over the true object's box.
        mse: squared error of sRGB in 0..1 on white.
        mask_iou: intersection over union of alpha above one half.
    """

    psnr: np.ndarray
    ssim: np.ndarray
    mse: np.ndarray
    mask_iou: np.ndarray


@dataclass(frozen=True)
class Views:
    """V pictures of an object.

    Attributes:
        color: (V, H, W, 3) float in 0..1, on white.
        mask: (V, H, W) bool, where the object is.
    """

    color: np.ndarray
    mask: np.ndarray

    @classmethod
    def of_rgba(cls, rgba: np.ndarray) -> Views:
        """Return the views of (V, H, W, 4) uint8 pictures with straight alpha."""
        return cls(on_white(rgba), rgba[..., 3] > 127)

    @classmethod
    def resized(cls, color: np.ndarray, mask: np.ndarray, size: int) -> Views:
        """Return views brought to ``size`` pixels.

        Colors go through Lanczos' filter; a pixel is in the mask where half or more of it was.

        Args:
            color: (V, S, S, 3) uint8 on white.
            mask: (V, S, S) bool.
            size: width and height in pixels.
        """
        if color.shape[1] != size:
            color = np.stack([_resize(picture, size) for picture in color])
            covered = mask.astype(np.uint8) * 255
            mask = np.stack([_resize(picture, size) for picture in covered]) > 127
        return cls(color.astype(np.float64) / 255, mask)

    def __len__(self) -> int:
        return len(self.color)

    def __getitem__(self, index: slice) -> Views:
        return Views(self.color[index], self.mask[index])


def _resize(picture: np.ndarray, size: int) -> np.ndarray:
    filters = Image.Resampling
    chosen = filters.LANCZOS if picture.ndim == 3 else filters.BILINEAR
    return np.asarray(Image.fromarray(picture).resize((size, size), chosen))


def compare_views(views: Views, true: Views) -> ViewScores:
    """Compare pictures with the true ones, one with one.

    Raises:
        ValueError: the shapes differ.
    """
    if views.color.shape != true.color.shape or views.mask.shape != true.mask.shape:
        raise ValueError(f"views {views.color.shape} cannot be compared with {true.color.shape}")
    scores = [
        (psnr(a, b), ssim_in_box(a, b, find_object_box(true_mask)), mse(a, b),
         mask_iou(mask, true_mask))
        for a, b, mask, true_mask in zip(
            views.color, true.color, views.mask, true.mask, strict=True
        )
    ]  # fmt: skip
    return ViewScores(*np.array(scores, dtype=np.float64).reshape(-1, 4).T)


def mask_iou(first: np.ndarray, second: np.ndarray) -> float:
    """Return the intersection over union of two bool arrays; 1 when both are empty."""
    union = np.logical_or(first, second).sum()
    return float(np.logical_and(first, second).sum() / union) if union else 1.0


def on_white(rgba: np.ndarray) -> np.ndarray:
    """Compose (..., 4) uint8 with straight alpha to (..., 3) float in 0..1 on white."""
    values = rgba.astype(np.float64) / 255
    alpha = values[..., 3:]
    return values[..., :3] * alpha + (1 - alpha)


def mse(first: np.ndarray, second: np.ndarray) -> float:
    """Return the mean squared error of two pictures."""
    return float(np.mean((first - second) ** 2))


def psnr(first: np.ndarray, second: np.ndarray) -> float:
    """Return the PSNR in dB of two pictures in 0..1; 100, the most, for equal ones."""
    return -10 * float(np.log10(max(mse(first, second), _MSE_FLOOR)))


def find_object_box(mask: np.ndarray) -> tuple[slice, slice]:
    """Return rows and columns of a mask's box; the whole picture where the mask is empty."""
    return box_of(mask) or (slice(0, mask.shape[0]), slice(0, mask.shape[1]))


def ssim_in_box(first: np.ndarray, second: np.ndarray, box: tuple[slice, slice]) -> float:
    """Return the mean structural similarity over a box of two (H, W, 3) pictures in 0..1.

    Wang et al. 2004, with their Gaussian window and constants, the mean over the channels. On
    white, most of a picture is equal without any merit, so only the box counts.
    """
    cut = tuple(slice(max(0, s.start - _SSIM_MARGIN), s.stop + _SSIM_MARGIN) for s in box)
    _, values = structural_similarity(
        first[cut], second[cut], data_range=1, channel_axis=-1, gaussian_weights=True, sigma=1.5,
        use_sample_covariance=False, full=True,
    )  # fmt: skip
    inside = [slice(s.start - c.start, s.stop - c.start) for s, c in zip(box, cut, strict=True)]
    return float(values[tuple(inside)].mean())
