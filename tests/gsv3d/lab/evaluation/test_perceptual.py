# SPDX-License-Identifier: Apache-2.0
"""Metrics by networks: missing ones are named, installed ones follow their definitions.

The networks here are of the real classes with random weights, or stand-ins whose values are known.
"""

from __future__ import annotations

import importlib.util
from dataclasses import replace

import numpy as np
import pytest
import torch

from gsv3d.lab.evaluation.measuring import measure
from gsv3d.lab.evaluation.network_metrics import (
    INCEPTION_WEIGHTS,
    LPIPS_WEIGHTS,
    NotInstalled,
    Perceptual,
    frechet_distance,
    load_clip,
    load_inception,
    load_lpips,
    load_perceptual,
)
from gsv3d.lab.evaluation.perceptual import measure_perceptual, measure_sets, perceptual_path
from gsv3d.lab.evaluation.results import load_results
from gsv3d.lab.evaluation.runner import make_measure_task
from gsv3d.lab.evaluation.store import Run, load_arrays, write_json
from tests.gsv3d.lab.evaluation.answers import answer, box, make_evaluation
from tests.gsv3d.lab.evaluation.tiny_clip import tiny_clip


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


def test_packages_without_weights_count_as_missing(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    for load, weights in (
        (load_lpips, LPIPS_WEIGHTS),
        (load_inception, INCEPTION_WEIGHTS),
    ):
        with pytest.raises(NotInstalled, match=f"{weights} are missing"):
            load("cpu")


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
