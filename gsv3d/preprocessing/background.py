# SPDX-License-Identifier: Apache-2.0
"""Cutting an object out of a picture without alpha.

If ``rembg`` is installed (an optional extra; it brings a segmentation network) it does the work.
Otherwise the background is learnt from the picture's border: a smooth colour surface in CIELAB
where the border is plain, a mixture of colours where it is not. Colour models of object and
background are then refined in turns with the mask, as in GrabCut (Rother, Kolmogorov and Blake
2004), the mask being the solution of a random walk with priors on the picture's edges (Grady 2005,
"Multilabel random walker image segmentation using prior models") in place of a graph cut. The last
step is a guided filter (He, Sun and Tang 2010) at full size.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass

import numpy as np
from PIL import Image
from scipy import ndimage, sparse
from scipy.cluster.vq import kmeans2
from scipy.sparse.linalg import cg
from skimage.color import rgb2lab

WORK_SIZE = 224
"""Longer side of the picture on which the mask is found."""

_JND = 2.3
"""Just noticeable difference in CIELAB: the least spread a background is credited with."""


@dataclass(frozen=True)
class _Mixture:
    """K Gaussians in CIELAB: weights (K,), means (K, 3), inverse covariances, log determinants."""

    weights: np.ndarray
    means: np.ndarray
    precisions: np.ndarray
    log_determinants: np.ndarray

    def log_likelihood(self, lab: np.ndarray) -> np.ndarray:
        """(N,) of colours (N, 3)."""
        offsets = lab[:, None] - self.means
        distance = np.einsum("nki,kij,nkj->nk", offsets, self.precisions, offsets)
        terms = np.log(self.weights) - 0.5 * (distance + self.log_determinants)
        top = terms.max(axis=1, keepdims=True)
        return (top + np.log(np.exp(terms - top).sum(axis=1, keepdims=True)))[:, 0]


def remove_background(rgb: np.ndarray) -> np.ndarray:
    """Coverage of the object the picture shows.

    Args:
        rgb: (H, W, 3) uint8 sRGB.

    Returns:
        (H, W) float32 alpha in 0..1; all 0 where nothing stands out from the background.
    """
    if importlib.util.find_spec("rembg") is not None:
        return _by_rembg(rgb)
    height, width = rgb.shape[:2]
    scale = min(1.0, WORK_SIZE / max(height, width))
    small_size = (max(8, round(width * scale)), max(8, round(height * scale)))
    small = np.asarray(Image.fromarray(rgb).resize(small_size, Image.Resampling.BOX))
    lab = rgb2lab(small).astype(np.float64)

    plain, probability = _first_guess(lab)
    if probability is None:
        return np.zeros((height, width), dtype=np.float32)
    edges = _laplacian(lab)
    mask = _walk(edges, probability, lab.shape[:2])
    for _ in range(3):
        if not 0.002 < mask.mean() < 0.98:
            break
        refined = _from_mixtures(lab, mask, probability)
        mask = _walk(edges, refined, lab.shape[:2])
    mask = _tidy(mask, plain)
    return _sharpen(mask, rgb)


def _by_rembg(rgb: np.ndarray) -> np.ndarray:
    import rembg

    mask = rembg.remove(Image.fromarray(rgb), only_mask=True)
    return np.asarray(mask.convert("L"), dtype=np.float32) / 255.0


def _frame(shape: tuple[int, ...]) -> np.ndarray:
    """(H, W) bool: the border that is taken for background."""
    height, width = shape[:2]
    thickness = max(2, round(0.03 * max(height, width)))
    frame = np.ones((height, width), dtype=bool)
    frame[thickness:-thickness, thickness:-thickness] = False
    return frame


def _first_guess(lab: np.ndarray) -> tuple[bool, np.ndarray | None]:
    """Whether the border is plain, and the (H, W) probability of object judged by it alone.

    The probability is None if nothing stands out.
    """
    frame = _frame(lab.shape)
    surface, spread = _fit_surface(lab, frame)
    distance = np.sqrt(np.mean(((lab - surface) / spread) ** 2, axis=-1) * 3)
    plain = float(np.median(spread)) < 6.0
    if plain:
        probability = 1.0 / (1.0 + np.exp(-(distance - 5.0)))
    else:
        background = _fit_mixture(lab[frame], 5)
        surprise = -background.log_likelihood(lab.reshape(-1, 3)).reshape(frame.shape)
        usual = np.quantile(surprise[frame], 0.9)
        probability = 1.0 / (1.0 + np.exp(-(surprise - usual) / 2.0))
        # Photographs put their subject in the middle; a busy border says little by itself.
        probability = 0.65 * probability + 0.35 * _centre_prior(frame.shape)
    probability = np.where(frame, np.minimum(probability, 0.5 if plain else 0.1), probability)
    inner = ndimage.median_filter(probability, 5)
    if (inner > 0.6).mean() < 0.002:
        return plain, None
    return plain, probability


def _fit_surface(lab: np.ndarray, frame: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A quadratic colour surface through the border, outliers left out step by step.

    Returns:
        (H, W, 3) background colour everywhere and (3,) its spread.
    """
    height, width = frame.shape
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    basis = np.stack([np.ones_like(x), x, y, x * x, y * y, x * y], axis=-1)
    rows, colours = basis[frame], lab[frame]
    keep = np.ones(len(rows), dtype=bool)
    # Start from the border's median colour, so that an object that touches it does not count.
    residual = np.linalg.norm(colours - np.median(colours, axis=0), axis=1)
    for _ in range(6):
        keep = residual <= max(np.quantile(residual, 0.7), 2 * _JND)
        solution = np.linalg.lstsq(rows[keep], colours[keep], rcond=None)[0]
        residual = np.linalg.norm(colours - rows @ solution, axis=1)
    errors = np.abs(colours - rows @ solution)
    spread = np.maximum(1.4826 * np.median(errors, axis=0), _JND)
    return basis @ solution, spread


def _centre_prior(shape: tuple[int, ...]) -> np.ndarray:
    y, x = np.mgrid[-1 : 1 : shape[0] * 1j, -1 : 1 : shape[1] * 1j]
    return np.exp(-2.0 * (x * x + y * y))


def _fit_mixture(colours: np.ndarray, count: int, weights: np.ndarray | None = None) -> _Mixture:
    """k-means, then one Gaussian a cluster; at most some thousand samples are looked at."""
    rng = np.random.default_rng(0)
    chosen = rng.choice(len(colours), size=4000, p=weights)
    sample = colours[chosen]
    if len(np.unique(sample, axis=0)) > 8 * count:
        centres, labels = kmeans2(sample, count, minit="++", seed=rng, iter=12)
    else:  # a picture of few flat colours: one cluster, its spread tells enough
        centres, labels = sample[:1], np.zeros(len(sample), dtype=int)
    means, precisions, determinants, shares = [], [], [], []
    for k in range(len(centres)):
        members = sample[labels == k]
        if len(members) < 8:
            continue
        covariance = np.cov(members.T) + np.eye(3) * _JND**2
        means.append(members.mean(axis=0))
        precisions.append(np.linalg.inv(covariance))
        determinants.append(np.linalg.slogdet(covariance)[1])
        shares.append(len(members) / len(sample))
    return _Mixture(np.array(shares), np.array(means), np.array(precisions), np.array(determinants))


def _from_mixtures(lab: np.ndarray, mask: np.ndarray, before: np.ndarray) -> np.ndarray:
    """(H, W) probability of object by colour models of what the mask calls object and ground."""
    flat, inside = lab.reshape(-1, 3), mask.reshape(-1)
    sure = np.clip(inside, 1e-6, None) ** 2
    ground = np.clip(1.0 - inside, 1e-6, None) ** 2
    front = _fit_mixture(flat, 5, sure / sure.sum())
    back = _fit_mixture(flat, 5, ground / ground.sum())
    ratio = front.log_likelihood(flat) - back.log_likelihood(flat)
    colour = 1.0 / (1.0 + np.exp(-np.clip(ratio, -30, 30)))
    # A colour that is in both is decided by what the border said first.
    mixed = 0.6 * colour.reshape(mask.shape) + 0.4 * before
    return np.where(_frame(mask.shape), np.minimum(mixed, before), mixed)


def _laplacian(lab: np.ndarray) -> sparse.csr_matrix:
    """Graph Laplacian of the pixel grid; neighbours of like colour are tied together."""
    height, width = lab.shape[:2]
    ids = np.arange(height * width).reshape(height, width)
    pairs, weights = [], []
    for one, other in ((np.s_[:, :-1], np.s_[:, 1:]), (np.s_[:-1], np.s_[1:])):
        difference = ((lab[one] - lab[other]) ** 2).sum(axis=-1)
        pairs.append(np.stack([ids[one].ravel(), ids[other].ravel()]))
        weights.append(difference.ravel())
    edges, squared = np.concatenate(pairs, axis=1), np.concatenate(weights)
    tie = np.exp(-squared / (2.0 * max(float(np.mean(squared)), _JND**2))) + 1e-3
    adjacency = sparse.coo_matrix((tie, edges), shape=(ids.size, ids.size))
    adjacency = (adjacency + adjacency.T).tocsr()
    return sparse.diags(np.asarray(adjacency.sum(axis=1)).ravel()) - adjacency


def _walk(
    laplacian: sparse.csr_matrix, probability: np.ndarray, shape: tuple[int, ...]
) -> np.ndarray:
    """(H, W) smooth mask: min sum tie (x_i - x_j)^2 + gamma * sum c_i (x_i - p_i)^2."""
    p = probability.ravel()
    confidence = 0.02 + 0.3 * np.abs(2 * p - 1) ** 2
    system = laplacian + sparse.diags(confidence)
    solution, _ = cg(
        system, confidence * p, x0=p, rtol=1e-3, maxiter=300, M=sparse.diags(1 / system.diagonal())
    )
    return np.clip(solution, 0, 1).reshape(shape)


def _tidy(mask: np.ndarray, plain: bool) -> np.ndarray:
    """Closes pinholes in the object and wipes specks beside it.

    On a plain background a larger hole is a real one, a handle's for one. Where object and
    background share colours it is more likely a mistake and is filled.
    """
    solid = mask > 0.5
    if not solid.any():
        return np.zeros_like(mask)
    if not plain:
        reach = max(2, round(0.02 * max(mask.shape)))
        padded = np.pad(solid, reach)
        closed = ndimage.binary_closing(padded, iterations=reach)
        solid = ndimage.binary_fill_holes(closed)[reach:-reach, reach:-reach]
    holes, count = ndimage.label(~solid)
    sizes = np.bincount(holes.ravel(), minlength=count + 1)
    border = np.unique(np.concatenate([holes[0], holes[-1], holes[:, 0], holes[:, -1]]))
    small = (sizes < 0.01 * solid.sum()) & ~np.isin(np.arange(count + 1), border)
    small[0] = False
    solid = solid | small[holes]
    parts, count = ndimage.label(solid, structure=np.ones((3, 3)))
    sizes = np.bincount(parts.ravel(), minlength=count + 1)
    sizes[0] = 0
    keep = sizes >= (0.02 if plain else 0.1) * sizes.max()
    filled = np.where(solid & (mask <= 0.5), 1.0, mask)
    return np.where(keep[parts], filled, 0.0)


def _sharpen(mask: np.ndarray, rgb: np.ndarray) -> np.ndarray:
    """The mask at full size, its edge moved to the picture's own edge: a guided filter."""
    height, width = rgb.shape[:2]
    large = np.asarray(
        Image.fromarray(mask.astype(np.float32)).resize((width, height), Image.Resampling.BICUBIC)
    )
    large = np.clip((large - 0.5) * 4 + 0.5, 0, 1)
    guide = rgb.astype(np.float32).mean(axis=-1) / 255.0
    radius = 2 * max(1, round(max(height, width) / WORK_SIZE)) + 1

    def mean(values: np.ndarray) -> np.ndarray:
        return ndimage.uniform_filter(values, 2 * radius + 1, mode="nearest")

    centre, target = mean(guide), mean(large)
    slope = (mean(guide * large) - centre * target) / (mean(guide * guide) - centre**2 + 1e-4)
    offset = target - slope * centre
    result = mean(slope) * guide + mean(offset)
    # Only near the edge: inside and outside the mask has the word.
    edge = (ndimage.maximum_filter(large, radius) > 0.5) & (
        ndimage.minimum_filter(large, radius) < 0.5
    )
    result = np.where(edge, result, large)
    return np.clip((result - 0.5) * 1.6 + 0.5, 0, 1).astype(np.float32)
