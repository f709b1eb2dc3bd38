# SPDX-License-Identifier: Apache-2.0
"""Metrics by networks: missing ones are named, installed ones follow their definitions.

CLIP is of the real class with random weights. LPIPS and Inception are stand-ins with the interface
of their packages, whose values are known.
"""

from __future__ import annotations

import importlib.util
import sys
from dataclasses import replace
from itertools import product
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub.constants
import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm
from torch import nn
from torch.nn import functional as F

from gsv3d.lab.evaluation import perceptual
from gsv3d.lab.evaluation.measuring import measure
from gsv3d.lab.evaluation.perceptual import (
    CLIP,
    INCEPTION_WEIGHTS,
    LPIPS_WEIGHTS,
    NotInstalled,
    Perceptual,
    frechet_distance,
    kernel_distance,
    load_clip,
    load_inception,
    load_lpips,
    load_perceptual,
    measure_perceptual,
    measure_sets,
    perceptual_path,
)
from gsv3d.lab.evaluation.report import NOT_INSTALLED, write_report
from gsv3d.lab.evaluation.results import load_results
from gsv3d.lab.evaluation.runner import make_measure_task
from gsv3d.lab.evaluation.store import Run, load_arrays, write_json
from tests.gsv3d.lab.evaluation.answers import answer, box, make_evaluation
from tests.gsv3d.lab.evaluation.tiny_clip import tiny_clip


class Distance(nn.Module):
    """The class of the package lpips; its distance is the mean difference."""

    def __init__(self, net: str, verbose: bool) -> None:
        super().__init__()
        assert net == "alex" and not verbose

    def forward(self, first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
        return (first - second).abs().mean(dim=(1, 2, 3), keepdim=True)


class Means(nn.Module):
    """The class of the package pytorch-fid; its features are the colors' means."""

    BLOCK_INDEX_BY_DIM = {64: 0, 2048: 3}

    def __init__(self, output_blocks: list[int]) -> None:
        super().__init__()
        assert output_blocks == [3]

    def forward(self, pictures: torch.Tensor) -> list[torch.Tensor]:
        return [F.adaptive_avg_pool2d(pictures, (1, 1))]


@pytest.fixture
def installed(tmp_path: Path, monkeypatch) -> Path:
    """Install packages and weights of LPIPS and Inception; return the folder of the weights."""
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    modules = {
        "lpips": SimpleNamespace(LPIPS=Distance), "pytorch_fid": SimpleNamespace(),
        "pytorch_fid.inception": SimpleNamespace(InceptionV3=Means),
    }  # fmt: skip
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)
    # They are there for these loaders alone: transformers would use torchvision.
    here = {*modules, "torchvision"}
    util = SimpleNamespace(find_spec=lambda name: name if name in here else None)
    monkeypatch.setattr(perceptual, "importlib", SimpleNamespace(util=util))
    weights = tmp_path / "hub" / "checkpoints"
    weights.mkdir(parents=True)
    for name in (LPIPS_WEIGHTS, INCEPTION_WEIGHTS):
        (weights / name).touch()
    return weights


def test_networks_get_pictures_as_they_want_them(installed: Path) -> None:
    """LPIPS takes pictures in -1..1, Inception in 0..1; both batch by batch."""
    first, second = np.random.default_rng(0).random((2, 19, 8, 8, 3))
    expected = 2 * np.abs(first - second).mean(axis=(1, 2, 3))
    np.testing.assert_allclose(load_lpips("cpu")(first, second), expected, rtol=1e-5)
    features = load_inception("cpu")(first)
    np.testing.assert_allclose(features, first.mean(axis=(1, 2)), rtol=1e-5)


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


def test_what_is_missing_is_named_with_its_columns(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    found = importlib.util.find_spec
    absent = ("lpips", "pytorch_fid")
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name in absent else found(name)
    )
    loaded = load_perceptual(str(tmp_path / "no-clip"))
    assert not loaded.any and loaded.lpips is loaded.clip is loaded.inception is None
    assert loaded.missing["lpips"] == "the package lpips is missing"
    assert loaded.missing["fid"] == loaded.missing["kid"] == "the package pytorch_fid is missing"
    assert "no-clip is not on this machine" in loaded.missing["clip_s"]
    assert set(loaded.missing) == {"lpips", "clip_s", "clip_iqa", "fid", "kid"}


def test_nothing_installed_measures_nothing(tmp_path) -> None:
    evaluation = make_evaluation(tmp_path, ("cube",), draw=False)
    measure_perceptual(evaluation, Perceptual(), lambda *_: None)
    assert not (evaluation.folder / "perceptual").exists()


def test_clip_scores_are_those_of_the_model_itself(tmp_path) -> None:
    from transformers import AutoTokenizer, CLIPModel

    folder = tiny_clip(tmp_path / "clip ü")
    clip = load_clip(str(folder), "cpu")
    rng = np.random.default_rng(0)
    pictures = rng.random((20, 32, 32, 3))  # more than a batch, at the model's own size
    own = clip.embed(pictures)
    np.testing.assert_allclose(np.linalg.norm(own, axis=1), 1, atol=1e-5)
    model = CLIPModel.from_pretrained(folder).eval()
    mean = torch.tensor([0.48145466, 0.4578275, 0.40821073])[:, None, None]
    std = torch.tensor([0.26862954, 0.26130258, 0.27577711])[:, None, None]
    pixels = (torch.from_numpy(pictures).permute(0, 3, 1, 2).float() - mean) / std
    tokens = AutoTokenizer.from_pretrained(folder)(
        ["Good photo.", "Bad photo."], padding=True, return_tensors="pt"
    )
    with torch.no_grad():
        output = model(pixel_values=pixels, **tokens)
    np.testing.assert_allclose(own, output.image_embeds.numpy(), atol=1e-5)
    expected = output.logits_per_image.softmax(dim=1)[:, 0].numpy()
    np.testing.assert_allclose(clip.quality(own), expected, atol=1e-5)


class Brightness:
    """A CLIP whose embedding is known: the picture's mean color."""

    def embed(self, pictures: np.ndarray) -> np.ndarray:
        means = pictures.mean(axis=(1, 2))
        return means / np.linalg.norm(means, axis=1, keepdims=True)

    def quality(self, embeddings: np.ndarray) -> np.ndarray:
        return embeddings[:, 0]


def features(pictures: np.ndarray) -> np.ndarray:
    return pictures[:, ::12, ::12].reshape(len(pictures), -1)


@pytest.fixture(scope="module")
def evaluation(tmp_path_factory: pytest.TempPathFactory):
    made = make_evaluation(tmp_path_factory.mktemp("e"), ("cube",))
    case = made.cases[0]
    answer(made, case, Run("m", 0), box((1.0, 0.6, 1.0), (200, 30, 30)), generated=True)
    answer(made, case, Run("slab"), box((1.0, 0.25, 1.0), (30, 60, 220)))
    answer(made, case, Run("ellipsoid"), box((1.0, 0.25, 1.0), (30, 60, 220)))
    for run in made.runs:
        task = make_measure_task(made, case, run)
        write_json(task.output, measure(task))
    return made


def test_installed_metrics_reach_the_records(evaluation) -> None:
    def lpips(first: np.ndarray, second: np.ndarray) -> np.ndarray:
        return np.abs(first - second).mean(axis=(1, 2, 3))

    installed = Perceptual(lpips, Brightness(), features)
    calls: list[int] = []
    measure_perceptual(evaluation, installed, lambda phase, done, of: calls.append(of))
    assert calls == [5] * 5  # the truth and four candidates
    results = load_results(evaluation)
    assert results.mean("m", "lpips") == 0 and results.mean("m", "clip_s") == pytest.approx(1)
    assert results.mean("slab", "lpips") > 0.01 and results.mean("slab", "clip_s") < 1
    assert results.mean("m", "frame_lpips") < 0.05 and results.mean("slab", "frame_lpips") is None
    record = results.records["m--seed0"]["cube"]["per_view"]["mesh"]
    assert len(record["lpips"]) == len(record["psnr"])
    sets = measure_sets(evaluation, results.main, list(results.runs))
    assert sets["m"]["fid"] == pytest.approx(0, abs=1e-6) and sets["slab"]["fid"] > 1e-3
    truth = load_arrays(perceptual_path(evaluation, evaluation.cases[0], None))["mesh_features"]
    own = load_arrays(perceptual_path(evaluation, evaluation.cases[0], Run("slab")))
    assert sets["slab"]["fid"] == pytest.approx(frechet_distance(own["mesh_features"], truth))
    # A second run has nothing to do; with another CLIP, or other metrics, it repeats all.
    other = replace(installed, clip_name="another")
    for metrics, done in ((installed, 5), (other, 10), (Perceptual(lpips), 15)):
        measure_perceptual(evaluation, metrics, lambda phase, done, of: calls.append(of))
        assert len(calls) == done
    assert measure_sets(evaluation, results.main, list(results.runs)) == {}


def test_a_report_with_everything_installed(evaluation, installed: Path, cached_clip: Path) -> None:
    """Measure pictures with every package, and read the tables."""
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
        load_arrays(perceptual_path(evaluation, evaluation.cases[0], run))["mesh_features"]
        for run in (Run("slab"), None)
    )
    assert sets["slab"]["fid"] == pytest.approx(frechet_distance(own, true), rel=1e-6)
    assert sets["slab"]["kid"] == pytest.approx(1000 * kernel_distance(own, true), rel=1e-6)
    text = write_report(evaluation, metrics.missing)
    assert NOT_INSTALLED not in text
    for value, digits in ((sets["slab"]["fid"], 1), (sets["slab"]["kid"], 1),
                          (results.mean("slab", "lpips"), 3)):  # fmt: skip
        assert f" {value:.{digits}f} |" in text


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def test_frechet_distance_is_the_formula_with_a_matrix_root(rng) -> None:
    a = rng.standard_normal((400, 6)) @ rng.standard_normal((6, 6))
    b = rng.standard_normal((300, 6)) @ rng.standard_normal((6, 6)) + 0.5
    first, second = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    root = sqrtm(first @ second).real
    expected = ((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(first + second - 2 * root)
    assert frechet_distance(a, b) == pytest.approx(expected)


def test_frechet_distance_of_a_shift_and_of_a_scale(rng) -> None:
    a = rng.standard_normal((50, 200))  # fewer samples than features
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-9)
    assert frechet_distance(a, a + 0.1) == pytest.approx(200 * 0.01)
    a -= a.mean(axis=0)
    assert frechet_distance(a, 2 * a) == pytest.approx(a.var(axis=0, ddof=1).sum())


def test_frechet_distance_of_known_normal_distributions(rng) -> None:
    """The trace of a 2 x 2 matrix' root is the root of its trace and twice its determinant's."""

    def samples(mean: np.ndarray, covariance: np.ndarray, count: int) -> np.ndarray:
        """Draw samples whose own mean and covariance are exactly these."""
        drawn = rng.standard_normal((count, len(mean)))
        drawn -= drawn.mean(axis=0)
        white = np.linalg.solve(np.linalg.cholesky(np.cov(drawn, rowvar=False)), drawn.T)
        return (np.linalg.cholesky(covariance) @ white).T + mean

    first, second = np.array([[2.0, 0.6], [0.6, 0.5]]), np.array([[0.3, -0.2], [-0.2, 1.7]])
    a = samples(np.array([1.0, -2.0]), first, 30)
    b = samples(np.array([0.5, 1.0]), second, 50)
    inner = first @ second
    root = np.sqrt(np.trace(inner) + 2 * np.sqrt(np.linalg.det(inner)))
    expected = 0.5**2 + 3.0**2 + np.trace(first + second) - 2 * root
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-9)
    # Of independent values: a sum over their means and deviations.
    means, deviations = rng.normal(0, 1, (2, 5)), rng.uniform(0.2, 3, (2, 5))
    drawn = [samples(m, np.diag(s**2), 40) for m, s in zip(means, deviations, strict=True)]
    apart = np.square(means[0] - means[1]) + np.square(deviations[0] - deviations[1])
    assert frechet_distance(*drawn) == pytest.approx(apart.sum(), rel=1e-9)


def test_kernel_distance_is_unbiased(rng) -> None:
    """The mean over all draws of two from three points is the distance of all the points."""
    p, q = rng.standard_normal((2, 3, 4))

    def kernel(x: np.ndarray, y: np.ndarray) -> float:
        return float(np.mean([(a @ b / 4 + 1) ** 3 for a in x for b in y]))

    pairs = list(product(range(3), repeat=2))
    mean = np.mean([kernel_distance(p[list(i)], q[list(j)]) for i in pairs for j in pairs])
    assert mean == pytest.approx(kernel(p, p) + kernel(q, q) - 2 * kernel(p, q))


def test_kernel_distance_of_one_distribution_is_about_nothing(rng) -> None:
    draws = [rng.standard_normal((200, 8)) for _ in range(2)]
    same, shifted = kernel_distance(*draws), kernel_distance(draws[0], draws[1] + 1)
    assert abs(same) < 0.1 < shifted


def test_one_sample_is_no_distribution() -> None:
    for distance in (frechet_distance, kernel_distance):
        with pytest.raises(ValueError, match="at least two"):
            distance(np.zeros((1, 3)), np.zeros((5, 3)))
