# SPDX-License-Identifier: Apache-2.0
"""Test that hints for training are true of drawn props, and their errors as large as said."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh

from gsv3d.cameras import orbit
from gsv3d.lab.datasets.objects import find_objects
from gsv3d.lab.training.bank import BankSettings, OrbitBank
from gsv3d.lab.training.config import build
from gsv3d.lab.training.filling import BankFactory, Drawing
from gsv3d.lab.training.hints import (
    DEPTH_ERROR,
    DEPTH_UNKNOWN,
    PLANE_ERROR_DEG,
    PLANE_UNKNOWN,
    add_hints,
    blur_hint,
    draw_hint,
    find_hint,
)
from gsv3d.lab.training.sources import OrbitSource, ViewSource
from gsv3d.lab.training.stages import make_task
from gsv3d.multiview.hints import Hints
from tests import tiny

VIEWS = 72


def draw_bank(folder: Path, size: int, views: int) -> OrbitBank:
    """Draw one orbit of a prop with a single mirror plane."""
    parts = [
        trimesh.creation.box((0.3, 0.4, 1.0)),
        trimesh.creation.box((0.8, 0.2, 0.3)).apply_translation((0.5, 0.0, 0.0)),
    ]
    turned = trimesh.util.concatenate(parts)
    turned.apply_transform(trimesh.transformations.rotation_matrix(0.4, (0, 1, 0)))
    turned.export(folder / "axe.glb")
    settings = BankSettings(size, views, novel_views=2, variants=1, hints=True)
    factory = BankFactory(folder / "bank", tuple(find_objects([folder])), settings)
    with Drawing(factory, 1, print) as drawing:
        drawing.wait()
        return drawing.bank()


@pytest.fixture(scope="module")
def bank(tmp_path_factory) -> OrbitBank:
    """Return an orbit of 5 degrees a view."""
    return draw_bank(tmp_path_factory.mktemp("hints"), 64, VIEWS)


def center(mask: np.ndarray) -> np.ndarray:
    """Move a mask's middle column to the picture's: the plane need not hold the world's axis."""
    columns = np.flatnonzero(mask.any(axis=0))
    return np.roll(mask, (mask.shape[1] - columns[0] - columns[-1]) // 2, axis=1)


def test_the_mirrored_camera_sees_the_flipped_picture(bank) -> None:
    alpha = bank[0].rgba[..., 3] > 127
    agreements = []
    for view in range(0, VIEWS, 5):
        azimuth, _ = find_hint(bank, 0, view, mirrored=False)
        other = (view + round(math.degrees(azimuth) / 5)) % VIEWS
        flipped, seen = center(alpha[view][:, ::-1]), center(alpha[other])
        agreements.append((flipped & seen).sum() / (flipped | seen).sum())
    # Rounded to the orbit's views, the camera is up to 2.5 degrees off.
    assert min(agreements) > 0.85
    first, second = (find_hint(bank, 0, 3, mirrored=mirrored) for mirrored in (False, True))
    assert second == (-first[0], first[1])


def test_depth_over_width_is_that_of_the_depth_maps(bank) -> None:
    seen = bank[0]
    cameras = orbit(seen.azimuths_deg.tolist(), seen.elevations_deg.tolist(), size=64)
    depth = torch.from_numpy(seen.depth.astype(np.float32))
    rows, columns = torch.meshgrid(torch.arange(64), torch.arange(64), indexing="ij")
    pixels = torch.stack([columns, rows], dim=-1).flatten(0, 1) + 0.5
    points = cameras.unproject(pixels.expand(len(depth), -1, -1), depth.flatten(1))
    points = points[depth.flatten(1) > 0]
    width, away, _ = (points.max(dim=0).values - points.min(dim=0).values).tolist()
    # Of view 0, whose camera is at azimuth 0.
    _, log_depth = find_hint(bank, 0, 0, mirrored=False)
    assert log_depth == pytest.approx(math.log(away / width), abs=0.05)
    _, turned = find_hint(bank, 0, VIEWS // 4, mirrored=False)
    assert turned == pytest.approx(-log_depth, abs=1e-4)


def test_errors_are_as_large_as_they_are_said_to_be() -> None:
    rng = np.random.default_rng(0)
    azimuths, depths = np.array([blur_hint((1.0, 0.5), rng) for _ in range(20000)]).T
    assert np.isnan(azimuths).mean() == pytest.approx(PLANE_UNKNOWN, abs=0.01)
    off = np.rad2deg(np.abs(azimuths - 1.0))
    assert np.nanmedian(off) == pytest.approx(0.6745 * PLANE_ERROR_DEG, rel=0.2)
    assert np.isnan(depths).mean() == pytest.approx(DEPTH_UNKNOWN, abs=0.01)
    assert np.nanmean(np.abs(depths - 0.5)) == pytest.approx(DEPTH_ERROR, rel=0.05)


def test_orbits_without_hints_tell_nothing_and_draw_as_before() -> None:
    plain = tiny.bank_of(tiny.ball_orbit())
    rng = np.random.default_rng(0)
    assert np.isnan(draw_hint(plain, 0, 0, False, rng)).all()
    assert rng.random() == np.random.default_rng(0).random()
    for source in (OrbitSource(plain, 4, 4), ViewSource(plain, 4, 1)):
        batch = source.draw(3, 0)
        assert batch.mirror_azimuth.isnan().all() and batch.log_depth.isnan().all()


@torch.no_grad()
def test_a_unet_with_hints_added_predicts_the_same() -> None:
    torch.manual_seed(0)
    plain = build(tiny.CONFIG, "unet").eval()
    hinted = add_hints(plain).eval()
    sample, pose = torch.randn(1, 4, 8, 8, 8), torch.rand(1, 4, 3)
    context = torch.randn(1, 1, plain.config.cross_attention_dim)
    hints = Hints(torch.randn(1, 4, 8, 8), torch.ones(1), torch.ones(1))
    expected = plain(sample, 0.3, context, pose).sample
    found = hinted(sample, 0.3, context, pose, hints=hints).sample
    assert torch.allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("stage", ["multiview", "distill"])
def test_stages_tell_the_hints_and_learn_from_them(stage, tmp_path: Path) -> None:
    """From components without hints: hints change nothing at first, but get a gradient."""
    bank = draw_bank(tmp_path, tiny.SIZE, 8)
    tiny.tiny_pipeline().save_pretrained(tmp_path)
    task = make_task(tiny.with_hints(), stage, bank, torch.device("cpu"), [tmp_path])
    batch = task.source.draw(4, 0)
    assert not batch.mirror_azimuth.isnan().all()
    torch.manual_seed(0)
    loss, _ = task.loss(batch)
    loss.backward()
    embedding = task.modules["unet"].hint_embedding[-1]
    trained = embedding.weight.grad is not None
    assert trained == (stage == "multiview")  # distill has LoRA on the attentions alone
    if trained:
        assert embedding.weight.grad.abs().max() > 0
        conv = task.modules["unet"].conv_in.weight.grad
        assert conv[:, 8:].abs().max() > 0
