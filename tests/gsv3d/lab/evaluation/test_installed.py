# SPDX-License-Identifier: Apache-2.0
"""The metrics by networks, where packages and weights are installed: random weights, real loaders.

The packages are those of ``packages/`` beside this file, with the interface of the real ones; the
weights lie where torch and the Hugging Face cache have them. The numbers are compared with the
definitions, written down here a second time.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub.constants
import numpy as np
import pytest
import torch
from torch.nn import functional as F

from gsv3d.lab.evaluation import network_metrics as networks
from gsv3d.lab.evaluation.measuring import measure
from gsv3d.lab.evaluation.network_metrics import (
    CLIP,
    INCEPTION_WEIGHTS,
    LPIPS_WEIGHTS,
    NotInstalled,
    load_clip,
    load_inception,
    load_lpips,
    load_perceptual,
)
from gsv3d.lab.evaluation.perceptual import measure_perceptual, measure_sets, perceptual_path
from gsv3d.lab.evaluation.report import NOT_INSTALLED, write_report
from gsv3d.lab.evaluation.results import load_results
from gsv3d.lab.evaluation.runner import make_measure_task
from gsv3d.lab.evaluation.store import Run, load_arrays, write_json
from tests.gsv3d.lab.evaluation.answers import answer, box, make_evaluation
from tests.gsv3d.lab.evaluation.tiny_clip import tiny_clip

PACKAGES = Path(__file__).parent / "packages"
NAMES = ("lpips", "pytorch_fid", "pytorch_fid.inception")
RED, BLUE = (200, 30, 30), (30, 60, 220)


@pytest.fixture
def installed(tmp_path: Path, monkeypatch) -> Iterator[Path]:
    """Install packages and weights of LPIPS and Inception; yield the folder of the weights."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr(torch.hub, "_hub_dir", None)
    monkeypatch.syspath_prepend(PACKAGES)
    # Torchvision is there for these loaders alone; transformers would use it.
    find = importlib.util.find_spec

    def found(name: str) -> object:
        return "here" if name == "torchvision" else find(name)

    monkeypatch.setattr(
        networks, "importlib", SimpleNamespace(util=SimpleNamespace(find_spec=found))
    )
    for name in NAMES:
        monkeypatch.delitem(sys.modules, name, raising=False)
    weights = tmp_path / "torch" / "hub" / "checkpoints"
    weights.mkdir(parents=True)
    torch.save(alexnet(), weights / LPIPS_WEIGHTS)
    torch.save(inception(), weights / INCEPTION_WEIGHTS)
    yield weights
    for name in NAMES:
        sys.modules.pop(name, None)


def alexnet(channels: tuple[int, ...] = (8, 12, 16, 12, 12)) -> dict[str, torch.Tensor]:
    """Return random weights of AlexNet's convolutions, by torchvision's names."""
    random = torch.Generator().manual_seed(0)
    state, before = {}, 3
    layers = ((0, 11), (3, 5), (6, 3), (8, 3), (10, 3))
    for (index, side), count in zip(layers, channels, strict=True):
        shape = (count, before, side, side)
        state[f"features.{index}.weight"] = torch.randn(shape, generator=random) / shape[1] ** 0.5
        state[f"features.{index}.bias"] = torch.randn(count, generator=random)
        before = count
    return state


def inception() -> dict[str, torch.Tensor]:
    random = torch.Generator().manual_seed(1)
    return {
        "conv.weight": torch.randn(2048, 3, 3, 3, generator=random),
        "conv.bias": torch.randn(2048, generator=random),
    }


def lpips_by_definition(
    state: dict[str, torch.Tensor], linear: list[torch.Tensor], a: np.ndarray, b: np.ndarray
) -> list[float]:
    """Compute LPIPS (Zhang et al. 2018, equation 1) of pictures in 0..1, one after the other.

    Colors are normalized by ImageNet's mean and deviation.
    """
    mean, std = (torch.tensor(v)[:, None, None] for v in ([0.485, 0.456, 0.406],
                                                          [0.229, 0.224, 0.225]))  # fmt: skip
    strides = {0: (4, 2), 3: (1, 2), 6: (1, 1), 8: (1, 1), 10: (1, 1)}

    def features(picture: np.ndarray) -> Iterator[torch.Tensor]:
        x = (torch.from_numpy(picture).permute(2, 0, 1) - mean) / std
        x = x.float()[None]
        for index, (stride, padding) in strides.items():
            if index in (3, 6):
                x = F.max_pool2d(x, 3, 2)
            kernel, bias = state[f"features.{index}.weight"], state[f"features.{index}.bias"]
            x = F.conv2d(x, kernel, bias, stride, padding).relu()
            yield F.normalize(x[0], dim=0)

    distances = []
    for first, second in zip(a, b, strict=True):
        total = 0.0
        for x, y, weights in zip(features(first), features(second), linear, strict=True):
            total += torch.einsum("c,chw->hw", weights, (x - y) ** 2).mean().item()
        distances.append(total)
    return distances


def test_lpips_is_that_of_the_paper(installed: Path, capsys) -> None:
    network = load_lpips("cpu")
    assert capsys.readouterr().out == ""
    from lpips import CHANNELS, linear

    rng = np.random.default_rng(0)
    first, second = rng.random((2, 19, 48, 48, 3))  # more than a batch
    own = network(first, second)
    expected = lpips_by_definition(alexnet(), [linear(c) for c in CHANNELS], first, second)
    np.testing.assert_allclose(own, expected, rtol=1e-4)
    assert np.ptp(own) > 0.01 * own.mean(), "distances that are all the same say nothing"
    np.testing.assert_array_equal(network(first, first), 0)
    np.testing.assert_allclose(network(second, first), own, rtol=1e-6)
    near = np.clip(first + 0.02 * (second - 0.5), 0, 1)
    assert (network(first, near) < own).all()


def test_features_of_plain_pictures_are_known(installed: Path) -> None:
    """A convolution of one color is the sum of its kernel times the color, at any size."""
    colors = np.random.default_rng(0).random((19, 3))
    pictures = np.broadcast_to(colors[:, None, None], (19, 40, 40, 3))
    state = {name: value.double().numpy() for name, value in inception().items()}
    kernels = state["conv.weight"].sum(axis=(2, 3))
    expected = np.maximum((2 * colors - 1) @ kernels.T + state["conv.bias"], 0)
    own = load_inception("cpu")(pictures)
    assert own.shape == (19, 2048)
    np.testing.assert_allclose(own, expected, atol=1e-4)


@pytest.mark.parametrize(
    ("load", "name"), [(load_lpips, LPIPS_WEIGHTS), (load_inception, INCEPTION_WEIGHTS)]
)
def test_without_its_weights_a_package_is_not_enough(installed: Path, load, name: str) -> None:
    load("cpu")
    (installed / name).unlink()
    with pytest.raises(NotInstalled, match=f"{name} are missing"):
        load("cpu")


@pytest.fixture
def cached_clip(tmp_path: Path, monkeypatch) -> Path:
    """Return the default CLIP in a Hugging Face cache, as a download would have left it."""
    folder = tmp_path / "cache" / "models--openai--clip-vit-large-patch14"
    (folder / "snapshots").mkdir(parents=True)
    snapshot = tiny_clip(folder / "snapshots" / "0123456789abcdef")
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text(snapshot.name)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    return snapshot


def test_the_default_clip_is_found_in_the_cache(cached_clip: Path) -> None:
    pictures = np.random.default_rng(0).random((3, 32, 32, 3))
    named, by_folder = load_clip(CLIP, "cpu"), load_clip(str(cached_clip), "cpu")
    np.testing.assert_array_equal(named.embed(pictures), by_folder.embed(pictures))
    with pytest.raises(NotInstalled, match="clip-vit-base-patch32 is not on this machine"):
        load_clip("openai/clip-vit-base-patch32", "cpu")


def test_a_report_with_everything_installed(
    tmp_path: Path, installed: Path, cached_clip: Path
) -> None:
    """The answers are the truth and a slab; all the way from packages and pictures to tables."""
    evaluation = make_evaluation(tmp_path / "e", ("cube",))
    case = evaluation.cases[0]
    answer(evaluation, case, Run("m", 0), box((1.0, 0.6, 1.0), RED), generated=True)
    for name in ("slab", "ellipsoid"):
        answer(evaluation, case, Run(name), box((1.0, 0.25, 1.0), BLUE))
    for run in evaluation.runs:
        task = make_measure_task(evaluation, case, run)
        write_json(task.output, measure(task))
    metrics = load_perceptual()
    assert metrics.missing == {} and metrics.any
    measure_perceptual(evaluation, metrics, lambda *_: None)

    results = load_results(evaluation)
    for key, best in (("lpips", 0), ("clip_s", 1)):
        assert results.mean("m", key) == pytest.approx(best, abs=1e-5)
        assert abs(results.mean("slab", key) - best) > 1e-4
        assert results.has(f"frame_{key}", "m")
    assert 0 < results.mean("m", "clip_iqa") < 1
    sets = measure_sets(evaluation, results.main, list(results.runs))
    assert sets["m"]["fid"] == pytest.approx(0, abs=1e-3)
    own, true = (
        load_arrays(perceptual_path(evaluation, case, run))["mesh_features"].astype(np.float64)
        for run in (Run("slab"), None)
    )
    assert sets["slab"]["fid"] == pytest.approx(fid_by_definition(own, true), rel=1e-6)
    assert sets["slab"]["kid"] == pytest.approx(1000 * kid_by_definition(own, true), rel=1e-6)

    text = write_report(evaluation, metrics.missing)
    assert NOT_INSTALLED not in text
    for value, digits in ((sets["slab"]["fid"], 1), (sets["slab"]["kid"], 1),
                          (results.mean("slab", "lpips"), 3)):  # fmt: skip
        assert f" {value:.{digits}f} |" in text


def fid_by_definition(a: np.ndarray, b: np.ndarray) -> float:
    """The trace of the root of the product of covariances is the sum of roots of its eigenvalues.

    Those of ``A^T A B^T B`` that are not 0 are those of the small ``A B^T B A^T``.
    """
    first = (a - a.mean(axis=0)) / np.sqrt(len(a) - 1)
    second = (b - b.mean(axis=0)) / np.sqrt(len(b) - 1)
    roots = np.linalg.eigvalsh(first @ second.T @ second @ first.T).clip(0)
    means = np.square(a.mean(axis=0) - b.mean(axis=0)).sum()
    return means + np.square(first).sum() + np.square(second).sum() - 2 * np.sqrt(roots).sum()


def kid_by_definition(a: np.ndarray, b: np.ndarray) -> float:
    """Compute KID (Bińkowski et al. 2018, equation 4) with a loop over pairs."""

    def k(x: np.ndarray, y: np.ndarray) -> float:
        return float((x @ y / 2048 + 1) ** 3)

    within = [
        np.mean([k(x, y) for i, x in enumerate(set_) for j, y in enumerate(set_) if i != j])
        for set_ in (a, b)
    ]
    return within[0] + within[1] - 2 * np.mean([k(x, y) for x in a for y in b])
