# SPDX-License-Identifier: Apache-2.0
"""Metrics by pretrained networks, kept in files: LPIPS, CLIP-S, CLIP-IQA, FID and KID.

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

from gsv3d.lab.evaluation.image_metrics import Views
from gsv3d.lab.evaluation.measuring import read_measures, read_views
from gsv3d.lab.evaluation.protocol import Case
from gsv3d.lab.evaluation.store import Evaluation, Run, load_arrays, save_arrays

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


def _require(package: str, weights: str) -> None:
    for name in (package, "torchvision"):
        if importlib.util.find_spec(name) is None:
            raise NotInstalled(f"the package {name} is missing")
    path = Path(torch.hub.get_dir()) / "checkpoints" / weights
    if not path.is_file():
        raise NotInstalled(f"the weights {path} are missing")


def load_lpips(device: Any) -> Lpips:
    """Load LPIPS 0.1 on AlexNet (Zhang et al. 2018), of the package lpips.

    Raises:
        NotInstalled: a package or the weights are not on this machine.
    """
    _require("lpips", LPIPS_WEIGHTS)
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
            self._prompts = _scale_to_unit(model.get_text_features(**tokens).pooler_output)
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
            return _scale_to_unit(features.pooler_output)

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
    _require("pytorch_fid", INCEPTION_WEIGHTS)
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
    tensors = [
        torch.from_numpy(np.asarray(pictures, np.float32)).permute(0, 3, 1, 2) for pictures in sets
    ]
    batches = zip(*(tensor.split(BATCH) for tensor in tensors), strict=True)
    return np.concatenate([function(*(part.to(device) for part in batch)) for batch in batches])


def _scale_to_unit(features: Any) -> np.ndarray:
    features = features / features.norm(dim=-1, keepdim=True)
    return features.float().cpu().numpy()


def _check_samples(*sets: np.ndarray) -> list[np.ndarray]:
    if min(map(len, sets)) < 2:
        raise ValueError("a distribution needs at least two samples")
    return [np.asarray(samples, np.float64) for samples in sets]


def frechet_distance(first: np.ndarray, second: np.ndarray) -> float:
    """Return the Fréchet distance of the normal distributions of (N, D) and (M, D) features.

    ``|m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2))`` (Heusel et al. 2017, equation 6). With
    Inception's features it is the FID. Few samples make it too large: compare equal numbers only.

    Raises:
        ValueError: fewer than two samples.
    """
    a, b = _check_samples(first, second)
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
    a, b = _check_samples(first, second)
    n, m = len(a), len(b)

    def kernel(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        return (x @ y.T / x.shape[1] + 1) ** 3

    aa, bb = kernel(a, a), kernel(b, b)
    within = (aa.sum() - np.trace(aa)) / (n * (n - 1)) + (bb.sum() - np.trace(bb)) / (m * (m - 1))
    return float(within - 2 * kernel(a, b).mean())


def measure_perceptual(
    evaluation: Evaluation, installed: Perceptual, report: Callable[[str, int, int], None]
) -> None:
    """Measure what is installed for every answer, into ``perceptual/``, where it is missing."""
    if not installed.any:
        return
    (evaluation.folder / "perceptual").mkdir(exist_ok=True)
    wanted = _name_metrics(installed)
    jobs: list[tuple[Case, Run | None]] = []
    for case in evaluation.cases:
        if evaluation.path("truth", case).exists():
            measured = [
                run
                for run in evaluation.runs
                if read_measures(evaluation.path("measures", case, run)) is not None
            ]
            jobs += [(case, run) for run in (None, *measured)]
    jobs = [job for job in jobs if _is_stale(evaluation, *job, wanted)]
    for done, (case, run) in enumerate(jobs, 1):
        arrays = _measure_case(evaluation, installed, case, run)
        output = perceptual_path(evaluation, case, run)
        save_arrays(output, signature=np.array(wanted), **arrays)
        report("perceptual metrics", done, len(jobs))


def _is_stale(evaluation: Evaluation, case: Case, run: Run | None, wanted: str) -> bool:
    """Tell whether numbers are missing, older than their pictures, or of other metrics."""
    output = perceptual_path(evaluation, case, run)
    if not output.exists() or str(load_arrays(output)["signature"]) != wanted:
        return True
    if run is None:
        return False
    sources = [evaluation.path(kind, case, run) for kind in ("views", "generated")]
    made = output.stat().st_mtime_ns
    return any(path.exists() and path.stat().st_mtime_ns > made for path in sources)


def perceptual_path(evaluation: Evaluation, case: Case, run: Run | None) -> Path:
    """Return where the numbers of an answer, or of the true object (None), lie."""
    key = "truth" if run is None else run.key
    return evaluation.folder / "perceptual" / f"{case.name}--{key}.npz"


def _name_metrics(installed: Perceptual) -> str:
    """Name the metrics, and the CLIP model."""
    names = {"lpips": "lpips", "clip": f"clip {installed.clip_name}", "inception": "inception"}
    return ",".join(own for name, own in names.items() if getattr(installed, name))


def _measure_case(
    evaluation: Evaluation, installed: Perceptual, case: Case, run: Run | None
) -> dict[str, np.ndarray]:
    true = Views.of_rgba(load_arrays(evaluation.path("truth", case))["views"]).color
    if run is None:
        return {} if installed.inception is None else {"mesh_features": installed.inception(true)}
    size = evaluation.settings.size
    views, generated = (evaluation.path(kind, case, run) for kind in ("views", "generated"))
    own = np.ones_like(true)  # an empty picture
    answer: dict[str, np.ndarray] = {}
    if views.exists():
        own = Views.of_rgba(load_arrays(views)["views"]).color
        answer = load_arrays(generated) if generated.exists() else {}
    compared = {"mesh": (own, true)}
    if "gaussian_views" in answer:
        compared["gaussians"] = (read_views(answer, "gaussian_views", size).color, true)
    if "frames" in answer:
        orbit = evaluation.orbit_path(case, len(answer["frames"]))
        if orbit.exists():
            around = Views.of_rgba(load_arrays(orbit)["views"])
            frames = read_views(answer, "frames", size)
            compared["frames"] = (frames[:-1].color, around[:-1].color)
    arrays: dict[str, np.ndarray] = {}
    for what, (first, second) in compared.items():
        arrays |= {f"{what}_{k}": v for k, v in _measure_pair(installed, first, second).items()}
    return arrays


def _measure_pair(
    installed: Perceptual, first: np.ndarray, second: np.ndarray
) -> dict[str, np.ndarray]:
    arrays: dict[str, np.ndarray] = {}
    if installed.lpips is not None:
        arrays["lpips"] = installed.lpips(first, second)
    if installed.clip is not None:
        ours, true = installed.clip.embed(first), installed.clip.embed(second)
        arrays["clip_s"] = (ours * true).sum(axis=1)
        arrays["clip_iqa"] = installed.clip.quality(ours)
    if installed.inception is not None:
        arrays["features"] = installed.inception(first)
    return arrays


PREFIXES = {"mesh": "", "gaussians": "gaussian_", "frames": "frame_"}
"""Prefixes of the columns' names, by what was compared."""


def add_perceptual(evaluation: Evaluation, case: Case, run: Run, record: dict[str, Any]) -> None:
    """Enter an answer's perceptual numbers into its record, where they were measured."""
    path = perceptual_path(evaluation, case, run)
    if not path.exists():
        return
    arrays = load_arrays(path)
    for what, prefix in PREFIXES.items():
        for metric in ("lpips", "clip_s", "clip_iqa"):
            values = arrays.get(f"{what}_{metric}")
            if values is not None:
                record["values"][f"{prefix}{metric}"] = float(values.mean())
                record["per_view"][what][metric] = [round(float(v), 5) for v in values]


def measure_sets(
    evaluation: Evaluation, cases: list[Case], runs: list[Run]
) -> dict[str, dict[str, float]]:
    """Return FID and 1000 x KID of each candidate's views of its mesh against the true ones.

    Over all cases and seeds of a candidate; empty where the features were not measured.
    """

    def features(run: Run | None) -> np.ndarray | None:
        found = []
        for case in cases:
            path = perceptual_path(evaluation, case, run)
            arrays = load_arrays(path) if path.exists() else {}
            if "mesh_features" not in arrays:
                return None
            found.append(arrays["mesh_features"])
        return np.concatenate(found) if found else None

    true = features(None)
    if true is None:
        return {}
    values: dict[str, dict[str, float]] = {}
    for name in dict.fromkeys(run.candidate for run in runs):
        per_seed = []
        for run in runs:
            own = features(run) if run.candidate == name else None
            if own is not None:
                per_seed.append((frechet_distance(own, true), 1000 * kernel_distance(own, true)))
        if per_seed:
            fid, kid = np.mean(per_seed, axis=0)
            values[name] = {"fid": float(fid), "kid": float(kid)}
    return values
