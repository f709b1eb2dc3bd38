# SPDX-License-Identifier: Apache-2.0
"""Metrics by pretrained networks: LPIPS, CLIP-S, CLIP-IQA, FID and KID.

Only what is on this machine is used, packages and weights alike; nothing is downloaded. What is
missing is named with the reason, and its columns say "not installed".
"""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy import linalg

CLIP = "openai/clip-vit-large-patch14"
"""CLIP model unless another is named: a name in the local Hugging Face cache, or a folder."""

PROMPTS = ("Good photo.", "Bad photo.")
"""CLIP-IQA's pair of opposites (Wang et al. 2023, section 3.1)."""

LPIPS_WEIGHTS = "alexnet-owt-7be5be79.pth"
INCEPTION_WEIGHTS = "pt_inception-2015-12-05-6726825d.pth"

BATCH = 16


Lpips = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""Two sets of (V, H, W, 3) pictures in 0..1 to their (V,) distances."""


@dataclass(frozen=True)
class Perceptual:
    """The metrics that are installed.

    Attributes:
        lpips: LPIPS, or None.
        clip: for CLIP-S and CLIP-IQA, or None.
        inception: (V, H, W, 3) pictures in 0..1 to (V, D) features, for FID and KID, or None.
        missing: reasons why metrics are not there, by the names of their columns.
        clip_name: name of the CLIP model.
    """

    lpips: Lpips | None = None
    clip: Clip | None = None
    inception: Callable[[np.ndarray], np.ndarray] | None = None
    missing: Mapping[str, str] = field(default_factory=dict)
    clip_name: str = CLIP

    @property
    def any(self) -> bool:
        return any(part is not None for part in (self.lpips, self.clip, self.inception))


class NotInstalled(Exception):  # noqa: N818 - a state, not an error
    """A metric's package or weights are not on this machine; says which."""


def load_perceptual(clip: str = CLIP, device: Any = "cpu") -> Perceptual:
    """Load all metrics whose packages and weights are here."""
    missing: dict[str, str] = {}
    parts: dict[str, Any] = {}
    for part, columns, load in (
        ("lpips", ("lpips",), load_lpips),
        ("clip", ("clip_s", "clip_iqa"), lambda device: load_clip(clip, device)),
        ("inception", ("fid", "kid"), load_inception),
    ):
        try:
            parts[part] = load(device)
        except NotInstalled as reason:
            missing |= dict.fromkeys(columns, str(reason))
    return Perceptual(**parts, missing=missing, clip_name=clip)


def _require(package: str) -> None:
    if importlib.util.find_spec(package) is None:
        raise NotInstalled(f"the package {package} is missing")


def _require_weights(name: str) -> Path:
    path = Path(torch.hub.get_dir()) / "checkpoints" / name
    if not path.is_file():
        raise NotInstalled(f"the weights {path} are missing")
    return path


def load_lpips(device: Any) -> Lpips:
    """Load LPIPS 0.1 on AlexNet (Zhang et al. 2018), of the package lpips.

    Raises:
        NotInstalled: a package or the weights are not on this machine.
    """
    for package in ("lpips", "torchvision"):
        _require(package)
    _require_weights(LPIPS_WEIGHTS)
    import lpips

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # lpips calls torchvision by names of old
        network = lpips.LPIPS(net="alex", verbose=False).eval().to(device)

    def compare(first: torch.Tensor, second: torch.Tensor) -> np.ndarray:
        return network(first * 2 - 1, second * 2 - 1).flatten().float().cpu().numpy()

    return lambda first, second: _run_in_batches(compare, device, first, second)


def load_clip(name: str, device: Any) -> Clip:
    """Load a CLIP model of transformers, from the local cache or a folder.

    Raises:
        NotInstalled: it is not there.
    """
    from transformers import AutoTokenizer, CLIPModel

    try:
        model = CLIPModel.from_pretrained(name, local_files_only=True).eval().to(device)
        tokenizer = AutoTokenizer.from_pretrained(name, local_files_only=True)
    except (OSError, ValueError) as error:
        raise NotInstalled(f"the CLIP model {name} is not on this machine") from error
    return Clip(model, tokenizer, device)


class Clip:
    """A CLIP model, for CLIP-S and CLIP-IQA."""

    _MEAN = (0.48145466, 0.4578275, 0.40821073)
    _STD = (0.26862954, 0.26130258, 0.27577711)

    def __init__(self, model: Any, tokenizer: Any, device: Any) -> None:
        self._model, self._device = model, device
        tokens = tokenizer(list(PROMPTS), padding=True, return_tensors="pt").to(device)
        with torch.no_grad():
            self._prompts = _scale_to_unit(_get_embedding(model.get_text_features(**tokens)))
        self._temperature = float(model.logit_scale.detach().exp())

    def embed(self, pictures: np.ndarray) -> np.ndarray:
        """Embed (V, H, W, 3) pictures in 0..1 as (V, D) unit vectors."""
        size = self._model.config.vision_config.image_size
        mean, std = (
            torch.tensor(v, device=self._device)[:, None, None] for v in (self._MEAN, self._STD)
        )

        def embed(batch: torch.Tensor) -> np.ndarray:
            batch = torch.nn.functional.interpolate(
                batch, (size, size), mode="bicubic", antialias=True
            ).clamp(0, 1)
            features = self._model.get_image_features(pixel_values=(batch - mean) / std)
            return _scale_to_unit(_get_embedding(features))

        return _run_in_batches(embed, self._device, pictures)

    def quality(self, embeddings: np.ndarray) -> np.ndarray:
        """Return (V,) CLIP-IQA in 0..1 of embeddings."""
        logits = self._temperature * embeddings @ self._prompts.T
        return 1 / (1 + np.exp(logits[:, 1] - logits[:, 0]))


def load_inception(device: Any) -> Callable[[np.ndarray], np.ndarray]:
    """Load FID's Inception v3 with its 2,048 features, of the package pytorch-fid.

    Raises:
        NotInstalled: a package or the weights are not on this machine.
    """
    for package in ("pytorch_fid", "torchvision"):
        _require(package)
    _require_weights(INCEPTION_WEIGHTS)
    from pytorch_fid.inception import InceptionV3

    network = InceptionV3([InceptionV3.BLOCK_INDEX_BY_DIM[2048]]).eval().to(device)

    def find_features(batch: torch.Tensor) -> np.ndarray:
        return network(batch)[0].mean(dim=(2, 3)).float().cpu().numpy()

    return lambda pictures: _run_in_batches(find_features, device, pictures)


@torch.no_grad()
def _run_in_batches(
    function: Callable[..., np.ndarray], device: Any, *sets: np.ndarray
) -> np.ndarray:
    """Call a function with (B, 3, H, W) tensors of each set of (V, H, W, 3) pictures; join."""
    batches = [slice(start, start + BATCH) for start in range(0, len(sets[0]), BATCH)]
    return np.concatenate(
        [
            function(*(_make_tensor(pictures[batch], device) for pictures in sets))
            for batch in batches
        ]
    )


def _get_embedding(output: Any) -> Any:
    """Return the embedding, which transformers 5 has within an output and 4 had bare."""
    return getattr(output, "pooler_output", output)


def _scale_to_unit(features: Any) -> np.ndarray:
    features = features / features.norm(dim=-1, keepdim=True)
    return features.float().cpu().numpy()


def _make_tensor(pictures: np.ndarray, device: Any) -> Any:
    return torch.from_numpy(np.asarray(pictures, np.float32)).permute(0, 3, 1, 2).to(device)


def frechet_distance(first: np.ndarray, second: np.ndarray) -> float:
    """Return the Fréchet distance of the normal distributions of (N, D) and (M, D) features.

    ``|m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2))`` (Heusel et al. 2017, equation 6). With
    Inception's features it is the FID. Few samples make it too large: compare equal numbers only.

    Raises:
        ValueError: fewer than two samples.
    """
    if min(len(first), len(second)) < 2:
        raise ValueError("a distribution needs at least two samples")
    a, b = np.asarray(first, np.float64), np.asarray(second, np.float64)
    means = ((a.mean(axis=0) - b.mean(axis=0)) ** 2).sum()
    # tr (C1 C2)^(1/2) is the sum of the singular values of X1 X2^T for C = X^T X: no root of a
    # singular matrix, and no D x D matrix with fewer samples than features.
    centered_a = (a - a.mean(axis=0)) / np.sqrt(len(a) - 1)
    centered_b = (b - b.mean(axis=0)) / np.sqrt(len(b) - 1)
    cross = linalg.svdvals(_find_factor(centered_a) @ _find_factor(centered_b).T).sum()
    return float(means + (centered_a**2).sum() + (centered_b**2).sum() - 2 * cross)


def _find_factor(centered: np.ndarray) -> np.ndarray:
    """Return (r, D) R with R^T R = X^T X, r the smaller of X's sides."""
    count, size = centered.shape
    return centered if count <= size else linalg.qr(centered, mode="r")[0][:size]


def kernel_distance(first: np.ndarray, second: np.ndarray) -> float:
    """Return the squared maximum mean discrepancy of (N, D) and (M, D) features, unbiased.

    With the kernel ``(x . y / D + 1)^3`` (Bińkowski et al. 2018, section 3) and Inception's
    features it is the KID, here over all samples at once and not as a mean over subsets.

    Raises:
        ValueError: fewer than two samples.
    """
    n, m = len(first), len(second)
    if min(n, m) < 2:
        raise ValueError("a distribution needs at least two samples")
    a, b = np.asarray(first, np.float64), np.asarray(second, np.float64)

    def kernel(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        return (x @ y.T / x.shape[1] + 1) ** 3

    aa, bb = kernel(a, a), kernel(b, b)
    within = (aa.sum() - np.trace(aa)) / (n * (n - 1)) + (bb.sum() - np.trace(bb)) / (m * (m - 1))
    return float(within - 2 * kernel(a, b).mean())
