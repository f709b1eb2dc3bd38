# SPDX-License-Identifier: Apache-2.0
"""Batches as functions of their seed: poses, changes, the curriculum, precomputed latents."""

from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from gsv3d.errors import DataError
from gsv3d.lab.training.bank import OrbitBank
from gsv3d.lab.training.batches import Plan, _mapped, make_part_seed, to_device
from gsv3d.lab.training.config import build
from gsv3d.lab.training.latents import Encoding, compute_in_memory, compute_on_disk
from gsv3d.lab.training.samples import Change, Changes
from gsv3d.lab.training.sources import (
    OrbitSource,
    PictureSource,
    ViewSource,
)
from gsv3d.multiview.conditioning import (
    embed_for_cross_attention,
    encode_reference,
    picture_tensor,
)
from tests import tiny
from tests.gsv3d.lab.training.ray_traced import ellipsoid_orbit

WAVES = [10.0, 25.0, 30.0, 12.0, -4.0, -10.0, 0.0, 5.0]


@pytest.fixture(scope="module")
def dynamic():
    return ellipsoid_orbit(novel=2, elevations_deg=WAVES, name="wave")


@pytest.fixture(scope="module")
def static():
    return ellipsoid_orbit(novel=2)


@pytest.fixture(scope="module")
def both(static, dynamic):
    return tiny.bank_of(static, dynamic)


def all_views(bank: OrbitBank, index: int = 0) -> torch.Tensor:
    """Return (8, 4, H, W) pictures of an orbit."""
    return bank.pictures(torch.tensor([index]), torch.arange(8)[None])[0]


def tensors(batch: object) -> list[torch.Tensor]:
    found: list[torch.Tensor] = []
    _mapped(batch, lambda tensor: found.append(tensor.nan_to_num(-9.0)) or tensor)
    return found


def same(one: list[torch.Tensor], other: list[torch.Tensor]) -> bool:
    return bool(one) and all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize(
    ("kind", "arguments"), [(PictureSource, (4,)), (ViewSource, (4, 2)), (OrbitSource, (4, 4))]
)
def test_a_batch_is_that_of_its_seed_also_where_the_orbits_lie(
    kind: type, arguments: tuple[int, ...], both
) -> None:
    copied = both.copy_to(torch.device("cpu"))
    batches = [tensors(kind(both, *arguments).draw(5, seed, 0.0)) for seed in range(3)]
    assert not same(batches[0], batches[1])
    for seed, batch in enumerate(batches):
        assert same(batch, tensors(kind(both, *arguments).draw(5, seed, 0.0)))
        draft = kind(copied, *arguments).draw(5, seed, 0.0)
        # Only numbers travel to the card: one picture alone has 4,096 values.
        assert sum(tensor.numel() for tensor in tensors(draft)) < 2000
        assert same(batch, tensors(to_device(draft, torch.device("cpu"))))


def test_no_two_parts_share_a_seed() -> None:
    seeds = {make_part_seed(s, t, p) for s in (0, 1) for t in range(9) for p in range(9)}
    assert len(seeds) == 2 * 9 * 9 and all(0 <= seed < 2**63 for seed in seeds)


def test_processes_share_the_parts_that_one_would_have() -> None:
    one = Plan(None, 4, 0, 10, 4, 1, 0)
    two = [Plan(None, 4, 0, 10, 2, 2, process) for process in range(2)]
    shared = {plan.part(index) for plan in two for index in range(2 * 10)}
    assert shared == {one.part(index) for index in range(4 * 10)}


def test_every_frames_elevation_is_told(dynamic) -> None:
    batch = OrbitSource(tiny.bank_of(dynamic), 4, 4).draw(6, 0, 0.0)
    polar = 90 - batch.pose[..., 1].rad2deg()
    azimuth = batch.pose[..., 2].rad2deg()
    assert torch.allclose(azimuth[:, -1], torch.zeros(6))
    for row in range(6):
        # The reference's elevation tells which view it is, and so the elevations of the others.
        start = int(np.argmin(np.abs(np.array(WAVES) - float(polar[row, -1]))))
        turns = (azimuth[row] / 45).round().int().tolist()
        ahead = [WAVES[(start + turn) % 8] for turn in turns]
        behind = [WAVES[(start - turn) % 8] for turn in turns]
        found = polar[row].tolist()
        assert found == pytest.approx(ahead, abs=1e-3) or found == pytest.approx(behind, abs=1e-3)


def test_a_mirrored_orbit_is_the_orbit_of_the_mirrored_object(monkeypatch) -> None:
    """Reflect the ellipsoid itself, trace it, and the pictures are those of the source."""
    from tests.gsv3d.lab.training import ray_traced

    plain = tiny.bank_of(ellipsoid_orbit(novel=0))
    source = OrbitSource(plain, 8, 4)
    seed = next(s for s in range(99) if _changes(source, s).mirrored)
    monkeypatch.setattr(
        Changes, "apply", lambda self, rgba: rgba.flip(-1) if self.mirrored[0] else rgba
    )
    batch = source.draw(1, seed, 0.0)
    turns = (batch.pose[0, :, 2].rad2deg() / 45).round().int().tolist()
    assert turns == [1, 2, 3, 4, 5, 6, 7, 0]
    rgb = picture_tensor(all_views(plain), 4)
    start = next(i for i in range(8) if torch.allclose(rgb[i].flip(-1), batch.pictures[0, -1]))
    # A camera at azimuth a sees the mirrored object as one at -a sees the object, left for right.
    for frame, turn in enumerate(turns):
        assert torch.allclose(batch.pictures[0, frame], rgb[(start - turn) % 8].flip(-1))
    assert ray_traced.AXES


def _changes(source: OrbitSource, seed: int) -> Change:
    rng = np.random.default_rng(seed)
    rng.integers(len(source.orbits))
    return Change.of_orbit(int(rng.integers(2**62)))


def test_static_orbits_come_first_then_dynamic_ones(both) -> None:
    source = OrbitSource(both, 4, 4, static_until=0.5)
    for progress, level in ((0.0, True), (0.49, True), (0.5, False), (1.0, False)):
        pose = source.draw(8, 1, progress).pose
        assert bool((pose[..., 1].std(dim=1) < 1e-3).all()) is level
    mixed = OrbitSource(both, 4, 4).draw(16, 1, 0.0).pose[..., 1].std(dim=1) < 1e-3
    assert mixed.any() and not mixed.all()


def test_a_curriculum_without_its_orbits_is_refused(static, dynamic) -> None:
    with pytest.raises(DataError, match="no dynamic one, but static_until is 0.5"):
        OrbitSource(tiny.bank_of(static), 4, 4, static_until=0.5)
    with pytest.raises(DataError, match="no static one"):
        OrbitSource(tiny.bank_of(dynamic), 4, 4, static_until=0.5)
    OrbitSource(tiny.bank_of(static), 4, 4, static_until=1.0)


def encoding(vae, orbits, variants: int = 2) -> Encoding:
    def change(rgba: torch.Tensor, seed: int) -> torch.Tensor:
        return picture_tensor(Change.of_orbit(seed).apply(rgba), 4)

    return Encoding(orbits, variants, change, vae)


@pytest.fixture(scope="module")
def vae():
    torch.manual_seed(0)
    return build(tiny.CONFIG, "vae").eval()


@pytest.mark.parametrize("kind", ["memory", "disk"])
def test_precomputed_latents_are_those_of_the_changed_pictures(
    kind: str, tmp_path: Path, vae, both
) -> None:
    what = encoding(vae, both)
    cache = (
        compute_in_memory(what)
        if kind == "memory"
        else compute_on_disk(what, tmp_path / "Bilder ä")
    )
    source = OrbitSource(both, 4, 4, cache=pickle.loads(pickle.dumps(cache)))
    batch = source.draw(8, 3, 0.0)
    assert batch.pictures is None and batch.latents.shape == (8, 4, 4, 8, 8)
    with torch.no_grad():
        reference = encode_reference(vae, batch.reference)
    assert torch.allclose(batch.latents[:, -1], reference, atol=5e-3)
    # There are two variants of each; mirrored ones have their frames in reverse order.
    expected = {}
    for index in range(2):
        for variant in range(2):
            change = Change.of_orbit(cache.seed_of(index, variant))
            with torch.no_grad():
                pictures = picture_tensor(change.apply(all_views(both, index)), 4)
                expected[index, variant] = encode_reference(vae, pictures)
    for row in batch.latents:
        assert any(
            all((frame - known).abs().amax(dim=(1, 2, 3)).min() < 5e-3 for frame in row)
            for known in expected.values()
        )


@pytest.mark.parametrize("kind", ["memory", "disk"])
def test_a_frozen_encoders_embeddings_are_kept_with_the_latents(
    kind: str, tmp_path: Path, vae, both, monkeypatch
) -> None:
    encoder = build(tiny.CONFIG, "image_encoder").eval().requires_grad_(False)
    what = replace(encoding(vae, both), image_encoder=encoder)
    cache = compute_in_memory(what) if kind == "memory" else compute_on_disk(what, tmp_path)
    expected = []
    for index in range(2):
        for variant in range(2):
            change = Change.of_orbit(cache.seed_of(index, variant))
            pictures = picture_tensor(change.apply(all_views(both, index)), 4)
            expected.append(embed_for_cross_attention(encoder, pictures))
    monkeypatch.setattr(OrbitBank, "pictures", None)  # no picture is read any more
    source = OrbitSource(both, 4, 4, cache=pickle.loads(pickle.dumps(cache)))
    batch = source.draw(8, 3, 0.0)
    assert batch.pictures is None and batch.reference is None
    assert batch.latents.shape == (8, 4, 4, 8, 8) and batch.context.shape == (8, 1, 16)
    known = torch.cat(expected)[:, 0]
    for own in batch.context[:, 0]:
        assert float((own - known).abs().amax(dim=-1).min()) < 5e-3


def test_latents_on_the_disk_are_kept_and_made_anew_when_they_must_be(
    tmp_path: Path, monkeypatch, vae, static
) -> None:
    orbits = tiny.bank_of(*(replace(static, name=f"o{i}") for i in range(3)))
    made: list[int] = []
    encode = Encoding.encode
    monkeypatch.setattr(Encoding, "encode", lambda s, i: made.append(i) or encode(s, i))
    first = compute_on_disk(encoding(vae, orbits), tmp_path).read(1, 1, [0, 3])["latents"]
    assert made == [0, 1, 2]
    (tmp_path / "000001-latents.npy").unlink()
    again = compute_on_disk(encoding(vae, orbits), tmp_path)
    assert made == [0, 1, 2, 1]
    assert torch.equal(again.read(1, 1, [0, 3])["latents"], first)
    with torch.no_grad():
        next(vae.parameters()).add_(1e-3)
        compute_on_disk(encoding(vae, orbits), tmp_path)
        next(vae.parameters()).sub_(1e-3)
    assert made == [0, 1, 2, 1, 0, 1, 2]


def test_orbits_are_framed_as_their_references_are() -> None:
    """The reference fills three quarters, as a prepared picture does."""
    prop = tiny.bank_of(ellipsoid_orbit(novel=2, axes=(0.46, 0.42, 0.4)))
    sample = ViewSource(prop, 4, 1).draw(4, 0)
    for i in range(4):
        solid = (sample.rgba[i, -1, 3] > 0.5).numpy()
        sides = [np.flatnonzero(solid.any(axis=axis)) for axis in (0, 1)]
        fill = max(side[-1] - side[0] + 1 for side in sides) / len(solid)
        assert fill == pytest.approx(0.75, abs=2 / len(solid))
    reference = OrbitSource(prop, 4, 4).draw(1, 0).reference
    solid = (reference[0, 3] > 0).numpy()
    assert max(solid.any(axis=0).sum(), solid.any(axis=1).sum()) / len(solid) == pytest.approx(
        0.75, abs=2 / len(solid)
    )


def test_a_framed_depth_is_that_of_the_larger_object() -> None:
    """Compare a ray-traced ellipsoid that a change enlarges with one that is larger."""
    small = tiny.bank_of(ellipsoid_orbit(novel=0, axes=(0.3, 0.24, 0.27)))
    large = tiny.bank_of(ellipsoid_orbit(novel=0, axes=(0.36, 0.288, 0.324)))
    orbit, views = torch.tensor([0]), torch.arange(8)[None]
    changes = Changes.of([Change(zoom=1.2)])
    distance = torch.tensor([small.distance])
    found = changes.apply_depth(small.depths(orbit, views), distance)
    true = large.depths(orbit, views)
    both = (found > 0) & (true > 0)
    assert both.sum() > 0.9 * (true > 0).sum()
    # Less than a twentieth of its depth off, and next to nothing in the middle.
    assert (found - true)[both].abs().median() < 0.01
    assert (found - true)[both].abs().quantile(0.95) < 0.05
    assert torch.equal(
        Changes.of([Change()]).apply_depth(true, distance), true
    )  # nothing is enlarged


@pytest.mark.parametrize(("side", "zoom"), [(24, 1.0), (28, 24 / 28), (4, 1.2), (32, 0.85)])
def test_a_reference_is_enlarged_to_fill_its_share(side: int, zoom: float) -> None:
    alpha = np.zeros((32, 32), np.uint8)
    alpha[:side, 3:5] = 255
    assert Change().framed(alpha).zoom == pytest.approx(zoom)
    assert Change().framed(np.zeros((32, 32), np.uint8)) == Change()
